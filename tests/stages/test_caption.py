"""`taming caption`: the ladder with spoken-for models, and the command with the real ones of `mini`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from captioned_photos import rows_of
from numpy.typing import NDArray
from PIL import Image
from project_copy import copy_tracked
from typer.testing import CliRunner

from stages.cli import app
from taming_core.captions import captioning
from taming_core.captions.captioning import CaptionSource
from taming_core.captions.drafts import Models, Target
from taming_core.errors import TamingError
from taming_core.params.caption import CaptionParams
from taming_core.params.load import load_params
from taming_core.photos.decode import read_photo
from taming_core.photos.folder import list_photos, read_folder
from taming_core.tables import schema

ROOT = Path(__file__).parents[2]
P = load_params(ROOT / "params.yaml").caption.model_copy(
    update={"match_min": 0.5, "replace": "noun", "template": "a photo of a <object>", "batch_size": 2}
)


def draw(path: Path, colour: int = 0) -> str:
    """A plain photo; its id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (colour, colour, colour)).save(path)
    return read_photo(path).photo_id


def rows(
    sources: Sequence[CaptionSource], say: dict[str, str], fits: Sequence[str], p: CaptionParams = P
) -> list[dict[str, Any]]:
    """What the ladder makes of a captioner that says `say[prefix]`, and of a matcher that likes only `fits`."""

    def describe(photos: Sequence[NDArray[np.uint8]], prefix: str) -> list[str]:
        return [say[prefix] for _ in photos]

    def match(photos: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float32]:
        assert len(photos) == len(texts)
        return np.array([0.75 if text in fits else 0.25 for text in texts], np.float32)

    return [dict(row) for row in rows_of(sources, Models(describe, match), p)]


@pytest.fixture
def dog(tmp_path: Path) -> CaptionSource:
    name = "dog.png"
    return CaptionSource(tmp_path / name, name, draw(tmp_path / name), (Target("dog-0", "dog"),))


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("object_caption", "caption", "method", "drop_reason"))


PUPPY, ASKED, FILLED = "a puppy in the snow", "a photo of a dog with a ball", "a photo of a dog in the snow"


def test_the_first_rung_is_the_noun_of_the_caption(dog: CaptionSource) -> None:
    (row,) = rows([dog], {"": PUPPY}, [PUPPY])
    assert row == {
        "photo_id": dog.photo_id,
        "file_name": "dog.png",
        "object_id": "dog-0",
        "class": "dog",
        "caption": PUPPY,
        "match_score": 0.75,
        "object_caption": "a <object> in the snow",
        "replaced": "puppy",
        "span_start": 2,
        "span_end": 7,
        "method": "noun",
        "attributes": None,
        "drop_reason": None,
    }
    schema.table([row], schema.CAPTIONS)


def test_the_second_rung_is_the_conditional_caption(dog: CaptionSource) -> None:
    say = {"": "a statue in the snow", "a photo of a dog": ASKED}
    (unnamed,) = rows([dog], say, [say[""], ASKED])
    assert told(unnamed) == ("a photo of a <object> with a ball", ASKED, "conditional", None)
    (unlike,) = rows([dog], say | {"": PUPPY}, [ASKED])
    assert told(unlike) == told(unnamed)


def test_the_third_rung_is_the_template_with_the_scene(dog: CaptionSource) -> None:
    say = {"": "a statue in the snow", "a photo of a dog": ASKED}
    (row,) = rows([dog], say, [say[""], FILLED])
    assert told(row) == ("a photo of a <object> in the snow", FILLED, "template", None)
    assert row["replaced"] == FILLED[row["span_start"] : row["span_end"]] == "dog"


def test_a_caption_that_does_not_match_lends_no_scene(dog: CaptionSource) -> None:
    say = {"": "a statue in the snow", "a photo of a dog": ASKED}
    (row,) = rows([dog], say, ["a photo of a dog"])
    assert told(row) == ("a photo of a <object>", "a photo of a dog", "template", None)


def test_below_the_template_is_the_drop(dog: CaptionSource) -> None:
    (row,) = rows([dog], {"": PUPPY, "a photo of a dog": ASKED}, [])
    assert row["drop_reason"] == "caption does not match: 0.250"
    assert row["match_score"] == 0.25


def test_a_continued_noun_is_no_conditional_caption(dog: CaptionSource) -> None:
    say = {"": "a statue in the snow", "a photo of a dog": "a photo of a dog house"}
    (row,) = rows([dog], say, [*say.values(), FILLED])
    assert row["method"] == "template"


