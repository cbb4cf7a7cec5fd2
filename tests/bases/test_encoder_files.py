"""An encoder folder that lacks something is named before it is loaded, by doctor as by the commands that load it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from taming_core.bases.encoder_files import require_encoder
from taming_core.errors import TamingError
from taming_core.images.families import load_pipeline
from taming_core.projects.diagnosis import start_checks
from taming_core.weights.mini import PIPELINE


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


WEIGHTS = "object_encoder/diffusion_pytorch_model.safetensors"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no unet": (lambda folder: shutil.rmtree(folder / "unet"), "unet is missing"),
    "no object encoder": (lambda folder: shutil.rmtree(folder / "object_encoder"), "object_encoder is missing"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer is missing"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "object_encoder has no weights"),
    "cut weights": (lambda folder: cut(folder / WEIGHTS), rf"{WEIGHTS} is damaged"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), rf"{WEIGHTS} is damaged"),
    "index alone": (lambda folder: [shutil.rmtree(p) for p in folder.iterdir() if p.is_dir()], "is missing"),
    "list for an index": (lambda folder: (folder / "model_index.json").write_text("[]", encoding="utf-8"), "no comp"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(PIPELINE, folder)
    damaged, message = DAMAGES[damage]
    damaged(folder)
    with pytest.raises(TamingError, match=rf"encoder is no whole encoder: .*{message}"):
        load_pipeline(str(folder))
    (check,) = start_checks(str(folder))
    assert not check.ok
    assert "is no whole encoder" in check.remedy


def test_whole_folders_are(tmp_path: Path) -> None:
    assert require_encoder("mini") == PIPELINE
    shutil.copytree(PIPELINE, tmp_path / "encoder")
    assert list(start_checks(str(tmp_path / "encoder"))) == []
