"""Whether an encoder can draw what is asked for: by the configs in its folder, before it is loaded, where they tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taming_core.bases import limits
from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.images.prompts import shorten
from taming_core.images.requests import Box, DrawSettings
from taming_core.language.placeholder import OBJECT
from taming_core.language.token_limit import words_beyond
from taming_core.params.arguments import require_fitting_scheduler

Config = Mapping[str, Any]
LENGTH = "model_max_length"  # of tokenizer_config.json, in tokens
DESIGNS_WITH_LAYERS = ("decoupled", "gated", "reference")  # they add attention, which object_scale weighs


@dataclass(frozen=True)
class EncoderConfigs:
    """The configs in an encoder folder, and in the folder of its base if it needs one that is on this machine."""

    folder: Path
    index: Config  # model_index.json
    base: Path | None

    def find(self, component: str, file: str) -> Path | None:
        """A file of a component; None where it is not on this machine."""
        paths = (place / component / file for place in (self.folder, self.base) if place is not None)
        return next((path for path in paths if path.is_file()), None)

    def of(self, component: str, file: str = "config.json") -> Config:
        """The config of a component; empty where it is not on this machine."""
        path = self.find(component, file)
        return _read(path) if path is not None else {}

    @property
    def denoiser(self) -> Config:
        """The config of the UNet or transformer, with its class name."""
        name = "unet" if "unet" in self.index else "transformer"
        return {"_class_name": (self.index.get(name) or ["", ""])[1], **self.of(name)}


def _read(path: Path) -> Config:
    """A config; raises TamingError if it is damaged."""
    try:
        return dict(read_json(path))
    except (TypeError, ValueError) as error:
        raise TamingError(f"{path} is damaged. Copy the folder again, or run `taming train`.") from error


def encoder_configs(folder: Path, base: str | None) -> EncoderConfigs:
    """The configs of an encoder.

    Args:
        folder: of the encoder.
        base: where the base is that has its other components; None for where its record says.

    Raises:
        TamingError: a config is damaged; there is no such base; or `base` has no effect.
    """
    from taming_core.weights.locate import find_on_disk, is_hub_name

    index = _read(folder / "model_index.json")
    record = index.get("_base")
    if base is not None:
        require_base_effect(folder, record)
        if not Path(base).expanduser().is_dir() and not is_hub_name(base):
            raise TamingError(f"There is no base {base}. Name its folder with --base, or its name on the hub.")
    found = find_on_disk(base or record["name"], folder.parent) if record else None
    return EncoderConfigs(folder, index, found)


def require_base_effect(folder: Path | str, record: object) -> None:
    """Raises TamingError if a base is named for a folder that holds all components, so that it has no record of one."""
    if record is None:
        raise TamingError(f"{folder} holds all of its components, so that --base has no effect. Leave it out.")


def require_drawable(configs: EncoderConfigs, s: DrawSettings, objects: int) -> None:
    """Check settings by the configs of an encoder; configs of a base that is not here are checked when it is loaded.

    Raises:
        TamingError: the model does not support the size or the scheduler, or a setting has no effect.
    """
    require_guided(s.negative_prompt, s.sampling.guidance_object, s.sampling.guidance_text)
    encoder, denoiser, vae = configs.of("object_encoder"), configs.denoiser, configs.of("vae")
    require_object_scale(s.object_scale, encoder.get("injection", ""))
    require_together(encoder, objects)
    if s.boxes is not None and encoder:
        require_boxes(s.boxes, objects, lays=encoder.get("collage") is not None)
    if "num_layers" in denoiser or "block_out_channels" in denoiser:
        require_embedded_guidance(s.sampling.guidance_embedded, bool(denoiser.get("guidance_embeds")))
    multiple = limits.MULTIPLES.get(denoiser["_class_name"])
    if s.size is not None and multiple is not None and len(denoiser) > 1 and vae:
        longest = limits.longest_side(denoiser, vae) if "pos_embed_max_size" in denoiser else None
        limits.require_image_size(*s.size, multiple(denoiser, vae), longest)
    scheduler = configs.of("scheduler", "scheduler_config.json")
    if scheduler:
        require_fitting_scheduler(s.sampling.scheduler, scheduler.get("_class_name", ""), scheduler)


def require_together(encoder: Config, objects: int) -> None:
    """Raises TamingError if several objects are for one image of an encoder that does not read `<object>`."""
    if objects > 1 and encoder.get("captions") == "class_noun":
        raise TamingError(f"This encoder was trained with class nouns, and does not read {OBJECT}: it cannot tell "
                          "objects apart. Leave --together out, or name another encoder.")  # fmt: skip


def require_boxes(boxes: Sequence[Box], objects: int, *, lays: bool) -> None:
    """Require a box within the image for each object, and an encoder that lays objects at a place (`lays`).

    Raises:
        TamingError: boxes have no effect, or are too few, too many or not within the image.
    """
    if not lays or objects == 0:
        why = "there is no object" if lays else "this encoder was trained without train.collage"
        raise TamingError(f"A box has no effect, since {why}. Leave it out.")
    if len(boxes) != objects:
        raise TamingError(f"There {'is 1 box' if len(boxes) == 1 else f'are {len(boxes)} boxes'} for an image of "
                          f"{objects} objects. Give one for each, in the order of their {OBJECT}.")  # fmt: skip
    for x0, y0, x1, y1 in boxes:
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise TamingError(f"The box {x0:g},{y0:g},{x1:g},{y1:g} does not lie within the image. Give x0,y0,x1,y1 "
                              "from 0 to 1, the upper left corner first.")  # fmt: skip


def require_object_scale(scale: float, injection: str) -> None:
    """Raises TamingError if a scale other than 1 would have no effect with this design."""
    if scale != 1 and injection and injection not in DESIGNS_WITH_LAYERS:
        raise TamingError(f"object_scale has no effect on {injection}, which adds no layers. Leave it at 1.")


def require_embedded_guidance(guidance: float | None, reads_guidance: bool) -> None:
    """Raises TamingError if a guidance scale is given to a base that is not guidance-distilled."""
    if guidance is not None and not reads_guidance:
        raise TamingError("guidance_embedded has no effect on this base, which is not guidance-distilled. Leave it "
                          "out, and set guidance_text.")  # fmt: skip


def require_guided(negative_prompt: str, guidance_object: float, guidance_text: float) -> None:
    """Raises TamingError if a negative prompt would have no effect, or names the object.

    With both scales at 1 guidance is off: only e(c,z) of `guidance_passes` is left.
    """
    if negative_prompt and guidance_object == guidance_text == 1:
        raise TamingError("The negative prompt has no effect where guidance_object and guidance_text are 1. Leave it "
                          "out, or raise guidance_text.")  # fmt: skip
    if OBJECT in negative_prompt:
        raise TamingError(f"The negative prompt holds {OBJECT}, which guidance would lead away from. Leave it out.")


def negative_prompts(given: str | Sequence[str] | None, prompts: int) -> list[str]:
    """The negative prompts of a call, in the forms that diffusers takes: one, or one for each prompt; "" for none.

    Raises:
        TamingError: there are several, but not one for each prompt.
    """
    negatives = [given or ""] if given is None or isinstance(given, str) else list(given)
    if len(negatives) not in (1, prompts):
        raise TamingError(f"{len(negatives)} negative prompts for {prompts} prompts. Give one, or one per prompt.")
    return negatives


def require_read(prompts: Sequence[str], tokenizer: Any, length: int) -> None:
    """Raises TamingError if `<object>` is beyond the tokens of a prompt that its text encoder reads.

    Args:
        prompts: any.
        tokenizer: of the text encoder, one of `transformers`.
        length: in tokens.
    """
    for prompt, end in zip(prompts, words_beyond(tokenizer, prompts, length), strict=True):
        if OBJECT in end:
            raise TamingError(f"The prompt '{shorten(prompt)}' is longer than the {length} tokens that the text "
                              f"encoder reads, and loses '{shorten(end)}'. Write {OBJECT} earlier, or a shorter "
                              "prompt.")  # fmt: skip


def require_read_by(configs: EncoderConfigs, prompts: Sequence[str]) -> None:
    """`require_read` by the tokenizer file of an encoder, if it is on this machine; imports transformers."""
    from transformers import PreTrainedTokenizerFast

    kind = configs.denoiser["_class_name"]
    name = ("tokenizer", "tokenizer_2")[limits.OBJECT_READERS.get(kind, 0)]
    file, length = configs.find(name, "tokenizer.json"), configs.of(name, "tokenizer_config.json").get(LENGTH)
    if file is None or length is None:
        return
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file))
    tokenizer.add_tokens([OBJECT])  # the tokenizer of a base has none
    require_read(prompts, tokenizer, min(length, limits.T5_LENGTHS.get(kind, length)))