def test_without_a_class_the_head_stands_for_the_object(dog: CaptionSource) -> None:
    bare = replace(dog, photo_id=None, targets=(Target(),))
    (row,) = rows([bare], {"": PUPPY}, [PUPPY])
    assert told(row) == ("a <object> in the snow", PUPPY, "head", None)
    assert (row["object_id"], row["class"], row["photo_id"]) == (None, None, dog.photo_id)
    thing = "a photo of an object"
    (row,) = rows([bare], {"": "in", thing: thing}, ["in", thing])
    assert told(row) == ("a photo of a <object>", thing, "conditional", None)


def test_a_photo_without_kept_objects_is_a_general_row(dog: CaptionSource) -> None:
    regularization = replace(dog, targets=())
    (row,) = rows([regularization], {"": PUPPY}, [PUPPY])
    assert told(row) == (None, PUPPY, None, None)
    (row,) = rows([regularization], {"": PUPPY}, [])
    assert told(row) == (None, PUPPY, None, "caption does not match: 0.250")


def test_a_given_caption_stands_in_for_the_captioner(dog: CaptionSource) -> None:
    (row,) = rows([replace(dog, caption="my dog")], {}, ["my dog"])
    assert told(row) == ("my <object>", "my dog", "given noun", None)
    (row,) = rows([replace(dog, caption="<object> on a sofa")], {}, ["dog on a sofa"])
    assert told(row) == ("<object> on a sofa", "dog on a sofa", "given", None)


CHINESE, TAGS = "木桌上的两颗樱桃", "SKS_style, cherries, 1girl, masterpiece"


@pytest.mark.parametrize(
    ("caption", "object_caption", "plain", "method"),
    [
        (CHINESE, f"a photo of a <object>, {CHINESE}", f"a photo of a dog, {CHINESE}", "given template"),
        (TAGS, f"a photo of a <object>, {TAGS}", f"a photo of a dog, {TAGS}", "given template"),
        ("my puppy, 8k", "my <object>, 8k", "my puppy, 8k", "given noun"),
        ("<object>, 8k", "<object>, 8k", "dog, 8k", "given"),
    ],
)
def test_a_given_caption_is_kept_whatever_the_matcher_says(
    dog: CaptionSource, caption: str, object_caption: str, plain: str, method: str
) -> None:
    (row,) = rows([replace(dog, caption=caption)], {}, [])
    assert told(row) == (object_caption, plain, method, None)
    assert row["match_score"] == 0.25
    schema.table([row], schema.CAPTIONS)


def test_the_scene_of_the_captioner_is_appended_if_it_matches(dog: CaptionSource) -> None:
    p = P.model_copy(update={"given": "append"})
    sources = [replace(dog, caption=CHINESE), replace(dog, caption="<object> asleep."), dog]
    made = rows(sources, {"": PUPPY}, [PUPPY], p)
    assert [row["object_caption"] for row in made] == [
        f"a photo of a <object>, {CHINESE}, in the snow", "<object> asleep, in the snow", "a <object> in the snow",
    ]  # fmt: skip
    assert [row["method"] for row in made] == ["given template", "given", "noun"]
    unmatched = rows(sources[:2], {"": PUPPY}, [], p)
    assert [row["caption"] for row in unmatched] == [f"a photo of a dog, {CHINESE}", "dog asleep."]


def test_a_given_caption_may_be_replaced(dog: CaptionSource) -> None:
    p = P.model_copy(update={"given": "replace"})
    (row,) = rows([replace(dog, caption="<object>, 8k")], {"": PUPPY}, [PUPPY], p)
    assert told(row) == ("a <object> in the snow", PUPPY, "noun", None)


def test_each_object_has_its_row_of_a_given_caption(dog: CaptionSource) -> None:
    targets = (Target("0", "dog"), Target("1", "cat"), Target("2", "car"))
    (first, second, third) = rows([replace(dog, targets=targets, caption="a puppy and a kitty")], {}, [])
    assert told(first)[0] == "a <object> and a kitty"
    assert told(second)[0] == "a puppy and a <object>"
    assert told(third) == ("a photo of a <object>, a puppy and a kitty", "a photo of a car, a puppy and a kitty",
                           "given template", None)  # fmt: skip


