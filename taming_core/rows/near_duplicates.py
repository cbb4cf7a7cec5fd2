"""Photos that are near-duplicates of one another, and the groups of identities that share a split because of them.

The same picture under two names would be in training and in evaluation. Where a photo is its own identity, so would a
copy that was scaled or compressed again.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taming_core.params.sections import MaterializeParams
from taming_core.photos.view_hash import THUMBNAIL, Pixels, correlations, difference_hash, thumbnail

Hashes = NDArray[np.uint64]
Edges = NDArray[np.int64]  # (edges, 2): indices of nodes

BLOCK = 4096  # pairs compared at once
PHOTOS = """
select photo_id, min(coalesce(identity, photo_id)), photo_hash, photo_thumbnail from objects
where photo_hash is not null and (object_id is null or identity is not object_id) group by photo_id order by photo_id
"""
# A byte copy is a row without an object, in which only the other file's identity is left.
COPIES = """
select distinct a.identity, b.identity from objects a join objects b on a.photo_id = b.photo_id
where a.file_name < b.file_name and a.identity is not a.object_id and b.identity is not b.object_id
and a.identity is not null and b.identity is not null and a.identity != b.identity
"""


@dataclass(frozen=True)
class Photos:
    """The photos of the objects table that could be read, by photo_id."""

    photo_ids: list[str]
    identities: list[str]  # of each the first
    hashes: Hashes
    thumbnails: Pixels  # (photos, 256)


def load_photos(db: sqlite3.Connection) -> Photos:
    """All photos of `index.build_index`."""
    rows = db.execute(PHOTOS).fetchall()
    pixels = b"".join(pixels or bytes(THUMBNAIL**2) for *_, pixels in rows)
    hashes = np.array([int(value, 16) for _, _, value, _ in rows], np.uint64)
    thumbnails = np.frombuffer(pixels, np.uint8).reshape(-1, THUMBNAIL**2)
    return Photos([row[0] for row in rows], [row[1] for row in rows], hashes, thumbnails)


def group(db: sqlite3.Connection, p: MaterializeParams) -> None:
    """Fill the tables `near_duplicates`, both ways, and `groups`, by the smallest name, across identities.

    Args:
        db: of `index.build_index`.
        p: how much near-duplicates may differ.
    """
    photos = load_photos(db)
    copies: list[tuple[str, str]] = db.execute(COPIES).fetchall()
    names = sorted({*photos.identities, *(name for pair in copies for name in pair)})
    place = {name: i for i, name in enumerate(names)}
    identities = np.array([place[name] for name in photos.identities], np.int64)
    pairs = duplicate_pairs(photos, identities, p)
    edges: list[tuple[int, int]] = pairs.tolist()
    ids = [(photos.photo_ids[a], photos.photo_ids[b]) for a, b in edges]
    db.executemany("insert into near_duplicates values (?, ?)", [*ids, *((b, a) for a, b in ids)])
    copied = np.array([(place[a], place[b]) for a, b in copies], np.int64).reshape(-1, 2)
    first = components(len(names), np.concatenate([identities[pairs], copied]))
    sizes, roots = np.bincount(first), list[int](first.tolist())
    members = [(name, names[root]) for name, root in zip(names, roots, strict=True) if sizes[root] > 1]
    db.executemany("insert into groups values (?, ?)", members)


def duplicate_pairs(photos: Photos, identities: NDArray[np.int64], p: MaterializeParams) -> Edges:
    """The pairs of photos of different identities that are near-duplicates."""
    found = [np.zeros((0, 2), np.int64)]
    for pairs in near_pairs(photos.hashes, p.duplicate_distance):
        across = pairs[identities[pairs[:, 0]] != identities[pairs[:, 1]]]
        for start in range(0, len(across), BLOCK):
            a, b = (block := across[start : start + BLOCK]).T
            alike = correlations(photos.thumbnails[a], photos.thumbnails[b]) >= p.duplicate_correlation
            found.append(block[alike])
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def near(image: Pixels, photos: Photos, p: MaterializeParams) -> list[str]:
    """The photo_ids of the photos that an image (H, W, 3) is a near-duplicate of."""
    differing = np.bitwise_count(photos.hashes ^ np.uint64(difference_hash(image)))
    close = np.flatnonzero(differing <= p.duplicate_distance)
    own = np.frombuffer(thumbnail(image), np.uint8)
    alike = correlations(photos.thumbnails[close], own[None]) >= p.duplicate_correlation
    return [photos.photo_ids[i] for i in close[alike]]


def near_pairs(hashes: Hashes, distance: int) -> Iterator[Edges]:
    """The pairs of hashes that differ in at most `distance` bits, some of them repeatedly.

    Hashes that differ in at most d bits are equal in one of d + 1 bands, so only those with an equal band are compared.

    >>> np.unique(np.concatenate([*near_pairs(np.array([0b0, 0b1111, 0b1], np.uint64), 1)]), axis=0).tolist()
    [[0, 2]]
    """
    for bits in np.array_split(np.arange(64, dtype=np.uint64), distance + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << bits) if len(bits) else np.uint64(0)
        order = np.argsort(hashes & mask, kind="stable")
        values = hashes[order]
        starts, step = np.arange(len(order) - 1), 1
        while len(starts):  # pairs that are `step` apart in the order
            starts = starts[starts + step < len(order)]
            starts = starts[((values[starts] ^ values[starts + step]) & mask) == 0]
            close = starts[np.bitwise_count(values[starts] ^ values[starts + step]) <= distance]
            yield np.stack([order[close], order[close + step]], 1)
            step += 1


def components(count: int, edges: Edges) -> NDArray[np.int64]:
    """For each of `count` nodes the smallest node that edges connect it with.

    >>> components(5, np.array([[4, 1], [1, 3]])).tolist()
    [0, 1, 2, 1, 1]
    """
    first = np.arange(count)
    while len(edges):
        low = np.minimum(first[edges[:, 0]], first[edges[:, 1]])
        before = first.copy()
        np.minimum.at(first, first[edges].ravel(), np.repeat(low, 2))
        first = first[first]
        if np.array_equal(first, before):
            break
    return first
