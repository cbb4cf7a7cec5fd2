"""The encoder folder holds what was trained, and its base has the rest: what it weighs, and how it opens anywhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_bases
import torch
import yaml
from base_pipelines import tower
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.export import export
from stages.train import train
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.model import lora
from taming_core.params.load import load_params, packaged_params
from taming_core.projects import architectures, diagnosis
from taming_core.training import checkpoint, feature_cache, start, trained_weights

ADAPTER = {"tune": "adapter", "denoiser_rate": 0.0}
LORA = {"tune": "lora", "denoiser_rate": 0.5, "lora": {"rank": 2, "alpha": 2.0}}
FRESH = {
    "start": None, "background": "removed", "steps": 2, "batch_size": 2, "micro_batch_size": 2, "save_every": 2,
    "warmup": 0, "learning_rate": 1.0e-2, "regularization": 0.0, "min_snr": None, "identity_weight": 0.0,
    "identity_network": None, "identity_max_timestep": None, "injection": "decoupled",
}  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, and a cache of this machine that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    tiny.write_rows(Path("data/rows"), regularization=0)
    return tmp_path / "project"


def write_params(base: str | None = "base", **values: Any) -> None:
    params = yaml.safe_load(packaged_params().read_text())
    encoder = {"tokens": 4, "tower_blocks": 0, "tower": tower(), "projector": "linear"}
    fresh: dict[str, Any] = {**FRESH, "base": base, "encoder": encoder}
    if "start" in values:
        fresh |= dict.fromkeys(("base", "encoder", "injection", "background", "layers"))
    config = Path("base/transformer/config.json")
    distilled = config.is_file() and json.loads(config.read_text()).get("guidance_embeds", False)
    params["train"] |= {**fresh, **ADAPTER, "guidance": 3.5 if distilled else None, **values}
    params["train"]["validation"] |= {"every": 0}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def trained(out: str, base: str | None = "base", **values: Any) -> Path:
    """A folder that `taming train` wrote with these params."""
    options = {name: values.pop(name) for name in ("standalone",) if name in values}
    write_params(base, **values)
    train(Path("data/rows"), Path(out), Path("params.yaml"), "cpu", **options)
    return Path(out)


def networks(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/*.safetensors")} - {"lora"}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def weights(pipeline: TamingPipeline) -> dict[str, Tensor]:
    parts = {n: part for n, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{n}.{key}": value for n, part in parts.items() for key, value in part.state_dict().items()}


def assert_same(found: Path, expected: Path, tolerance: float = 2e-3) -> None:
    """The pipelines of both folders; one of them has its frozen weights in half precision."""
    one, other = (weights(load_pipeline(str(folder))) for folder in (found, expected))
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_an_adapter_is_saved_alone_and_opens_as_the_whole(family: str) -> None:
    tiny_bases.saved(family, Path("base"))
    kinds = {"cache": ["latents", "text", "tower"]}
    small, whole = trained("small", **kinds), trained("whole", standalone=True, **kinds)
    assert networks(small) == {"object_encoder"}
    assert sorted(p.name for p in small.iterdir() if p.is_dir()) == ["object_encoder", "scheduler"]
    assert size(small) < 0.6 * size(whole)
    index = json.loads((small / "model_index.json").read_text())
    assert index["_base"]["name"] == "base"
    assert index["_base"]["weights"].keys() == networks(whole) - {"object_encoder"}
    assert "_base" not in json.loads((whole / "model_index.json").read_text())
    assert "those of the base `base`" in (small / "README.md").read_text()
    assert_same(small, whole)


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_a_lora_is_saved_beside_the_adapter_and_is_in_the_weights_that_open(family: str) -> None:
    tiny_bases.saved(family, Path("base"))
    small, whole = trained("small", **LORA), trained("whole", **LORA, standalone=True)
    assert networks(small) == {"object_encoder"}
    assert (small / lora.FILE).is_file()
    assert_same(small, whole)
    name = "unet" if family == "sd15" else "transformer"
    plain = DiffusionPipeline.from_pretrained("base").components[name].state_dict()
    opened = load_pipeline("small").components[name].state_dict()
    assert max(float((opened[n] - w).abs().max()) for n, w in plain.items()) > 1e-3


@pytest.mark.parametrize(("family", "denoiser"), [("sdxl", "unet"), ("sd3", "transformer")])
def test_what_is_trained_as_a_whole_is_saved_as_a_whole(family: str, denoiser: str) -> None:
    tiny_bases.saved(family, Path("base"))
    how = {"tune": "whole", "denoiser_rate": 0.5, "text_encoder_rate": 0.5}
    small, whole = trained("small", **how), trained("whole", **how, standalone=True)
    assert networks(small) == {"object_encoder", denoiser, "text_encoder", "text_encoder_2"}
    assert (small / "tokenizer_2").is_dir()
    assert_same(small, whole)


def test_a_trained_t5_is_saved_with_its_shared_weights() -> None:
    model = tiny_bases.t5()
    named = {name: w.detach() + 1 for name, w in model.named_parameters()}
    trained_weights.save_network(trained_weights.with_weights(model, named), Path("t5"))
    again = type(model).from_pretrained("t5", dtype=torch.float32)
    for name, w in again.named_parameters():
        torch.testing.assert_close(w, named[name], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("second", [LORA, ADAPTER, {"tune": "whole", "denoiser_rate": 0.5}], ids=lambda v: v["tune"])
def test_a_training_that_continues_one_has_its_base(second: dict[str, Any]) -> None:
    """An adapter keeps the first LoRA, a LoRA is added to it, and the whole denoiser is saved with it."""
    tiny_bases.saved("sd15", Path("base"))
    trained("first", **LORA)
    small = trained("small", start="first", **second)
    assert json.loads((small / "model_index.json").read_text())["_base"]["name"] == "base"
    assert networks(small) == {"object_encoder"} | ({"unet"} if second["tune"] == "whole" else set())
    assert_same(small, trained("whole", start="first", **second, standalone=True), 5e-3)
    if second["tune"] != "whole":
        ranks = {w.shape[0] for n, w in load_file(small / lora.FILE).items() if "lora.down" in n or "lora_A" in n}
        assert ranks == {4 if second["tune"] == "lora" else 2}


def test_a_training_that_continues_a_whole_one_keeps_its_networks() -> None:
    tiny_bases.saved("sd15", Path("base"))
    trained("first", tune="whole", denoiser_rate=0.5)
    small = trained("small", start="first", **LORA)
    assert networks(small) == {"object_encoder", "unet"}
    assert_same(small, trained("whole", start="first", **LORA, standalone=True))


def test_mini_and_folders_with_everything_give_folders_with_everything() -> None:
    tiny.pipeline("decoupled").save_pretrained("start")
    assert networks(trained("small", start="start")) == {"object_encoder", "unet", "vae", "text_encoder"}
    assert "_base" not in json.loads(Path("small/model_index.json").read_text())


def moved(base: str, to: str) -> None:
    shutil.move(base, to)


def damaged(base: str) -> None:
    """One weight of one network."""
    path = Path(base) / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_out.bias"][0] += 1e-3
    save_file(tensors, path, {"format": "pt"})


def test_the_base_is_found_by_name_beside_the_encoder_or_by_the_option(project: Path) -> None:
    tiny_bases.saved("sd15", project / "base")
    small = trained("data/encoder")
    expected = weights(load_pipeline(str(small)))
    shutil.rmtree(project.parent / "cache")  # as on another machine
    moved("base", "data/base")
    assert torch.equal(weights(load_pipeline(str(small)))["vae.decoder.conv_out.bias"],
                       expected["vae.decoder.conv_out.bias"])  # fmt: skip
    shutil.rmtree(project.parent / "cache")
    moved("data/base", "elsewhere")
    with pytest.raises(TamingError, match=r"data/encoder was trained on the base base, which was not found. Put it .*"
                                          r", or name its folder with --base\."):  # fmt: skip
        load_pipeline(str(small))
    opened = TamingPipeline.from_pretrained(small, base="elsewhere")
    assert weights(opened).keys() == expected.keys()
    assert weights(load_pipeline(str(small))).keys() == expected.keys()  # this machine knows now where it is


def test_an_absolute_path_is_known_to_this_machine_and_not_to_the_folder(project: Path) -> None:
    base = tiny_bases.saved("sd15", project.parent / "models/sd")
    small = trained("data/encoder", base)
    assert load_pipeline(str(small)).base is not None
    texts = [p.read_text() for p in small.rglob("*") if p.suffix in (".json", ".jsonl", ".md")]
    assert not [text for text in texts if str(project.parent) in text]
    assert json.loads((small / "model_index.json").read_text())["_base"]["name"] == "sd"
    shutil.rmtree(project.parent / "cache")
    with pytest.raises(TamingError, match="trained on the base sd, which was not found"):
        load_pipeline(str(small))


def test_a_base_with_one_other_weight_is_refused_and_so_is_one_that_is_not_needed() -> None:
    tiny_bases.saved("sd15", Path("base"))
    small, whole = trained("small"), trained("whole", standalone=True)
    damaged("base")
    with pytest.raises(TamingError, match=r"The weights of vae in the base base are not those that small was trained"):
        load_pipeline(str(small))
    with pytest.raises(TamingError, match=r"whole holds all of its components, so that --base has no effect. Leave"):
        load_pipeline(str(whole), base="base")
    with pytest.raises(TamingError, match=r"--base has no effect without train.start"):
        train(Path("data/rows"), Path("small"), Path("params.yaml"), "cpu", base="base")


def calls_of(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The arguments of each call of a function, which still does what it does."""
    made, function = list[Any](), getattr(module, name)

    def noted(*given: Any, **more: Any) -> Any:
        made.append(given)
        return function(*given, **more)

    monkeypatch.setattr(module, name, noted)
    return made


