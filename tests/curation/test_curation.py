"""Curation measures what is kept, drops what is outside the bounds, and a photo that is refused enters nowhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image, ImageFilter
from pydantic import ValidationError
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
from typer.testing import CliRunner

from stages.cli import app
from taming_core.curation.curate import curate, exclusion_notes, load_scores
from taming_core.curation.scores import load_score
from taming_core.curation.sharpness import sharpness
from taming_core.drop_reasons import reason_of
from taming_core.errors import TamingError
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import CurationParams, ScoreParams
from taming_core.photos.decode import read_photo
from taming_core.photos.masks import encode_mask
from taming_core.tables import schema

RAW = packaged_params().parent / "data" / "raw"
NOISE = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
MASK = np.zeros((96, 96), bool)
MASK[20:80, 20:80] = True


def score(**changes: Any) -> ScoreParams:
    keys = {"name": "x", "model": "mini", "label": None, "texts": None, "view": "object", "min": None, "max": None}
    return ScoreParams(**keys | changes)


def params(**changes: Any) -> CurationParams:
    return CurationParams(**{"sharpness_min": None, "exclude": [], "scores": []} | changes)


def classifier(folder: Path, labels: list[str], bias: list[float], kind: str | None = None) -> str:
    """A tiny image classifier whose outputs are its biases, for any image."""
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}, problem_type=kind,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor(bias)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def object_row(name: str, number: int = 0, **changes: Any) -> dict[str, Any]:
    """A kept object in a photo of 96 x 96 pixels."""
    found = {"object_id": f"{name}-{number}", "class": "dog", "box_xyxy": [20, 20, 80, 80]}
    known = {"photo_id": name, "file_name": name, "photo_width": 96, "photo_height": 96, "mask_png": encode_mask(MASK)}
    return {**dict.fromkeys(schema.OBJECTS.names), **known, **found, **changes}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A sharp and a blurred photo."""
    Image.fromarray(NOISE).save(tmp_path / "sharp.png")
    Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "blurred.png")
    return tmp_path


def images_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_photo(path).image for path in folder.glob("*.png")}


def test_blur_lowers_sharpness_and_the_background_does_not_count():
    blurred = np.asarray(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(2)))
    sharp_around = np.where(MASK[..., None], blurred, NOISE)
    assert sharpness(NOISE, MASK) > 20 * sharpness(blurred, MASK)
    assert sharpness(sharp_around, MASK) == pytest.approx(sharpness(blurred, MASK), rel=0.05)


def test_an_object_of_few_pixels_counts_as_blurred():
    small = np.asarray(Image.fromarray(NOISE).resize((12, 12), Image.Resampling.BOX))
    assert sharpness(small, np.ones((12, 12), bool)) < 0.1 * sharpness(NOISE, np.ones((96, 96), bool))


def test_a_blurred_object_is_dropped_with_its_value(raw: Path):
    rows = [object_row("sharp.png"), object_row("blurred.png")]
    kept, dropped = curate(rows, images_of(raw), [], params(sharpness_min=100), 8)
    assert kept["drop_reason"] is None
    assert dropped["drop_reason"] == f"blurred: {dropped['sharpness']:.0f}"
    assert dropped["photo_reason"] is None  # its photo may be a text-image pair
    assert dropped["sharpness"] < 100 < kept["sharpness"]


@pytest.mark.parametrize(("noun", "excluded"), [("man", True), ("woman", True), ("person", True), ("dog", False)])
def test_a_class_is_excluded_with_every_word_for_it(raw: Path, noun: str, excluded: bool):
    (row,) = curate([object_row("sharp.png", **{"class": noun})], images_of(raw), [], params(exclude=["person"]), 8)
    assert row["drop_reason"] == (f"excluded class: {noun}" if excluded else None)


