"""The data stages make of photos in an object store, byte by byte, what they make of a local copy."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from object_store import ObjectStore, upload
from PIL import Image
from run_stages import execute
from upath import UPath

from taming_core.params.load import packaged_params
from taming_core.storage import reading

RAW = packaged_params().parent / "data" / "raw"
TABLES = ("objects.parquet", "captions.parquet", "rows-dropped.parquet")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Photos with what lies beside them: a mask, a caption, metadata, a copy, odd names, and files of no use."""
    folder = tmp_path / "raw"
    for identity in ("alien-openmoji", "robot-fluent3d"):
        (folder / identity).mkdir(parents=True)
        for photo in sorted((RAW / identity).iterdir())[:3]:
            (folder / identity / photo.name).write_bytes(photo.read_bytes())
    robot, alien = folder / "robot-fluent3d", folder / "alien-openmoji"
    mask = Image.new("L", Image.open(robot / "0.jpg").size)
    mask.paste(255, (60, 60, 200, 200))
    mask.save(robot / "0_mask.png")
    (robot / "1.txt").write_text("a toy robot in a room")
    (robot / "copy of 0.jpg").write_bytes((robot / "0.jpg").read_bytes())
    (alien / "0.jpg").rename(alien / "a#b?c%20d+é.jpg")
    (alien / "broken.jpg").write_bytes((alien / "1.jpg").read_bytes()[:3000])
    (alien / "empty.jpg").touch()
    (folder / "metadata.csv").write_text("file_name,class,split\nrobot-fluent3d/2.jpg,robot,\n")
    (folder / "README.md").write_text("not a photo")
    return folder


def params(folder: Path) -> None:
    """Small shards and batches, and the measures of `detect.curation` that read a photo again."""
    p = yaml.safe_load(packaged_params().read_text())
    p["detect"] |= {"shard_size": 3, "batch_size": 2}
    p["caption"] |= {"shard_size": 3, "batch_size": 2}
    p["materialize"]["shard_size"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(p))


def made_of(raw: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files that the data stages and a contact sheet make of photos."""
    folder.mkdir()
    params(folder)
    monkeypatch.chdir(folder)
    execute(f"taming detect --in '{raw}' --out objects.parquet --device cpu")
    execute(f"taming caption --in '{raw}' --objects objects.parquet --out captions.parquet --device cpu")
    tables = "--objects objects.parquet --captions captions.parquet"
    execute(f"taming materialize --in '{raw}' {tables} --regularization '{raw}' --out rows")
    execute(f"taming inspect objects.parquet --raw '{raw}' --out sheet.png")
    files = [*(folder / name for name in (*TABLES, "sheet.png")), *(folder / "rows").iterdir()]
    assert not list(folder.glob("runs/*-*"))
    return {path.name: path.read_bytes() for path in files}


def test_the_tables_are_those_of_the_local_copy(
    raw: Path, bucket: UPath, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made_of(str(raw), tmp_path / "local", monkeypatch)
    stored = upload(raw, bucket / "my photos")
    object_store.fail(refused=3, cut=3, match="GET /")
    assert made_of(str(stored), tmp_path / "stored", monkeypatch) == expected
    rows = pq.read_table(tmp_path / "stored/objects.parquet").to_pylist()
    assert "alien-openmoji/a#b?c%20d+é.jpg" in {row["file_name"] for row in rows if row["drop_reason"] is None}
    assert {row["mask_source"] for row in rows} == {"given", "segmenter", None}


def test_a_store_that_goes_away_ends_the_stage_and_the_same_command_goes_on(
    raw: Path, bucket: UPath, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "WAITS", ())
    params(tmp_path)
    execute(f"taming detect --in '{raw}' --out expected.parquet --device cpu")
    stored = upload(raw, bucket / "raw")
    command = f"taming detect --in '{stored}' --out objects.parquet --device cpu"
    object_store.fail(after=12, cut=10**9, match="GET /")  # when the folder is listed, and some photos are read
    with pytest.raises(SystemExit):
        execute(command)
    assert re.search(r"cannot be reached: .*\. Check network", capsys.readouterr().err)
    assert not Path("objects.parquet").exists()
    object_store.fail()
    execute(command)
    assert Path("objects.parquet").read_bytes() == Path("expected.parquet").read_bytes()


def test_generate_takes_photos_and_masks_from_a_store(
    raw: Path, bucket: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = upload(raw / "robot-fluent3d", bucket / "robot")
    options = "--prompt 'a <object> on the beach' --steps 1 --device cpu"
    for place, out in ((raw / "robot-fluent3d", "local"), (stored, "stored")):
        execute(f"taming generate --object {place}/0.jpg --mask {place}/0_mask.png {options} --out {out}/file")
        execute(f"taming generate --object {place}/0.jpg {options} --out {out}/beside")
    for here in Path("local").glob("*/*.png"):
        assert Image.open(here).tobytes() == Image.open("stored" / here.relative_to("local")).tobytes()
