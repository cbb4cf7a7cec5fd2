"""Photos that are near-duplicates of one another, and the groups of identities that share a split because of them.

The same picture under two names would be in training and in evaluation. Where a photo is its own identity, so would a
copy that was scaled or compressed again. Memory holds three numbers of 4 bytes per photo and one per identity;
hashes and thumbnails stay on disk.
"""

import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from taming_core.params.sections import MaterializeParams
from taming_core.photos.view_hash import THUMBNAIL, Pixels, correlations, difference_hash, thumbnail
from taming_core.rows import hash_bands
from taming_core.rows.hash_bands import TILE, Nodes, Tile

Labels = NDArray[np.int32]  # of each identity the smallest one of its group
Edges = NDArray[np.int64]  # (edges, 2): indices of identities

EDGES = 65536  # collected before groups are united
NONE = np.iinfo(np.int32).max
# Numbered from 1 in the order of their names, so that the smallest number is the first name. A byte copy is a row
# without an object, in which only the other file's identity is left.
TABLES = """
create table identities (node integer primary key, name text);
create table photos (
    node integer primary key, photo_id text, name text, identity int, hash int, source int, is_usable int
);
create table near_duplicates (node integer primary key, first int, furthest int);
create table groups (identity text primary key, first text) without rowid;
insert into identities (name) select distinct coalesce(identity, photo_id) as name from objects
where object_id is null or identity is not object_id order by name;
create index identity_names on identities (name);
insert into photos (photo_id, name, identity, hash, source, is_usable)
select photo_id, named.name, identities.node, photo_hash, source, photo_id in (select photo_id from usable) from (
    select photo_id, min(coalesce(identity, photo_id)) as first, photo_hash, rowid as source from objects
    where photo_hash is not null and (object_id is null or identity is not object_id) group by photo_id
) join (select photo_id, min(file_name) as name from objects group by photo_id) named using (photo_id)
join identities on identities.name = first order by named.name, photo_id;
create unique index photo_ids on photos (photo_id);
"""
COPIES = """
select distinct one.node, other.node from objects a join objects b on a.photo_id = b.photo_id
join identities one on one.name = a.identity join identities other on other.name = b.identity
where a.file_name < b.file_name and a.identity is not a.object_id and b.identity is not b.object_id
and a.identity != b.identity
"""
GROUPS = """
insert into groups select one.name, first.name from members
join identities one on one.node = members.node join identities first on first.node = members.first
"""


def group(db: sqlite3.Connection, p: MaterializeParams) -> None:
    """Fill the tables `photos`, `bands`, `near_duplicates`, and `groups`, by the smallest name, across identities.

    Args:
        db: of `index.fill`, with the tables `objects` and `usable`.
        p: how much near-duplicates may differ.
    """
    db.executescript(TABLES)
    hash_bands.fill(db, p.duplicate_distance)
    identity, usable = _column(db, "photos", "identity"), _column(db, "photos", "is_usable").astype(bool)
    labels, edges = np.arange(_count(db, "identities") + 1, dtype=np.int32), list[Edges]()
    first, rows = np.full(len(identity), NONE, np.int32), db.execute(COPIES)
    while copies := rows.fetchmany(EDGES):
        labels = unite(labels, np.array(copies, np.int64))
    for tile in near_tiles(db, identity, p):
        _note_first(first, usable, tile)
        a, b = identity[tile.rows], identity[tile.columns]
        i, j = np.nonzero(tile.close & (labels[a][:, None] != labels[b]))
        edges.append(np.stack([a[i], b[j]], 1).astype(np.int64))
        if sum(map(len, edges)) >= EDGES:
            labels, edges = unite(labels, np.concatenate(edges)), []
    labels = unite(labels, np.concatenate([np.zeros((0, 2), np.int64), *edges]))
    found = np.flatnonzero(first != NONE)
    pairs = ((int(node), int(first[node])) for node in found)
    db.executemany("insert into near_duplicates (node, first) values (?, ?)", pairs)
    _write_groups(db, labels)


def _count(db: sqlite3.Connection, table: str) -> int:
    return db.execute(f"select count(*) from {table}").fetchone()[0]


def _column(db: sqlite3.Connection, table: str, name: str) -> NDArray[np.int32]:
    """A column of numbers of a table with nodes; element 0, which no node has, is 0."""
    values = (value for (value,) in db.execute(f"select {name} from {table} order by node"))
    return np.concatenate([[0], np.fromiter(values, np.int32)]).astype(np.int32)


