"""Attention processors that let the denoiser attend to an object, by design (docs/explanation/method.md section 3).

Every cross-attention of a UNet reads one context, the prompt embeddings followed by the object tokens; `substitute` and
`concat` need nothing else. In a transformer with joint attention, `decoupled` gets the object tokens separately from
the context (`set_object_features`). `inject` and `eject` are inverses, and added layers start at zero, so that at step
0 the output of the base model is unchanged to the bit.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, JointAttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn

States = Float[Tensor, "batch length width"]
Hidden = Float[Tensor, "batch pixels channels"]


class DecoupledLayer(nn.Module):
    """Separate key and value projections for the object tokens, in one attention layer."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(width, channels, bias=False)
        self.to_v = nn.Linear(width, channels, bias=False)
        nn.init.zeros_(self.to_v.weight)


class GatedLayer(nn.Module):
    """A gated cross-attention to the object, after the one to the text (Li et al., "GLIGEN", 2023)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(width, channels, bias=False)
        self.to_v = nn.Linear(width, channels, bias=False)
        self.to_out = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))


LAYERS = {"decoupled": DecoupledLayer, "gated": GatedLayer, "reference": DecoupledLayer}
PLAIN = (AttnProcessor, AttnProcessor2_0, JointAttnProcessor2_0)  # each call `to_q` and `to_out` of the image once


class ObjectProcessor:
    """Wraps the original processor of an attention layer.

    Not a module, so that the denoiser does not register weights that belong to the object encoder.
    """

    scale = 1.0  # weight of the object's attention

    def __init__(self, original: Any) -> None:
        self.original = original


class TextProcessor(ObjectProcessor):
    """Attends to the text alone, for layers that do not see the object."""

    def __init__(self, original: Any, length: int) -> None:
        super().__init__(original)
        self.length = length  # of the text in the context

    def __call__(self, attn: Any, hidden_states: Hidden, encoder_hidden_states: States, **kwargs: Any) -> Hidden:
        return self.original(attn, hidden_states, encoder_hidden_states[:, : self.length], **kwargs)


class DecoupledProcessor(TextProcessor):
    """Attention to the text, plus attention to the object (Ye et al., "IP-Adapter", 2023)."""

    def __init__(self, original: Any, length: int, layer: DecoupledLayer) -> None:
        super().__init__(original, length)
        self.layer = layer

    def __call__(self, attn: Any, hidden_states: Hidden, encoder_hidden_states: States, **kwargs: Any) -> Hidden:
        objects = encoder_hidden_states[:, self.length :]
        if not objects.shape[1]:
            return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
        if type(self.original) in PLAIN:
            attn = LayerWithObject(attn, self.layer, objects, self.scale)
            return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
        out = super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
        return out + self.scale * projected_object_attention(attn, hidden_states, objects, self.layer)


class GatedProcessor(TextProcessor):
    """Attention to the text, then gated attention to the object, with a query that includes the first's output."""

    def __init__(self, original: Any, length: int, layer: GatedLayer) -> None:
        super().__init__(original, length)
        self.layer = layer

    def __call__(self, attn: Attention, hidden_states: Hidden, encoder_hidden_states: States, **kwargs: Any) -> Hidden:
        out = super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
        layer, objects = self.layer, encoder_hidden_states[:, self.length :]
        if not objects.shape[1]:
            return out
        query = layer.to_q(layer.norm(hidden_states + out))
        attended = layer.to_out(multi_head_attention(attn.heads, query, layer.to_k(objects), layer.to_v(objects)))
        return out + self.scale * torch.tanh(layer.gate) * attended.to(out.dtype)


class ReferenceProcessor(ObjectProcessor):
    """Self-attention, plus attention to the same layer's hidden states of the subject (Hu, "Animate Anyone", 2024).

    The subject has separate key and value projections, and its result is added, so that an untrained layer changes
    nothing.
    """

    recording = False

    def __init__(self, original: Any, layer: DecoupledLayer) -> None:
        super().__init__(original)
        self.layer = layer
        self.features: Tensor | None = None  # (batch, pixels, channels) of the subject; zero for samples without one

    def __call__(self, attn: Attention, hidden_states: Hidden, **kwargs: Any) -> Hidden:
        if self.recording or self.features is None:
            self.features = hidden_states if self.recording else None
            return self.original(attn, hidden_states, **kwargs)
        features = self.features.to(hidden_states.dtype)
        if type(self.original) in PLAIN:
            return self.original(LayerWithObject(attn, self.layer, features, self.scale), hidden_states, **kwargs)
        out = self.original(attn, hidden_states, **kwargs)
        return out + self.scale * projected_object_attention(attn, hidden_states, features, self.layer)


