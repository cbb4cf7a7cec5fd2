"""Every method on every family: what trains, what stock diffusers draws with the files, and what the pipeline keeps."""

import json
from pathlib import Path
from typing import Any

import base_pipelines
import numpy as np
import pytest
import tiny
import tiny_bases
import torch
from base_pipelines import CALL, GUIDED, OURS
from diffusers.loaders import TextualInversionLoaderMixin
from numpy.typing import NDArray
from PIL import Image
from tiny_bases import FAMILIES

from taming_core.baselines import textual_inversion
from taming_core.baselines.apply import applied
from taming_core.baselines.examples import ClassImages, examples
from taming_core.baselines.methods import METHODS, SUBJECT, Method
from taming_core.baselines.record import read_record
from taming_core.baselines.train import frozen_text, train, weighted_loss
from taming_core.baselines.views import Posteriors, encode, views_of
from taming_core.bases.family import pool_at_eos
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline
from taming_core.model import diffusion
from taming_core.model.subject_model import subject_model
from taming_core.params.baseline import BaselineParams

PHOTOS = [Image.fromarray(tiny.picture(0, view)[0]) for view in range(2)]
PROMPT = "a photo of a <object> on the beach"
SECONDS = {"seconds", "prior_seconds", "peak_bytes"}  # of a record, which differ from run to run


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class images go below the working directory."""
    monkeypatch.chdir(tmp_path)


def params(family: str = "sd15", prior: int | None = 2, text_encoder: bool = False, **more: Any) -> BaselineParams:
    flow = family in ("sd3", "flux")
    scheduler = "FlowMatchEulerDiscreteScheduler" if flow else "DDIMScheduler"
    drawn = {"images": prior, "weight": 1.0, "scheduler": scheduler, "steps": 2, "guidance_text": 2.0, "batch_size": 2}
    common = {"steps": 3, "batch_size": 1, "learning_rate": 5e-3, "checkpoints": []}
    return BaselineParams.model_validate({
        "seed": 0, "size": tiny.SIDE, "identifier": "sks", "augment": {"views": 1, "crop": 0.0, "flip": False},
        "guidance": 2.5 if family == "flux" else None, "weight_decay": 0.01, "max_grad_norm": 1.0,
        "gradient_checkpointing": False, "prior": drawn if prior else None,
        "textual_inversion": {**common, "vectors": 1},
        "dreambooth": {**common, "text_encoder": text_encoder},
        "dreambooth_lora": {**common, "rank": 4, "alpha": 8.0},
        **more,
    })  # fmt: skip


def of_method(method: Method, p: BaselineParams, **values: Any) -> BaselineParams:
    """The params with other values of a method."""
    return p.model_copy(update={method.replace("-", "_"): p.of(method).model_copy(update=values)})


def state(pipeline: TamingPipeline) -> dict[str, torch.Tensor]:
    """Every weight and buffer of the text-to-image model, by network and name."""
    networks = pipeline.family.networks.items()
    return {f"{n} {k}": v.clone() for n, network in networks for k, v in network.state_dict().items()}


def require_unchanged(pipeline: TamingPipeline, before: dict[str, torch.Tensor]) -> None:
    after = state(pipeline)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def drawn(pipeline: Any, prompt: str, **how: Any) -> NDArray[np.float32]:
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt, generator=generator, return_dict=False, **CALL, **how)[0]


def ours(pipeline: TamingPipeline, family: str, folder: Path | None = None) -> NDArray[np.float32]:
    if folder is None:
        return drawn(pipeline, PROMPT, **OURS[family])
    with applied(pipeline, folder) as worded:
        return drawn(pipeline, worded(PROMPT), **OURS[family])


def stock(family: str, method: Method, folder: Path) -> NDArray[np.float32]:
    """What diffusers' own pipeline draws with the files."""
    record = read_record(folder)
    if method == "dreambooth":
        pipeline = tiny_bases.STOCK[family].from_pretrained(folder, torch_dtype=torch.float32)
    else:
        pipeline = tiny_bases.stock(family, tiny_bases.parts(family))
    pipeline.scheduler = tiny_bases.parts(family)["scheduler"]  # without the offset that diffusers sets
    pipeline.set_progress_bar_config(disable=True)
    if method == "dreambooth-lora":
        pipeline.load_lora_weights(folder)
    if method == "textual-inversion":
        # Stable Diffusion 3 has no loader of its own.
        load = TextualInversionLoaderMixin.load_textual_inversion
        loader = type("Loader", (type(pipeline), TextualInversionLoaderMixin), {})
        pipeline.__class__ = loader
        for name in record.trained:
            number = name.removeprefix("text_encoder")
            encoder, tokenizer = getattr(pipeline, name), getattr(pipeline, f"tokenizer{number}")
            load(pipeline, str(folder), weight_name=textual_inversion.file_name(name), tokenizer=tokenizer,
                 text_encoder=encoder)  # fmt: skip
            pool_at_eos(encoder, tokenizer)  # diffusers' own pools at the highest id, which is the new word's
    words = SUBJECT if method == "textual-inversion" else record.words
    return drawn(pipeline, PROMPT.replace("<object>", words), **GUIDED[family])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_diffusers_draws_what_we_draw_and_the_pipeline_is_as_before(family: str, method: Method) -> None:
    pipeline, out = base_pipelines.tamed(family, "concat"), Path("out")
    before, plain = state(pipeline), ours(pipeline, family)
    record = train(method, pipeline, PHOTOS, "dog", params(family), out)
    require_unchanged(pipeline, before)
    found = ours(pipeline, family, out)
    require_unchanged(pipeline, before)
    assert np.array_equal(ours(pipeline, family), plain)
    assert np.abs(found - plain).max() > 1e-3  # it was trained
    assert np.abs(stock(family, method, out) - found).max() < 1e-4
    assert record == read_record(out)
    assert record.steps == 3
    assert record.bytes > 0