def test_an_excluded_class_that_no_object_has_is_said(tmp_path: Path):
    p = load_params(None).detect
    schema.write([schema.table([object_row("a.png")], schema.OBJECTS)], schema.OBJECTS, tmp_path / "objects.parquet")
    assert exclusion_notes(tmp_path / "objects.parquet", p) == []
    p = p.model_copy(update={"curation": params(exclude=["puppy", "persn", "animal", "dog"])})
    assert exclusion_notes(tmp_path / "objects.parquet", p) == [
        "detect.curation.exclude: no object is of the class persn"
    ]


def test_a_label_is_a_probability_and_a_single_output_a_value(tmp_path: Path):
    softmax = classifier(tmp_path / "softmax", ["normal", "nsfw"], [0.0, 2.0])
    sigmoid = classifier(tmp_path / "sigmoid", ["a", "b"], [0.0, 2.0], "multi_label_classification")
    value = classifier(tmp_path / "value", ["LABEL_0"], [5.5])
    images = [NOISE, NOISE[:40]]
    found = {
        "softmax": load_score(score(model=softmax, label="nsfw"), "cpu")(images, ["dog", "cat"]),
        "sigmoid": load_score(score(model=sigmoid, label="a"), "cpu")(images, ["dog", "cat"]),
        "value": load_score(score(model=value), "cpu")(images, ["dog", "cat"]),
    }
    expected = {"softmax": 1 / (1 + np.exp(-2.0)), "sigmoid": 0.5, "value": 5.5}
    for name, values in found.items():
        assert values == pytest.approx([expected[name]] * 2, rel=1e-5)


def test_an_absent_label_is_named_with_those_there_are(tmp_path: Path):
    model = classifier(tmp_path, ["normal", "nsfw"], [0.0, 0.0])
    with pytest.raises(TamingError, match=r"no label nude\. Set the label .*scores\.x to one of: normal, nsfw\."):
        load_score(score(model=model, label="nude"), "cpu")


def test_texts_are_a_probability_or_a_similarity_and_know_the_class():
    image = np.asarray(Image.open(sorted((RAW / "alien-openmoji").iterdir())[0]).convert("RGB"))
    both = [load_score(score(texts=texts), "cpu")([image], ["alien"])[0]
            for texts in (["an alien", "a house"], ["a house", "an alien"])]  # fmt: skip
    assert sum(both) == pytest.approx(1, abs=1e-5)
    alien, house = load_score(score(texts=["a photo of a {class}"]), "cpu")([image] * 2, ["alien", "house"])
    assert -1 <= house < 1
    assert -1 <= alien < 1
    assert alien != house


def test_scores_of_objects_and_photos_reach_their_rows_whatever_the_batch(raw: Path, tmp_path: Path):
    model = classifier(tmp_path / "model", ["bad", "good"], [0.0, 0.0])
    p = params(scores=[score(name="photo", model=model, label="bad", view="photo"),
                       score(name="object", model="mini", texts=["{class}"])])  # fmt: skip
    rows = [object_row("blurred.png"), object_row("blurred.png", 1, **{"class": "cat"}),
            object_row("sharp.png", drop_reason="too small"), object_row("sharp.png", 1)]  # fmt: skip
    one, all_at_once = (curate(rows, images_of(raw), load_scores(p, "cpu"), p, size) for size in (1, 8))
    names = [[s["name"] for s in row["scores"]] for row in one]
    assert names == [["photo", "object"], ["photo", "object"], ["photo"], ["photo", "object"]]
    for a, b in zip(one, all_at_once, strict=True):
        assert [s["score"] for s in a["scores"]] == pytest.approx([s["score"] for s in b["scores"]], abs=1e-5)
    schema.table(one, schema.OBJECTS)


