"""An encoder as other programs open it: stock diffusers draws with the files what TamingPipeline draws."""

import json
import re
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import tiny_bases
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPImageProcessor
from typer.testing import CliRunner

from stages.cli import app
from taming_core import fingerprints
from taming_core.bases.families import family_of
from taming_core.bases.placeholder import add_placeholder_token
from taming_core.errors import TamingError
from taming_core.exports import base_change, export, hub, ip_adapter, lora_extraction
from taming_core.exports.options import ExportOptions, require_valid
from taming_core.images.families import TamingPipeline, assemble, load_pipeline
from taming_core.model import lora
from taming_core.model.attention import layer_channels
from taming_core.model.inputs import subject_pixels
from taming_core.model.object_encoder import ObjectEncoder, frozen_zero_biases
from taming_core.model.subject_model import freeze_tower
from taming_core.params.train import LoraParams
from taming_core.training.encoder_folder import VERSION
from taming_core.training.start import init_injected_layers

PROMPT = "a photo of a object on the beach"
SIDE = tiny.SIDE
NORMAL = {"mean": (0.5, 0.4, 0.6), "std": (0.5, 0.3, 0.4)}  # not CLIP's
KINDS = {"base": ("linear", 4), "plus": ("resampler", 5)}


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are named as a user names them: from where he is."""
    monkeypatch.chdir(tmp_path)


def parts(family: str) -> dict[str, Any]:
    """A text-to-image model, to whose text encoders `<object>` is the word "object"."""
    found = tiny_bases.parts(family)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if name in found:
            tokenizer = found[name.replace("text_encoder", "tokenizer")]
            add_placeholder_token(tokenizer, found[name])
    return found


def tamed(projector: str = "linear", tokens: int = 4, family: str = "sd15", tower: dict[str, Any] = tiny.TOWER,
          injection: str = "decoupled", **settings: Any) -> TamingPipeline:  # fmt: skip
    """An encoder whose every weight says something, in half precision."""
    found = parts(family)
    kind = family_of(found)
    names = {
        n: c for n, c in layer_channels(kind.denoiser, injection).items() if "mid_block" not in n
    }  # not all see it
    encoder = ObjectEncoder(tower, projector, tokens, kind.width, injection, names, **{**NORMAL, **settings})
    init_injected_layers(encoder, kind.denoiser)
    still = {id(b) for b in frozen_zero_biases(encoder)}
    for weight in encoder.parameters():
        if id(weight) not in still:
            weight.data += torch.randn_like(weight) * 0.2
    made = assemble(found, encoder.eval())
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.half(part)
    return made


def saved(pipeline: TamingPipeline, folder: Path, tune: str = "adapter", **params: Any) -> str:
    """The encoder's folder, as training leaves it, and beside it the folder `base`."""
    if not (folder / "base").exists():
        export.stock_pipeline(pipeline).save_pretrained(folder / "base")
    pipeline.save_pretrained(folder / "encoder")
    told = {"start": None, "base": "base", "tune": tune, "steps": 6, "batch_size": 4}
    account = {"version": VERSION, "rows": "0123abcd", "object_rows": 7, "regularization_rows": 3}
    training = {"params": {**told, "text_encoder_rate": 0.0, **params}, **account}
    (folder / "encoder/training.json").write_text(json.dumps(training))
    return str(folder / "encoder")


def wish(to: Any, **values: Any) -> ExportOptions:
    return ExportOptions(
        **{"to": to, "base": None, "rank": None, "dtype": "fp32", "scores": None, "push": None, **values}
    )


def cutout() -> Image.Image:
    """Of the tower's size, so that nothing is resized."""
    rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
    rgba[6:28, 4:25] = np.random.default_rng(3).integers(0, 256, (22, 21, 4), np.uint8)
    rgba[6:28, 4:25, 3] = 255
    return Image.fromarray(rgba)


