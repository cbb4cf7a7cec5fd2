"""The class of an object: the metadata's, the classifier's, or the detector's, and "object" where that is unsure."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from coloured_photos import COLOURS, P, put, rows_of
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
from typer.testing import CliRunner

from stages.cli import app
from taming_core.errors import TamingError
from taming_core.objects.classifier import Named, load_object_classifier
from taming_core.objects.filters import Detections
from taming_core.params.load import load_params
from taming_core.weights.mini import MINI
from taming_core.world.artwork import class_nouns

RED, GREEN = (np.full((48, 48, 3), colour, np.uint8) for colour in COLOURS.values())


def see(photos: Any) -> list[Detections]:
    """A detector that finds a red ball in every photo, with score 0.6."""
    masks = [(np.abs(photo.astype(int) - COLOURS["ball"]).max(axis=2) < 40) for photo in photos]
    corners = [np.argwhere(m) for m in masks]
    boxes = [np.array([[*c.min(0)[::-1], *(c.max(0)[::-1] + 1)]], np.float32) for c in corners]
    return [
        Detections(box, np.array([0.6], np.float32), ("ball",), mask[None])
        for box, mask in zip(boxes, masks, strict=True)
    ]


def by_colour(crops: Any) -> list[Named]:
    """A classifier that reads the colour in the middle of the cut-out, and the ground in its corner."""
    assert all(tuple(crop[0, 0]) == (128, 128, 128) for crop in crops)
    return [Named("tomato" if crop[112, 112, 0] > 200 else "leaf", 0.7) for crop in crops]


@pytest.mark.parametrize(
    ("class_min", "classified", "noun", "probability"),
    [
        (0.0, False, "ball", None),
        (0.6, False, "ball", None),
        (0.61, False, "object", None),
        (0.0, True, "tomato", 0.7),
        (0.7, True, "tomato", 0.7),
        (0.71, True, "object", 0.7),
    ],
)
def test_a_class_below_class_min_is_object(
    class_min: float, classified: bool, noun: str, probability: float | None, tmp_path: Path
) -> None:
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 60))
    p = P.model_copy(update={"class_min": class_min})
    (row,) = rows_of(tmp_path, see, None, p, by_colour if classified else None)
    assert (row["class"], row["class_score"], row["drop_reason"]) == (noun, probability, None)
    assert row["score"] == pytest.approx(0.6)


def test_the_class_of_the_metadata_stays(tmp_path: Path) -> None:
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 60))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "toy/1.png", "class": "toy"}), encoding="utf-8")
    (row,) = rows_of(tmp_path, see, None, P.model_copy(update={"class_min": 0.9}), by_colour)
    assert (row["class"], row["class_score"]) == ("toy", None)


def test_a_dropped_object_is_not_classified(tmp_path: Path) -> None:
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 60))

    def fail(crops: Any) -> list[Named]:
        assert not crops
        return []

    (row,) = rows_of(tmp_path, see, None, P.model_copy(update={"area_min": 0.8}), fail)
    assert (row["class"], row["class_score"]) == ("ball", None)


def image_classifier(folder: Path) -> str:
    """A classifier of transformers, whose label is that of ImageNet's form, and whose answer depends on the image."""
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16,
        id2label={0: "Tabby, tabby cat", 1: "Leaf beetle"}, label2id={"Tabby, tabby cat": 0, "Leaf beetle": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def test_an_image_classifier_names_by_its_first_label(tmp_path: Path) -> None:
    spec = image_classifier(tmp_path)
    classify = load_object_classifier(spec, None, "cpu")
    network = ViTForImageClassification.from_pretrained(tmp_path).eval()
    processor: Any = ViTImageProcessor.from_pretrained(tmp_path)
    for image in (RED, GREEN):
        with torch.no_grad():
            probabilities = network(**processor(images=[image], return_tensors="pt")).logits.softmax(-1)[0]
        (found,) = classify([image])
        assert found.noun == ("tabby", "leaf beetle")[int(probabilities.argmax())]
        assert found.probability == pytest.approx(float(probabilities.max()), abs=1e-5)
    assert classify([]) == []


def test_clip_chooses_among_the_nouns() -> None:
    spec = str(MINI / "clip")
    one, other = (load_object_classifier(spec, names, "cpu") for names in (["dog", "cat"], ["cat", "dog"]))
    for image in (RED, GREEN):
        (first,), (second,) = one([image]), other([image])
        assert first.noun == second.noun
        assert first.probability == pytest.approx(second.probability, abs=1e-5)
        assert 0.5 <= first.probability <= 1


def test_names_go_with_clip_alone(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"has classes of its own.*detect\.class_names has no effect"):
        load_object_classifier(image_classifier(tmp_path / "vit"), ["dog", "cat"], "cpu")
    with pytest.raises(TamingError, match=r"has no classes of its own\. Set detect\.class_names"):
        load_object_classifier(str(MINI / "clip"), None, "cpu")
    with pytest.raises(TamingError, match=r"detect\.classifier"):
        load_object_classifier(str(tmp_path / "nowhere"), None, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("classifier: null\n  class_names: [dog, cat]", "class_names must be null"),
        ("classifier: mini\n  class_names: [dog, dog]", "each of them once"),
        ("classifier: mini\n  class_names: [dog]", "class_names"),
    ],
)
def test_keys_without_effect_are_refused(changes: str, message: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("  classifier:", "  class_names:"))]
    start = next(i for i, line in enumerate(lines) if line.startswith("  class_min:"))
    (tmp_path / "params.yaml").write_text("\n".join([*lines[:start], f"  {changes}", *lines[start:]]), encoding="utf-8")
    with pytest.raises(TamingError, match=message):
        load_params(tmp_path / "params.yaml")


def test_minis_classifier_names_one_of_its_classes() -> None:
    classify = load_object_classifier("mini", None, "cpu")
    found = classify([RED, GREEN])
    assert {named.noun for named in found} <= set(class_nouns())
    assert all(1 / len(class_nouns()) <= named.probability <= 1 for named in found)


def test_the_command_names_by_the_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, raw, params = Path(__file__).parents[2], tmp_path / "raw", tmp_path / "params.yaml"
    (raw / "toy").mkdir(parents=True)
    for number, photo in enumerate(sorted((root / "data" / "raw").rglob("*.jpg"))[:4]):
        shutil.copy(photo, raw / "toy" / f"{number}.jpg")
    text = (root / "params.yaml").read_text(encoding="utf-8")
    changed = {"  classifier:": image_classifier(tmp_path / "vit"), "  class_min:": 0.0}
    lines = [next((f"{key} {v}" for key, v in changed.items() if line.startswith(key)), line)
             for line in text.splitlines()]  # fmt: skip
    params.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["detect", "--in", str(raw), "--out", "objects.parquet", "--params", str(params)])
    assert result.exit_code == 0, result.output
    kept = [row for row in pq.read_table("objects.parquet").to_pylist() if row["drop_reason"] is None]
    assert kept
    assert all(row["class"] in ("tabby", "leaf beetle") and 0.5 <= row["class_score"] <= 1 for row in kept)