def test_a_refused_photo_drops_its_objects_and_is_no_text_image_pair(raw: Path, tmp_path: Path):
    model = classifier(tmp_path / "model", ["normal", "nsfw"], [0.0, 3.0])
    p = params(scores=[score(name="nsfw", model=model, label="nsfw", view="photo", max=0.5)])
    rows = [object_row("sharp.png", drop_reason="too small"), object_row("sharp.png", 1)]
    small, other = curate(rows, images_of(raw), load_scores(p, "cpu"), p, 8)
    assert small["drop_reason"] == "too small"
    assert other["drop_reason"] == small["photo_reason"] == other["photo_reason"] == "nsfw too high: 0.953"


def test_rows_that_were_not_read_stay_as_they_are(raw: Path):
    lost = {
        **dict.fromkeys(schema.OBJECTS.names),
        "photo_id": "x",
        "file_name": "lost.png",
        "drop_reason": "unreadable",
    }
    assert curate([lost], images_of(raw), [], params(sharpness_min=1), 8) == [lost]


@pytest.mark.parametrize(("changes", "word"), [
    ({"scores": [{**score().model_dump(), "label": "a", "texts": ["b"]}]}, "label or texts"),
    ({"scores": [{**score().model_dump(), "texts": ["{class}"], "view": "photo"}]}, "view is photo"),
    ({"scores": [{**score().model_dump(), "min": 2.0, "max": 1.0}]}, "above its max"),
    ({"scores": [score().model_dump(), score().model_dump()]}, "twice"),
    ({"scores": [{**score().model_dump(), "name": "sharpness"}]}, "which is a column's"),
])  # fmt: skip
def test_keys_that_contradict_each_other_are_refused(changes: dict[str, Any], word: str):
    with pytest.raises(ValidationError, match=word):
        params(**changes)


@pytest.fixture(scope="module")
def curated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of detect and caption in which a score refuses every photo but those of one file size."""
    home = tmp_path_factory.mktemp("curated")
    for name in ("alien-openmoji", "robot-fluent3d"):
        (home / "raw" / name).mkdir(parents=True)
        for photo in sorted((RAW / name).iterdir())[:2]:
            (home / "raw" / name / photo.name).write_bytes(photo.read_bytes())
    model = classifier(home / "model", ["normal", "nsfw"], [0.0, 3.0])
    own = yaml.safe_load(packaged_params().read_text())
    own["detect"]["curation"] = params(scores=[
        score(name="nsfw", model=model, label="nsfw", view="photo", max=0.5),
        score(name="similarity", texts=["a photo of a {class}"]),
    ]).model_dump()  # fmt: skip
    (home / "params.yaml").write_text(yaml.safe_dump(own))
    return home


def test_the_chain_never_uses_a_refused_photo(curated_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(curated_home)
    run = CliRunner().invoke
    for words in (["detect", "--in", "raw", "--out", "o.parquet", "--device", "cpu"],
                  ["caption", "--in", "raw", "--objects", "o.parquet", "--out", "c.parquet", "--device", "cpu"],
                  ["materialize", "--in", "raw", "--objects", "o.parquet", "--captions", "c.parquet", "--out", "rows"],
                  ["inspect", "o.parquet", "--raw", "raw", "--sort", "similarity", "--show", "highest"]):  # fmt: skip
        result = run(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "by similarity from" in result.output
    captions = pq.read_table("c.parquet").to_pylist()
    assert {reason_of(row["drop_reason"]) for row in captions} == {"nsfw too high"}
    assert not list(Path("rows").rglob("*.parquet"))
    rows = pq.read_table("rows-dropped.parquet").to_pylist()
    assert {reason_of(row["drop_reason"]) for row in rows} == {"nsfw too high"}


def test_sorting_by_what_is_not_there_lists_what_is(curated_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(curated_home)
    for words, message in ((["--sort", "beauty"], "score.*sharpness.*nsfw"), (["--show", "lowest"], "without --sort")):
        with pytest.raises(TamingError, match=message):
            CliRunner().invoke(app, ["inspect", "o.parquet", "--raw", "raw", *words], catch_exceptions=False)
