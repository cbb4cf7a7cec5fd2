"""Identities that seem to hold different objects are named."""

from pathlib import Path

from taming_core.objects.mixed_identities import mixed_identities
from taming_core.tables import schema


def table(path: Path, *classes: str, score: float = 0.9, drop_reason: str | None = None) -> Path:
    photo = {"photo_id": "0" * 16, "file_name": "0.jpg", "identity": "all", "score": score, "drop_reason": drop_reason}
    rows = [{**dict.fromkeys(schema.OBJECTS.names), **photo, "object_id": f"{n}", "class": noun}
            for n, noun in enumerate(classes)]  # fmt: skip
    beside = {**rows[0], "identity": "9-1", "object_id": "9-1", "class": "tree"}  # another object in a photo
    schema.write([schema.table([*rows, beside], schema.OBJECTS)], schema.OBJECTS, path)
    return path


def test_an_identity_of_several_classes_is_named(tmp_path):
    mixed = table(tmp_path / "o.parquet", "cup", "cup", "dog", "dog", "car")
    assert mixed_identities(mixed) == ["identities that seem to hold different objects: all (2 cup, 2 dog, 1 car)"]


def test_one_class_in_half_of_the_photos_is_no_reason_to_say_so(tmp_path):
    assert mixed_identities(table(tmp_path / "o.parquet", "cup", "cup", "dog", "car")) == []
    assert mixed_identities(table(tmp_path / "o.parquet", "cup", "dog", "car")) == []


def test_what_the_detector_is_not_sure_of_does_not_count(tmp_path):
    classes = "cup", "cup", "dog", "dog", "car"
    assert mixed_identities(table(tmp_path / "o.parquet", *classes, score=0.4)) == []
    assert mixed_identities(table(tmp_path / "o.parquet", *classes, drop_reason="too small")) == []
