"""The section `train` of params.yaml, and the checks of which values go together."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from taming_core.params.sections import Fraction, Sampling, Section

Precision = Literal["fp32", "bf16", "fp16"]
Cache = Literal["latents", "text", "tower"]
Injection = Literal["substitute", "concat", "decoupled", "gated", "reference"]
GuidanceRange = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]  # the lowest and the highest


class ValidationParams(Section):
    """What training measures and draws of held-out objects at intervals, always with the same noise and seeds."""

    every: NonNegativeInt  # steps; 0 for never
    batches: NonNegativeInt  # of the validation split, for the held-out denoising loss; 0 for none
    objects: PositiveInt  # of the validation split, in the grid of images
    prompts: Annotated[list[str], Field(min_length=1)]  # each object is drawn with each
    sampling: Sampling


class EncoderParams(Section):
    """A new object encoder, for training that starts from a base."""

    tower: str  # mini, a folder or a name of a CLIP, DINOv2 or SigLIP model, or the folder of an object encoder
    projector: Literal["full", "linear", "mlp", "resampler"]  # features to tokens: per patch, or from the pooled output
    tokens: PositiveInt  # K; `full` has one per patch
    tower_blocks: NonNegativeInt  # last blocks of the tower that are trained


class Augmentation(Section):
    """Augmentation of the subject, for a cross-reference row whose identity has no other view."""

    rotation: NonNegativeFloat  # maximal degrees, to either side
    perspective: Fraction  # maximal shift of a corner, as a share of the side
    light: Fraction  # maximal change of brightness; the hue is unchanged


class CollageParams(Section):
    """The subject's latents at the object's place, as a further input of the denoiser (`model/collage.py`)."""

    drop: Fraction  # probability that a row has none, so that images can be drawn without one
    jitter: Fraction  # maximal error of the place and of its size, as a share of the object's square


class LoraParams(Section):
    """Low-rank adaptation of the denoiser's attention (Hu et al., "LoRA", 2022)."""

    rank: PositiveInt  # of each change of a weight
    alpha: PositiveFloat  # the update is scaled by alpha / rank


