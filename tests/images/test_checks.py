"""What an encoder cannot draw is known by its configs, and the pipeline says the same."""

import inspect
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_bases
from base_pipelines import tamed

from taming_core.bases.families import family_of
from taming_core.errors import TamingError
from taming_core.images import checks
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import DrawSettings
from taming_core.model.attention import LAYERS
from taming_core.params import arguments
from taming_core.params.sections import Sampling
from taming_core.weights.mini import PIPELINE

FLOW = ("sd3", "flux")
LONG = "very " * 600


def settings(family: str, **changes: Any) -> DrawSettings:
    scheduler = "FlowMatchEulerDiscreteScheduler" if family in FLOW else "DDIMScheduler"
    sampling = {"scheduler": scheduler, "steps": 1, "guidance_object": 2.0, "guidance_text": 2.0, "batch_size": 1}
    of_sampling = {key: value for key, value in changes.items() if key in Sampling.model_fields}
    others = {key: value for key, value in changes.items() if key not in of_sampling}
    return DrawSettings(Sampling.model_validate(sampling | of_sampling), **others)


@pytest.fixture(scope="module", params=tiny_bases.FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, TamingPipeline]:
    """The folder of an encoder of each family."""
    folder, pipeline = tmp_path_factory.mktemp(request.param), tamed(request.param, "decoupled")
    pipeline.save_pretrained(folder)
    return request.param, folder, pipeline


def test_configs_tell_what_the_loaded_model_tells(saved: tuple[str, Path, TamingPipeline]) -> None:
    family, folder, pipeline = saved
    configs, loaded = checks.encoder_configs(folder, None), family_of(pipeline.components)
    fits = (loaded.size_multiple * 3, loaded.size_multiple * 2)
    checks.require_drawable(configs, settings(family, size=fits, object_scale=0.5, negative_prompt="blurry"), 2)
    for size in ((fits[0] + 1, fits[1]), (fits[0], fits[1] - 1)):
        with pytest.raises(TamingError, match=f"multiples of {loaded.size_multiple}"):
            checks.require_drawable(configs, settings(family, size=size), 1)
    if loaded.max_size is not None:
        with pytest.raises(TamingError, match=f"to {loaded.max_size} at most"):
            checks.require_drawable(configs, settings(family, size=(loaded.max_size * 2,) * 2), 1)


def test_guidance_that_the_base_does_not_read_is_refused(saved: tuple[str, Path, TamingPipeline]) -> None:
    family, folder, pipeline = saved
    configs, embedded = checks.encoder_configs(folder, None), settings(family, guidance_embedded=2.0)
    if family_of(pipeline.components).reads_guidance:
        checks.require_drawable(configs, embedded, 1)
    else:
        with pytest.raises(TamingError, match="guidance_embedded has no effect"):
            checks.require_drawable(configs, embedded, 1)


def test_a_scheduler_of_the_other_kind_is_refused(saved: tuple[str, Path, TamingPipeline]) -> None:
    family, folder, _ = saved
    other = "DDIMScheduler" if family in FLOW else "FlowMatchEulerDiscreteScheduler"
    with pytest.raises(TamingError, match=rf"{other} (does not support|is for) flow-matching models"):
        checks.require_drawable(checks.encoder_configs(folder, None), settings(family, scheduler=other), 1)


def test_an_object_beyond_the_text_encoder_is_refused(saved: tuple[str, Path, TamingPipeline]) -> None:
    family, folder, pipeline = saved
    configs, length = checks.encoder_configs(folder, None), family_of(pipeline.components).lengths[family == "flux"]
    last = f"a {'very ' * (length - 4)}<object>"  # with BOS and EOS as long as the text encoder
    checks.require_read_by(configs, [last])
    for prompt in (f"a very {last.removeprefix('a ')}", f"<object> {LONG} <object>"):
        with pytest.raises(TamingError, match=rf"longer than the {length} tokens .*loses '[^']*<object>'"):
            checks.require_read_by(configs, [last, prompt])


def test_a_base_elsewhere_is_read_where_it_is(tmp_path: Path) -> None:
    shutil.copytree(PIPELINE, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors*"))
    encoder = tmp_path / "encoder"
    shutil.copytree(tmp_path / "base", encoder, ignore=shutil.ignore_patterns("unet", "vae", "tokenizer"))
    index = checks.encoder_configs(encoder, None).index
    recorded = dict(index) | {"_base": {"name": "base", "revision": None, "weights": {}}}
    configs = checks.EncoderConfigs(encoder, recorded, tmp_path / "base")
    with pytest.raises(TamingError, match="This base cannot draw 99 x 128"):
        checks.require_drawable(configs, settings("sd15", size=(99, 128)), 1)
    with pytest.raises(TamingError, match="loses"):
        checks.require_read_by(configs, [f"{LONG} <object>"])
    absent = checks.EncoderConfigs(encoder, recorded, None)
    checks.require_drawable(absent, settings("sd15", size=(99, 128)), 1)
    checks.require_read_by(absent, [f"{LONG} <object>"])


def test_a_base_for_a_whole_folder_has_no_effect(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="--base has no effect"):
        checks.encoder_configs(PIPELINE, str(tmp_path))


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    for content, problem in (("{", "not JSON"), ("[1]", "damaged")):
        (tmp_path / "model_index.json").write_text(content, encoding="utf-8")
        with pytest.raises(TamingError, match=rf"model_index.json is {problem}"):
            checks.encoder_configs(tmp_path, None)


def test_an_encoder_of_class_nouns_cannot_tell_objects_apart() -> None:
    config = {"injection": "concat", "captions": "class_noun"}
    configs = checks.EncoderConfigs(PIPELINE, {"unet": ["diffusers", "UNet2DConditionModel"]}, None)
    checks.require_together(config, 1)
    with pytest.raises(TamingError, match="cannot tell objects apart"):
        checks.require_together(config, 2)
    checks.require_drawable(configs, settings("sd15"), 2)


@pytest.mark.parametrize(("object_guidance", "text_guidance"), [(1.0, 1.0)])
def test_a_negative_prompt_without_guidance_is_refused(object_guidance: float, text_guidance: float) -> None:
    with pytest.raises(TamingError, match="negative prompt has no effect"):
        checks.require_guided("blurry", object_guidance, text_guidance)
    checks.require_guided("", object_guidance, text_guidance)
    checks.require_guided("blurry", object_guidance, 2.0)
    checks.require_guided("blurry", 0.0, text_guidance)


def test_designs_with_layers_are_those_of_the_attention() -> None:
    assert set(checks.DESIGNS_WITH_LAYERS) == set(LAYERS)


def test_options_of_schedulers_are_those_of_their_classes() -> None:
    exported = [name for name in arguments.schedulers() if hasattr(diffusers, name)]
    classes = {name: getattr(diffusers, name) for name in exported}
    there = {name: kind for name, kind in classes.items() if not hasattr(kind, "_backends")}
    assert len(there) > 20
    for name, kind in there.items():
        arguments.require_scheduler(name)
        assert arguments.scheduler_options(name) >= set(inspect.signature(kind).parameters) - {"kwargs"}
    for name in classes.keys() - there.keys():
        with pytest.raises(TamingError, match=rf"{name} needs the package"):
            arguments.require_scheduler(name)
