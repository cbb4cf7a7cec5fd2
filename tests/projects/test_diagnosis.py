"""`taming doctor` finds what is there, names what is missing, and says what to do."""

import re
from pathlib import Path
from shutil import copytree

import pytest
import tiny
from packaging.requirements import Requirement
from typer.testing import CliRunner

from stages.cli import app
from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.params.load import Params, load_params, packaged_params
from taming_core.params.load import Params as config_Params
from taming_core.projects import diagnosis, fit, memory, profiles
from taming_core.weights.mini import MINI

DEFAULT = load_params(packaged_params())


def params(profile: str, memory: int | None, folder: Path) -> config_Params:
    (folder / "params.yaml").write_text(profiles.params_text(profile, memory))
    return load_params(folder / "params.yaml")


def missing(found: list[diagnosis.Check]) -> dict[str, str]:
    return {check.what: check.remedy for check in found if not check.ok}


def test_the_default_lacks_nothing() -> None:
    found = [
        *diagnosis.software_checks(DEFAULT),
        *diagnosis.machine_checks("cpu", DEFAULT),
        *diagnosis.model_checks(DEFAULT),
    ]
    assert missing(found) == {}
    assert {"python", "torch", "detect.detector", "evaluate.text_judge"} <= {c.what for c in found}


def test_every_model_of_a_profile_is_named_with_what_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    p = params("sd15", 80, tmp_path)
    lacking = missing(list(diagnosis.model_checks(p)))
    assert list(lacking) == [model.key for model in diagnosis.named_models(p)]
    assert "hf download openai/clip-vit-large-patch14" in lacking["caption.attributes.model"]
    assert "sam_vit_h_4b8939.pth into" in lacking["detect.segmenter"]
    assert f"hf download {p.train.base}" in lacking["train.base"]
    (tmp_path / "sam_vit_h_4b8939.pth").write_bytes(b"")
    assert "detect.segmenter" not in missing(list(diagnosis.model_checks(p)))


def test_a_captioner_that_is_asked_is_a_model_or_a_server() -> None:
    def lacking(captioner: str) -> dict[str, str]:
        caption = DEFAULT.caption.model_copy(update={"captioner": captioner})
        return missing(list(diagnosis.model_checks(DEFAULT.model_copy(update={"caption": caption}))))

    assert "hf download nobody/nothing" in lacking("vlm:nobody/nothing")["caption.captioner"]
    assert lacking(f"vlm:{MINI / 'captioner'}") == {}
    assert lacking("vlm:http://127.0.0.1:9/v1#x")["caption.captioner"] == "Start the server, or correct the URL."


def test_a_folder_whose_networks_have_no_weights_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/config.json").write_text("{}")
    p = DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update={"start": str(tmp_path)})})
    assert "train.start" in missing(list(diagnosis.model_checks(p)))
    (tmp_path / "unet/model.safetensors").write_bytes(b"")
    assert "train.start" not in missing(list(diagnosis.model_checks(p)))


def test_a_base_is_judged_as_training_judges_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    tiny.pipeline().save_pretrained(whole)
    (tmp_path / "file.safetensors").write_bytes(b"weights")
    (tmp_path / "empty").mkdir()
    copytree(whole, tmp_path / "half")
    (tmp_path / "half/unet/diffusion_pytorch_model.safetensors").unlink()
    for name, right in {"whole": True, "file.safetensors": False, "empty": False, "half": False}.items():
        spec = str(tmp_path / name)
        p = DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update={"start": None, "base": spec})})
        remedy = missing(list(diagnosis.model_checks(p))).get("train.base")
        assert (remedy is None) == right
        if right:
            load_base(spec)
            continue
        with pytest.raises(TamingError) as error:
            load_base(spec)
        assert remedy == str(error.value) or name == "half"


def test_a_package_of_another_version_is_named() -> None:
    check = diagnosis.package_check(Requirement("torch>=1,<2"))
    assert not check.ok
    assert check.remedy == "pip install 'torch<2,>=1'"
    assert diagnosis.package_check(Requirement("no-such-package>=1")).found == "not installed"