@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux"])
def test_the_clip_text_encoders_train_if_asked_for(family: str) -> None:
    pipeline, out = base_pipelines.tamed(family, "concat"), Path("out")
    before = state(pipeline)
    record = train("dreambooth", pipeline, PHOTOS, "dog", params(family, None, text_encoder=True), out)
    require_unchanged(pipeline, before)
    assert record.trained[1:] == {"sdxl": ["text_encoder", "text_encoder_2"]}.get(family, ["text_encoder"])
    with applied(pipeline, out):
        after = state(pipeline)
    assert {name.split()[0] for name in before if not torch.equal(before[name], after[name])} == {
        "denoiser", *record.trained[1:]
    }  # fmt: skip
    assert np.abs(stock(family, "dreambooth", out) - ours(pipeline, family, out)).max() < 1e-4


def test_a_word_of_several_tokens_is_what_diffusers_makes_of_it() -> None:
    pipeline, out = base_pipelines.tamed("sd15", "concat"), Path("out")
    p = of_method("textual-inversion", params(), vectors=3)
    train("textual-inversion", pipeline, PHOTOS, "dog", p, out)
    with applied(pipeline, out) as worded:
        assert worded("a red <object>") == "a red <subject> <subject>_1 <subject>_2"
    assert np.abs(stock("sd15", "textual-inversion", out) - ours(pipeline, "sd15", out)).max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_write_the_same_bytes(method: Method) -> None:
    for out in ("one", "two"):
        train(method, base_pipelines.tamed("sd15", "concat"), PHOTOS, "dog", params(), Path(out))
    names = sorted(path.relative_to("one") for path in Path("one").rglob("*.safetensors"))
    assert names
    assert all(Path("one", name).read_bytes() == Path("two", name).read_bytes() for name in names)
    records = [json.loads(Path(out, "baseline.json").read_text()) for out in ("one", "two")]
    assert {k: v for k, v in records[0].items() if k not in SECONDS} == {
        k: v for k, v in records[1].items() if k not in SECONDS
    }


def loss_of(pipeline: TamingPipeline, words: str) -> float:
    """The mean loss of the photos over the same timesteps and noise."""
    model = subject_model(pipeline.components)
    images, total = encode(pipeline, PHOTOS_IN_SIZE), 0.0
    with torch.no_grad():
        for step in range(24):
            batch = examples("dreambooth", images, words, None, 2, 0, step)
            noise = diffusion.noise_at(step, tuple(batch.posteriors.mean.shape), model.schedule, 1, 0.0, None)
            total += float(weighted_loss(model, batch, noise, frozen_text(model), torch.float32))
    return total / 24


PHOTOS_IN_SIZE = views_of(PHOTOS, tiny.SIDE, params().augment, 0)


RATES: list[tuple[Method, float]] = [("textual-inversion", 0.05), ("dreambooth", 2e-3), ("dreambooth-lora", 0.02)]


@pytest.mark.parametrize(("method", "rate"), RATES)
def test_the_loss_falls(method: Method, rate: float) -> None:
    pipeline, out = base_pipelines.tamed("sd15", "concat"), Path("out")
    before = loss_of(pipeline, "sks dog")
    p = of_method(method, params(prior=None), steps=40, batch_size=2, learning_rate=rate, checkpoints=[10])
    record = train(method, pipeline, PHOTOS, "dog", p, out)
    with applied(pipeline, out / "step-000010"):
        early = loss_of(pipeline, record.words)
    with applied(pipeline, out):
        assert loss_of(pipeline, record.words) < early < before
    assert read_record(out / "step-000010").steps == 10


def test_class_images_are_drawn_once_and_are_trained_on() -> None:
    pipeline = base_pipelines.tamed("sd15", "concat")
    with_prior = train("dreambooth-lora", pipeline, PHOTOS, "dog", params(prior=2), Path("one"))
    (folder,) = Path("runs").glob("class-images-*")
    assert len(list(folder.glob("*.png"))) == 2
    assert with_prior.prior_seconds > 0
    assert train("dreambooth", pipeline, PHOTOS[:1], "dog", params(prior=2), Path("other")).prior_seconds == 0
    train("dreambooth-lora", pipeline, PHOTOS, "dog", params(prior=None), Path("two"))
    weights = [Path(out, "pytorch_lora_weights.safetensors").read_bytes() for out in ("one", "two")]
    assert weights[0] != weights[1]
    train("dreambooth-lora", pipeline, PHOTOS, "cat", params(prior=2), Path("three"))
    assert len(list(Path("runs").glob("class-images-*"))) == 2  # of another class