def on_grey() -> Image.Image:
    ground = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    ground.paste(cutout(), mask=cutout().getchannel("A"))
    return ground


def exact() -> torch.Tensor:
    """The subject as CLIP's processor would give it, were its grey not a whole number."""
    processor: Any = CLIPImageProcessor()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    return (((subject_pixels(cutout(), SIDE) + 1) / 2 - mean) / std)[None]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@cache
def loaded(folder: Path) -> Any:
    return load_pipeline(str(folder))


def ours(folder: str, guidance: float, **given: Any) -> NDArray[np.float32]:
    pipeline = loaded(Path(folder).resolve())
    both = {"guidance_object": guidance, "guidance_text": guidance, "num_inference_steps": 3}
    return pipeline(PROMPT, **both, generator=seeded(), output_type="np", **given).images


def stocks(pipeline: Any, guidance: float, **given: Any) -> NDArray[np.float32]:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(PROMPT, num_inference_steps=3, guidance_scale=guidance, generator=seeded(),
                    output_type="np", **given).images  # fmt: skip


def opened(place: Path) -> Any:
    return DiffusionPipeline.from_pretrained(place, dtype=torch.float32)


def hidden() -> dict[str, Any]:
    """Hides the null picture, as the card has it."""
    return {
        "cross_attention_kwargs": {"ip_adapter_masks": [torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 64, 64)]}
    }


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("kind", KINDS)
def test_stock_diffusers_draws_the_same_with_the_adapter(kind: str, family: str, tmp_path: Path) -> None:
    projector, tokens = KINDS[kind]
    folder = saved(tamed(projector, tokens, family), tmp_path)
    export.export(folder, tmp_path / "out", wish("ip-adapter"))
    stock = opened(tmp_path / "base")
    expected, unguided = (ours(folder, guidance, subject=cutout()) for guidance in (3.0, 1.0))
    assert np.abs(stocks(stock, 3.0) - expected).max() > 0.05  # the object is seen
    stock.load_ip_adapter(tmp_path / "out", subfolder="", weight_name=ip_adapter.FILE)
    assert np.abs(stocks(stock, 1.0, ip_adapter_image=exact()) - unguided).max() < 1e-5
    more = {} if kind == "base" else hidden()
    assert np.abs(stocks(stock, 3.0, ip_adapter_image=exact(), **more) - expected).max() < 1e-5
    # The ground's grey is 128 of 255, and not a half.
    assert np.abs(stocks(stock, 3.0, ip_adapter_image=on_grey(), **more) - expected).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_how_the_null_of_stock_diffusers_differs(kind: str, tmp_path: Path) -> None:
    pipeline = tamed(*KINDS[kind])
    if kind == "base":  # as an encoder of an earlier release has it
        pipeline.object_encoder.projection.norm.bias.data += 0.2
    folder = saved(pipeline, tmp_path)
    said = export.export(folder, tmp_path / "out", wish("ip-adapter"))
    assert "images differ if guidance_scale is not 1" in "".join(said)
    stock = opened(tmp_path / "base")
    stock.load_ip_adapter(tmp_path / "out", subfolder="", weight_name=ip_adapter.FILE)
    expected = ours(folder, 3.0, subject=cutout())
    assert np.abs(stocks(stock, 3.0, ip_adapter_image=exact()) - expected).max() > 0.01
    assert np.abs(stocks(stock, 3.0, ip_adapter_image=exact(), **hidden()) - expected).max() < 1e-5


