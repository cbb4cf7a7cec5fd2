"""Every family of base models goes the whole way: train, crash, go on, evaluate, generate, export, load elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bases
import torch
import yaml
from base_pipelines import tower
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from stages.evaluate import evaluate
from stages.export import export
from stages.generate import generate
from stages.train import train
from taming_core.images.families import TamingPipeline
from taming_core.model.inputs import subject_pixels
from taming_core.params.load import packaged_params
from taming_core.training import checkpoint

FRESH = {
    "start": None, "background": "removed", "tune": "adapter", "denoiser_rate": 0.0, "steps": 4, "batch_size": 4,
    "micro_batch_size": 2, "save_every": 2, "warmup": 0, "learning_rate": 1.0e-2, "regularization": 0.25,
    "encoder": {"tokens": 4, "tower_blocks": 0}, "min_snr": None,
}  # fmt: skip
SCENES = {"scenes": ["on the beach"], "styles": [], "objects": 1, "control_objects": 1, "split": "validation"}


def project(folder: Path, family: str, projector: str, **values: Any) -> None:
    """A folder with rows, a base, and params."""
    params = yaml.safe_load(packaged_params().read_text())
    base = {"base": tiny_bases.saved(family, folder / "base"), "identity_network": tiny.clip(folder / "clip")}
    params["train"] |= {**FRESH, **base, "identity_max_timestep": 1000, **values}
    params["train"]["guidance"] = [2.0, 4.0] if family == "flux" else None
    params["train"]["encoder"] |= {"tower": tower(), "projector": projector}
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
    ("family", "injection", "projector"),
    [
        ("sd15", "decoupled", "resampler"),
        ("sdxl", "decoupled", "linear"),
        ("sd3", "concat", "resampler"),
        ("flux", "decoupled", "linear"),
    ],
)
def test_a_base_goes_the_whole_way(
    family: str, injection: str, projector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, family, projector, injection=injection)
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

    (tmp_path / "base").rename("elsewhere")  # as on another machine
    evaluate("data/encoder", Path("data/rows"), Path("data/evaluation"), Path("params.yaml"), "cpu", base="elsewhere")
    assert (tmp_path / "data/evaluation/report.html").is_file()

    photo, mask = tiny.picture(5, 0)
    Image.fromarray(np.dstack([photo, mask * np.uint8(255)])).save("thing.png")
    generate(
        [Path("thing.png")], ["a photo of a <object> on the beach"], Path("out"), None, encoder="data/encoder",
        params=Path("params.yaml"), device="cpu", width=48, height=32,
        precision="bf16", base="elsewhere",
    )  # fmt: skip
    assert Image.open(next(p for p in Path("out").glob("thing-*.png"))).size == (48, 32)

    export("diffusers", Path("exported"), "data/encoder", base="elsewhere", dtype="fp32")
    drawn_elsewhere(family, injection)


def drawn_elsewhere(family: str, injection: str) -> None:
    """Stock diffusers draws with the exported folder what TamingPipeline draws with the encoder's."""
    ours, theirs = TamingPipeline.from_pretrained("data/encoder"), DiffusionPipeline.from_pretrained("exported")
    assert type(theirs) is tiny_bases.STOCK[family]
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
    prompt, noise = "a photo of a <object>", [torch.Generator().manual_seed(0) for _ in range(3)]
    z = ours.encode_objects([Image.open("thing.png").resize((32, 32))])
    call: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    unguided = {"guidance_object": 1.0, "guidance_text": 1.0}
    plain = ours(prompt, **call, **unguided, generator=noise[0]).images
    shown = ours(prompt, object_embeds=z, **call, **unguided, generator=noise[1]).images
    assert np.abs(shown - plain).max() > 1e-3
    told: dict[str, Any] = {"guidance_scale": 3.5 if family == "flux" else 1.0}
    if injection == "decoupled":
        there: dict[str, Any] = {"subfolder": "", "weight_name": "ip_adapter.safetensors"}
        if family == "flux":  # whose loader looks for it at the hub
            there["image_encoder_pretrained_model_name_or_path"] = None
        theirs.load_ip_adapter("exported/ip_adapter", **there)
        told |= {"prompt": prompt, "ip_adapter_image_embeds": [tower_states(ours)]}
    else:  # the object's tokens follow the text's
        text = ours.encode_text([prompt])
        told |= {"prompt_embeds": torch.cat([text.states, z], 1), "pooled_prompt_embeds": text.pooled}
    if family == "flux":
        told["max_sequence_length"] = tiny_bases.T5_LENGTH
        told["negative_ip_adapter_image_embeds"] = [torch.zeros_like(tower_states(ours))]  # else it wants a tower
    found = theirs(**told, **call, generator=noise[2]).images
    assert np.abs(found - shown).max() < 1e-5


def tower_states(pipeline: TamingPipeline) -> torch.Tensor:
    """What the image encoder says of the picture, (1, 1, ...), as `load_ip_adapter` wants it."""
    encoder = pipeline.object_encoder
    picture = subject_pixels(Image.open("thing.png").resize((32, 32)), encoder.image_size)[None]
    mean, std = (picture.new_tensor(encoder.config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        said = encoder.vision(pixel_values=((picture + 1) / 2 - mean) / std, output_hidden_states=True)
    return (said.hidden_states[-2] if encoder.config["projector"] == "resampler" else said.pooler_output)[None]
