"""How the object embedding enters the denoiser: `concat` and `decoupled` (docs/method.md section 3).

Both read one context, the text states followed by the object's K tokens, so that the denoiser is called in one way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class DecoupledLayer(nn.Module):
    """Keys and values of the object beside those of the text, in one attention layer."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(width, channels, bias=False)
        self.to_v = nn.Linear(width, channels, bias=False)
        nn.init.zeros_(self.to_v.weight)  # at step 0 the base model is unchanged


class DecoupledProcessor:
    """The layer's own attention over the text, plus one over the last `tokens` of the context.

    A plain object, so that the denoiser does not register weights that belong to the object encoder.
    """

    def __init__(self, layer: DecoupledLayer, tokens: int) -> None:
        self.layer, self.tokens = layer, tokens
        self.text = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "batch pixels channels"],
        encoder_hidden_states: Float[Tensor, "batch length width"],
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "batch pixels channels"]:
        text, objects = encoder_hidden_states[:, : -self.tokens], encoder_hidden_states[:, -self.tokens :]
        out = self.text(attn, hidden_states, text, attention_mask, temb)
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), self.layer.to_k(objects), self.layer.to_v(objects))
        )
        added = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        # `to_out` is linear, so its bias, already in `out`, is left away here.
        weight = attn.to_out[0].weight  # pyright: ignore[reportOptionalSubscript]
        return out + F.linear(added.to(out.dtype), weight) / attn.rescale_output_factor  # pyright: ignore[reportArgumentType]


def cross_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """Every layer of the denoiser that attends to the context, by name."""
    return {n: m for n, m in denoiser.named_modules() if isinstance(m, Attention) and m.is_cross_attention}


def layer_channels(denoiser: nn.Module) -> dict[str, int]:
    """Name and channels of every cross-attention layer: what a `decoupled` object encoder needs to know."""
    return {name: attn.inner_dim for name, attn in cross_attentions(denoiser).items()}


def inject(denoiser: UNet2DConditionModel, layers: Mapping[str, DecoupledLayer], tokens: int) -> None:
    """Let the named attention layers see the object; `eject` is the inverse."""
    attentions = cross_attentions(denoiser)
    for name, layer in layers.items():
        attentions[name].set_processor(DecoupledProcessor(layer, tokens))  # pyright: ignore[reportArgumentType]


def eject(denoiser: UNet2DConditionModel) -> None:
    """Give every attention layer its own processor back."""
    for attn in cross_attentions(denoiser).values():
        if isinstance(attn.processor, DecoupledProcessor):
            attn.set_processor(attn.processor.text)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Part:
    """Some samples of a batch, and what the denoiser attends to for them."""

    rows: Int[Tensor, " part"]  # their numbers in the batch
    states: Float[Tensor, "part length width"]


def contexts(
    text: Float[Tensor, "batch length width"],
    objects: Float[Tensor, "shown tokens width"] | None,
    present: Bool[Tensor, " batch"],
    injection: str,
    tokens: int,
) -> list[Part]:
    """What the denoiser attends to, in parts of equal length.

    Args:
        text: T(c).
        objects: z of the samples that have an object, in their order; None where no sample has one.
        present: which samples have an object; the others get the null embedding.
        injection: `concat` or `decoupled`.
        tokens: K.
    """
    everyone = torch.arange(len(text), device=text.device)
    if injection == "decoupled":
        # Without bias, zero tokens have zero values: the added attention is exactly nothing.
        shown = text.new_zeros(len(text), tokens, text.shape[2])
        if objects is not None:
            shown = shown.index_put((everyone[present],), objects.to(text.dtype))
        return [Part(everyone, torch.cat([text, shown], 1))]
    # Null samples go by themselves, not masked: diffusers hands no mask to layers of `only_cross_attention`.
    told = [] if objects is None else [Part(everyone[present], torch.cat([text[present], objects.to(text.dtype)], 1))]
    plain = [] if bool(present.all()) else [Part(everyone[~present], text[~present])]
    return [*told, *plain]


def denoise(
    denoiser: UNet2DConditionModel,
    latents: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    parts: Sequence[Part],
) -> Float[Tensor, "batch channels height width"]:
    """The denoiser's prediction for every sample of the parts that `contexts` made."""
    found = [denoiser(latents[p.rows], timesteps[p.rows], p.states, return_dict=False)[0] for p in parts]
    return torch.cat(found)[torch.argsort(torch.cat([p.rows for p in parts]))]