def test_on_flux_stock_diffusers_draws_the_same_with_the_adapter(tmp_path: Path) -> None:
    folder = saved(tamed(family="flux"), tmp_path)
    said = export.export(folder, tmp_path / "out", wish("ip-adapter"))
    assert "zeros as `negative_ip_adapter_image_embeds`" in said[-1]
    sides = {"height": SIDE, "width": SIDE}
    expected = ours(folder, 1.0, subject=cutout(), **sides)
    stock = opened(tmp_path / "base")
    given = {**sides, "max_sequence_length": tiny_bases.T5_LENGTH}
    assert np.abs(stocks(stock, 3.5, **given) - expected).max() > 0.02  # the object is seen
    code = re.search(r"pipeline.load_ip_adapter\([^)]*\)", (tmp_path / "out/README.md").read_text())
    assert code is not None
    exec(code[0], {"pipeline": stock})
    assert np.abs(stocks(stock, 3.5, ip_adapter_image=exact(), **given) - expected).max() < 1e-5


def test_sd3_is_exported_as_a_folder_alone(tmp_path: Path) -> None:
    folder = saved(tamed(family="sd3"), tmp_path)
    with pytest.raises(TamingError, match="this is a SD3Transformer2DModel"):
        export.export(folder, tmp_path / "out", wish("ip-adapter"))
    export.export(folder, tmp_path / "out", wish("diffusers"))
    assert type(opened(tmp_path / "out")).__name__ == "StableDiffusion3Pipeline"
    assert np.array_equal(ours(folder, 2.0, subject=cutout()), ours("out", 2.0, subject=cutout()))


def run_card(out: Path) -> list[Image.Image]:
    """What each Python block of the card draws, where there is a picture of a cut-out."""
    cutout().save("cutout.png")
    found = []
    for block in re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL):
        block = block.replace("num_inference_steps=20", "num_inference_steps=2")  # to be quick about it
        block = block.replace("subject=subject)", "subject=subject, num_inference_steps=2)")
        # Whoever copies the code gets another image every time.
        exec(re.sub(r"^((image = )?pipeline\()", r"import torch; torch.manual_seed(5)\n\1", block, flags=re.M), {})
        found.append(Image.open("image.png").copy())
    return found


def metadata(out: Path) -> dict[str, Any]:
    return ModelCard.load(out / "README.md").data.to_dict()


def test_one_folder_opens_in_both_programs(tmp_path: Path) -> None:
    folder = saved(tamed("resampler", 5), tmp_path)
    export.export(folder, tmp_path / "out", wish("diffusers", dtype="fp16"))
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert "object_encoder" not in index  # else the hub's loader of stock diffusers would look for its code
    assert np.array_equal(ours(folder, 3.0, subject=cutout()), ours(str(tmp_path / "out"), 3.0, subject=cutout()))
    assert type(opened(tmp_path / "out")).__name__ == index["_class_name"]
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "out").rglob("*.json"))
    mine, theirs = (np.asarray(image, np.float32) for image in run_card(tmp_path / "out"))
    assert np.abs(mine - theirs).mean() < 3  # of 255: both in the card's own words, with half a grey between them


def test_a_folder_of_another_design_is_a_text_to_image_model_to_others(tmp_path: Path) -> None:
    folder = saved(tamed("resampler", 5, injection="concat"), tmp_path)
    said = export.export(folder, tmp_path / "out", wish("diffusers"))
    assert said[1] == "Stock diffusers loads it as a text-to-image model; objects need TamingPipeline."
    assert not (tmp_path / "out/ip_adapter").exists()
    assert len(run_card(tmp_path / "out")) == 2
    with pytest.raises(TamingError, match=r"this encoder is concat. Export it with --to diffusers"):
        export.export(folder, tmp_path / "adapter", wish("ip-adapter"))
    assert not list(tmp_path.glob("adapter*"))


def changed(tmp_path: Path) -> TamingPipeline:
    """An encoder whose denoiser was tuned as a whole: matrices, convolutions and biases."""
    pipeline = tamed()
    saved(pipeline, tmp_path)
    torch.manual_seed(3)
    for weight in pipeline.unet.parameters():
        weight.data += (torch.randn_like(weight) * 0.02).half()
    return pipeline


