"""The denoiser's conditioning: prompt embeddings and object embeddings, combined by the network design.

A batch may mix samples with and without an object; one without gets exactly the conditioning of the base model.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taming_core.bases.family import Family, Text
from taming_core.model.attention import record_attention, record_features, recorded_features, set_object_features
from taming_core.model.collage import lay, set_collage


@dataclass(frozen=True)
class Conditioning:
    """Prompt embeddings and object embeddings of a batch."""

    text: Text  # T(c)
    placeholder_positions: Int[Tensor, "batch _"]  # token positions of `<object>`; used by `substitute` alone
    present: Bool[Tensor, " batch"]  # which samples have an object; the others get the null embedding. On the CPU
    object_embeds: Float[Tensor, "_ count tokens width"] | None  # z of the samples with an object; None without any
    placeholder_states: Float[Tensor, "batch _ text_width"] | None = None  # of each `<object>`, to bind its object to
    boxes: Float[Tensor, "_ count 4"] | None = None  # where the objects shall be (`collage.Boxes`); None for no collage


@dataclass(frozen=True)
class ConditioningGroup:
    """Samples of a batch that go through the denoiser together, and their conditioning."""

    rows: Int[Tensor, " part"]  # their indices in the batch
    text: Text  # its states include object tokens, if the design puts them into the context
    object_tokens: int = 0  # how many of the last states are object tokens
    features: Mapping[str, Float[Tensor, "part _ _"]] = field(default_factory=dict[str, Tensor])  # by layer name
    collage: Float[Tensor, "part _ rows columns"] | None = None  # None for an encoder without


def indices_of(chosen: Bool[Tensor, " batch"], device: torch.device) -> Int[Tensor, " some"]:
    """The indices of the chosen samples, on the device; with `chosen` on the CPU the host does not synchronize."""
    return chosen.nonzero().flatten().to(device, non_blocking=True)


def group_by_design(
    conditioning: Conditioning, injection: str, ip_layers: Collection[str] = ()
) -> list[ConditioningGroup]:
    """The conditioning in groups of samples with equally long contexts; for every design but `reference`.

    Args:
        conditioning: prompt and object embeddings.
        injection: the network design.
        ip_layers: the joint attention layers of a transformer, to which `decoupled` passes object tokens separately.
    """
    states, pooled = conditioning.text
    all_rows = torch.arange(len(states), device=states.device)
    if conditioning.object_embeds is None:
        return [ConditioningGroup(all_rows, conditioning.text)]
    tokens = conditioning.object_embeds.flatten(1, 2).to(states.dtype)
    with_object_rows = indices_of(conditioning.present, states.device)
    if injection in ("decoupled", "gated"):
        # Projections without bias map zero tokens to zero values, which add exactly nothing.
        all_tokens = tokens.new_zeros(len(states), *tokens.shape[1:]).index_put((with_object_rows,), tokens)
        if ip_layers:
            return [ConditioningGroup(all_rows, conditioning.text, features=dict.fromkeys(ip_layers, all_tokens))]
        return [ConditioningGroup(all_rows, Text(torch.cat([states, all_tokens], 1), pooled), tokens.shape[1])]
    object_states = states[with_object_rows]
    if injection == "substitute":
        object_states = drop_positions(object_states, conditioning.placeholder_positions[with_object_rows])
    # Samples without an object form a group instead of being masked: diffusers passes no mask to layers with
    # `only_cross_attention`.
    with_object = group_of(with_object_rows, torch.cat([object_states, tokens], 1), pooled, tokens.shape[1])
    if bool(conditioning.present.all()):
        return [with_object]
    without_object_rows = indices_of(~conditioning.present, states.device)
    return [with_object, group_of(without_object_rows, states[without_object_rows], pooled)]


def group_of(
    rows: Int[Tensor, " part"],
    states: Float[Tensor, "part length width"],
    pooled: Tensor | None,
    object_tokens: int = 0,
) -> ConditioningGroup:
    """The group of these rows; `pooled` (B, features) is that of the whole batch."""
    return ConditioningGroup(rows, Text(states, None if pooled is None else pooled[rows]), object_tokens)


def drop_positions(
    text: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch count"]
) -> Float[Tensor, "batch length-count width"]:
    """The prompt embeddings without the states at `positions`.

    Cross-attention is invariant to the order of the context, so the object tokens, which are appended, take the place
    of the dropped states.
    """
    dropped = torch.zeros(text.shape[:2], dtype=torch.uint8, device=text.device).scatter(1, positions, value=1)
    # Not by a boolean mask, the count of which would have to be read from the device.
    kept = dropped.argsort(dim=1, stable=True)[:, : text.shape[1] - positions.shape[1]]
    return text.gather(1, kept[..., None].expand(-1, -1, text.shape[2]))


def find_placeholders(ids: Int[Tensor, "batch length"], placeholder: int, count: int) -> Int[Tensor, "batch {count}"]:
    """Token positions of the first `count` placeholders; a missing (truncated) one is placed at the end of the text."""
    length = ids.shape[1]
    positions = (
        torch.where(ids == placeholder, torch.arange(length, device=ids.device), length).sort(1).values[:, :count]
    )
    ends = torch.arange(length - count, length, device=ids.device)
    return torch.where(positions < length, positions, ends)


def placeholder_states(
    states: Float[Tensor, "batch length width"],
    ids: Int[Tensor, "batch prompt_length"],
    placeholder: int,
    positions: Int[Tensor, "batch count"],
) -> Float[Tensor, "batch count width"]:
    """The prompt embeddings of the placeholders at `positions`; 0 where a prompt has fewer.

    Args:
        states: prompt embeddings, the first of which belong to `ids`.
        ids: token ids.
        placeholder: the token id of `<object>`.
        positions: of `find_placeholders`.
    """
    found = ids.gather(1, positions) == placeholder
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[2])) * found[..., None]


def denoise(
    family: Family,
    latents: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    groups: Sequence[ConditioningGroup],
    shares: list[Tensor] | None = None,
    guidance: float | Float[Tensor, " batch"] | None = None,
    sizes: Float[Tensor, "batch 4"] | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """The denoiser output for every sample of the groups, in the order of the batch.

    Args:
        family: the base model.
        latents: noised latents.
        timesteps: on the scheduler's scale.
        groups: the conditioning; each sample belongs to one group.
        shares: receives the share of attention (samples with an object, pixels) that each cross-attention gives to the
            object tokens; None records nothing.
        guidance: the scale for a guidance-distilled denoiser, of each sample or of all; None for any other.
        sizes: see `Family.predict`.
    """
    outputs: list[Tensor] = []
    for group in groups:
        set_object_features(family.denoiser, group.features)
        set_collage(family.first_layer, group.collage)
        with (
            record_attention(family.denoiser, group.object_tokens)
            if shares is not None and group.object_tokens
            else nullcontext(list[Tensor]()) as recorded_shares
        ):
            scale = guidance[group.rows] if isinstance(guidance, Tensor) else guidance
            crops = None if sizes is None else sizes[group.rows]
            outputs.append(family.predict(latents[group.rows], timesteps[group.rows], group.text, scale, crops))
        if shares is not None:
            shares.extend(recorded_shares)
    if len(groups) == 1:
        return outputs[0]
    return torch.cat(outputs)[torch.argsort(torch.cat([group.rows for group in groups]))]


def with_collage(
    groups: Sequence[ConditioningGroup],
    conditioning: Conditioning,
    latents: Float[Tensor, "_ count channels side side"] | None,
    size: tuple[int, int],
) -> list[ConditioningGroup]:
    """The groups with the collages of their samples: zeros for those without an object or a place.

    Args:
        groups: of `conditioning`.
        conditioning: of the batch.
        latents: of the subjects of the samples with an object; None for an encoder without a collage.
        size: rows and columns of the image's latents.
    """
    if latents is None:
        return list(groups)
    batch, device = len(conditioning.present), latents.device
    collage = latents.new_zeros(batch, latents.shape[2] + 1, *size, dtype=torch.float32)
    if conditioning.boxes is not None and bool(conditioning.present.any()):
        rows = indices_of(conditioning.present, device)
        collage = collage.index_put((rows,), lay(latents, conditioning.boxes, size))
    return [replace(group, collage=collage[group.rows]) for group in groups]


@torch.no_grad()
def reference_features(
    family: Family,
    noised: Float[Tensor, "objects references channels height width"],
    timesteps: Int[Tensor, " objects"] | Float[Tensor, " objects"],
    empty_prompt: Text,
) -> dict[str, Float[Tensor, "objects _ _"]]:
    """Hidden states of the subjects in the layers of `reference`, by layer name: (objects, references * pixels, C).

    They come from the denoiser with the empty prompt, without gradients. The denoiser in training serves as reference
    network: a copy of it, as in "Animate Anyone", would double the model.
    """
    objects, references = noised.shape[:2]
    set_object_features(family.denoiser, {})
    with record_features(family.denoiser):
        times = timesteps.repeat_interleave(references)
        family.predict(noised.flatten(0, 1), times, repeat_text(empty_prompt, objects * references))
    return {
        name: torch.unflatten(x, 0, (objects, references)).flatten(1, 2)
        for name, x in recorded_features(family.denoiser).items()
    }


def repeat_text(text: Text, count: int) -> Text:
    """The prompt embeddings of one prompt, expanded to a batch of `count`."""
    return text.map(lambda x: x.expand(count, *x.shape[1:]))


def reference_group(
    conditioning: Conditioning, features: Mapping[str, Float[Tensor, "objects _ _"]] | None
) -> ConditioningGroup:
    """One group of all samples: samples without an object have features of zeros, which add exactly nothing."""
    device = conditioning.text.states.device
    rows, with_object = torch.arange(len(conditioning.present), device=device), indices_of(conditioning.present, device)
    if features is None:
        return ConditioningGroup(rows, conditioning.text)
    of_all = {name: x.new_zeros(len(rows), *x.shape[1:]).index_put((with_object,), x) for name, x in features.items()}
    return ConditioningGroup(rows, conditioning.text, features=of_all)
