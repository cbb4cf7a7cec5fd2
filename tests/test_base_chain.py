"""Every family of base models goes the whole way: train, go on after a crash, evaluate, generate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bases
import yaml
from PIL import Image
from safetensors.torch import load_file
from test_bases import tower

from stages.evaluate import evaluate
from stages.generate import generate
from stages.train import train
from taming_core import checkpoint, config
from taming_core.customize import TamingPipeline

FRESH = {
    "start": None, "background": "removed", "tune": "adapter", "denoiser_rate": 0.0, "steps": 4, "batch_size": 4,
    "micro_batch_size": 2, "save_every": 2, "warmup": 0, "learning_rate": 1.0e-2, "general": 0.25,
    "encoder": {"projector": "resampler", "tokens": 3, "tower_blocks": 0}, "min_snr": None,
}  # fmt: skip
SCENES = {"scenes": ["on the beach"], "styles": [], "objects": 1, "control_objects": 1, "split": "validation"}


def project(folder: Path, family: str, **values: Any) -> None:
    """A folder with rows, a base, and params."""
    params = yaml.safe_load(config.packaged_params().read_text())
    base = {"base": tiny_bases.saved(family, folder / "base"), "identity_network": tiny.clip(folder / "clip")}
    params["train"] |= {**FRESH, **base, "identity_max_timestep": 1000, **values}
    params["train"]["encoder"] |= {"tower": tower()}
    params["train"]["validation"] |= {"every": 4, "objects": 1, "prompts": ["a photo of a <object> on the beach"]}
    scheduler = "FlowMatchEulerDiscreteScheduler" if family in ("sd3", "flux") else "DDIMScheduler"
    sampling = {"scheduler": scheduler, "steps": 2, "guidance_object": 2.0, "guidance_text": 2.0, "batch_size": 2}
    params["train"]["validation"]["sampling"] = params["generate"]["sampling"] = sampling
    params["evaluate"] |= {**SCENES, "sampling": sampling}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    tiny.write_rows(folder / "data/rows", validation=2)


def trained(folder: Path, out: str) -> dict[str, bytes]:
    train(Path("data/rows"), Path(out), Path("params.yaml"), "cpu")
    return {str(p.relative_to(folder / out)): p.read_bytes() for p in sorted((folder / out).rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("family", "injection"), [("sd15", "decoupled"), ("sdxl", "decoupled"), ("sd3", "concat"), ("flux", "decoupled")]
)
def test_a_base_goes_the_whole_way(
    family: str, injection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, family, injection=injection)
    save = checkpoint.save

    def crash(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, "data/encoder")
    monkeypatch.setattr(checkpoint, "save", save)
    assert len(list((tmp_path / "runs").glob("train-*/state-000002"))) == 1
    resumed = trained(tmp_path, "data/encoder")
    whole = trained(tmp_path, "again")
    assert resumed.keys() == whole.keys()
    assert {n for n in whole if resumed[n] != whole[n]} == {"README.md"}  # which names the folder

    encoder = load_file("data/encoder/object_encoder/diffusion_pytorch_model.safetensors")
    if injection == "decoupled":
        assert all(w.any() for n, w in encoder.items() if n.endswith("to_v.weight"))
    assert type(TamingPipeline.from_pretrained("data/encoder")).__name__.startswith("Taming")

    evaluate("data/encoder", Path("data/rows"), Path("data/evaluation"), Path("params.yaml"), "cpu")
    assert (tmp_path / "data/evaluation/report.html").is_file()

    photo, mask = tiny.picture(5, 0)
    Image.fromarray(np.dstack([photo, mask * np.uint8(255)])).save("thing.png")
    generate(
        [Path("thing.png")], ["a photo of a <object> on the beach"], Path("out"), None, encoder="data/encoder",
        params=Path("params.yaml"), device="cpu", width=48, height=32,
    )  # fmt: skip
    assert Image.open(next(p for p in Path("out").glob("thing-*.png"))).size == (48, 32)