def test_a_base_is_loaded_once_and_its_weights_are_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_bases.saved("flux", Path("base"))
    loads = calls_of(monkeypatch, start, "load_base")
    hashed = calls_of(monkeypatch, checkpoint, "weight_bytes")
    trained("small", cache=["latents", "text"])
    assert len(loads) == 1
    assert [type(network).__name__ for (network,) in hashed] == ["ObjectEncoder"]


def state(values: dict[str, Any]) -> tuple[str, str]:
    """The names of a run and of a cache that the params give."""
    write_params(**values)
    p = load_params(Path("params.yaml")).train
    pipeline = start.starting_pipeline(p, start.running_dtypes(p))
    model = start.subject_model(pipeline.components, start.weight_digests(pipeline))
    origin = checkpoint.origin_of(Path("data/rows"), model)
    return checkpoint.fingerprint(p, origin), feature_cache.folder_name("latents", model, p)


@pytest.mark.parametrize("standalone", [False, True])
def test_another_weight_is_another_run_and_another_cache(standalone: bool) -> None:
    tiny_bases.saved("sd15", Path("base"))
    before = state({})
    assert state({}) == before
    trained("first", standalone=standalone, **LORA)
    continued = state({"start": "first"})
    path = Path("first" if standalone else "base")
    damaged(str(path))
    if standalone:
        again = state({"start": "first"})
    else:
        again = state({})
        continued = before
    assert all(a != b for a, b in zip(again, continued, strict=True))


