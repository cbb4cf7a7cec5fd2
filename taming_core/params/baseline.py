"""The section `baseline` of params.yaml: the methods that tune a model to one object."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from taming_core.params.sections import Fraction, Sampling, Section


class PriorParams(Section):
    """Prior preservation (Ruiz et al., "DreamBooth", 2023, section 3.3): class images of the model itself."""

    images: PositiveInt  # drawn once for each class noun
    weight: PositiveFloat  # of their loss; each step has as many of them as of the photos
    scheduler: str  # the class name of any diffusers scheduler
    steps: PositiveInt  # of the scheduler, for each class image
    guidance_text: NonNegativeFloat  # with which class images are drawn
    guidance_embedded: PositiveFloat | None = None  # guidance-distilled bases such as FLUX.1-dev: their embedded scale
    batch_size: PositiveInt  # class images that are drawn at once

    @property
    def sampling(self) -> Sampling:
        """As images without an object are drawn."""
        return Sampling(
            scheduler=self.scheduler, steps=self.steps, guidance_object=self.guidance_text,
            guidance_text=self.guidance_text, guidance_embedded=self.guidance_embedded, batch_size=self.batch_size,
        )  # fmt: skip


class AugmentParams(Section):
    """Views of the photos; they are made once, so that their latents are encoded once."""

    views: PositiveInt  # of each photo; the first is its central square
    crop: Fraction  # the most that is cropped from the side of a further view
    flip: bool  # mirror every other view; not for text, faces and what has a left and a right


class MethodParams(Section):
    """What all methods have."""

    steps: PositiveInt  # optimizer updates
    batch_size: PositiveInt  # photos in a step
    learning_rate: PositiveFloat  # constant
    checkpoints: list[PositiveInt]  # steps after which the result so far is written to a folder in the output


class TextualInversionParams(MethodParams):
    """Textual Inversion (Gal et al., 2022): the embedding of a new word."""

    vectors: PositiveInt  # tokens of the new word


class DreamBoothParams(MethodParams):
    """DreamBooth (Ruiz et al., 2023): all weights of the denoiser."""

    text_encoder: bool  # train those of the CLIP text encoders too


class DreamBoothLoraParams(MethodParams):
    """DreamBooth with a LoRA (Hu et al., 2022) of the denoiser's attention."""

    rank: PositiveInt  # of each change of a weight
    alpha: PositiveFloat  # the LoRA is multiplied by alpha / rank


class BaselineParams(Section):
    """photos of one object -> a model tuned to it, by the methods of others."""

    seed: NonNegativeInt  # of noise, order and class images
    size: PositiveInt | None  # pixels of the side of a training image; null for the model's own
    identifier: str  # the rare word of DreamBooth before the class noun
    augment: AugmentParams  # views of the photos
    guidance: PositiveFloat | None  # the scale that a guidance-distilled base (FLUX.1-dev) reads; null for any other
    weight_decay: NonNegativeFloat  # of AdamW
    max_grad_norm: PositiveFloat  # gradients of a larger norm are scaled down to it
    gradient_checkpointing: bool  # recompute activations of the denoiser in the backward pass
    prior: PriorParams | None  # of the two DreamBooths; null trains without prior preservation
    textual_inversion: TextualInversionParams
    dreambooth: DreamBoothParams
    dreambooth_lora: DreamBoothLoraParams

    def of(self, method: str) -> MethodParams:
        """The params of a method, by its name in commands."""
        found: MethodParams = getattr(self, method.replace("-", "_"))
        return found

    @model_validator(mode="after")
    def _fit_together(self) -> "BaselineParams":
        for name in ("textual_inversion", "dreambooth", "dreambooth_lora"):
            method: MethodParams = getattr(self, name)
            if late := [step for step in method.checkpoints if step >= method.steps]:
                raise ValueError(f"baseline.{name}.checkpoints must be below its steps, {method.steps}, after which "
                                 f"the result is written; {late[0]} is not")  # fmt: skip
        if self.augment.views == 1 and (self.augment.crop > 0 or self.augment.flip):
            raise ValueError("baseline.augment.crop must be 0 and flip false where views is 1: the only view is the "
                             "photo's central square")  # fmt: skip
        if self.augment.views > 1 and self.augment.crop == 0 and not self.augment.flip:
            raise ValueError("baseline.augment.views must be 1 where crop is 0 and flip is false: all would be equal")
        return self
