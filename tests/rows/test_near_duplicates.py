"""Near-duplicates are found on disk as a comparison of all pairs finds them, and equal hashes cost no memory."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from taming_core.params.load import load_params
from taming_core.params.sections import MaterializeParams
from taming_core.photos.decode import PhotoError
from taming_core.photos.view_hash import correlations, difference_hash, thumbnail
from taming_core.rows import hash_bands, near_duplicates
from taming_core.rows.hash_bands import signed
from taming_core.rows.index import fill, first_near_duplicate, split_of_photo, split_of_row
from taming_core.tables import schema
from taming_core.tables.schema import SPLITS

P = load_params(Path(__file__).parents[2] / "params.yaml").materialize
Photo = dict[str, Any]


def photos(count: int, seed: int, kind: str = "some") -> list[Photo]:
    """Object rows, a third of them near others; with the kind "equal" all have one hash, and few pictures."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    pixels = rng.integers(0, 256, (count, 256))
    for i in range(1, count, 3):
        j, bits = int(rng.integers(0, i)), rng.integers(0, 64, int(rng.integers(0, 7)))
        hashes[i] = int(hashes[j]) ^ sum({1 << int(bit) for bit in bits})
        pixels[i] = np.clip(pixels[j] + rng.normal(0, rng.choice([1, 20, 35]), 256), 0, 255)
    if kind == "equal":
        hashes[:] = 2**63 + 5
        pixels = np.clip(pixels[rng.integers(0, 5, count)] + rng.normal(0, 20, (count, 256)), 0, 255)
    names = rng.permutation(count)
    return [
        {
            **dict.fromkeys(schema.OBJECTS.names),
            "photo_id": (photo_id := f"{int(rng.integers(2**62)):016x}"),
            "object_id": f"{photo_id}-0",
            "file_name": f"{names[i]:05d}.jpg",
            "photo_hash": f"{int(hashes[i]):016x}",
            "photo_thumbnail": pixels[i].astype(np.uint8).tobytes(),
            "identity": f"thing {int(rng.integers(count // 2 + 1))}",
        }
        for i in range(count)
    ]


def indexed(objects: list[Photo], folder: Path, p: MaterializeParams = P) -> sqlite3.Connection:
    """The database of the objects, all of which have captions but every seventh."""
    said = {**dict.fromkeys(schema.CAPTIONS.names), "caption": "a cup", "object_caption": "a <object>"}
    keys = ("photo_id", "file_name", "object_id")
    captions = [{**said, **{key: o[key] for key in keys}} for o in objects if int(o["file_name"][:5]) % 7]
    for name, expected, rows in (("objects", schema.OBJECTS, objects), ("captions", schema.CAPTIONS, captions)):
        schema.write([schema.table(rows, expected)], expected, folder / name)
    db = sqlite3.connect(":memory:")
    fill(db, folder / "objects", folder / "captions", p)
    return db


def hashes_of(objects: list[Photo]) -> NDArray[np.uint64]:
    return np.array([int(o["photo_hash"], 16) for o in objects], np.uint64)


def near_of(objects: list[Photo], p: MaterializeParams) -> NDArray[np.bool_]:
    """Which photos (N, N) of different identities are near-duplicates, by comparing all with all."""
    hashes, names = hashes_of(objects), np.array([o["identity"] for o in objects])
    pixels = np.array([np.frombuffer(o["photo_thumbnail"], np.uint8) for o in objects], np.float64)
    close = np.bitwise_count(hashes[:, None] ^ hashes) <= p.duplicate_distance
    return close & (np.corrcoef(pixels) >= p.duplicate_correlation) & (names[:, None] != names)


def groups_of(objects: list[Photo], near: NDArray[np.bool_]) -> dict[str, str]:
    """The smallest identity of each group of more than one, by following all pairs until nothing changes."""
    first = {o["identity"]: o["identity"] for o in objects}
    pairs = [(objects[i]["identity"], objects[j]["identity"]) for i, j in zip(*np.nonzero(near), strict=True)]
    while changes := [(a, b) for a, b in pairs if first[b] < first[a]]:
        first |= {a: min(first[a], first[b]) for a, b in changes}
    joined = {name for pair in pairs for name in pair}
    return {name: root for name, root in first.items() if name in joined}