def test_eight_bits_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    train = DEFAULT.train.model_copy(update={"optimizer": "adamw8bit"})
    p = DEFAULT.model_copy(update={"train": train})
    monkeypatch.setattr(diagnosis, "installed_version", lambda _: None)
    assert "pip install" in missing(list(diagnosis.software_checks(p)))["bitsandbytes"]
    assert "bitsandbytes" not in missing(list(diagnosis.software_checks(DEFAULT)))


def test_a_salient_object_segmenter_needs_its_file_and_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    p = DEFAULT.model_copy(
        update={"detect": DEFAULT.detect.model_copy(update={"detector": "none", "segmenter": "isnet"})}
    )
    lacking = missing(list(diagnosis.model_checks(p)))
    assert re.search(r"Download https://\S+\.onnx into .* \(licence MIT or Apa", lacking["detect.segmenter"])
    assert "detect.detector" not in {model.key for model in diagnosis.named_models(p)}
    (tmp_path / "isnet.onnx").write_bytes(b"")
    assert missing(list(diagnosis.model_checks(p))) == {}
    found = {check.what: check for check in diagnosis.software_checks(p)}
    assert found["onnxruntime"].ok
    assert "CPU" in found["onnxruntime"].found
    monkeypatch.setattr(diagnosis, "find_spec", lambda _: None)
    assert "taming[onnx]" in missing(list(diagnosis.software_checks(p)))["onnxruntime"]
    assert "onnxruntime" not in {check.what for check in diagnosis.software_checks(DEFAULT)}


def test_half_precision_needs_a_gpu() -> None:
    p = DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update={"precision": "fp16"})})
    assert "bf16" in missing(list(diagnosis.machine_checks("cpu", p)))["fp16"]


def test_what_does_not_fit_says_what_to_lower() -> None:
    there = diagnosis.memory_capacity("cpu")
    assert diagnosis.memory_check(there / 2, "cpu").ok
    assert "micro_batch_size" in missing([diagnosis.memory_check(there * 2, "cpu")])["training memory"]


def test_the_command_says_so_by_its_exit_status(tmp_path: Path) -> None:
    params("flux", None, tmp_path)
    with pytest.raises(TamingError, match=r"train\.base"):
        CliRunner().invoke(
            app, ["doctor", "--params", str(tmp_path / "params.yaml"), "--no-fit"], catch_exceptions=False
        )


def test_the_command_computes_whether_the_training_fits(tmp_path: Path) -> None:
    tiny.pipeline("decoupled").save_pretrained(tmp_path / "start")
    changes = {
        "start": str(tmp_path / "start"), "identity_weight": 0.0, "identity_network": None,
        "identity_max_timestep": None,
    }  # fmt: skip
    text = profiles.with_values(packaged_params().read_text(), {"train": changes})
    (tmp_path / "params.yaml").write_text(text)
    done = CliRunner().invoke(app, ["doctor", "--params", str(tmp_path / "params.yaml")], env={"COLUMNS": "150"})
    assert done.exit_code == 0, done.output
    assert re.search(r"ok +training memory +\d+\.\d of \d+\.\d GiB", done.output)


def test_what_fits_is_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[tuple[Params, int]] = []

    def need(p: Params, processes: int) -> memory.MemoryNeed:
        asked.append((p, processes))
        return memory.MemoryNeed(len(asked), 0, 0, 0)

    monkeypatch.setattr(memory, "memory_need", need)
    other = DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update={"micro_batch_size": 1})})
    found = [
        fit.cached_memory_need(p, n) for p, n in ((DEFAULT, 1), (DEFAULT, 1), (other, 1), (DEFAULT, 1), (other, 2))
    ]
    assert asked == [(DEFAULT, 1), (other, 1), (other, 2)]
    assert found == [memory.MemoryNeed(n, 0, 0, 0).total for n in (1, 1, 2, 1, 3)]


def test_configs_of_local_models_count(tmp_path: Path) -> None:
    p = DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update={"start": str(tmp_path)})})
    before = fit.cache_key(p)
    (tmp_path / "config.json").write_text("{}")
    assert fit.cache_key(p) != before
