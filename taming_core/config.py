"""params.yaml into frozen, strict sections: one per stage, and no number anywhere else."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from taming_core.errors import TamingError

Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16"]
Injection = Literal["substitute", "concat", "decoupled", "gated", "reference"]


class Section(BaseModel):
    """Unknown keys and wrong types are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DetectParams(Section):
    """photos -> objects."""

    detector: str  # mini, a file, or a model name
    segmenter: str  # mini, a file, a model name, or `detector` for the detector's own masks
    image_size: PositiveInt  # pixels of the longer side that the detector sees
    identity: Literal["folder", "metadata", "photo"]  # what tells which individual thing a photo shows
    min_side: PositiveInt  # pixels of the photo's shorter side
    score_floor: Fraction  # below it the detector's findings are noise and make no row
    max_found: PositiveInt  # per photo, best score first; what the detector finds beyond makes no row
    score: Fraction  # below it an object is dropped
    island: Fraction  # pieces of a mask below this share of its largest one are specks, and not part of the object
    area_min: Fraction  # mask pixels / photo pixels
    area_max: Fraction
    aspect_max: PositiveFloat  # longer side of the box / shorter side
    border: NonNegativeInt  # pixels between box and photo edge; closer counts as cut off
    containment: Fraction  # share of a box inside a larger one
    mask_fill: Fraction  # share of the box that the mask must fill
    max_objects: PositiveInt  # kept per photo, best score first
    batch_size: PositiveInt  # photos in memory at once
    shard_size: PositiveInt  # photos per crash-safe shard

    @model_validator(mode="after")
    def _areas_in_order(self) -> "DetectParams":
        if self.area_min >= self.area_max:
            raise ValueError(f"detect.area_min must be below detect.area_max, which is {self.area_max}")
        return self


class CaptionParams(Section):
    """objects -> captions."""

    captioner: str  # mini, a folder, or a model name
    matcher: str
    num_beams: PositiveInt
    max_new_tokens: PositiveInt
    replace: Literal["noun", "phrase"]  # the noun alone, or the noun with its adjectives
    match_min: Fraction  # captions that match their photo less are not used; a row without another is dropped
    template: str  # where no noun can be found; holds <object> once
    batch_size: PositiveInt
    shard_size: PositiveInt  # photos per crash-safe shard

    @model_validator(mode="after")
    def _template_holds_object(self) -> "CaptionParams":
        if self.template.count("<object>") != 1:
            raise ValueError("caption.template must hold <object> exactly once")
        return self


class MaterializeParams(Section):
    """captions -> rows."""

    size: PositiveInt  # pixels of the target image's side
    subject_size: PositiveInt  # pixels of the subject's side
    subject_fill: Fraction  # share of the subject's side that the object fills
    validation: Fraction  # share of identities
    test: Fraction
    seed: NonNegativeInt  # of the split
    duplicate_distance: NonNegativeInt  # differing bits of 64 up to which two photos count as one view
    max_references: PositiveInt  # other views that a row names; drawn where there are more
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    shard_size: PositiveInt  # objects per crash-safe shard

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "MaterializeParams":
        if self.validation + self.test >= 1:
            raise ValueError("materialize.validation and materialize.test must leave a share for training")
        return self


class Sampling(Section):
    """How images are drawn; guidance as in docs/method.md section 6."""

    scheduler: str  # the class name of any diffusers scheduler
    steps: PositiveInt
    guidance_object: NonNegativeFloat
    guidance_text: NonNegativeFloat
    batch_size: PositiveInt


class ValidationGrid(Section):
    """The fixed pictures that show during training whether it works."""

    every: NonNegativeInt  # steps; 0 for never
    objects: PositiveInt
    prompts: Annotated[list[str], Field(min_length=1)]
    sampling: Sampling


class EncoderParams(Section):
    """A fresh object encoder, where none is given to start from."""

    tower: str  # mini, a folder or a name of a CLIP, DINOv2 or SigLIP model, or the folder of an object encoder
    projector: Literal["full", "linear", "mlp", "resampler"]
    tokens: PositiveInt  # K; `full` has one per patch
    tower_blocks: NonNegativeInt  # last blocks of the tower that are trained


class StandIn(Section):
    """How much the subject is changed where no other view of its identity can stand for it."""

    rotation: NonNegativeFloat  # degrees, at most, to either side
    perspective: Fraction  # shift of a corner, at most, as a share of the side
    light: Fraction  # change of brightness, at most; colours keep their hue


class LoraParams(Section):
    """Low-rank changes of the denoiser's attention (Hu et al., "LoRA", 2022)."""

    rank: PositiveInt
    alpha: PositiveFloat  # the change is scaled by alpha / rank


