"""Which of many hashes differ in few bits, found on disk.

Hashes that differ in at most d of 64 bits are equal in one of d + 1 bands of bits, so that only hashes with an equal
band are compared. Memory holds the hashes that are equal in one band, at most.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # hashes in a blob
TILE = 1024  # rows and columns of the matrices in which hashes are compared
TABLE = """
create table bands (band int, low int, high int, hashes blob, nodes blob);
create index band_keys on bands (band, high, low);
"""
SORTED = "select hash & ?, hash, node from photos order by hash & ?, node"

Nodes = NDArray[np.int64]  # numbers of photos
Hashes = NDArray[np.int64]  # the 64 bits of each


@dataclass(frozen=True)
class Tile:
    """Which of some photos' hashes are close to those of others."""

    rows: Nodes  # (N,) ascending
    columns: Nodes  # (M,) ascending
    close: NDArray[np.bool_]  # (N, M)


def band_masks(distance: int) -> list[int]:
    """The bits of each band, as signed integers of 64 bits.

    >>> [hex(mask % 2**64) for mask in band_masks(3)]
    ['0xffff', '0xffff0000', '0xffff00000000', '0xffff000000000000']
    """
    bands = np.array_split(np.arange(64), distance + 1)
    return [signed(sum(1 << int(bit) for bit in bits)) for bits in bands]


def signed(value: int) -> int:
    """64 bits as the signed integer that SQLite stores.

    >>> signed(2**64 - 1), signed(5)
    (-1, 5)
    """
    return value - 2**64 if value >= 2**63 else value


def fill(db: sqlite3.Connection, distance: int) -> None:
    """Store the hashes of the table `photos` (columns `node` and `hash`) sorted by each band."""
    db.executescript(TABLE)
    for band, mask in enumerate(band_masks(distance)):
        rows = db.execute(SORTED, (mask, mask))
        while block := rows.fetchmany(BLOCK):
            keys, hashes, nodes = np.array(block, "<i8").T
            blobs = np.ascontiguousarray(hashes).tobytes(), nodes.astype("<i4").tobytes()
            db.execute("insert into bands values (?, ?, ?, ?, ?)", (band, int(keys[0]), int(keys[-1]), *blobs))


def close_tiles(db: sqlite3.Connection, distance: int) -> Iterator[Tile]:
    """All pairs of photos whose hashes differ in at most `distance` bits, each pair of two photos in one tile.

    A tile on the diagonal has pairs both ways, and photos with themselves.
    """
    masks = band_masks(distance)
    for band, mask in enumerate(masks):
        for hashes, nodes in _runs(db, band, mask):
            for i in range(0, len(nodes), TILE):
                for j in range(i, len(nodes), TILE):
                    a, b = slice(i, i + TILE), slice(j, j + TILE)
                    close = _close(hashes[a], hashes[b], distance, masks[:band])
                    if close.any():
                        yield Tile(nodes[a], nodes[b], close)


def _close(a: Hashes, b: Hashes, distance: int, earlier: list[int]) -> NDArray[np.bool_]:
    """Which hashes are close, without those that are equal in an earlier band, in which they were found."""
    differing = np.bitwise_xor.outer(a, b)
    close = np.bitwise_count(differing.view(np.uint64)) <= distance
    for mask in earlier:
        close &= (differing & mask) != 0
    return close


def _runs(db: sqlite3.Connection, band: int, mask: int) -> Iterator[tuple[Hashes, Nodes]]:
    """The hashes that are equal in a band, where they are two or more, by ascending node."""
    hashes, nodes = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for more, of in db.execute("select hashes, nodes from bands where band = ? order by rowid", (band,)):
        hashes = np.concatenate([hashes, np.frombuffer(more, "<i8")])
        nodes = np.concatenate([nodes, np.frombuffer(of, "<i4")])
        starts = np.flatnonzero(np.diff(hashes & mask)) + 1
        bounds = np.concatenate([[0], starts])
        for n in np.flatnonzero(np.diff(bounds) > 1).tolist():
            yield hashes[bounds[n] : bounds[n + 1]], nodes[bounds[n] : bounds[n + 1]]
        hashes, nodes = hashes[bounds[-1] :], nodes[bounds[-1] :]  # may go on in the next block
    if len(nodes) > 1:
        yield hashes, nodes


def close_to(db: sqlite3.Connection, value: int, distance: int) -> Nodes:
    """The photos whose hashes differ from a value in at most `distance` bits, ascending."""
    found = [np.zeros(0, np.int64)]
    for band, mask in enumerate(band_masks(distance)):
        key, query = signed(value) & mask, "select hashes, nodes from bands where band = ? and high >= ? and low <= ?"
        for hashes, nodes in db.execute(query, (band, key, key)):
            differing = np.frombuffer(hashes, "<i8") ^ signed(value)
            close = np.bitwise_count(differing.view(np.uint64)) <= distance
            found.append(np.frombuffer(nodes, "<i4")[close].astype(np.int64))
    return np.unique(np.concatenate(found))