class JointProcessor(ObjectProcessor):
    """Joint attention of image and text, plus attention of the image to the object, in a transformer.

    In SD 3 the result passes the image's output projection and is added; in FLUX it is returned as a third output, as
    by diffusers' IP-Adapter processor.
    """

    def __init__(self, original: Any, layer: DecoupledLayer) -> None:
        super().__init__(original)
        self.layer = layer
        self.features: Tensor | None = None  # (batch, tokens, width) of the object; zero for samples without one

    def __call__(self, attn: Any, hidden_states: Hidden, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        if self.features is None:
            return self.original(attn, hidden_states, *args, **kwargs)
        features = self.features.to(hidden_states.dtype)
        if type(self.original) in PLAIN:
            attn = LayerWithObject(attn, self.layer, features, self.scale)
            return self.original(attn, hidden_states, *args, **kwargs)
        shared = LayerWithQuery(attn)
        image, text = self.original(shared, hidden_states, *args, **kwargs)
        if isinstance(attn, Attention):
            return image + self.scale * projected_object_attention(attn, hidden_states, features, self.layer), text
        query = attn.to_q(hidden_states) if shared.query is None else shared.query
        return image, text, self.scale * object_attention(attn, query, features, self.layer)


class AttentionRecorder(ObjectProcessor):
    """Runs the original processor, and appends the share of attention to the object tokens, the last of the context."""

    def __init__(self, original: Any, object_tokens: int, shares: list[Tensor]) -> None:
        super().__init__(original)
        self.object_tokens, self.shares = object_tokens, shares

    def __call__(self, attn: Any, hidden_states: Hidden, encoder_hidden_states: States, **kwargs: Any) -> Hidden:
        q, k = (split_heads(attn.heads, x) for x in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)))
        weights = (q @ k.transpose(-1, -2) * attn.scale).float().softmax(-1)
        self.shares.append(weights[..., -self.object_tokens :].sum(-1).mean(1))
        return self.original(attn, hidden_states, encoder_hidden_states, **kwargs)


class LayerWithQuery:
    """An attention layer as a processor sees it, which remembers its query for the attention to the object."""

    query: Tensor | None = None

    def __init__(self, attn: Any) -> None:
        self.attn = attn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attn, name)

    def to_q(self, hidden: Hidden) -> Hidden:
        """The layer's query."""
        self.query = query = self.attn.to_q(hidden)
        return query


class LayerWithObject(LayerWithQuery):
    """An attention layer as a processor sees it, to whose result the attention to the object is added.

    Both have the query and the output projection in common, as in diffusers' `IPAdapterAttnProcessor2_0`, so that
    neither is computed twice, and an object of zeros changes nothing in any precision.
    """

    def __init__(self, attn: Any, layer: DecoupledLayer, features: States, scale: float) -> None:
        super().__init__(attn)
        self.layer, self.features, self.scale = layer, features, scale

    @property
    def to_out(self) -> tuple[Callable[[Hidden], Hidden], nn.Module]:
        """The output projection of both attentions, and the dropout."""
        return self.project, self.attn.to_out[1]

    def project(self, attended: Hidden) -> Hidden:
        """The output projection of the attention to the text plus that to the object."""
        assert self.query is not None  # processors project the output last
        added = object_attention(self.attn, self.query, self.features, self.layer)
        total = attended + self.scale * added
        if not attended.is_contiguous():  # in SD 3 a part of the joint sequence; its layout affects rounding
            total = attended.new_empty_strided(attended.size(), attended.stride()).copy_(total)
        return self.attn.to_out[0](total)


