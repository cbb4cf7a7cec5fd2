"""Outputs are checked before the work, errors name the file, and all text is UTF-8."""

import ast
import errno
import resource
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from taming_core import files
from taming_core.errors import TamingError
from taming_core.files import (
    read_json,
    read_text,
    replacing,
    replacing_folder,
    require_out,
    require_out_file,
    require_space,
)
from taming_core.tables import schema

ROOT = Path(__file__).parents[1]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/thing").mkdir(parents=True)
    (tmp_path / "raw/thing/0.jpg").write_bytes(b"a photo")
    return Path("raw")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("raw", "raw is raw"),
        ("~/objects.parquet", "begins with ~, which the shell has not replaced. Write --out /"),
        ("raw/thing/0.jpg", "is in raw"),
        ("raw/new/objects.parquet", "is in raw"),
        ("raw/../raw/new", "is in raw"),
        ("link/objects.parquet", "is in raw"),
        (".", "holds raw"),
        ("file/objects.parquet", "file is a file"),
        ("file/a/b/objects.parquet", "file is a file"),
    ],
)
def test_an_output_that_would_destroy_an_input_or_has_no_place_is_refused(raw: Path, out: str, words: str) -> None:
    Path("link").symlink_to("raw")
    Path("file").write_text("of the user")
    with pytest.raises(TamingError, match=words):
        require_out(Path(out), (raw, None))


@pytest.mark.parametrize("out", ["objects.parquet", "rawer/objects.parquet", "a/b/c/objects.parquet", "raw.parquet"])
def test_an_output_beside_the_inputs_is_fine(raw: Path, out: str) -> None:
    require_out_file(Path(out), "objects.parquet", (raw, Path("absent")))


def test_a_folder_is_no_place_for_a_file(raw: Path) -> None:
    Path("tables").mkdir()
    with pytest.raises(TamingError, match=r"tables is a folder\. Name a file .* such as tables/objects\.parquet"):
        require_out_file(Path("tables"), "objects.parquet", (raw,))


@pytest.mark.parametrize("version", [b"4", schema.VERSION.encode()])
def test_a_table_replaces_tables_of_its_kind_alone(raw: Path, version: bytes) -> None:
    metadata = {b"taming.table": b"objects", b"taming.version": version}
    with pa.OSFile("o.parquet", "wb") as file:
        pa.parquet.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), file)
    schema.require_out(Path("o.parquet"), schema.OBJECTS, raw)
    with pytest.raises(TamingError, match="another file than a table of captions"):
        schema.require_out(Path("o.parquet"), schema.CAPTIONS, raw)
    Path("mine.parquet").write_text("thesis")
    with pytest.raises(TamingError, match="another file than a table of objects"):
        schema.require_out(Path("mine.parquet"), schema.OBJECTS, raw)
    with pytest.raises(TamingError, match=r"o\.parquet is o\.parquet, which the command reads"):
        schema.require_out(Path("o.parquet"), schema.CAPTIONS, raw, Path("o.parquet"))


def test_space_that_is_needed_is_there(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path / "absent/folder", free // 2, "the state")
    with pytest.raises(TamingError, match=r"GB free, and the state takes \d+\.\d GB\. Free some space there"):
        require_space(tmp_path / "absent/folder", free * 2, "the state")


@contextmanager
def small_files(size: int) -> Generator[None]:
    """No file may grow beyond `size` bytes: what the system then raises is what it raises on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    writers = {
        "text": lambda part: part.write_bytes(numbers.tobytes()),
        "parquet": lambda part: pa.parquet.write_table(pa.table({"a": numbers}), part),
        "safetensors": lambda part: save_file({"a": numbers}, part),
    }
    for name, write in writers.items():
        path = tmp_path / name
        path.write_text("old")
        with pytest.raises(OSError, match=r".") as error, small_files(5000), replacing(path) as part:
            write(part)
        assert (error.value.errno, Path(error.value.filename).parent) == (errno.EFBIG, tmp_path)
        assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(writers)


def test_a_folder_that_is_replaced_goes_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back if the new one cannot take its place."""
    out = tmp_path / "rows"
    out.mkdir()
    (out / "a").write_text("old")
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if (path / "b").exists():
            raise OSError(errno.EIO, "Input/output error")
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"), replacing_folder(out) as part:
        (part / "b").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["rows", "a"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_text_of_another_encoding_is_named_by_its_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "params.yaml").write_bytes("steps: 4\n# für\n".encode(encoding))
    with pytest.raises(TamingError, match=rf"params\.yaml is not text in UTF-8: line {1 if '16' in encoding else 2} "):
        read_text(tmp_path / "params.yaml")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"für": 1}'.encode("utf-8-sig"))
    assert read_json(tmp_path / "a.json") == {"für": 1}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(TamingError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


OPENERS = {"open", "read_text", "write_text"}


def without_encoding(path: Path) -> list[int]:
    """Lines that open a text file in the encoding of the system."""
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    found = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in OPENERS]
    return [c.lineno for c in found if not named(c)]


def named(call: ast.Call) -> bool:
    """Whether a call names an encoding, opens bytes, or is of another `open`."""
    words = [a.value for a in call.args if isinstance(a, ast.Constant)]
    of = call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
    return any(k.arg == "encoding" for k in call.keywords) or bool({"rb", "wb", "utf-8"} & set(words)) or of in (
        "Image", "os", "tarfile", "zipfile", "webbrowser")  # fmt: skip


@pytest.mark.parametrize("folder", ["taming_core", "stages", "pipelines", "docs"])
def test_every_text_file_is_opened_in_utf_8(folder: str) -> None:
    paths = [p for p in sorted((ROOT / folder).rglob("*.py")) if without_encoding(p)]
    assert [f"{p.relative_to(ROOT)}: {without_encoding(p)}" for p in paths] == []


def test_a_folder_that_is_removed_has_lost_its_name_before_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state-000002"
    folder.mkdir()
    (folder / "run.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # where a crash may end it
    files.remove(folder)
    assert [path.name for path in tmp_path.iterdir()] == [files.part_path(folder).name]
    monkeypatch.undo()
    files.remove_parts(folder)
    assert not list(tmp_path.iterdir())
