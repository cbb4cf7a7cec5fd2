"""`taming world`: a raw folder that the journey takes, and a truth that is true."""

import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from yaml import safe_dump, safe_load

from stages.materialize import materialize
from stages.world import world as stage
from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT, replace_both
from taming_core.params.load import load_params, packaged_params
from taming_core.photos.files import photo_id_of
from taming_core.photos.folder import read_folder
from taming_core.photos.masks import decode_mask
from taming_core.tables import schema
from taming_core.tables.parquet import read_table
from taming_core.tables.rows import load_rows
from taming_core.world import folder
from taming_core.world.artwork import load_world
from taming_core.world.folder import identities, pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw/ with ten photos of three things, and truth/ beside it."""
    place = tmp_path_factory.mktemp("world")
    stage(place / "raw", photos=10, split="unseen-concepts", truth=place / "truth", device="cpu")
    return place


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def filled(rle: dict) -> np.ndarray:
    values = np.repeat(np.arange(len(rle["counts"])) % 2 == 1, rle["counts"])
    return values.reshape(rle["size"][::-1]).T


def test_each_thing_has_a_folder_and_every_photo_a_line(made: Path) -> None:
    found = lines(made / "raw")
    assert sorted(p.relative_to(made / "raw").as_posix() for p in (made / "raw").glob("*/*.jpg")) == sorted(
        line["file_name"] for line in found
    )
    assert [len(list(p.iterdir())) for p in sorted((made / "raw").iterdir()) if p.is_dir()].count(4) == 2
    assert {Image.open(made / "raw" / line["file_name"]).size for line in found} == {(256, 256)}


def test_the_journey_reads_identity_and_class_but_not_the_caption(made: Path) -> None:
    given = read_folder(made / "raw").metadata
    assert all(g.identity == Path(name).parent.name and g.noun and g.caption is None for name, g in given.items())


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    stage(tmp_path / "raw", photos=10, split="unseen-concepts", truth=tmp_path / "truth", device="cpu")
    for file in sorted(p for p in made.rglob("*") if p.is_file()):
        assert (tmp_path / file.relative_to(made)).read_bytes() == file.read_bytes()


def test_fewer_photos_are_the_same_photos(made: Path, tmp_path: Path) -> None:
    stage(tmp_path / "raw", photos=3, split="unseen-concepts", device="cpu")
    for file in (tmp_path / "raw").glob("*/*.jpg"):
        assert (made / "raw" / file.relative_to(tmp_path / "raw")).read_bytes() == file.read_bytes()


def test_boxes_masks_and_tables_agree(made: Path) -> None:
    objects = {
        r["file_name"]: r for b in schema.iter_rows(made / "truth/objects.parquet", schema.OBJECTS, 50) for r in b
    }
    for line in lines(made / "raw"):
        (thing,), row = line["truth"]["objects"], objects[line["file_name"]]
        mask = filled(thing["mask"])
        x0, y0, x1, y1 = thing["box_xyxy"]
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert np.array_equal(decode_mask(row["mask_png"]), mask)
        assert row["photo_id"] == photo_id_of(made / "raw" / line["file_name"])
        assert (row["identity"], row["class"], row["given_split"]) == (line["identity"], line["class"], "test")


def test_captions_mark_the_words_that_the_token_stands_for(made: Path) -> None:
    rows = [r for b in schema.iter_rows(made / "truth/captions.parquet", schema.CAPTIONS, 50) for r in b]
    assert len(rows) == 10
    for r in rows:
        assert r["caption"][r["span_start"] : r["span_end"]] == r["replaced"]
        assert "<object>" in r["object_caption"]
        assert r["replaced"] not in r["object_caption"]


def test_the_truth_makes_rows_at_once(made: Path, tmp_path: Path) -> None:
    materialize(made / "raw", made / "truth/objects.parquet", made / "truth/captions.parquet", out=tmp_path / "rows")
    rows = load_rows(tmp_path / "rows", "test")
    assert len(rows) == 10


def test_photos_of_two_objects_have_both_in_the_truth(tmp_path: Path) -> None:
    made = safe_load(Path("params.yaml").read_text())
    made["world"]["two_objects"] = 1.0
    made["materialize"] |= {"validation": 0.0, "test": 0.0}  # photos of two objects in different splits are dropped
    (tmp_path / "params.yaml").write_text(safe_dump(made))
    truth = tmp_path / "truth"
    stage(tmp_path / "raw", photos=12, split="train", truth=truth, params=tmp_path / "params.yaml", device="cpu")
    materialize(tmp_path / "raw", truth / "objects.parquet", truth / "captions.parquet", out=tmp_path / "rows",
                params=tmp_path / "params.yaml")  # fmt: skip
    given, objects = read_folder(tmp_path / "raw").metadata, {
        r["object_id"]: r for b in schema.iter_rows(truth / "objects.parquet", schema.OBJECTS, 50) for r in b
    }  # fmt: skip
    assert all(g.identity == Path(name).parent.name for name, g in given.items())
    assert len({o["identity"] for o in objects.values()}) == 3  # no identity but those of the folders
    rows = [r for split in ("train", "validation", "test") for r in all_rows(tmp_path / "rows", split)]
    pairs_of = defaultdict[str, list[dict]](list)
    for row in rows:
        pairs_of[row["photo_id"]].append(row)
    assert all(len(pair) == 2 for pair in pairs_of.values())
    for left, right in (sorted(p, key=lambda r: objects[r["row_id"]]["box_xyxy"][0]) for p in pairs_of.values()):
        both, left_first = replace_both(left["caption"], left["object_caption"], right["object_caption"])
        assert left_first  # captions speak from left to right
        assert both.count(OBJECT) == 2
        assert left["image"] == right["image"]
        assert left["identity"] != right["identity"]


def all_rows(folder: Path, split: str) -> list[dict]:
    rows = load_rows(folder, split)
    return [rows[i] for i in range(len(rows))]


def test_general_pairs_give_their_captions(tmp_path: Path) -> None:
    stage(tmp_path / "regularization", photos=4, split="train", regularization=True, device="cpu")
    given = read_folder(tmp_path / "regularization").metadata
    assert len(given) == 4
    assert all(g.caption and g.identity is None for g in given.values())


def test_a_second_round_of_things_comes_in_other_colours() -> None:
    world, p = load_world(), load_params().world
    count = len(world.of_split("unseen-designs"))
    things = identities(world, count + 5, "unseen-designs", p)
    assert len({t.name for t in things}) == count + 5
    assert all(t.colour is not None for t in things[count:])
    assert [t.cutout for t in things[count:]] == [t.cutout for t in things[:5]]


def test_errors_say_what_to_do(made: Path, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="not an empty folder"):
        stage(made / "raw", device="cpu")
    with pytest.raises(TamingError, match="unseen-concepts"):
        stage(tmp_path / "raw", split="test", device="cpu")
    with pytest.raises(TamingError, match="--regularization"):
        stage(tmp_path / "raw", regularization=True, truth=tmp_path / "truth", device="cpu")
    with pytest.raises(TamingError, match=r"cutouts\.parquet"):
        stage(tmp_path / "raw", artwork=tmp_path, device="cpu")


def test_the_plans_of_text_image_pairs_never_change() -> None:
    # Their seeds have a fixed purpose: renaming it would change data sets and every model trained on them.
    shots = pairs(load_world(), 3, "train", load_params(packaged_params()).world)
    assert [(s.plan.objects[0].cutout, s.plan.caption) for s in shots] == [
        (2369, "a photo of a sled in the snow"),
        (2399, "a photo of a pool 8 ball on a stormy road"),
        (2970, "a photo of a green book by a mountain lake, on the right"),
    ]


def test_a_killed_run_goes_on_at_its_chunk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "CHUNK", 4)
    monkeypatch.setattr(folder, "AT_ONCE", 2)
    render, calls = folder.photos_of, list[int]()

    def broken(*args: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(folder, "photos_of", broken)
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            stage(tmp_path / "raw", photos=10, split="unseen-concepts", truth=tmp_path / "truth", device="cpu")
    assert len(calls) == 4 + 3  # the first chunk of two batches is not rendered again
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*")} == {p.relative_to(made) for p in made.rglob("*")}
    for file in (p for p in made.rglob("*.jp*") if p.is_file()):
        assert (tmp_path / file.relative_to(made)).read_bytes() == file.read_bytes()
    assert lines(tmp_path / "raw") == lines(made / "raw")
    for name in ("objects.parquet", "captions.parquet"):
        assert read_table(tmp_path / "truth" / name).equals(read_table(made / "truth" / name))


def test_an_unfinished_folder_of_other_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw" / ".world-of-other-params").mkdir(parents=True)
    with pytest.raises(TamingError, match="not an empty folder"):
        stage(tmp_path / "raw", photos=2, device="cpu")
