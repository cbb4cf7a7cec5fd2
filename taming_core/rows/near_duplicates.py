"""Groups of identities that must be in one split, since photos without a named identity are near-duplicates of theirs.

Where a photo is its own identity, a copy that was scaled or compressed again would be another one. A named identity is
taken at its word: two of them are joined only by an unnamed photo that is a near-duplicate of both.
"""

import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from taming_core.photos.view_hash import difference_hash

Hashes = NDArray[np.uint64]
Edges = NDArray[np.int64]  # (edges, 2): indices of nodes

PHOTOS = """
select distinct coalesce(identity, photo_id), photo_hash, identity is null or identity = photo_id from objects
where photo_hash is not null and (object_id is null or identity is not object_id) order by 1, 2
"""


def group(db: sqlite3.Connection, distance: int) -> None:
    """Fill the table `groups` with every identity that is grouped with others, by the smallest name of its group.

    Args:
        db: of `index.build_index`.
        distance: near-duplicates differ in at most this many of the 64 bits of their hash.
    """
    rows = db.execute(PHOTOS).fetchall()
    if not any(unnamed for _, _, unnamed in rows):
        return
    names = sorted({name for name, _, _ in rows})
    place = {name: i for i, name in enumerate(names)}
    identities = np.array([place[name] for name, _, _ in rows])
    unnamed = np.array([bool(flag) for _, _, flag in rows])
    pairs = near_pairs(np.array([int(value, 16) for _, value, _ in rows], np.uint64), distance)
    first = components(len(names), identities[pairs[unnamed[pairs].any(1)]])
    sizes = np.bincount(first)
    members = [(names[i], names[root]) for i, root in enumerate(first) if sizes[root] > 1]
    db.executemany("insert into groups values (?, ?)", members)


def photo_hashes(db: sqlite3.Connection) -> tuple[Hashes, list[str]]:
    """The hashes of all photos in the objects table, and their photo_ids."""
    rows = db.execute("select distinct photo_hash, photo_id from objects where photo_hash is not null").fetchall()
    return np.array([int(value, 16) for value, _ in rows], np.uint64), [photo_id for _, photo_id in rows]


def near(image: NDArray[np.uint8], known: tuple[Hashes, list[str]], distance: int) -> list[str]:
    """The photo_ids of the `known` photos that an image (H, W, 3) is a near-duplicate of."""
    hashes, photo_ids = known
    differing = np.bitwise_count(hashes ^ np.uint64(difference_hash(image)))
    return [photo_ids[i] for i in np.flatnonzero(differing <= distance)]


def near_pairs(hashes: Hashes, distance: int) -> Edges:
    """The pairs of hashes that differ in at most `distance` bits; of equal ones each with the next alone.

    Hashes that differ in at most d bits are equal in one of d + 1 bands, so only those with an equal band are compared.

    >>> near_pairs(np.array([0b0, 0b1111, 0b1], np.uint64), 1).tolist()
    [[0, 2]]
    """
    order = np.argsort(hashes, kind="stable")
    is_repeated = hashes[order][1:] == hashes[order][:-1]
    repeated = np.stack([order[:-1][is_repeated], order[1:][is_repeated]], 1)
    different = order[np.concatenate([[True], ~is_repeated])]
    bands = np.array_split(np.arange(64, dtype=np.uint64), distance + 1)
    found = [repeated, *(e for band in bands for e in _near_in_band(hashes, different, band, distance))]
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def _near_in_band(hashes: Hashes, chosen: NDArray[np.int64], bits: Hashes, distance: int) -> Iterator[Edges]:
    """The near pairs among the chosen hashes that are equal in these bits."""
    mask = np.bitwise_or.reduce(np.uint64(1) << bits) if len(bits) else np.uint64(0)
    order = chosen[np.argsort(hashes[chosen] & mask, kind="stable")]
    values = hashes[order]
    starts, step = np.arange(len(order) - 1), 1
    while len(starts):  # pairs that are `step` apart in the order
        starts = starts[starts + step < len(order)]
        starts = starts[((values[starts] ^ values[starts + step]) & mask) == 0]
        near = starts[np.bitwise_count(values[starts] ^ values[starts + step]) <= distance]
        yield np.stack([order[near], order[near + step]], 1)
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