@pytest.mark.parametrize(("count", "kind"), [(400, "some"), (60, "equal")])
@pytest.mark.parametrize("distance", [0, 4])
def test_near_duplicates_are_those_of_all_pairs(tmp_path: Path, count: int, kind: str, distance: int) -> None:
    p = P.model_copy(update={"duplicate_distance": distance})
    objects = photos(count, 3, kind)
    db, near = indexed(objects, tmp_path, p), near_of(objects, p)
    assert near.any()
    assert dict(db.execute("select identity, first from groups")) == groups_of(objects, near)
    for i, o in enumerate(objects):
        others = (objects[j]["file_name"] for j in np.flatnonzero(near[i]))
        expected = min((name for name in others if int(name[:5]) % 7), default=None)
        assert first_near_duplicate(db, o["photo_id"]) == expected


def test_of_near_duplicates_in_given_splits_those_nearer_to_training_are_dropped(tmp_path: Path) -> None:
    objects = photos(80, 5, "equal")
    splits = {o["identity"]: SPLITS[int(o["identity"][6:]) % 3] for o in objects}
    for o in objects:
        o["given_split"] = splits[o["identity"]] if int(o["identity"][6:]) % 2 else None
    db, near = indexed(objects, tmp_path), near_of(objects, P)
    places = [SPLITS.index(split_of_photo(db, o["photo_id"])) for o in objects]
    dropped = 0
    for i, o in enumerate(objects):
        further = [places[j] for j in np.flatnonzero(near[i]) if int(objects[j]["file_name"][:5]) % 7]
        if max(further, default=0) > places[i]:
            dropped += 1
            with pytest.raises(PhotoError, match="near-duplicate of a photo of another split"):
                split_of_row(db, o["photo_id"])
        else:
            assert split_of_row(db, o["photo_id"]) == SPLITS[places[i]]
    assert 0 < dropped < len(objects)


def test_close_hashes_are_found_in_blocks_and_each_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_bands, "BLOCK", 16)
    monkeypatch.setattr(hash_bands, "TILE", 8)
    objects = photos(300, 9) + [{**o, "photo_id": f"{n:016x}"} for n, o in enumerate(photos(50, 9, "equal"))]
    db = indexed(objects, tmp_path)
    values = dict(db.execute("select node, hash from photos"))
    nodes, hashes = list(values), np.array(list(values.values()), np.int64).view(np.uint64)
    close = np.bitwise_count(hashes[:, None] ^ hashes) <= 4
    expected = {(nodes[i], nodes[j]) for i, j in zip(*np.nonzero(np.triu(close, 1)), strict=True)}
    found: list[tuple[int, int]] = []
    for tile in hash_bands.close_tiles(db, 4):
        places = zip(*np.nonzero(tile.close), strict=True)
        pairs = ((int(tile.rows[i]), int(tile.columns[j])) for i, j in places)
        found += {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}
    assert len(found) == len(expected)
    assert set(found) == expected
    some = int(hashes[7]) ^ 0b101
    assert hash_bands.close_to(db, some, 4).tolist() == sorted(
        node for node, value in values.items() if ((value ^ signed(some)) % 2**64).bit_count() <= 4
    )


def test_an_image_is_near_to_photos_by_hash_and_picture(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    objects = photos(30, 2)
    same, other = objects[4], objects[5]
    for o in (same, other):
        o["photo_hash"] = f"{difference_hash(image) ^ 0b11:016x}"
    same["photo_thumbnail"] = thumbnail(image)
    assert near_duplicates.near(indexed(objects, tmp_path), image, P) == [same["photo_id"]]


def test_correlations_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 9, 256), np.uint8)
    assert np.allclose(correlations(a, b), np.corrcoef(a, b)[:9, 9:], atol=1e-12)
    assert correlations(a, np.full((1, 256), 9, np.uint8)).tolist() == [[0.0]] * 9
