"""Which split an identity goes to: every split is filled that can be, by name and seed alone."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taming_core.params.load import load_params
from taming_core.params.sections import MaterializeParams
from taming_core.rows.index import fill, split_of_photo
from taming_core.tables import schema

P = load_params(Path(__file__).parents[2] / "pipelines/sd15/params.yaml").materialize
TEN = ("red-mug", "blue-mug", "rex", "fido", "my-bag", "bike", "cat", "plant", "guitar", "camera")
NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=30, unique=True)
SHARES = st.sampled_from([0.0, 0.05, 0.15, 0.35])
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def splits_of(
    names: Sequence[str], folder: Path, p: MaterializeParams = P, split: Mapping[str, str] | None = None, **values: Any
) -> dict[str, str]:
    """The split of each identity, one photo of each; `split` gives some."""
    known = [{"photo_id": f"photo-{n}", "file_name": f"{n}/0.jpg", "object_id": f"photo-{n}-0"} for n in names]
    blank = dict.fromkeys(schema.OBJECTS.names) | values
    objects = [
        {**blank, **k, "identity": n, "given_split": (split or {}).get(n)} for n, k in zip(names, known, strict=True)
    ]
    caption = dict.fromkeys(schema.CAPTIONS.names) | {"caption": "a cup", "object_caption": "a <object>"}
    for expected, rows in ((schema.OBJECTS, objects), (schema.CAPTIONS, [{**caption, **k} for k in known])):
        schema.write([schema.table(rows, expected)], expected, folder / expected.metadata[b"taming.table"].decode())
    db = sqlite3.connect(":memory:")
    fill(db, folder / "objects", folder / "captions", p)
    return {name: split_of_photo(db, f"photo-{name}") for name in names}


def with_shares(validation: float, test: float, seed: int = 0) -> MaterializeParams:
    return P.model_copy(update={"validation": validation, "test": test, "seed": seed})


def test_ten_identities_fill_every_split(tmp_path: Path) -> None:
    for seed in range(6):
        found = Counter(splits_of(TEN, tmp_path, with_shares(P.validation, P.test, seed)).values())
        assert found == {"train": 7, "test": 2, "validation": 1}  # evaluation tells two objects apart


@QUICK
@given(NAMES, SHARES, SHARES, st.integers(0, 9))
def test_every_split_that_is_asked_for_and_can_be_filled_is_filled(
    tmp_path: Path, names: list[str], validation: float, test: float, seed: int
) -> None:
    found = Counter(splits_of(names, tmp_path, with_shares(validation, test, seed)).values())
    asked = [s for s, share in (("train", 1), ("test", test), ("validation", validation)) if share]
    assert [s for s in asked if not found[s]] == asked[len(names) :]
    assert {s for s in found if s not in asked} == set()


@QUICK
@given(NAMES, st.integers(0, 9))
def test_neither_order_nor_files_matter_and_one_more_identity_moves_few(
    tmp_path: Path, names: list[str], seed: int
) -> None:
    p = with_shares(0.15, 0.35, seed)
    found = splits_of(names, tmp_path, p)
    assert splits_of(names[::-1], tmp_path, p) == found
    more = splits_of([*names, "another"], tmp_path, p)
    moved = [(found[n], more[n]) for n in names if found[n] != more[n]]
    assert len(moved) <= 3
    if len(names) > 4:
        assert not [m for m in moved if {*m} == {"train", "test"}]


def test_the_shares_hold_over_many_identities(tmp_path: Path) -> None:
    p = with_shares(0.15, 0.35)
    names = [f"thing {i}" for i in range(500)]
    found = splits_of(names, tmp_path, p)
    assert Counter(found.values()) == {"train": 250, "validation": 75, "test": 175}
    more = splits_of(names, tmp_path, p.model_copy(update={"validation": 0.4}))
    assert [n for n in names if found[n] == "test"] == [n for n in names if more[n] == "test"]


def test_identities_with_a_given_split_count_first(tmp_path: Path) -> None:
    held_out = {"rex": "test", "cat": "test", "bike": "test"}
    found = splits_of(TEN, tmp_path, P, held_out)
    assert {n for n, s in found.items() if s == "test"} == set(held_out)
    assert Counter(found.values()) == {"train": 6, "test": 3, "validation": 1}
    one = splits_of(TEN, tmp_path, P, {"rex": "test"})
    assert one["rex"] == "test"
    assert Counter(one.values()) == {"train": 7, "test": 2, "validation": 1}
    rest = dict.fromkeys(TEN[:-1], "test")
    assert splits_of(TEN, tmp_path, P, rest) == {**rest, TEN[-1]: "train"}


def test_identities_without_an_object_take_no_place(tmp_path: Path) -> None:
    assert set(splits_of(TEN, tmp_path, drop_reason="too small: 0.010").values()) == {"train"}
