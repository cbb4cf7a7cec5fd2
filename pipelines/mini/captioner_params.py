"""Hyperparameters of the captioner."""

from pydantic import Field, NonNegativeInt, PositiveInt

from pipelines.mini.stage_params import TrainingParams
from taming_core.world.plan import Chances


class CaptionerParams(TrainingParams):
    """How the captioner is trained; shares are of training captions."""

    swap_share: float = Field(ge=0, le=1)  # of photos whose object is swapped, see `swap_objects`
    class_share: float = Field(ge=0, lt=1)  # with the class of an object instead of its name
    object_share: float = Field(ge=0, lt=1)  # with "object" instead of its name
    paraphrase: float = Field(ge=0, le=1)  # per fact, in another wording than the canonical one
    size_share: float = Field(ge=0, le=1)  # with a size, where it is notable
    word_steps: NonNegativeInt  # of `train_words`, before captions
    word_batch_size: PositiveInt
    eval_photos: PositiveInt
    chances: Chances  # of the photos it is measured on