def test_a_blank_caption_is_none(dog: CaptionSource) -> None:
    (row,) = rows([replace(dog, caption=" \n")], {"": PUPPY}, [PUPPY])
    assert told(row) == ("a <object> in the snow", PUPPY, "noun", None)


def test_a_given_caption_of_a_general_row_is_kept(dog: CaptionSource) -> None:
    made = rows([replace(dog, targets=(), caption=caption) for caption in (CHINESE, "a <object> here")], {}, [])
    assert [told(row) for row in made] == [(None, CHINESE, None, None), (None, "an object here", None, None)]


def test_a_photo_is_captioned_once_for_all_its_objects(dog: CaptionSource) -> None:
    asked: list[int] = []

    def describe(photos: Sequence[NDArray[np.uint8]], prefix: str) -> list[str]:
        asked.append(len(photos))
        return [f"{prefix}a dog and a cat and a dog"] * len(photos)

    targets = (Target("0", "dog"), Target("1", "cat"), Target("2", "dog"))
    made = rows_of(
        [replace(dog, targets=targets)] * 3, Models(describe, lambda _, texts: np.ones(len(texts), np.float32)), P
    )
    assert sum(asked) == 3
    assert [r["object_caption"] for r in made[:3]] == [
        "a <object> and a cat and a dog",
        "a dog and a <object> and a dog",
        "a dog and a cat and a <object>",
    ]