class TrainParams(Section):
    """rows -> encoder."""

    start: str | None  # mini or a folder of an earlier training, to go on from; null starts afresh on `base`
    base: str | None  # folder or name of a text-to-image model; only where start is null
    encoder: EncoderParams | None  # only where start is null; `reference` has none
    injection: Injection | None  # how the object enters the denoiser; only where start is null
    layers: list[str] | None  # beginnings of the names of the attention layers that see the object; null for all
    background: Literal["removed", "kept"] | None  # of the subject; only where start is null
    tune: Literal["adapter", "lora", "whole"]  # the encoder alone; with LoRA of the denoiser; with all of it
    lora: LoraParams | None  # only where tune is lora
    seed: NonNegativeInt
    steps: PositiveInt  # optimizer updates
    batch_size: PositiveInt  # rows per update
    micro_batch_size: PositiveInt  # rows on the device at once
    learning_rate: PositiveFloat  # peak, of encoder and injected layers
    denoiser_rate: Fraction  # of the denoiser or its LoRA, as a share of learning_rate
    text_encoder_rate: Fraction  # of the text encoder, as a share of learning_rate; 0 freezes it
    warmup: NonNegativeInt  # steps
    schedule: Literal["constant", "cosine", "linear"]
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the average that is kept; 0 keeps the last weights
    general: Fraction  # share of general-domain rows in a batch
    prior: PositiveInt | None  # images of the start's own to stand for general-domain rows, where there are none
    captions: Literal["object_token", "class_token", "plain"]  # <object> in the caption, nothing else, the plain noun
    attributes: bool  # whether captions keep the words for what may change of the object
    references: PositiveInt  # photos of the thing that the encoder sees together
    object_drop: Fraction  # probability that a row loses its object embedding
    text_drop: Fraction  # probability that a row loses its caption
    cross_reference: Fraction  # probability that the subject comes from another view
    stand_in: StandIn  # for the other view, where there is none
    mask_weight: NonNegativeFloat  # extra weight of the loss inside the object
    min_snr: PositiveFloat | None  # gamma of min-SNR weighting (Hang et al., 2023); null weighs as the base does
    offset_noise: NonNegativeFloat  # of the whole image's brightness and colour, as a share of the noise
    zero_terminal_snr: bool  # end the base's noise schedule in pure noise (Lin et al., 2024); false leaves it
    localization_weight: NonNegativeFloat  # of the loss that keeps attention to the object's tokens on the object
    identity_weight: NonNegativeFloat  # lambda of the identity loss; 0 switches it off
    identity_max_timestep: PositiveInt | None  # the identity loss looks at less noisy steps only
    identity_network: str | None  # mini or a folder; null where identity_weight is 0
    precision: Precision
    gradient_checkpointing: bool  # compute the denoiser twice instead of keeping what backward needs
    save_every: PositiveInt  # steps
    validation: ValidationGrid

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "TrainParams":
        for check in (self._check_start, self._check_tuning, self._check_losses, self._check_batches):
            check()
        return self

    def _check_start(self) -> None:
        fresh = {"base": self.base, "injection": self.injection, "background": self.background}
        for key, value in {**fresh, "encoder": self.encoder, "layers": self.layers}.items():
            if self.start is not None and value is not None:
                raise ValueError(f"train.{key} must be null where train.start is set, for it comes with the start")
        for key, value in fresh.items():
            if self.start is None and value is None:
                raise ValueError(f"train.{key} must be set where train.start is null")
        if self.start is None and (self.encoder is None) != (self.injection == "reference"):
            raise ValueError("train.encoder must be set where train.start is null, but null where train.injection is "
                             "reference, which reads the subject with the denoiser itself")  # fmt: skip
        if self.layers is not None and self.injection == "substitute":
            raise ValueError("train.layers must be null where train.injection is substitute: its tokens are the text's")

    def _check_tuning(self) -> None:
        rates = self.denoiser_rate, self.text_encoder_rate
        if self.tune == "adapter" and any(rates):
            raise ValueError("train.denoiser_rate and train.text_encoder_rate must be 0 where train.tune is 'adapter'")
        if self.tune != "adapter" and self.denoiser_rate == 0:
            raise ValueError(f"train.denoiser_rate must be above 0 where train.tune is '{self.tune}'")
        if (self.lora is not None) != (self.tune == "lora"):
            raise ValueError("train.lora must be set where train.tune is 'lora', else null")

    def _check_losses(self) -> None:
        off = self.identity_weight == 0
        if off != (self.identity_network is None) or off != (self.identity_max_timestep is None):
            raise ValueError("train.identity_network and train.identity_max_timestep must be set where "
                             "train.identity_weight is above 0, else null")  # fmt: skip
        if self.localization_weight > 0 and self.injection not in (None, "substitute", "concat"):
            raise ValueError(f"train.localization_weight must be 0 where train.injection is {self.injection}, in which "
                             "text and object do not compete for attention")  # fmt: skip

    def _check_batches(self) -> None:
        if self.general == 1:
            raise ValueError("train.general must be below 1, else no row has an object to learn from")
        if self.general == 0 and self.prior is not None:
            raise ValueError("train.prior must be null where train.general is 0, for no batch would hold its images")
        if self.captions == "plain" and self.injection == "substitute":
            raise ValueError("train.captions must not be plain where train.injection is substitute: without <object> "
                             "in the caption there is no place for the object")  # fmt: skip
        if self.captions == "class_token" and not self.attributes:
            raise ValueError("train.attributes must be true where train.captions is class_token, which has none")
        if self.batch_size % self.micro_batch_size:
            raise ValueError("train.batch_size must be a multiple of train.micro_batch_size")


