"""The interface of a text-to-image model: text encoders, autoencoder, and a denoiser conditioned on prompt embeddings.

A family knows how the components of its checkpoints work together; objects are added by `model.conditioning`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from taming_core.bases import limits
from taming_core.language.placeholder import OBJECT
from taming_core.language.token_limit import words_beyond
from taming_core.params import arguments


class Text(NamedTuple):
    """Prompt embeddings."""

    states: Float[Tensor, "batch length width"]  # T(c), the keys and values of the denoiser's attention
    pooled: Float[Tensor, "batch features"] | None  # pooled embedding, which some families add to the timestep's

    def map(self, change: Callable[[Tensor], Tensor]) -> "Text":
        """Apply `change` to the states and to the pooled embedding."""
        return Text(change(self.states), None if self.pooled is None else change(self.pooled))


class Family(ABC):
    """The components of a text-to-image model, by their names in diffusers pipelines, and how they work together."""

    denoiser_name: ClassVar[str]
    text_encoder_names: ClassVar[tuple[str, ...]]  # each with a tokenizer: text_encoder_2 with tokenizer_2
    designs: ClassVar[tuple[str, ...]]  # the network designs that its attention supports
    pipeline_name: ClassVar[str]  # diffusers' class for the family
    states_encoder: ClassVar[int] = 0  # number of the text encoder whose tokens the first of `Text.states` belong to

    def __init__(self, components: Mapping[str, Any]) -> None:
        self.components = components
        self.denoiser: Any = components[self.denoiser_name]
        self.vae: Any = components["vae"]

    @classmethod
    def component_names(cls) -> tuple[str, ...]:
        """Names of all components but the object encoder."""
        return ("vae", *cls.text_encoder_names, *map(tokenizer_of, cls.text_encoder_names), cls.denoiser_name,
                "scheduler")  # fmt: skip

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The loaded text encoders by name; SD 3.5 may omit T5."""
        return {n: m for n in self.text_encoder_names if (m := self.components.get(n)) is not None}

    @property
    def trainable_text_encoders(self) -> list[str]:
        """The names of those that `train.text_encoder_rate` trains: the CLIPs.

        T5 stays frozen, as in diffusers' training scripts: it has 4.7 billion weights, which were never trained with
        images.
        """
        return [name for name, encoder in self.text_encoders.items() if not isinstance(encoder, T5EncoderModel)]

    @property
    def tokenizers(self) -> list[Any]:
        """One for each loaded text encoder."""
        return [self.components[tokenizer_of(name)] for name in self.text_encoders]

    @property
    def lengths(self) -> list[int]:
        """Prompt length of each text encoder, in tokens."""
        return [tokenizer.model_max_length for tokenizer in self.tokenizers]

    def token_ids(self, prompts: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Token ids (B, sum of `lengths`): those of all text encoders, concatenated."""
        return torch.cat([token_ids(t, prompts, n) for t, n in zip(self.tokenizers, self.lengths, strict=True)], dim=1)

    def split_token_ids(self, ids: Int[Tensor, "batch length"]) -> list[Int[Tensor, "batch _"]]:
        """The token ids of each text encoder."""
        return list(torch.split(ids, self.lengths, dim=1))

    def state_ids(self, ids: Int[Tensor, "batch length"]) -> Int[Tensor, "batch _"]:
        """The token ids that the first of `Text.states` belong to."""
        return self.split_token_ids(ids)[self.states_encoder]

    def lost_words(self, prompts: Sequence[str]) -> list[str]:
        """The end of each prompt that is beyond the `lengths` of all text encoders; "" where nothing is lost."""
        ends = [words_beyond(t, prompts, n) for t, n in zip(self.tokenizers, self.lengths, strict=True)]
        return [min(of_prompt, key=len) for of_prompt in zip(*ends, strict=True)]

    def loses_placeholder(self, prompts: Sequence[str]) -> list[bool]:
        """Whether an `<object>` of each prompt is beyond the `state_ids`, so that its object has no place in it."""
        number = self.states_encoder
        return [OBJECT in end for end in words_beyond(self.tokenizers[number], prompts, self.lengths[number])]

    @property
    def placeholder(self) -> int:
        """The id of `<object>` among the `state_ids`."""
        return self.tokenizers[self.states_encoder].convert_tokens_to_ids(OBJECT)

    @property
    def text_length(self) -> int:
        """L, the length of `Text.states`."""
        return self.lengths[0]

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the width of `Text.states` and of the object tokens."""

    @abstractmethod
    def text(self, ids: Int[Tensor, "batch length"]) -> Text:
        """The prompt embeddings of `token_ids`."""

    @abstractmethod
    def predict(
        self,
        latents: Float[Tensor, "batch channels rows columns"],
        times: Tensor,
        text: Text,
        guidance: float | Float[Tensor, " batch"] | None = None,
        sizes: Float[Tensor, "batch 4"] | None = None,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The denoiser output: noise, velocity, clean latents or flow, as the base model was trained.

        Args:
            latents: noised latents.
            times: (B,), their timesteps on the scheduler's scale.
            text: prompt embeddings; object tokens may follow the states of the prompt.
            guidance: the scale for a guidance-distilled denoiser, of each sample or of all; None for any other.
            sizes: height and width of the original image, top and left of the crop, in pixels; None for images that
                are whole and have the size of the latents. Only SDXL reads them.
        """

    @property
    def first_layer(self) -> nn.Module:
        """The denoiser's first layer, which reads the latents."""
        return self.denoiser.conv_in

    @property
    def first_channels(self) -> int:
        """Channels of the output of `first_layer`."""
        return self.denoiser.conv_in.out_channels

    @property
    def patch(self) -> int:
        """Side in latents of what `first_layer` makes one vector of; 1 for a UNet."""
        return 1

    @property
    def reads_guidance(self) -> bool:
        """Whether the denoiser is guidance-distilled, so that the guidance scale is one of its inputs."""
        return bool(self.denoiser.config.get("guidance_embeds", False))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along each side."""
        return limits.vae_scale_factor(self.vae.config)

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Image width and height must be multiples of this many pixels."""

    @property
    def max_size(self) -> int | None:
        """The longest image side in pixels that the denoiser has position embeddings for; None without a limit."""
        return None

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents, before packing."""
        return self.vae.config["latent_channels"]

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the model was trained on."""
        return self.denoiser.config["sample_size"] * self.vae_scale_factor

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Convert latents from the autoencoder's scale to the denoiser's."""
        config = self.vae.config
        return (latents - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]

    def unscale_latents(self, latents: Tensor) -> Tensor:
        """The inverse of `scale_latents`."""
        config = self.vae.config
        return latents / config["scaling_factor"] + (config.get("shift_factor") or 0.0)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Any:
        """The posterior of images in [-1, 1], with mean and std (B, C, h, w), before `scale_latents`."""
        with vae_precision(self.vae, images.device):
            return self.vae.encode(images.to(self.vae.dtype)).latent_dist

    def decode(self, latents: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch 3 height width"]:
        """Images (B, 3, H, W) in about [-1, 1]; gradients flow to the latents."""
        with vae_precision(self.vae, latents.device):
            return self.vae.decode(self.unscale_latents(latents).to(self.vae.dtype), return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, steps: int, device: torch.device, latents: Tensor) -> None:
        """Set the sampling timesteps; the shift of some schedulers depends on the size of `latents` (B, C, h, w)."""
        scheduler.set_timesteps(steps, device=device, **time_shift(scheduler, latents.shape))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network but the object encoder, by its name in training."""
        return {"vae": self.vae, **self.text_encoders, "denoiser": self.denoiser}


def pool_at_eos(text_encoder: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a CLIP text encoder find the end of a prompt by its tokenizer's EOS.

    Published checkpoints have 2 as `eos_token_id`, for which transformers pools at the highest id of the prompt. That
    is EOS, until a token such as `<object>` is added: its id is higher, so that no word after it would count.
    """
    if text_encoder.config.model_type != "clip_text_model":
        return
    text_encoder.config.eos_token_id = tokenizer.eos_token_id
    for module in text_encoder.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = tokenizer.eos_token_id


@contextmanager
def vae_precision(vae: Any, device: torch.device) -> Generator[None, None, None]:
    """Run an autoencoder in its own precision inside the block: in float32 without autocast, else as its config asks.

    SDXL's overflows in fp16, whether by autocast or by its weights; `force_upcast` in its config asks for float32.
    """
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    own_precision = vae.dtype == torch.float32 and torch.amp.is_autocast_available(device.type)
    try:
        with torch.autocast(device.type, enabled=False) if own_precision else nullcontext():
            yield
    finally:
        if upcast:
            vae.to(torch.float16)


def tokenizer_of(text_encoder: str) -> str:
    """The component name of a text encoder's tokenizer.

    >>> tokenizer_of("text_encoder_2")
    'tokenizer_2'
    """
    return text_encoder.replace("text_encoder", "tokenizer")


def time_shift(scheduler: Any, shape: Sequence[int]) -> dict[str, float]:
    """The argument `mu` of `set_timesteps` for a scheduler with dynamic shifting; empty for any other."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting", False):
        return {}
    return {"mu": dynamic_shift(config, shape)}


def dynamic_shift(config: Mapping[str, Any], shape: Sequence[int]) -> float:
    """mu, linear in the number of 2 x 2 patches of latents (Esser et al., 2024, section 5.3.2, as FLUX applies it)."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low_shift, high_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    patches = shape[-1] * shape[-2] // 4
    return low_shift + (patches - low) * (high_shift - low_shift) / (high - low)


def is_flow_matching(scheduler: Any) -> bool:
    """`arguments.is_flow_matching` of a loaded scheduler."""
    return arguments.is_flow_matching(type(scheduler).__name__, scheduler.config)


def token_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], length: int | None = None
) -> Int[Tensor, "batch length"]:
    """Token ids (B, length) of the prompts, padded and truncated to `length`; None for the tokenizer's maximum."""
    untyped: Any = tokenizer
    padding = {"padding": "max_length", "truncation": True, "max_length": length or untyped.model_max_length}
    return untyped(list(prompts), **padding, return_tensors="pt").input_ids