def test_what_cannot_be_captioned_stays_as_a_row(dog: CaptionSource, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    sources = [
        replace(dog, drop_reason="copy of another photo: x.png"),
        replace(dog, photo_id="0" * 16, targets=(Target("a", "dog"), Target("b", "cat"))),
        replace(dog, path=tmp_path / "empty.png", photo_id=None),
        dog,
    ]
    made = rows(sources, {"": PUPPY}, [PUPPY])
    assert [r["drop_reason"] for r in made] == [
        "copy of another photo: x.png",
        *["photo changed since detection"] * 2,
        "empty file",
        None,
    ]
    assert [r["caption"] for r in made] == [None] * 4 + [PUPPY]
    schema.table(made, schema.CAPTIONS)


def test_results_do_not_depend_on_the_batch_size(dog: CaptionSource) -> None:
    say = {"": PUPPY, "a photo of a cat": "a photo of a cat"}
    sources = [dog, replace(dog, targets=(Target("c", "cat"), Target("d", "dog"))), replace(dog, targets=())] * 2
    made = [rows(sources, say, list(say.values()), P.model_copy(update={"batch_size": n})) for n in (1, 4, 99)]
    assert made[0] == made[1] == made[2]


def object_row(photo_id: str, name: str, **values: object) -> dict[str, object]:
    known = {"photo_id": photo_id, "file_name": name, "photo_width": 40, "photo_height": 30}
    return {**dict.fromkeys(schema.OBJECTS.names), **known, **values}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Photos, some of them bad, and the objects that a detector saw in them."""
    ids = {name: draw(tmp_path / "raw" / name, n) for n, name in enumerate(["a.png", "b.png", "c.png", "new.png"])}
    found = [
        object_row(ids["a.png"], "a.png", object_id="a-0", box_xyxy=[20, 0, 30, 9], **{"class": "cat"}),
        object_row(ids["a.png"], "a.png", object_id="a-1", box_xyxy=[0, 0, 10, 9], **{"class": "dog"}),
        object_row(ids["a.png"], "a.png", object_id="a-2", box_xyxy=[0, 0, 1, 1], drop_reason="too small"),
        object_row(ids["b.png"], "b.png", object_id="b-0", box_xyxy=[0, 0, 1, 1], drop_reason="too small"),
        object_row(ids["c.png"], "c.png", drop_reason="no object", given_caption="a plain wall"),
        object_row("0" * 16, "bad.png", photo_width=None, photo_height=None, drop_reason="not an image"),
    ]
    schema.write([schema.table(found, schema.OBJECTS)], schema.OBJECTS, tmp_path / "objects.parquet")
    return tmp_path


def test_sources_of_an_objects_table(project: Path) -> None:
    found = captioning.list_sources(read_folder(project / "raw"), project / "objects.parquet")
    assert [(s.file_name, s.targets, s.caption, s.drop_reason) for s in found] == [
        ("a.png", (Target("a-1", "dog", 1), Target("a-0", "cat", 0)), None, None),
        ("b.png", (), None, None),
        ("c.png", (), "a plain wall", None),
        ("bad.png", (), None, "not an image"),
        ("new.png", (), None, "photo is not in the objects table"),
    ]


def test_a_caption_beside_a_photo_is_read_after_detection_too(project: Path) -> None:
    (project / "raw" / "a.txt").write_text("my dog")
    (project / "raw" / "c.txt").write_text("a wall of bricks")
    found = captioning.list_sources(read_folder(project / "raw"), project / "objects.parquet")
    assert [s.caption for s in found] == ["my dog", None, "a wall of bricks", None, None]


def test_sources_of_bare_photos(project: Path) -> None:
    (project / "raw" / "metadata.csv").write_text("file_name,class,caption\na.png,dog,my dog\n")
    found = captioning.list_sources(read_folder(project / "raw"), None)
    assert [(s.file_name, s.targets, s.caption) for s in found] == [
        ("a.png", (Target(None, "dog"),), "my dog"),
        *[(name, (Target(),), None) for name in ("b.png", "c.png", "new.png")],
    ]


def test_pictures_of_styles_are_not_captioned(project: Path) -> None:
    captions = project / "raw" / "captions" / "style" / "00.txt"
    captions.parent.mkdir(parents=True)
    captions.write_text("pixel art\na city in pixel art\n", encoding="utf-8")
    (project / "raw" / "images" / "style").mkdir(parents=True)
    (project / "raw" / "a.png").rename(project / "raw" / "images" / "style" / "00.png")
    found = captioning.list_sources(read_folder(project / "raw"), None)
    assert [(s.file_name, s.drop_reason) for s in found if s.drop_reason] == [
        ("images/style/00.png", "picture of a style")
    ]


def test_a_missing_table_is_an_error_with_the_command_to_run(project: Path) -> None:
    with pytest.raises(TamingError, match="taming detect"):
        captioning.list_sources(read_folder(project / "raw"), project / "nothing.parquet")


def taming(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`taming caption` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = [sys.executable, "-c", "from stages.cli import main; main()", "caption", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """Some demo photos, among them bad ones, and params with small shards."""
    for name in ("robot-fluent3d", "socks-openmoji", "broken"):
        copy_tracked(tmp_path / "raw" / name, f"data/raw/{name}")
    params = (ROOT / "params.yaml").read_text().replace("shard_size: 32", "shard_size: 2")
    (tmp_path / "params.yaml").write_text(params)
    return tmp_path


def test_mini_captions_real_photos_again_to_the_same_bytes_after_kill_9(demo: Path) -> None:
    undisturbed = taming(demo, "--in", "raw", "--out", "whole.parquet")
    shown, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0
    assert "kept" in shown
    assert not list((demo / "runs").glob("caption-*"))

    killed = taming(demo, "--in", "raw", "--out", "again.parquet")
    while not list((demo / "runs").glob("caption-*/*.parquet")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (demo / "again.parquet").exists()
    left = {f: f.stat().st_mtime_ns for f in (demo / "runs").glob("caption-*/*.parquet")}
    resumed = taming(demo, "--in", "raw", "--out", "again.parquet")
    resumed.communicate(timeout=300)
    assert left
    assert (demo / "again.parquet").read_bytes() == (demo / "whole.parquet").read_bytes()

    made = pq.read_table(demo / "whole.parquet").to_pylist()
    assert len(made) == len(list_photos(demo / "raw"))
    for row in made:
        assert (row["object_caption"] is None) == (row["caption"] is None)
        if row["caption"]:
            assert row["caption"][row["span_start"] : row["span_end"]] == row["replaced"]
            assert row["object_caption"].count("<object>") == 1
            assert 0 <= row["match_score"] <= 1
    assert any(row["drop_reason"] and row["caption"] is None for row in made)


def test_the_command_takes_the_objects_table(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    command = ["caption", "--in", "raw", "--objects", "objects.parquet", "--out", "captions.parquet"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    made = pq.read_table("captions.parquet").to_pylist()
    assert [(r["object_id"], r["class"]) for r in made[:2]] == [("a-1", "dog"), ("a-0", "cat")]
    assert [r["object_id"] for r in made[2:]] == [None] * 4
    assert [r["object_caption"] for r in made[2:]] == [None] * 4
    assert [r["drop_reason"] for r in made[-2:]] == ["not an image", "photo is not in the objects table"]
    assert made[3]["caption"] == "a plain wall"