class EvaluateParams(Section):
    """encoder -> images -> scores."""

    split: Literal["validation", "test"]  # whose identities are held out
    seed: NonNegativeInt
    objects: PositiveInt  # identities that are judged
    images_per_prompt: PositiveInt
    scenes: Annotated[list[str], Field(min_length=1)]  # what is asked for after "a photo of <object>"
    styles: list[str]  # what is asked for before "<object>"
    scene_choices: Annotated[list[str], Field(min_length=2)]  # what text alignment chooses among
    style_choices: Annotated[list[str], Field(min_length=2)]
    control_objects: NonNegativeInt  # identities in the controls: no object tokens, another object's tokens
    judge: str  # never a network that training used
    strict_judge: str | None  # the same, of the object alone, cut out; null leaves its measures out
    text_judge: str
    sampling: Sampling

    @model_validator(mode="after")
    def _choices_hold_the_prompts(self) -> "EvaluateParams":
        if missing := [s for s in self.scenes if s not in self.scene_choices]:
            raise ValueError(f"evaluate.scene_choices must hold all of evaluate.scenes; missing: {missing}")
        if missing := [s for s in self.styles if s not in self.style_choices]:
            raise ValueError(f"evaluate.style_choices must hold all of evaluate.styles; missing: {missing}")
        return self


class GenerateParams(Section):
    """photo + prompt -> images."""

    sampling: Sampling


class WorldParams(Section):
    """-> photos of the mini world; `taming_core.world.plan.Chances` tells what the probabilities are of."""

    seed: NonNegativeInt
    size: PositiveInt  # pixels of a photo's side
    views: PositiveInt  # photos of each thing
    quality: int = Field(ge=1, le=100)  # of the JPEG files
    recolor: Fraction
    style: Fraction
    two_objects: Fraction
    silent: Fraction
    paraphrase: Fraction
    attributes: Fraction
    mirror: Fraction
    turn: NonNegativeFloat
    tilt: NonNegativeFloat
    smallest: PositiveFloat
    largest: PositiveFloat


class Params(Section):
    """All of params.yaml."""

    detect: DetectParams
    caption: CaptionParams
    materialize: MaterializeParams
    train: TrainParams
    evaluate: EvaluateParams
    generate: GenerateParams
    world: WorldParams


def packaged_params() -> Path:
    """The params of the embedded default: in the wheel beside this file, in a checkout at its top."""
    installed = Path(__file__).parent / "params.yaml"
    return installed if installed.exists() else Path(__file__).parent.parent / "params.yaml"


def load_params(path: Path | None = None) -> Params:
    """Read and check the params; with no path those of ./params.yaml, else of the package.

    Raises:
        TamingError: naming the key that is wrong and what it may be.
    """
    if path is None:
        path = Path("params.yaml") if Path("params.yaml").is_file() else packaged_params()
    if not path.is_file():
        raise TamingError(f"{path} does not exist. Copy {packaged_params()} there, or name another with --params.")
    try:
        # YAML 1.2, as DVC reads and writes it: `dvc exp run -S` leaves 1e-05, which YAML 1.1 takes for text.
        found: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise TamingError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct it.") from error
    try:
        return Params.model_validate(found)
    except ValidationError as error:
        raise TamingError(f"{path}: {_explain(error)}. Correct the key and run the command again.") from error


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, with the full name of its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return str(first.get("ctx", {})["error"])
    if first["type"] == "extra_forbidden":
        return f"{key} is not a known key; known here: {', '.join(_known_keys(first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key} is {first['input']!r}: {first['msg'].lower()}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `location`."""
    section: Any = Params
    for part in location:
        kind = section.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(section.model_fields)


def fingerprint(section: BaseModel, *inputs: str, without: frozenset[str] = frozenset()) -> str:
    """16 hex digits of the section's values and the inputs; `without` names keys that change no result."""
    text = json.dumps([section.model_dump(exclude=set(without)), inputs], sort_keys=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()