class TrainParams(Section):
    """rows -> encoder."""

    start: str | None  # mini or an encoder folder to continue from; null trains a new encoder on `base`
    base: str | None  # folder or name of a text-to-image model; only where start is null
    encoder: EncoderParams | None  # a new object encoder; only where start is null; `reference` has none
    injection: Injection | None  # how the object enters the denoiser; only where start is null
    layers: list[str] | None  # name prefixes of the attention layers that attend to the object; null for all
    background: Literal["removed", "kept"] | None  # of the subject; only where start is null
    tune: Literal["adapter", "lora", "whole"]  # the encoder alone; with LoRA of the denoiser; with all of it
    lora: LoraParams | None  # only where tune is lora
    seed: NonNegativeInt  # of weights, order, noise and drops
    steps: PositiveInt  # optimizer updates
    batch_size: PositiveInt  # rows per update
    micro_batch_size: PositiveInt  # rows on the device at once
    learning_rate: PositiveFloat  # peak, of encoder and injected layers
    denoiser_rate: Fraction  # of the denoiser or its LoRA, as a share of learning_rate
    text_encoder_rate: Fraction  # of the CLIP text encoders, as a share of learning_rate; 0 freezes them, as T5 is
    warmup: NonNegativeInt  # steps in which the learning rate rises to its peak
    schedule: Literal["constant", "cosine", "linear"]  # the learning rate after the warmup; the last two fall to 0
    weight_decay: NonNegativeFloat  # of AdamW
    max_grad_norm: PositiveFloat  # gradients of a larger norm are scaled down to it
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the average that is kept; 0 keeps the last weights
    regularization: Fraction  # share of regularization rows (text-image pairs) in a batch
    prior: PositiveInt | None  # generated images as regularization rows (prior preservation), if there are no others
    captions: Literal["object_token", "class_token", "class_noun"]  # <object> in the caption, alone, or the class noun
    two_objects: Fraction  # probability that a row whose photo holds another object shows the model both
    binding: bool  # whether each object's tokens are bound to its own <object>, so that a prompt can tell two apart
    collage: CollageParams | None  # whether the denoiser also reads the object's latents at its place, and how
    positions: bool  # whether each token says where its patch is; only with the projector `full`
    attributes: bool  # whether captions keep the object's adjectives and their last clause
    references: PositiveInt  # photos of the identity that the encoder sees together
    object_drop: Fraction  # probability that a row loses its object embedding
    text_drop: Fraction  # probability that a row loses its caption
    cross_reference: Fraction  # probability that the subject comes from another view
    augmentation: Augmentation  # for the other view, where there is none
    mask_weight: NonNegativeFloat  # extra weight of the loss inside the object
    min_snr: PositiveFloat | None  # gamma of min-SNR weighting (Hang et al., 2023); null weighs as the base does
    offset_noise: NonNegativeFloat  # offset noise: one value per channel, as a share of the noise
    zero_terminal_snr: bool  # rescale the noise schedule to zero terminal SNR (Lin et al., 2024)
    timestep_power: Annotated[float, Field(ge=1)]  # above 1 noisy timesteps are drawn more often; 3 as T2I-Adapter
    guidance: PositiveFloat | GuidanceRange | None  # scale that a guidance-distilled base reads; a range is drawn from
    localization_weight: NonNegativeFloat  # weight of the loss that keeps attention to object tokens in the mask
    identity_weight: NonNegativeFloat  # lambda, the identity loss's weight where nothing is noised; 0 disables it
    identity_max_timestep: PositiveInt | None  # the identity loss applies below this timestep only
    identity_network: str | None  # mini or a folder; null where identity_weight is 0
    precision: Precision  # of computation and frozen weights; what trains stays in float32; fp16 on a GPU only
    gradient_checkpointing: bool  # recompute activations of denoiser and autoencoder in the backward pass
    compile: bool  # compile the denoiser's transformer blocks (torch.compile); only for decoupled and gated
    optimizer: Literal["adamw", "adamw8bit"]  # the second has 8-bit states (Dettmers et al., 2022)
    cache: list[Cache]  # features of frozen modules that are cached on disk
    offload: bool  # move frozen modules whose output is cached to the CPU
    save_every: PositiveInt  # steps after which the state to resume from is saved
    validation: ValidationParams  # what training measures and draws of held-out objects at intervals

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "TrainParams":
        for check in (self._check_start, self._check_tuning, self._check_losses, self._check_batches):
            check()
        return self

    def _check_start(self) -> None:
        fresh = {"base": self.base, "injection": self.injection, "background": self.background}
        for key, value in {**fresh, "encoder": self.encoder, "layers": self.layers}.items():
            if self.start is not None and value is not None:
                raise ValueError(f"train.{key} must be null where train.start is set, since the start determines it")
        for key, value in fresh.items():
            if self.start is None and value is None:
                raise ValueError(f"train.{key} must be set where train.start is null")
        if self.start is None and (self.encoder is None) != (self.injection == "reference"):
            raise ValueError("train.encoder must be set where train.start is null, but null where train.injection is "
                             "reference, which encodes the subject with the denoiser itself")  # fmt: skip
        if self.layers is not None and self.injection == "substitute":
            raise ValueError("train.layers must be null where train.injection is substitute, which adds no attention")

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
                             "text and object tokens do not share one attention")  # fmt: skip
        if isinstance(self.guidance, list) and self.guidance[0] >= self.guidance[1]:
            raise ValueError("train.guidance must name the lower end of the range first, as in [1.0, 5.0]")

    def _check_batches(self) -> None:
        if self.regularization == 1:
            raise ValueError("train.regularization must be below 1, else no row has an object")
        if self.regularization == 0 and self.prior is not None:
            raise ValueError(
                "train.prior must be null where train.regularization is 0, since no batch would contain its images"
            )
        if self.captions == "class_noun" and self.injection == "substitute":
            raise ValueError("train.captions must not be class_noun where train.injection is substitute: without "
                             "<object> in the caption no token can be substituted")  # fmt: skip
        if self.captions == "class_token" and not self.attributes:
            raise ValueError("train.attributes must be true where train.captions is class_token, which has none")
        if len(set(self.cache)) < len(self.cache):
            raise ValueError("train.cache must not list an entry twice")
        if self.offload and not self.cache:
            raise ValueError("train.offload must be false where train.cache is empty: every module runs in each step")
        if self.compile and self.two_objects > 0:
            raise ValueError("train.compile must be false where train.two_objects is above 0: the shapes that blocks "
                             "compute change from batch to batch")  # fmt: skip
        if self.compile and self.injection not in (None, "decoupled", "gated"):
            raise ValueError(f"train.compile must be false where train.injection is {self.injection}: the shapes that "
                             "its blocks compute change from batch to batch")  # fmt: skip
        if "text" in self.cache and self.text_encoder_rate > 0:
            raise ValueError("train.cache must not hold text where train.text_encoder_rate is above 0: it changes")
        if self.two_objects > 0 and self.captions != "object_token":
            raise ValueError("train.two_objects must be 0 unless train.captions is object_token, which has an <object> "
                             "for each")  # fmt: skip
        if self.two_objects > 0 and not self.attributes:
            raise ValueError("train.two_objects must be 0 where train.attributes is false: a caption without "
                             "attributes is about one object")  # fmt: skip
        if self.two_objects > 0 and self.localization_weight > 0:
            raise ValueError("train.two_objects must be 0 where train.localization_weight is above 0, which knows the "
                             "place of one object")  # fmt: skip
        if self.positions and self.start is None and (self.encoder is None or self.encoder.projector != "full"):
            raise ValueError("train.positions must be false unless train.encoder.projector is full: no other's tokens "
                             "stand for places of the photo")  # fmt: skip
        if self.collage is not None and (self.injection == "reference" or self.background == "kept"):
            key = "injection is reference" if self.injection == "reference" else "background is kept"
            raise ValueError(
                f"train.collage must be null where train.{key}: it needs an encoder's tokens and a cut-out"
            )
        if self.binding and self.captions == "class_noun":
            raise ValueError("train.binding must be false where train.captions is class_noun: without <object> in the "
                             "caption there is nothing to bind to")  # fmt: skip
        if "tower" in self.cache and (self.encoder is None or self.encoder.tower_blocks > 0):
            raise ValueError("train.cache must not hold tower unless train.encoder.tower_blocks is 0: it changes")
        if self.batch_size % self.micro_batch_size:
            raise ValueError("train.batch_size must be a multiple of train.micro_batch_size")