def near_tiles(db: sqlite3.Connection, identity: NDArray[np.int32], p: MaterializeParams) -> Iterator[Tile]:
    """The pairs of photos of different identities that are near-duplicates; see `hash_bands.close_tiles`."""
    for tile in hash_bands.close_tiles(db, p.duplicate_distance):
        close = tile.close & (identity[tile.rows][:, None] != identity[tile.columns])
        rows, columns = close.any(1), close.any(0)
        if rows.any():
            a, b = tile.rows[rows], tile.columns[columns]
            alike = correlations(_thumbnails(db, a), _thumbnails(db, b)) >= p.duplicate_correlation
            yield Tile(a, b, close[rows][:, columns] & alike)


def _thumbnails(db: sqlite3.Connection, nodes: Nodes) -> Pixels:
    """The thumbnails (N, 256) of photos; black where one has none."""
    query = "select photo_thumbnail from photos join objects on objects.rowid = source where node = ?"
    found = (db.execute(query, (node,)).fetchone()[0] for node in nodes.tolist())
    pixels = b"".join(pixels or bytes(THUMBNAIL**2) for pixels in found)
    return np.frombuffer(pixels, np.uint8).reshape(-1, THUMBNAIL**2)


def _note_first(first: NDArray[np.int32], usable: NDArray[np.bool_], tile: Tile) -> None:
    """Note of each photo the first near-duplicate by name that becomes a row."""
    for a, b, close in ((tile.rows, tile.columns, tile.close), (tile.columns, tile.rows, tile.close.T)):
        close = close & usable[b]
        found = close.any(1)
        first[a[found]] = np.minimum(first[a[found]], b[close[found].argmax(1)])


def unite(labels: Labels, edges: Edges) -> Labels:
    """The labels once edges connect groups; those of each group are its smallest member.

    >>> unite(np.arange(5, dtype=np.int32), np.array([[4, 1], [1, 3]])).tolist()
    [0, 1, 2, 1, 1]
    """
    labels = labels.copy()
    while len(edges):
        roots = np.unique(np.sort(labels[edges], 1), axis=0)
        edges = roots[roots[:, 0] != roots[:, 1]].astype(np.int64)
        np.minimum.at(labels, edges[:, 1], edges[:, 0].astype(np.int32))
        while not np.array_equal(labels, further := labels[labels]):
            labels = further
    return labels


def _write_groups(db: sqlite3.Connection, labels: Labels) -> None:
    """Fill the table `groups` with the groups of more than one identity."""
    shared = np.bincount(labels, minlength=len(labels)) > 1
    db.execute("create temp table members (node integer primary key, first int)")
    members = ((int(node), int(labels[node])) for node in np.flatnonzero(shared[labels]))
    db.executemany("insert into members values (?, ?)", members)
    db.execute(GROUPS)
    db.execute("drop table members")


def note_furthest(db: sqlite3.Connection, splits: NDArray[np.int8], p: MaterializeParams) -> None:
    """Note of each photo how far from training its near-duplicates are.

    Args:
        db: after `group`.
        splits: of each photo the index of its split in SPLITS, or -1 if it does not matter to others.
        p: how much near-duplicates may differ.
    """
    furthest = np.full(len(splits), -1, np.int8)
    for tile in near_tiles(db, _column(db, "photos", "identity"), p):
        for a, b, close in ((tile.rows, tile.columns, tile.close), (tile.columns, tile.rows, tile.close.T)):
            furthest[a] = np.maximum(furthest[a], np.where(close, splits[b], -1).max(1))
    values = ((int(node), int(furthest[node])) for node in np.flatnonzero(furthest >= 0))
    db.executemany("insert into near_duplicates values (?, null, ?) on conflict (node) do update set "
                   "furthest = excluded.furthest", values)  # fmt: skip


def near(db: sqlite3.Connection, image: Pixels, p: MaterializeParams) -> list[str]:
    """The photo_ids of the photos that an image (H, W, 3) is a near-duplicate of, in order."""
    nodes = hash_bands.close_to(db, difference_hash(image), p.duplicate_distance)
    own, found = np.frombuffer(thumbnail(image), np.uint8)[None], list[str]()
    for start in range(0, len(nodes), TILE):
        some = nodes[start : start + TILE]
        alike = correlations(_thumbnails(db, some), own)[:, 0] >= p.duplicate_correlation
        query = "select photo_id from photos where node = ?"
        found += [db.execute(query, (node,)).fetchone()[0] for node in some[alike].tolist()]
    return sorted(found)
