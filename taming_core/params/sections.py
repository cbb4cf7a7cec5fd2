"""The sections of params.yaml, strict and frozen; training's, the largest, stands in `train_params`."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]  # width and height in pixels


class Section(BaseModel):
    """Unknown keys and wrong types are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DetectParams(Section):
    """photos -> objects."""

    detector: str  # mini, a file, or a model name
    segmenter: str  # mini, a file, a model name, or `detector` for the detector's own masks
    classes: list[str] | None  # what to look for, in words, with a detector of open vocabulary; null for its own
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

    size: PositiveInt  # pixels of the target image's side, or of the square one among the buckets
    buckets: list[Size] | None  # widths and heights to choose from; null for squares of size
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

    @model_validator(mode="after")
    def _buckets_hold_the_square(self) -> "MaterializeParams":
        if self.buckets is not None and [self.size, self.size] not in self.buckets:
            raise ValueError(f"materialize.buckets must be null or hold [{self.size}, {self.size}], the square of "
                             "materialize.size")  # fmt: skip
        if self.buckets is not None and len({tuple(b) for b in self.buckets}) < len(self.buckets):
            raise ValueError("materialize.buckets must name nothing twice")
        return self


class Sampling(Section):
    """How images are drawn; guidance as in docs/method.md section 6."""

    scheduler: str  # the class name of any diffusers scheduler
    steps: PositiveInt
    guidance_object: NonNegativeFloat
    guidance_text: NonNegativeFloat
    guidance_embedded: PositiveFloat | None = None  # what a base that reads its guidance is told, as FLUX.1-dev does
    batch_size: PositiveInt


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