def test_of_a_denoiser_tuned_as_a_whole_a_lora_stands_beside_the_adapter(tmp_path: Path) -> None:
    folder = saved(changed(tmp_path), tmp_path, tune="whole")
    with pytest.raises(TamingError, match="Give the --rank of a LoRA to extract from it"):
        export.export(folder, tmp_path / "out", wish("ip-adapter"))
    said = export.export(folder, tmp_path / "out", wish("ip-adapter", rank=64))
    kept = [float(x) for x in re.findall(r"([\d.]+)%", "".join(said))]
    assert 95 < kept[0] <= kept[1] < 100  # biases are not in it
    expected = ours(folder, 3.0, subject=cutout())
    stock = opened(tmp_path / "base")
    stock.load_lora_weights(tmp_path / "out", weight_name=base_change.LORA)
    stock.load_ip_adapter(tmp_path / "out", subfolder="", weight_name=ip_adapter.FILE)
    found = stocks(stock, 3.0, ip_adapter_image=exact())
    stock.disable_lora()
    without = stocks(stock, 3.0, ip_adapter_image=exact())
    print(f"with the LoRA {np.abs(found - expected).max():.4f}, without {np.abs(without - expected).max():.4f}")
    assert np.abs(found - expected).max() < 0.25 * np.abs(without - expected).max()
    assert len(run_card(tmp_path / "out")) == 1


def test_the_lora_of_a_rank_is_the_best_there_is() -> None:
    torch.manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        change = torch.randn(shape)
        down, up, share = lora_extraction.low_rank(change, 5)
        u, s, v = torch.linalg.svd(change)
        best = u[:, :5] @ s[:5].diag() @ v[:5]
        torch.testing.assert_close(up @ down, best, atol=1e-5, rtol=1e-5)
        assert share == pytest.approx(float(s[:5].square().sum() / s.square().sum()))
        down, up, share = lora_extraction.low_rank(change, 30)
        assert (down.shape, up.shape, share) == ((30, shape[1]), (shape[0], 30), pytest.approx(1))
        torch.testing.assert_close(up @ down, change, atol=1e-5, rtol=1e-5)


def test_a_trained_lora_is_exported_as_it_is(tmp_path: Path) -> None:
    pipeline = tamed()
    saved(pipeline, tmp_path)
    pipeline.unet.float()
    lora.add_lora(pipeline.unet, LoraParams(rank=2, alpha=6.0), 0)
    for name, weight in pipeline.unet.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn_like(weight) * 0.05
    lora.save_and_fuse(pipeline, tmp_path / "encoder")
    pipeline.unet.half()
    folder = saved(pipeline, tmp_path, tune="lora")
    export.export(folder, tmp_path / "out", wish("lora", dtype="fp16"))
    assert (
        load_file(tmp_path / "out" / base_change.LORA).keys()
        == load_file(Path(folder) / "lora" / base_change.LORA).keys()
    )
    assert len(run_card(tmp_path / "out")) == 1
    export.export(folder, tmp_path / "adapter", wish("ip-adapter"))
    stock = opened(tmp_path / "base")
    stock.load_lora_weights(tmp_path / "adapter", weight_name=base_change.LORA)
    stock.load_ip_adapter(tmp_path / "adapter", subfolder="", weight_name=ip_adapter.FILE)
    found, expected = stocks(stock, 3.0, ip_adapter_image=exact()), ours(folder, 3.0, subject=cutout())
    stock.disable_lora()
    without = np.abs(stocks(stock, 3.0, ip_adapter_image=exact()) - expected)
    # The encoder's weights are the sum, rounded to half precision.
    assert np.abs(found - expected).mean() < 0.1 * without.mean()


