"""The sections of params.yaml, strict and frozen; `caption` and `train` are in files of their own."""

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from taming_core.params.section import Section
from taming_core.params.vlm import VlmJudgeParams

Fraction = Annotated[float, Field(ge=0, le=1)]
MAX_PIXELS = 2**29  # of a photo, the most that can be allowed: to decode a PNG of that size takes 2 GB
Size = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]  # width and height in pixels

# Published salient-object segmenters and their files; they need no box.
SALIENT_SEGMENTERS = {
    "isnet": "isnet-general-use",
    "isnet-general-use": "isnet-general-use",
    "u2net": "u2net",
    "birefnet": "BiRefNet-general-epoch_244",
    "birefnet-general": "BiRefNet-general-epoch_244",
}


def is_salient(segmenter: str) -> bool:
    """Whether a segmenter finds what stands out in a picture; the others need a box.

    >>> [is_salient(s) for s in ("isnet", "models/mine.onnx", "sam_vit_h", "detector")]
    [True, True, False, False]
    """
    return segmenter in SALIENT_SEGMENTERS or segmenter.endswith(".onnx")


class ScoreParams(Section):
    """A score of photos or objects by a model, and the bounds outside of which they are dropped."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]  # as `taming inspect --sort` names it
    model: str  # an image classifier of transformers; with texts, mini or a CLIP
    label: str | None  # of the classifier: its probability is the score; null with texts, or for a single output
    texts: Annotated[list[str], Field(min_length=1)] | None  # {class} stands for the object's class
    view: Literal["photo", "object"]  # what the model sees; a photo that is dropped is not used in any way
    min: float | None  # below it the object, or the photo, is dropped; null for no bound
    max: float | None  # above it

    @model_validator(mode="after")
    def _label_or_texts(self) -> "ScoreParams":
        if self.texts and self.label is not None:
            raise ValueError(
                f"detect.curation.scores.{self.name} must have a label or texts: the first text is the label"
            )
        if self.view == "photo" and any("{class}" in text for text in self.texts or ()):
            raise ValueError(
                f"detect.curation.scores.{self.name}.texts must not hold {{class}} where its view is photo"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"detect.curation.scores.{self.name}.min must not be above its max")
        return self


class CurationParams(Section):
    """What of the kept objects is measured, and what is dropped by it."""

    sharpness_min: NonNegativeFloat | None  # variance of the Laplacian of the object at 256 px; null drops none
    exclude: list[str]  # classes of objects, with every word for them, such as person
    scores: list[ScoreParams]  # of photos or objects by any classifier or CLIP

    @model_validator(mode="after")
    def _names_differ(self) -> "CurationParams":
        names = [score.name for score in self.scores]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"detect.curation.scores must not have the name {twice[0]} twice")
        if taken := [name for name in names if name in ("score", "sharpness")]:
            raise ValueError(f"detect.curation.scores must not have the name {taken[0]}, which is a column's")
        return self


class DetectParams(Section):
    """photos -> objects."""

    detector: str  # mini, a file, a model name, or `none` where what stands out in a photo is its object
    segmenter: str  # mini, a file, a model name, or `detector` for the detector's own masks
    classes: list[str] | None  # class names for an open-vocabulary detector; null for its built-in ones
    classifier: str | None  # mini, an image classifier or a CLIP that names the objects; null for the detector's class
    class_names: Annotated[list[str], Field(min_length=2)] | None  # nouns that a CLIP chooses from; null for no CLIP
    class_min: Fraction  # an object whose class is less probable (without a classifier: scored) is an "object"
    image_size: PositiveInt  # pixels of the longer side of the detector's input; not used without a detector
    identity: Literal["folder", "top_folder", "metadata", "photo"]  # where a photo's identity comes from
    min_side: PositiveInt  # pixels of the photo's shorter side; smaller photos are dropped
    max_pixels: Annotated[int, Field(gt=0, le=MAX_PIXELS)]  # width times height of a photo; larger ones are dropped
    score_floor: Fraction  # detections below it are noise and make no row; not used without a detector
    max_found: PositiveInt  # detections per photo, best score first; more make no row
    score: Fraction  # below it an object is dropped
    island: Fraction  # components of a mask below this share of the largest one are removed
    area_min: Fraction  # mask pixels / photo pixels; smaller objects are dropped
    area_max: Fraction  # larger objects are dropped
    aspect_max: PositiveFloat  # longer side of the box / shorter side; thinner objects are dropped
    border: NonNegativeInt  # pixels between box and photo edge; closer counts as cut off
    containment: Fraction  # share of a box inside a larger one, from which it is dropped
    mask_fill: Fraction  # share of the box that the mask must cover, else the object is dropped
    max_objects: PositiveInt  # kept per photo, best score first
    curation: CurationParams | None  # null measures and drops nothing more
    batch_size: PositiveInt  # photos in memory at once
    shard_size: PositiveInt  # photos per crash-safe shard

    @model_validator(mode="after")
    def _areas_in_order(self) -> "DetectParams":
        if self.area_min >= self.area_max:
            raise ValueError(f"detect.area_min must be below detect.area_max, which is {self.area_max}")
        return self

    @model_validator(mode="after")
    def _something_finds_the_object(self) -> "DetectParams":
        if self.detector == "none" and not is_salient(self.segmenter):
            raise ValueError("detect.segmenter must be isnet or another salient-object segmenter (.onnx) where "
                             f"detect.detector is none, for {self.segmenter} needs a detector's boxes")  # fmt: skip
        if self.detector == "none" and self.classes is not None:
            raise ValueError("detect.classes must be null where detect.detector is none, which knows no classes")
        if self.detector == "none" and self.class_min > 0 and self.classifier is None:
            raise ValueError("detect.class_min must be 0 where nothing names the objects: detect.detector is none, and "
                             "detect.classifier is null")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _names_are_for_a_classifier(self) -> "DetectParams":
        names = self.class_names
        if names is not None and self.classifier is None:
            raise ValueError("detect.class_names must be null where detect.classifier is null")
        if names is not None and len({name.strip() for name in names} - {""}) < len(names):
            raise ValueError("detect.class_names must list nouns, each of them once")
        return self


class AttributeParams(Section):
    """Words for what may change of an object (state, pose, view, light), by zero-shot classification of its cut-out.

    A word is an adjective, which goes before the object; a phrase of several words goes to the caption's end.
    """

    model: str  # mini, a folder, or the name of a CLIP model
    vocabulary: Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]  # by group
    min_margin: Fraction  # least difference between the probabilities of a word and of the next best choice

    @model_validator(mode="after")
    def _words_are_words(self) -> "AttributeParams":
        words = [word for group in self.vocabulary.values() for word in group]
        if len(set(words)) < len(words):
            raise ValueError("caption.attributes.vocabulary must not list a word twice")
        if wrong := [word for word in words if not re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", word)]:
            raise ValueError(f"caption.attributes.vocabulary must list words or phrases, which {wrong[0]!r} is not")
        return self


class MaterializeParams(Section):
    """captions -> rows."""

    size: PositiveInt  # pixels of the target image's side, or of the square bucket's
    buckets: list[Size] | None  # widths and heights to choose from; null for squares of size
    subject_size: PositiveInt  # pixels of the subject's side
    subject_fill: Fraction  # share of the subject's side that the object fills
    validation: Fraction  # share of identities; at least one
    test: Fraction  # share of identities; at least two
    seed: NonNegativeInt  # of the split, which identity goes where
    duplicate_distance: NonNegativeInt  # near-duplicates differ in at most this many of 64 bits
    duplicate_correlation: Fraction  # and their thumbnails correlate at least so much; they share a split
    near_duplicates: Literal["keep", "drop"]  # photos that repeat another identity's; the first by file name stays
    max_references: PositiveInt  # other views listed in a row; sampled if there are more
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]  # of the target images
    shard_size: PositiveInt  # objects per crash-safe shard

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "MaterializeParams":
        if self.validation + self.test >= 1:
            raise ValueError("materialize.validation and materialize.test must leave a share for training")
        return self

    @model_validator(mode="after")
    def _buckets_hold_the_square(self) -> "MaterializeParams":
        if self.buckets is not None and [self.size, self.size] not in self.buckets:
            raise ValueError(f"materialize.buckets must be null or contain [{self.size}, {self.size}], the square of "
                             "materialize.size")  # fmt: skip
        if self.buckets is not None and len({tuple(b) for b in self.buckets}) < len(self.buckets):
            raise ValueError("materialize.buckets must not list a bucket twice")
        return self


class Sampling(Section):
    """How images are sampled; guidance as in docs/explanation/method.md section 6."""

    scheduler: str  # the class name of any diffusers scheduler
    steps: PositiveInt  # of the scheduler, for each image
    guidance_object: NonNegativeFloat  # s_obj: higher keeps the object closer
    guidance_text: NonNegativeFloat  # s_txt: higher follows the prompt closer
    guidance_embedded: PositiveFloat | None = None  # guidance-distilled bases such as FLUX.1-dev: their embedded scale
    batch_size: PositiveInt  # images at once; changes no image but for rounding


Baseline = Literal["textual-inversion", "dreambooth-lora", "dreambooth", "class-noun"]


class PromptParams(Section):
    """A whole prompt of an evaluation, for one object or for a pair."""

    kind: Literal[
        "scene", "style", "attribute", "action", "photorealistic", "imaginative"
    ]  # the last two: DreamBench++
    text: str  # such as "a photo of a red <object>"; with two `<object>` it is drawn for an object and the next one
    group: Literal["live", "object"] | None = None  # living beings, or everything else; null for all objects
    subject: str | None = None  # the one identity that it is drawn for; null for all
    name: str | None = None  # what tables call it; null for its text

    @model_validator(mode="after")
    def _has_a_place_for_the_object(self) -> "PromptParams":
        if self.text.count("<object>") not in (1, 2):
            raise ValueError(f"evaluate.prompts must hold <object> once or twice each, which {self.text!r} does not")
        return self


class EvaluationScores(Section):
    """The networks of scores that papers report: mini, a folder or a hub name each; null leaves a score out."""

    dino: str | None = None  # DINO; of a ViT its class token
    dinov2: str | None = None  # DINOv2; likewise
    clip_b32: str | None = None  # CLIP-I and CLIP-T
    clip_l14: str | None = None  # CLIP-I and CLIP-T, and the features of `quality`
    dreamsim: (
        Literal["ensemble", "dino_vitb16", "dinov2_vitb14", "clip_vitb32", "open_clip_vitb32", "synclr_vitb16"] | None
    ) = None  # which of DreamSim's networks
    lpips: Literal["alex", "vgg", "squeeze"] | None = None  # which of LPIPS's networks
    quality: Literal["cmmd", "kid"] | None = None  # of all images of a condition, by the features of clip_l14

    @model_validator(mode="after")
    def _quality_has_features(self) -> "EvaluationScores":
        if self.quality is not None and self.clip_l14 is None:
            raise ValueError(
                f"evaluate.scores.clip_l14 must name a CLIP where evaluate.scores.quality is {self.quality}"
            )
        return self


class EvaluateParams(Section):
    """encoder -> images -> scores."""

    split: Literal["validation", "test"]  # the held-out identities that are drawn
    seed: NonNegativeInt  # of the choice of objects and of the noise of the images
    objects: PositiveInt  # identities to evaluate
    subjects: list[str]  # these identities, in this order; empty: chosen by the seed
    images_per_prompt: PositiveInt  # of each object, with different noise
    scenes: list[str]  # prompt suffixes, after "a photo of <object>"
    styles: list[str]  # prompt prefixes, before "<object>"
    prompts: list[PromptParams]  # whole prompts beside them, without a choice among candidates
    caption_prompts: bool  # each subject has prompts of its own, in captions beside its photo: needs --raw
    scene_choices: list[str]  # the scenes among which the text judge chooses; they hold all of `scenes`
    style_choices: list[str]  # the same of styles
    control_objects: NonNegativeInt  # identities in the controls: no object tokens, another object's tokens
    baselines: list[Baseline]  # drawn beside the encoder, on the same base, prompts and seeds
    baseline_photos: PositiveInt  # that a baseline trains on, the encoder's first; images are compared with the others
    guidance: list[NonNegativeFloat]  # other object guidances, at which all prompts of the control objects are drawn
    pasted: bool  # a control whose images are the very photo that the encoder sees: which scores does a copy win?
    judge: str  # mini, a folder or a name of a vision model; must not be a network that training used
    strict_judge: str | None  # the same, applied to the cut-out object; null skips its scores
    text_judge: str  # mini, or a CLIP that tells which scene and style an image shows
    scores: EvaluationScores = EvaluationScores()
    vlm: VlmJudgeParams | None  # a vision-language model that judges too; null for none
    judge_check: bool  # also check how well the judges tell objects and corrupted copies from true photos
    sampling: Sampling

    @model_validator(mode="after")
    def _choices_hold_the_prompts(self) -> "EvaluateParams":
        if missing := [s for s in self.scenes if s not in self.scene_choices]:
            raise ValueError(f"evaluate.scene_choices must hold all of evaluate.scenes; missing: {missing}")
        if missing := [s for s in self.styles if s not in self.style_choices]:
            raise ValueError(f"evaluate.style_choices must hold all of evaluate.styles; missing: {missing}")
        if self.scenes and len(self.scene_choices) < 2:
            raise ValueError("evaluate.scene_choices must hold two candidates or more where there are scenes")
        if self.styles and len(self.style_choices) < 2:
            raise ValueError("evaluate.style_choices must hold two candidates or more where there are styles")
        return self

    @model_validator(mode="after")
    def _prompts_differ(self) -> "EvaluateParams":
        if not (self.scenes or self.styles or self.prompts or self.caption_prompts):
            raise ValueError("evaluate.scenes, styles or prompts must hold something to draw")
        groups = {None: ("live", "object"), "live": ("live",), "object": ("object",)}
        drawn = Counter((p.name or p.text, group, p.subject) for p in self.prompts for group in groups[p.group])
        if twice := next((name for (name, _, _), count in drawn.items() if count > 1), None):
            raise ValueError(f"evaluate.prompts must not hold {twice!r} twice for one object")
        return self

    @model_validator(mode="after")
    def _subjects_are_the_objects(self) -> "EvaluateParams":
        if len(set(self.subjects)) < len(self.subjects):
            raise ValueError("evaluate.subjects must not name an identity twice")
        if self.subjects and len(self.subjects) != self.objects:
            raise ValueError(f"evaluate.objects must be {len(self.subjects)} where evaluate.subjects names so many")
        return self

    @model_validator(mode="after")
    def _baselines_differ(self) -> "EvaluateParams":
        if twice := [name for name in self.baselines if self.baselines.count(name) > 1]:
            raise ValueError(f"evaluate.baselines must not list {twice[0]} twice")
        if self.baseline_photos > 1 and not set(self.baselines) - {"class-noun"}:
            raise ValueError("evaluate.baseline_photos must be 1 where evaluate.baselines lists none that is trained")
        return self

    @model_validator(mode="after")
    def _guidances_differ(self) -> "EvaluateParams":
        scales = [self.sampling.guidance_object, *self.guidance]
        if twice := [scale for scale in self.guidance if scales.count(scale) > 1]:
            raise ValueError(f"evaluate.guidance must not list {twice[0]:g} again: images are drawn at it already")
        if self.guidance and not self.control_objects:
            raise ValueError(
                "evaluate.guidance must be empty where evaluate.control_objects is 0: it is drawn of those"
            )
        return self


class GenerateParams(Section):
    """photo + prompt -> images."""

    sampling: Sampling


class WorldParams(Section):
    """-> photos of the mini world; probabilities are those of `taming_core.world.plan.Chances`."""

    seed: NonNegativeInt  # of everything that is drawn
    size: PositiveInt  # pixels of a photo's side
    views: PositiveInt  # photos per object
    quality: int = Field(ge=1, le=100)  # of the JPEG files
    recolor: Fraction  # probability that an object has another colour than its artwork
    style: Fraction  # probability of a style other than a plain photo
    two_objects: Fraction  # probability of a second object
    silent: Fraction  # probability that the caption omits the scene
    paraphrase: Fraction  # probability of other words than the canonical ones, per fact of the caption
    attributes: Fraction  # probability that notable size and position are in the caption
    mirror: Fraction  # probability that the object is mirrored, in all of its views
    turn: NonNegativeFloat  # radians, standard deviation of the rotation
    tilt: NonNegativeFloat  # maximal perspective
    smallest: PositiveFloat  # side of the artwork / side of the photo
    largest: PositiveFloat  # of the same