def test_frozen_networks_are_loaded_in_the_precision_they_run_in() -> None:
    tiny_bases.saved("flux", Path("base"))
    write_params(precision="bf16", cache=["latents"])
    p = load_params(Path("params.yaml")).train
    pipeline = start.starting_pipeline(p, start.running_dtypes(p))
    found = {n: {w.dtype for w in part.parameters()} for n, part in pipeline.components.items()
             if isinstance(part, torch.nn.Module)}  # fmt: skip
    assert found == {
        **{n: {torch.bfloat16} for n in ("vae", "text_encoder", "text_encoder_2", "transformer")},
        "object_encoder": {torch.float32},
    }
    whole = p.model_copy(update={"tune": "whole", "text_encoder_rate": 0.5, "precision": "fp16"})
    full = {n for n, dtype in start.running_dtypes(whole).items() if dtype == torch.float32}
    assert full == {"default", "vae", "unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"}


def test_doctor_and_the_memory_estimate_look_at_the_base() -> None:
    tiny_bases.saved("sd15", Path("base"))
    small = trained("small")
    checks = list(diagnosis.base_checks(small))
    assert [(c.what, c.found, c.ok) for c in checks] == [("base of train.start", "base", True)]
    assert {"unet", "vae", "text_encoder", "object_encoder", "scheduler"} <= architectures.pipeline_configs(
        "small"
    ).keys()
    moved("base", "elsewhere")
    shutil.rmtree(Path("../cache"))
    (check,) = diagnosis.base_checks(small)
    assert not check.ok
    assert "or name its folder with --base" in check.remedy


@pytest.mark.parametrize("how", [ADAPTER, LORA], ids=["adapter", "lora"])
def test_it_is_exported_as_the_whole_is(how: dict[str, Any]) -> None:
    tiny_bases.saved("sd15", Path("base"))
    small, whole = trained("small", **how), trained("whole", **how, standalone=True)

    def names(out: str) -> set[str]:
        return {str(p.relative_to(out)) for p in Path(out).rglob("*.safetensors")}

    for to in ("diffusers", *(["lora"] if how is LORA else [])):
        for encoder, out in ((small, "a"), (whole, "b")):
            export(to, Path(out), str(encoder))
        assert names("a") == names("b")
        one, other = (load_file(Path(out) / min(names(out))) for out in ("a", "b"))
        assert all(torch.allclose(one[n].float(), w.float(), atol=5e-3) for n, w in other.items())
    assert "| base | base |" in Path("a/README.md").read_text()


def snapshot(cache: Path, name: str, commit: str) -> Path:
    """The folder of a repository in the hub's cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    return repository / "snapshots" / commit


def test_encoder_and_base_may_be_on_the_hub(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(project.parent / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = snapshot(project.parent / "hub", "owner/sd", 40 * "a")
    tiny_bases.saved("sd15", base)
    small = trained("small", "owner/sd", **LORA)
    record = load_pipeline(str(small)).base
    assert record is not None
    assert (record.name, record.revision) == ("owner/sd", 40 * "a")
    assert "base_model: owner/sd\n" in (small / "README.md").read_text()

    shutil.copytree(small, snapshot(project.parent / "hub", "me/encoder", 40 * "b"))
    one, other = weights(TamingPipeline.from_pretrained("me/encoder")), weights(load_pipeline(str(small)))
    assert one.keys() == other.keys()
    assert all(torch.equal(other[name], value) for name, value in one.items())
    (base.parents[1] / "refs/main").write_text(40 * "c")  # the base's newest commit is another now
    assert load_pipeline(str(small)).base == record
    shutil.rmtree(base)
    with pytest.raises(
        TamingError, match=r"the base owner/sd, which was not found. Run `hf download owner/sd`, or name"
    ):
        load_pipeline(str(small))