def test_an_encoder_that_went_on_from_another_is_compared_with_the_base(tmp_path: Path) -> None:
    folder = saved(tamed(), tmp_path, start="earlier", base=None)
    with pytest.raises(TamingError, match="Name it with --base"):
        export.export(folder, tmp_path / "out", wish("ip-adapter"))
    base = str(tmp_path / "base")
    export.export(folder, tmp_path / "out", wish("ip-adapter", base=base))
    assert not (tmp_path / "out" / base_change.LORA).exists()
    with pytest.raises(TamingError, match="--rank has no effect, since the denoiser was not fine-tuned"):
        export.export(folder, tmp_path / "out", wish("ip-adapter", base=base, rank=4))
    with pytest.raises(TamingError, match="a LoRA would be empty"):
        export.export(folder, tmp_path / "out", wish("lora", base=base, rank=4))


def test_words_that_the_base_does_not_know_need_its_text_encoder(tmp_path: Path) -> None:
    folder = saved(tamed(), tmp_path, text_encoder_rate=0.1)
    with pytest.raises(TamingError, match=r"an adapter file cannot hold that. Export with --to diffusers"):
        export.export(folder, tmp_path / "out", wish("ip-adapter"))
    pipeline = tamed()
    pipeline.text_encoder.get_input_embeddings().weight.data[pipeline.family.placeholder] += 1
    with pytest.raises(TamingError, match="differs from the word 'object'"):
        export.export(saved(pipeline, tmp_path), tmp_path / "out", wish("ip-adapter"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"projector": "linear", "tokens": 3}, "has 4 tokens, and this encoder 3"),
        ({"projector": "mlp"}, "no IP-Adapter with the projector mlp"),
        ({"projector": "linear", "tower": {"model_type": "dinov2", **tiny.TOWER, "mlp_ratio": 2}}, "only CLIP towers"),
    ],
)
def test_what_stock_diffusers_cannot_load_is_refused(given: dict[str, Any], words: str) -> None:
    pipeline = tamed(**given)
    with pytest.raises(TamingError, match=words):
        ip_adapter.require_exportable(pipeline.object_encoder, pipeline.unet)


def test_a_base_whose_self_attention_reads_the_text_is_refused() -> None:
    pipeline = tiny.pipeline("decoupled", projector="linear")
    with pytest.raises(TamingError, match="only_cross_attention"):
        ip_adapter.require_exportable(pipeline.object_encoder, pipeline.unet)


def test_options_without_effect_and_folders_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"--to onnx is unknown. Give one of ip-adapter, lora, diffusers"):
        require_valid(wish("onnx"), tmp_path / "out")
    with pytest.raises(TamingError, match="--rank has no effect with --to diffusers"):
        require_valid(wish("diffusers", rank=4), tmp_path / "out")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TamingError, match="holds something else than an export"):
        require_valid(wish("diffusers"), tmp_path)


