"""What text-to-image models have in common: texts, latents, and a denoiser that is told of both.

A family knows how the parts of its checkpoints go together, and nothing of objects, which `contexts` adds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from taming_core.language.placeholder import OBJECT


class Text(NamedTuple):
    """What the denoiser is told in words."""

    states: Float[Tensor, "batch length width"]  # T(c), what attention reads
    pooled: Float[Tensor, "batch features"] | None  # a summary that some families add to the timestep

    def map(self, change: Callable[[Tensor], Tensor]) -> "Text":
        """With states and summary changed alike."""
        return Text(change(self.states), None if self.pooled is None else change(self.pooled))


class Family(ABC):
    """The parts of a text-to-image model, by the names that diffusers pipelines give them, and how they go together."""

    denoiser_name: ClassVar[str]
    text_encoder_names: ClassVar[tuple[str, ...]]  # each with a tokenizer: text_encoder_2 with tokenizer_2
    designs: ClassVar[tuple[str, ...]]  # the network designs that its attention has a place for
    pipeline_name: ClassVar[str]  # diffusers' class for the family

    def __init__(self, components: Mapping[str, Any]) -> None:
        self.components = components
        self.denoiser: Any = components[self.denoiser_name]
        self.vae: Any = components["vae"]

    @classmethod
    def component_names(cls) -> tuple[str, ...]:
        """Every part but the object encoder."""
        return ("vae", *cls.text_encoder_names, *map(tokenizer_of, cls.text_encoder_names), cls.denoiser_name,
                "scheduler")  # fmt: skip

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders that are there, by name; SD 3.5 may do without its largest."""
        return {n: m for n in self.text_encoder_names if (m := self.components.get(n)) is not None}

    @property
    def tokenizers(self) -> list[Any]:
        """One for each text encoder that is there."""
        return [self.components[tokenizer_of(name)] for name in self.text_encoders]

    @property
    def lengths(self) -> list[int]:
        """Tokens that each text encoder reads of a prompt."""
        return [tokenizer.model_max_length for tokenizer in self.tokenizers]

    def token_ids(self, prompts: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Token ids for every text encoder, side by side."""
        return torch.cat(
            [token_ids(t, prompts, n) for t, n in zip(self.tokenizers, self.lengths, strict=True)], dim=1
        )  # fmt: skip

    def split_token_ids(self, ids: Int[Tensor, "batch length"]) -> list[Int[Tensor, "batch own"]]:
        """The inverse of putting side by side."""
        return list(ids.split(self.lengths, dim=1))

    @property
    def placeholder(self) -> int:
        """The first tokenizer's id of `<object>`."""
        return self.tokenizers[0].convert_tokens_to_ids(OBJECT)

    @property
    def text_length(self) -> int:
        """L, of the states that attention reads."""
        return self.lengths[0]

    @property
    @abstractmethod
    def width(self) -> int:
        """D, of the states that attention reads, and of the object's tokens."""

    @abstractmethod
    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        """What the text encoders make of `token_ids`."""

    @abstractmethod
    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The denoiser's prediction.

        Args:
            latents: as noisy as `times` (B,) tell, on the scale of the scheduler's timesteps.
            text: its states may be longer than the prompt's, for objects follow them.
            guidance: what a denoiser that reads its guidance is told; None where it does not.
        """

    @property
    def reads_guidance(self) -> bool:
        """Whether the denoiser is told how much guidance it was distilled to show."""
        return bool(self.denoiser.config.get("guidance_embeds", False))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of the side of a latent."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """An image's sides are multiples of so many pixels."""

    @property
    def max_size(self) -> int | None:
        """Pixels of the longest side that the denoiser has places for; None where there is no limit."""
        return None

    @property
    def latent_channels(self) -> int:
        """Channels of the latents, before any packing."""
        return self.vae.config["latent_channels"]

    @property
    def image_size(self) -> int:
        """Pixels of the side of the images that the model was trained on."""
        return self.denoiser.config["sample_size"] * self.vae_scale_factor

    def scale_latents(self, latents: Tensor) -> Tensor:
        """From the autoencoder's scale to the denoiser's."""
        config = self.vae.config
        return (latents - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]

    def unscale_latents(self, latents: Tensor) -> Tensor:
        """The inverse of `scaled`."""
        config = self.vae.config
        return latents / config["scaling_factor"] + (config.get("shift_factor") or 0.0)

    def decode(self, latents: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in about [-1, 1]; gradients flow to the latents."""
        # SDXL's autoencoder overflows in half precision, and says so in its config.
        narrow = self.vae.dtype == torch.float16 and self.vae.config.get("force_upcast", False)
        if narrow:
            self.vae.to(torch.float32)
        try:
            with vae_precision(self.vae, latents.device):
                return self.vae.decode(self.unscale_latents(latents).to(self.vae.dtype), return_dict=False)[0]
        finally:
            if narrow:
                self.vae.to(torch.float16)

    def set_timesteps(self, scheduler: Any, steps: int, device: torch.device, latents: Tensor) -> None:
        """Choose the timesteps of one drawing; `latents` (B, C, h, w) tells how large it is."""
        scheduler.set_timesteps(steps, device=device, **time_shift(scheduler, latents.shape))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network but the object encoder, by the name that training gives it."""
        return {"vae": self.vae, **self.text_encoders, "denoiser": self.denoiser}


def vae_precision(vae: Any, device: torch.device) -> AbstractContextManager[Any]:
    """Within, an autoencoder in float32 computes in it whatever autocast asks for: in fp16 SDXL's overflows."""
    if vae.dtype != torch.float32 or not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def tokenizer_of(text_encoder: str) -> str:
    """The tokenizer that goes with a text encoder.

    >>> tokenizer_of("text_encoder_2")
    'tokenizer_2'
    """
    return text_encoder.replace("text_encoder", "tokenizer")


def time_shift(scheduler: Any, shape: Sequence[int]) -> dict[str, float]:
    """The shift `mu` of a scheduler that shifts its timesteps the further, the larger the image is."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting", False):
        return {}
    return {"mu": dynamic_shift(config, shape)}


def dynamic_shift(config: Mapping[str, Any], shape: Sequence[int]) -> float:
    """mu, linear in the number of patches of 2 x 2 latents (Esser et al., 2024, section 5.3.2, as FLUX has it)."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    patches = shape[-1] * shape[-2] // 4
    return least + (patches - low) * (most - least) / (high - low)


def is_flow_matching(scheduler: Any) -> bool:
    """Whether a scheduler is one of flow matching (Lipman et al., 2023), not of added noise."""
    return type(scheduler).__name__.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas", False))


def token_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], length: int | None = None
) -> Int[Tensor, "batch length"]:
    """Token ids of the prompts, padded and cut to `length`, or to the tokenizer's own."""
    fit = {"padding": "max_length", "truncation": True, "max_length": length or tokenizer.model_max_length}
    return tokenizer(list(prompts), **fit, return_tensors="pt").input_ids