def test_a_batch_has_as_many_class_images_as_photos() -> None:
    shape = (3, 4, 2, 2)
    images, others = (Posteriors(torch.full(shape, v), torch.zeros(shape)) for v in (0.0, 1.0))
    batch = examples("dreambooth", images, "sks dog", ClassImages(others, "a photo of a dog", 0.5), 2, 0, 0)
    assert batch.posteriors.mean.flatten(1)[:, 0].tolist() == [0, 0, 1, 1]
    assert batch.prompts == ["a photo of a sks dog"] * 2 + ["a photo of a dog"] * 2
    assert batch.weights.tolist() == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_half_precision_trains_in_float32(family: str, method: Method) -> None:
    pipeline, out = base_pipelines.tamed(family, "concat").to(torch.bfloat16), Path("out")
    before = state(pipeline)
    p = params(family, None, text_encoder=True)
    train(method, pipeline, PHOTOS, "dog", p, out)
    require_unchanged(pipeline, before)
    assert pipeline.denoiser.dtype == torch.bfloat16
    with applied(pipeline, out) as worded:
        assert np.isfinite(drawn(pipeline, worded(PROMPT), **OURS[family])).all()


def test_a_finished_one_is_not_trained_again() -> None:
    pipeline, out = base_pipelines.tamed("sd15", "concat"), Path("out")
    p = params(prior=None)
    first = train("textual-inversion", pipeline, PHOTOS, "dog", p, out)
    assert train("textual-inversion", pipeline, PHOTOS, "dog", p, out) == first  # with its seconds
    # Neither the other methods' params nor what changes no result counts.
    others = of_method("dreambooth", p, steps=9).model_copy(update={"gradient_checkpointing": True, "identifier": "x"})
    assert train("textual-inversion", pipeline, PHOTOS, "dog", others, out) == first
    again = train("textual-inversion", pipeline, PHOTOS, "dog", of_method("textual-inversion", p, steps=4), out)
    assert (again.steps, again.fingerprint == first.fingerprint) == (4, False)
    assert train("textual-inversion", pipeline, PHOTOS[:1], "dog", p, Path("x")).fingerprint != first.fingerprint
    assert train("textual-inversion", pipeline, PHOTOS, "cat", p, Path("y")).fingerprint != first.fingerprint


def test_recomputed_blocks_give_the_same_weights() -> None:
    for out, recompute in (("one", False), ("two", True)):
        p = params(prior=None, gradient_checkpointing=recompute)
        train("dreambooth-lora", base_pipelines.tamed("sd15", "concat"), PHOTOS, "dog", p, Path(out))
    files = [Path(out, "pytorch_lora_weights.safetensors").read_bytes() for out in ("one", "two")]
    assert files[0] == files[1]


def test_guidance_goes_with_the_base() -> None:
    p = params("flux", None)
    with pytest.raises(TamingError, match=r"baseline\.guidance to it"):
        train("textual-inversion", base_pipelines.tamed("flux", "concat"), PHOTOS, None,
              p.model_copy(update={"guidance": None}), Path("out"))  # fmt: skip
    with pytest.raises(TamingError, match=r"baseline\.guidance has no effect"):
        train("textual-inversion", base_pipelines.tamed("sd15", "concat"), PHOTOS, None, p, Path("out"))


def test_fp16_is_refused() -> None:
    pipeline = base_pipelines.tamed("sd15", "concat").to(torch.float16)
    with pytest.raises(TamingError, match="cannot be trained in fp16"):
        train("dreambooth-lora", pipeline, PHOTOS, None, params(), Path("out"))


def test_a_loss_that_is_not_finite_stops_and_leaves_nothing() -> None:
    pipeline, out = base_pipelines.tamed("sd15", "concat"), Path("out")
    p = of_method("dreambooth", params(prior=None), steps=30, learning_rate=1e30)
    before = state(pipeline)
    with pytest.raises(TamingError, match=r"The loss is (nan|inf)"):
        train("dreambooth", pipeline, PHOTOS, "dog", p, out)
    require_unchanged(pipeline, before)
    assert not out.exists()


def test_only_what_changed_is_written_where_the_rest_is_not_needed() -> None:
    pipeline, out = base_pipelines.tamed("sd15", "concat"), Path("out")
    train("dreambooth", pipeline, PHOTOS, "dog", params(prior=None), out, standalone=False)
    assert {path.name for path in out.iterdir()} == {"unet", "baseline.json"}
    assert np.abs(ours(pipeline, "sd15", out) - ours(pipeline, "sd15")).max() > 1e-3