def split_heads(count: int, x: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch {count} length _"]:
    """Split the channels into `count` heads."""
    return torch.unflatten(x, -1, (count, -1)).transpose(1, 2)


def multi_head_attention(count: int, query: Tensor, key: Tensor, value: Tensor) -> Hidden:
    """Scaled dot-product attention with `count` heads."""
    q, k, v = (split_heads(count, x) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def object_attention(attn: Any, query: Hidden, features: States, layer: DecoupledLayer) -> Hidden:
    """Attention of the layer's query to the object's keys and values, before the output projection."""
    kind = query.dtype
    if (norm := getattr(attn, "norm_q", None)) is not None:  # over the channels of each head
        query = norm(query.unflatten(-1, (attn.heads, -1))).flatten(-2)
    return multi_head_attention(attn.heads, query, layer.to_k(features), layer.to_v(features)).to(kind)


def projected_object_attention(attn: Attention, hidden: Hidden, features: States, layer: DecoupledLayer) -> Hidden:
    """Attention of the layer's query to the object's keys and values, after the output projection."""
    attended = object_attention(attn, attn.to_q(hidden), features, layer)
    to_out: Any = attn.to_out
    out = to_out[0](attended)
    # The text's result includes the bias already. Called as a module, not by its weight: LoRA may wrap it. The bias is
    # what the module makes of zeros, rounded as autocast rounds it, so that an object of zeros adds exactly nothing.
    bias = 0.0 if to_out[0].bias is None else to_out[0](torch.zeros_like(attended[:1, :1]))
    return (out - bias) / attn.rescale_output_factor


def modules_by_name(network: Any) -> dict[str, nn.Module]:
    """All modules of a network; torch leaves `named_modules` partly untyped."""
    return dict(network.named_modules())


def cross_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """The cross-attention layers of a UNet by name."""
    modules = modules_by_name(denoiser)
    return {n: m for n, m in modules.items() if isinstance(m, Attention) and m.is_cross_attention}


def self_attentions(denoiser: nn.Module) -> dict[str, Attention]:
    """The self-attention layers of a UNet's transformer blocks by name."""
    attentions = {n: m for n, m in modules_by_name(denoiser).items() if isinstance(m, Attention)}
    return {n: m for n, m in attentions.items() if n.endswith(".attn1") and not m.is_cross_attention}


def joint_attentions(denoiser: nn.Module) -> dict[str, Any]:
    """The joint attention layers of a transformer, which have separate projections of image and text, by name."""
    return {n: m for n, m in modules_by_name(denoiser).items() if getattr(m, "added_kv_proj_dim", None) is not None}


def layer_channels(denoiser: nn.Module, injection: str) -> dict[str, int]:
    """Name and channels of every attention layer that this design can inject into."""
    if injection == "reference":
        layers = self_attentions(denoiser)
    else:
        layers = cross_attentions(denoiser) or joint_attentions(denoiser)
    return {name: attn.inner_dim for name, attn in layers.items()}


def inject(
    denoiser: Any, injection: str, layers: Mapping[str, nn.Module], layer_names: Collection[str] | None, length: int
) -> None:
    """Replace attention processors by ones that attend to the object; `eject` is the inverse.

    Args:
        denoiser: a diffusers UNet or transformer.
        injection: the network design.
        layers: the weights that the design adds, by the name of the attention layer.
        layer_names: the attention layers that see the object; None for all.
        length: L, the length of the prompt embeddings in the context.
    """
    joint = joint_attentions(denoiser)
    if injection == "reference" or joint:
        attentions: Any = joint or self_attentions(denoiser)
        for name, layer in layers.items():
            kind: Any = JointProcessor if joint else ReferenceProcessor
            attentions[name].set_processor(kind(attentions[name].processor, layer))
        return
    attentions = cross_attentions(denoiser)
    for name, attn in attentions.items():
        if layer_names is not None and name not in layer_names:
            attn.set_processor(TextProcessor(attn.processor, length))
        elif name in layers:
            kind = GatedProcessor if injection == "gated" else DecoupledProcessor
            attn.set_processor(kind(attn.processor, length, layers[name]))


def injected_layers(denoiser: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Name, attention layer and processor wherever `inject` has set one."""
    for name, module in modules_by_name(denoiser).items():
        if isinstance(processor := getattr(module, "processor", None), ObjectProcessor):
            yield name, module, processor


def eject(denoiser: nn.Module) -> None:
    """Restore the original processor of every attention layer."""
    for _, attn, processor in list(injected_layers(denoiser)):
        attn.set_processor(processor.original)


def set_object_scale(denoiser: nn.Module, scale: float) -> None:
    """Set the weight of the object's attention, relative to the attention of the base model."""
    for _, _, processor in injected_layers(denoiser):
        processor.scale = scale


@contextmanager
def record_attention(denoiser: nn.Module, object_tokens: int) -> Generator[list[Float[Tensor, "batch _"]], None, None]:
    """Record how much of its attention each pixel gives to the object, in the cross-attentions that see the object.

    The list receives one tensor (B, pixels) per layer, in [0, 1], the mean over heads.
    """
    shares: list[Tensor] = []
    attentions: dict[str, Any] = cross_attentions(denoiser)
    layers = [attn for attn in attentions.values() if not isinstance(attn.processor, TextProcessor)]
    for attn in layers:
        attn.set_processor(AttentionRecorder(attn.processor, object_tokens, shares))
    try:
        yield shares
    finally:
        for attn in layers:
            attn.set_processor(attn.processor.original)


def set_object_features(denoiser: nn.Module, features: Mapping[str, Float[Tensor, "batch _ _"]]) -> None:
    """Set the object features of `ReferenceProcessor` and `JointProcessor`, which do not get them from the context.

    `features` are by layer name (B, pixels or tokens, channels); a layer without any attends to no object.
    """
    for name, _, processor in injected_layers(denoiser):
        if isinstance(processor, ReferenceProcessor | JointProcessor):
            processor.features = features.get(name)


def ip_layers(denoiser: nn.Module) -> list[str]:
    """Names of the joint attention layers, which get the object tokens separately from the context."""
    return [name for name, _, processor in injected_layers(denoiser) if isinstance(processor, JointProcessor)]


@contextmanager
def record_features(denoiser: nn.Module) -> Generator[None, None, None]:
    """Let the layers of `reference` store their hidden states, which `recorded_features` returns, and add nothing."""
    for _, _, processor in injected_layers(denoiser):
        if isinstance(processor, ReferenceProcessor):
            processor.recording = True
    try:
        yield
    finally:
        for _, _, processor in injected_layers(denoiser):
            if isinstance(processor, ReferenceProcessor):
                processor.recording = False


def recorded_features(denoiser: nn.Module) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The hidden states (B, pixels, channels) that `record_features` stored, by layer name."""
    features = {n: p.features for n, _, p in injected_layers(denoiser) if isinstance(p, ReferenceProcessor)}
    return {name: x for name, x in features.items() if x is not None}
