"""How attention layers of the denoiser see an object: what the network designs add to them (docs/method.md section 3).

Every cross-attention of a UNet reads one context, the text states followed by the object's tokens; `substitute` and
`concat` need nothing else. In a transformer, image and text attend to each other and themselves; there `decoupled` is
shown the tokens beside the context (`show`). `inject` and `eject` are inverses, and what is added starts at zero, so
that at step 0 the base model is unchanged to the bit.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

States = Float[Tensor, "batch length width"]
Hidden = Float[Tensor, "batch pixels channels"]


class DecoupledLayer(nn.Module):
    """Keys and values of its own for what the object says, in one attention layer."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(width, channels, bias=False)
        self.to_v = nn.Linear(width, channels, bias=False)
        nn.init.zeros_(self.to_v.weight)


class GatedLayer(nn.Module):
    """A cross-attention of its own, after the one over the text, behind a gate (Li et al., "GLIGEN", 2023)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(width, channels, bias=False)
        self.to_v = nn.Linear(width, channels, bias=False)
        self.to_out = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))


LAYERS = {"decoupled": DecoupledLayer, "gated": GatedLayer, "reference": DecoupledLayer}


class ObjectProcessor:
    """What an attention layer does instead of its own processor, which it keeps.

    A plain object, so that the denoiser does not register weights that belong to the object encoder.
    """

    scale = 1.0  # of what is added

    def __init__(self, own: Any) -> None:
        self.own = own


class TextProcessor(ObjectProcessor):
    """The text alone, for layers that are not to see the object."""

    def __init__(self, own: Any, length: int) -> None:
        super().__init__(own)
        self.length = length  # of the text

    def __call__(self, attn: Attention, hidden_states: Hidden, encoder_hidden_states: States, **more: Any) -> Hidden:
        return self.own(attn, hidden_states, encoder_hidden_states[:, : self.length], **more)


class DecoupledProcessor(TextProcessor):
    """The attention over the text, plus one over the object."""

    def __init__(self, own: Any, length: int, layer: DecoupledLayer) -> None:
        super().__init__(own, length)
        self.layer = layer

    def __call__(self, attn: Attention, hidden_states: Hidden, encoder_hidden_states: States, **more: Any) -> Hidden:
        out = super().__call__(attn, hidden_states, encoder_hidden_states, **more)
        objects = encoder_hidden_states[:, self.length :]
        return (
            out + self.scale * projected_object_attention(attn, hidden_states, objects, self.layer)
            if objects.shape[1]
            else out
        )


class GatedProcessor(TextProcessor):
    """The attention over the text, and then one over the object, which sees what the first has found."""

    def __init__(self, own: Any, length: int, layer: GatedLayer) -> None:
        super().__init__(own, length)
        self.layer = layer

    def __call__(self, attn: Attention, hidden_states: Hidden, encoder_hidden_states: States, **more: Any) -> Hidden:
        out = super().__call__(attn, hidden_states, encoder_hidden_states, **more)
        layer, objects = self.layer, encoder_hidden_states[:, self.length :]
        if not objects.shape[1]:
            return out
        query = layer.to_q(layer.norm(hidden_states + out))
        found = layer.to_out(multi_head_attention(attn.heads, query, layer.to_k(objects), layer.to_v(objects)))
        return out + self.scale * torch.tanh(layer.gate) * found.to(out.dtype)


class ReferenceProcessor(ObjectProcessor):
    """A self-attention that also attends to what the same layer made of the subject (Hu, "Animate Anyone", 2024).

    The subject has keys and values of its own, whose result is added, so that an untrained layer changes nothing.
    """

    recording = False

    def __init__(self, own: Any, layer: DecoupledLayer) -> None:
        super().__init__(own)
        self.layer = layer
        self.features: Tensor | None = None  # (batch, pixels, channels) of the subject; zero where there is none

    def __call__(self, attn: Attention, hidden_states: Hidden, **more: Any) -> Hidden:
        out = self.own(attn, hidden_states, **more)
        if self.recording:
            self.features = hidden_states
        elif self.features is not None:
            out = out + self.scale * projected_object_attention(
                attn, hidden_states, self.features.to(hidden_states.dtype), self.layer
            )
        return out


class JointProcessor(ObjectProcessor):
    """The attention of image and text to each other, plus one of the image to the object, in a transformer's layer.

    SD 3's layer puts what is found through the output map of the image; FLUX's hands it on beside, as diffusers' own
    IP-Adapter for it does.
    """

    def __init__(self, own: Any, layer: DecoupledLayer) -> None:
        super().__init__(own)
        self.layer = layer
        self.features: Tensor | None = None  # (batch, tokens, width) of the object; zero where there is none

    def __call__(self, attn: Any, hidden_states: Hidden, *told: Any, **more: Any) -> tuple[Tensor, ...]:
        image, text = self.own(attn, hidden_states, *told, **more)
        if self.features is None:
            return image, text
        seen = self.features.to(hidden_states.dtype)
        if isinstance(attn, Attention):
            return image + self.scale * projected_object_attention(attn, hidden_states, seen, self.layer), text
        return image, text, self.scale * object_attention(attn, hidden_states, seen, self.layer)


class AttentionRecorder(ObjectProcessor):
    """Does what `own` does, and tells the share of attention that goes to the last `columns` of the context."""

    def __init__(self, own: Any, object_tokens: int, shares: list[Tensor]) -> None:
        super().__init__(own)
        self.columns, self.shares = object_tokens, shares

    def __call__(self, attn: Attention, hidden_states: Hidden, encoder_hidden_states: States, **more: Any) -> Hidden:
        q, k = (split_heads(attn.heads, x) for x in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)))  # pyright: ignore[reportOptionalCall]
        weights = (q @ k.transpose(-1, -2) * attn.scale).float().softmax(-1)
        self.shares.append(weights[..., -self.columns :].sum(-1).mean(1))
        return self.own(attn, hidden_states, encoder_hidden_states, **more)


def split_heads(count: int, x: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch {count} length each"]:
    """The channels of every head apart."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def multi_head_attention(count: int, query: Tensor, key: Tensor, value: Tensor) -> Hidden:
    """Attention of `count` heads."""
    q, k, v = (split_heads(count, x) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def object_attention(attn: Any, hidden: Hidden, features: States, layer: DecoupledLayer) -> Hidden:
    """What a layer's query finds among keys and values of the object."""
    query = attn.to_q(hidden)
    if (norm := getattr(attn, "norm_q", None)) is not None:  # over the channels of each head
        query = norm(query.unflatten(-1, (attn.heads, -1))).flatten(-2)
    return multi_head_attention(attn.heads, query, layer.to_k(features), layer.to_v(features)).to(hidden.dtype)


def projected_object_attention(attn: Attention, hidden: Hidden, features: States, layer: DecoupledLayer) -> Hidden:
    """What a layer's query finds among keys and values of the object, put through the layer's output map."""
    found = object_attention(attn, hidden, features, layer)
    project: Any = attn.to_out[0]  # pyright: ignore[reportOptionalSubscript]
    out = project(found)
    # Its bias is in the text's result already. Called as a module, and not by its weight, for LoRA may be around it.
    return (out if project.bias is None else out - project.bias) / attn.rescale_output_factor


def cross_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """Every layer of the denoiser that attends to the context, by name."""
    return {n: m for n, m in denoiser.named_modules() if isinstance(m, Attention) and m.is_cross_attention}


def self_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """Every layer of the denoiser's transformer blocks that attends to the image itself, by name."""
    found = {n: m for n, m in denoiser.named_modules() if isinstance(m, Attention) and n.endswith(".attn1")}
    return {n: m for n, m in found.items() if not m.is_cross_attention}


def joint_attentions(denoiser: nn.Module) -> dict[str, Any]:
    """Every layer of a transformer in which image and text have maps of their own and attend to each other, by name."""
    return {n: m for n, m in denoiser.named_modules() if getattr(m, "added_kv_proj_dim", None) is not None}


def layer_channels(denoiser: nn.Module, injection: str) -> dict[str, int]:
    """Name and channels of every attention layer in which an object can be seen by this design."""
    if injection == "reference":
        layers = self_attentions(denoiser)
    else:
        layers = cross_attentions(denoiser) or joint_attentions(denoiser)
    return {name: attn.inner_dim for name, attn in layers.items()}


def inject(
    denoiser: Any, injection: str, layers: Mapping[str, nn.Module], layer_names: Collection[str] | None, length: int
) -> None:
    """Let attention layers see the object; `eject` is the inverse.

    Args:
        denoiser: a diffusers UNet or transformer.
        injection: the network design.
        layers: what the design adds to attention layers, by their names.
        seeing: the names of the layers that see the object; None for all.
        length: L, of the text in the context.
    """
    joint = joint_attentions(denoiser)
    if injection == "reference" or joint:
        attentions: Any = joint or self_attentions(denoiser)
        for name, layer in layers.items():
            kind: Any = JointProcessor if joint else ReferenceProcessor
            attentions[name].set_processor(kind(attentions[name].processor, layer))
        return
    for name, attn in cross_attentions(denoiser).items():
        if layer_names is not None and name not in layer_names:
            attn.set_processor(TextProcessor(attn.processor, length))  # pyright: ignore[reportArgumentType]
        elif name in layers:
            kind = GatedProcessor if injection == "gated" else DecoupledProcessor
            attn.set_processor(kind(attn.processor, length, layers[name]))


def injected(denoiser: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Name, layer and processor wherever `inject` has put one."""
    for name, module in denoiser.named_modules():
        if isinstance(processor := getattr(module, "processor", None), ObjectProcessor):
            yield name, module, processor


def eject(denoiser: nn.Module) -> None:
    """Give every attention layer its own processor back."""
    for _, attn, processor in list(injected(denoiser)):
        attn.set_processor(processor.own)


def set_object_scale(denoiser: nn.Module, scale: float) -> None:
    """Set the weight of what the design adds to the base model's own attention."""
    for _, _, processor in injected(denoiser):
        processor.scale = scale


@contextmanager
def record_attention(denoiser: nn.Module, object_tokens: int) -> Iterator[list[Float[Tensor, "batch pixels"]]]:
    """Within, each cross-attention that sees the object tells how much of its attention each pixel gives to it.

    The list fills with one tensor per layer, in [0, 1], the mean over heads.
    """
    shares: list[Tensor] = []
    layers = [a for a in cross_attentions(denoiser).values() if not isinstance(a.processor, TextProcessor)]
    for attn in layers:
        attn.set_processor(AttentionRecorder(attn.processor, object_tokens, shares))  # pyright: ignore[reportArgumentType]
    try:
        yield shares
    finally:
        for attn in layers:
            attn.set_processor(attn.processor.own)  # pyright: ignore


def set_object_features(denoiser: nn.Module, features: Mapping[str, Float[Tensor, "batch pixels channels"]]) -> None:
    """Let layers that are not told of the subjects by the context attend to these features; to none without any."""
    for name, _, processor in injected(denoiser):
        if isinstance(processor, ReferenceProcessor | JointProcessor):
            processor.features = features.get(name)


def ip_layers(denoiser: nn.Module) -> list[str]:
    """Names of the layers that are shown the object's tokens beside the context."""
    return [name for name, _, processor in injected(denoiser) if isinstance(processor, JointProcessor)]


@contextmanager
def record_features(denoiser: nn.Module) -> Iterator[None]:
    """Within, the layers of `reference` keep what they see instead of attending to it; `recorded` tells it."""
    for _, _, processor in injected(denoiser):
        if isinstance(processor, ReferenceProcessor):
            processor.recording = True
    try:
        yield
    finally:
        for _, _, processor in injected(denoiser):
            if isinstance(processor, ReferenceProcessor):
                processor.recording = False


def recorded_features(denoiser: nn.Module) -> dict[str, Float[Tensor, "batch pixels channels"]]:
    """What the layers of `reference` have kept, by name."""
    found = {n: p.features for n, _, p in injected(denoiser) if isinstance(p, ReferenceProcessor)}
    return {name: features for name, features in found.items() if features is not None}
