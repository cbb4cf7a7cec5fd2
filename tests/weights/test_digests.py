"""Digests of files: the same where nothing changed, without a second look, and another for any other byte."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from taming_core.weights import digests


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, chunks = tmp_path / "model.safetensors", list[Path](), digests.file_chunks
    monkeypatch.setattr(digests, "file_chunks", lambda p: (reads.append(p), chunks(p))[1])
    path.write_bytes(b"weights")
    first = digests.file_digest(path)
    assert digests.file_digest(path) == first
    assert len(reads) == 1

    before = path.stat()
    with path.open("r+b") as file:  # in place, of the same size, and with the time of before
        file.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.file_digest(path) != first
    path.write_bytes(b"weights")
    assert digests.file_digest(path) == first


def test_a_record_that_was_cut_off_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    first = digests.file_digest(tmp_path / "file")
    (record,) = (tmp_path / "cache/taming/digests").iterdir()
    record.write_text(first[:5])
    assert digests.file_digest(tmp_path / "file") == first


def test_where_nothing_can_be_kept_the_digest_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    first = digests.file_digest(tmp_path / "file")
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert digests.file_digest(tmp_path / "file") == first


@pytest.mark.parametrize("stem", digests.STEMS)
def test_a_network_is_the_files_that_are_loaded_and_every_shard_of_them(stem: str, tmp_path: Path) -> None:
    def saved(name: str, value: float) -> Any:
        save_file({"w": torch.tensor([value])}, tmp_path / name)
        return digests.weights_digest(tmp_path)

    assert digests.weights_digest(tmp_path) is None
    one = saved(f"{stem}.safetensors", 1.0)
    assert saved(f"{stem}.fp16.safetensors", 7.0) == one  # another variant in the same folder
    assert saved(f"{stem}.safetensors", 2.0) != one
    (tmp_path / f"{stem}.safetensors").unlink()
    names = [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (tmp_path / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    save_file({"w": torch.ones(1)}, tmp_path / names[1])
    both = saved(names[0], 1.0)
    assert saved(names[1], 3.0) != both