def test_an_embedding_of_zeros_stays_zero_through_training() -> None:
    pipeline = tamed()
    encoder = pipeline.object_encoder.float()
    assert not encoder.projection(torch.zeros(1, 16)).any()
    encoder.requires_grad_(True)
    freeze_tower(encoder, None)
    assert [n for n, w in encoder.projection.named_parameters() if not w.requires_grad] == [
        "image_embeds.bias", "norm.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["clip_vision_model", "dinov2", "siglip_vision_model"])
@pytest.mark.parametrize("projector", ["full", "linear", "resampler"])
def test_what_a_projector_does_not_read_is_frozen(kind: str, projector: str) -> None:
    torch.manual_seed(0)
    encoder = ObjectEncoder({**tiny.TOWER, "model_type": kind}, projector, 4, 16, "concat")
    freeze_tower(encoder, None)
    frozen = {n for n, w in encoder.vision.named_parameters() if not w.requires_grad}
    encoder.requires_grad_(True)(torch.rand(1, 3, SIDE, SIDE)).square().sum().backward()
    assert frozen == {n for n, w in encoder.vision.named_parameters() if w.grad is None}


def test_the_card_tells_licence_scores_and_data(tmp_path: Path) -> None:
    folder = saved(tamed(), tmp_path)
    (tmp_path / "base/README.md").write_text("---\nlicense: other\nlicense_name: some-rail\n---\n# A base\n")
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "metrics.json").write_text(
        json.dumps({"ours": {"judge_top1": 0.875}, "no_object": {"judge_top1": 0.1}})
    )
    export.export(folder, tmp_path / "out", wish("ip-adapter", scores=evaluation))
    found = metadata(tmp_path / "out")
    assert (found["license"], found["license_name"]) == ("other", "some-rail")
    assert (found["library_name"], found["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert "ip-adapter" in found["tags"]
    result = found["model-index"][0]["results"][0]["metrics"][0]
    assert (result["type"], result["value"]) == ("judge_top1", 0.875)
    text = (tmp_path / "out/README.md").read_text()
    assert "| data fingerprint | 0123abcd |" in text
    assert "some-rail, inherited from the base model base." in text
    assert str(tmp_path) not in text
    (tmp_path / "base/README.md").unlink()
    export.export(folder, tmp_path / "out", wish("ip-adapter"))
    assert metadata(tmp_path / "out")["license"] == "other"
    assert "names no licence" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(TamingError, match="Run `taming eval` first"):
        export.export(folder, tmp_path / "out", wish("ip-adapter", scores=tmp_path))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for; it keeps what it was asked."""

    asked: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, said))
        files = json.loads(said)["files"] if "preupload" in self.path else []
        url = f"http://{self.headers['Host']}/me/mine"
        answer = {
            "url": url, "id": "me/mine", "commitUrl": url, "commitOid": "0" * 40,
            "errors": [], "warnings": [],
            "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files],
        }  # fmt: skip
        self._answer(json.dumps(answer).encode())

    def do_GET(self) -> None:
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


def test_a_folder_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("---\nlicense: other\n---\n# Mine\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    assert hub.push(tmp_path / "out", "me/mine").endswith("/me/mine")
    server.shutdown()
    asked = dict(Hub.asked)
    assert json.loads(asked["/api/repos/create"])["visibility"] == "private"
    commit = [json.loads(line) for line in asked["/api/models/me/mine/commit/main"].splitlines()]
    assert [line["value"]["path"] for line in commit if line["key"] == "file"] == ["README.md"]


def test_what_the_hub_needs_is_asked_for_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TamingError, match="Run `hf auth login` first"):
        require_valid(wish("diffusers", push="me/mine"), tmp_path / "out")
    for name in ("mine", "not a name"):
        with pytest.raises(TamingError, match="Give --push OWNER/NAME"):
            require_valid(wish("diffusers", push=name), tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TamingError, match="was written, but not pushed"):
        hub.push(tmp_path, "me/mine")


def test_the_command_writes_an_account_of_itself(tmp_path: Path) -> None:
    saved(tamed(), tmp_path)
    done = CliRunner().invoke(app, ["export", "--encoder", "encoder", "--to", "ip-adapter", "--out", "out"])
    assert done.output.splitlines() == [
        "out: ip-adapter of encoder",
        "IP-Adapter of the base kind, 4 tokens; its input image is square, the object on mid-grey (128).",
        "Guidance is the same in stock diffusers and in TamingPipeline with equal guidance scales.",
    ]
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["encoder"] == {
        "folder": "encoder",
        "fingerprint": fingerprints.folder_fingerprint(tmp_path / "encoder"),
    }
    assert {w.dtype for w in load_file(tmp_path / "out" / ip_adapter.FILE).values()} == {torch.float16}
    again = CliRunner().invoke(app, ["export", "--encoder", "encoder", "--to", "ip-adapter", "--out", "out"])
    assert again.exit_code == 0
    (tmp_path / "out/thesis.txt").write_text("put there later")
    with pytest.raises(TamingError, match="holds something else than an export"):
        require_valid(wish("diffusers"), tmp_path / "out")
