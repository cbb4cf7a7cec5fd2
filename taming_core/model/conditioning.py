"""What the denoiser attends to: text states and objects, put together as the network design wants it.

Samples with and without an object may be mixed; one without is told exactly what the base model would be told.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taming_core.bases.family import Family, Text
from taming_core.model.attention import record_attention, record_features, recorded_features, set_object_features


@dataclass(frozen=True)
class Conditioning:
    """A batch's text and objects."""

    text: Text  # T(c)
    placeholder_positions: Int[
        Tensor, "batch places"
    ]  # where `<object>` stands in the text; read by `substitute` alone
    present: Bool[Tensor, " batch"]  # which samples have objects; the others get the null embedding. On the CPU
    object_embeds: (
        Float[Tensor, "shown count tokens width"] | None
    )  # z of the samples that have any; None where none has


@dataclass(frozen=True)
class ConditioningGroup:
    """Some samples of a batch, and what the denoiser attends to for them."""

    rows: Int[Tensor, " part"]  # their numbers in the batch
    text: Text  # its states, where the design has it so, with tokens of objects
    object_tokens: int = 0  # of the last states that are tokens of objects
    features: Mapping[str, Float[Tensor, "part pixels channels"]] = field(default_factory=dict)  # that layers are shown


def indices_of(chosen: Bool[Tensor, " batch"], device: torch.device) -> Int[Tensor, " some"]:
    """The numbers of the chosen samples, on the device; with `chosen` on the CPU nobody waits for the device."""
    return chosen.nonzero().flatten().to(device, non_blocking=True)


def group_by_design(
    conditioning: Conditioning, injection: str, ip_layers: Collection[str] = ()
) -> list[ConditioningGroup]:
    """What the denoiser attends to, in parts of equal length; for every design but `reference`.

    Args:
        told: text and objects.
        injection: the network design.
        shown_beside: names of the layers to which `decoupled` shows objects beside the context, in a transformer.
    """
    states, pooled = conditioning.text
    all_rows = torch.arange(len(states), device=states.device)
    if conditioning.object_embeds is None:
        return [ConditioningGroup(all_rows, conditioning.text)]
    tokens = conditioning.object_embeds.flatten(1, 2).to(states.dtype)
    with_object_rows = indices_of(conditioning.present, states.device)
    if injection in ("decoupled", "gated"):
        # Without bias, zero tokens have zero values: what is added is exactly nothing.
        spread_tokens = tokens.new_zeros(len(states), *tokens.shape[1:]).index_put((with_object_rows,), tokens)
        if ip_layers:
            return [ConditioningGroup(all_rows, conditioning.text, features=dict.fromkeys(ip_layers, spread_tokens))]
        return [ConditioningGroup(all_rows, Text(torch.cat([states, spread_tokens], 1), pooled), tokens.shape[1])]
    object_states = states[with_object_rows]
    if injection == "substitute":
        object_states = drop_positions(object_states, conditioning.placeholder_positions[with_object_rows])
    # Null samples go by themselves, not masked: diffusers hands no mask to layers of `only_cross_attention`.
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
    """A part of a batch whose summaries are `pooled`."""
    return ConditioningGroup(rows, Text(states, None if pooled is None else pooled[rows]), object_tokens)


def drop_positions(
    text: Float[Tensor, "batch length width"], positions: Int[Tensor, "batch places"]
) -> Float[Tensor, "batch rest width"]:
    """The text states that do not stand at `holes`.

    Attention does not know the order of what it attends to, so the object's tokens, which follow, stand in the place
    of the states that are left out.
    """
    dropped = torch.zeros(text.shape[:2], dtype=torch.uint8, device=text.device).scatter(1, positions, value=1)
    # Not by a mask, whose number of places a device would have to be asked for.
    kept = dropped.argsort(dim=1, stable=True)[:, : text.shape[1] - positions.shape[1]]
    return text.gather(1, kept[..., None].expand(-1, -1, text.shape[2]))


def find_placeholders(ids: Int[Tensor, "batch length"], placeholder: int, count: int) -> Int[Tensor, "batch {count}"]:
    """Where the first `count` placeholders stand; one that is missing, cut off perhaps, stands at the text's end."""
    length = ids.shape[1]
    positions = (
        torch.where(ids == placeholder, torch.arange(length, device=ids.device), length).sort(1).values[:, :count]
    )
    ends = torch.arange(length - count, length, device=ids.device)
    return torch.where(positions < length, positions, ends)


def denoise(
    family: Family,
    latents: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    groups: Sequence[ConditioningGroup],
    shares: list[Tensor] | None = None,
    guidance: float | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """The denoiser's prediction for every sample of the parts.

    Where a list of `shares` is given, it takes the share of attention (shown, pixels) that each cross-attention gives
    to the objects; `guidance` is for a denoiser that reads it.
    """
    outputs = []
    for p in groups:
        set_object_features(family.denoiser, p.features)
        with (
            record_attention(family.denoiser, p.object_tokens)
            if shares is not None and p.object_tokens
            else nullcontext([]) as recorded_shares
        ):
            outputs.append(family.predict(latents[p.rows], timesteps[p.rows], p.text, guidance))
        if shares is not None:
            shares.extend(recorded_shares)
    if len(groups) == 1:
        return outputs[0]
    return torch.cat(outputs)[torch.argsort(torch.cat([p.rows for p in groups]))]


@torch.no_grad()
def reference_features(
    family: Family,
    noised: Float[Tensor, "shown references channels height width"],
    timesteps: Int[Tensor, " shown"],
    empty_prompt: Text,
) -> dict[str, Float[Tensor, "shown pixels channels"]]:
    """What the layers of `reference` see of the subjects' noised latents, told nothing; no gradient flows through it.

    The denoiser reads the subject as it stands in this moment of the training: a copy of it, as in "Animate Anyone",
    would double the model.
    """
    shown, references = noised.shape[:2]
    set_object_features(family.denoiser, {})
    with record_features(family.denoiser):
        times = timesteps.repeat_interleave(references)
        family.predict(noised.flatten(0, 1), times, repeat_text(empty_prompt, shown * references))
    return {
        name: x.unflatten(0, (shown, references)).flatten(1, 2)
        for name, x in recorded_features(family.denoiser).items()
    }


def repeat_text(text: Text, count: int) -> Text:
    """The text of one prompt, `count` times."""
    return text.map(lambda x: x.expand(count, *x.shape[1:]))


def reference_group(
    conditioning: Conditioning, features: Mapping[str, Float[Tensor, "shown pixels channels"]] | None
) -> ConditioningGroup:
    """All samples at once: where a sample has no object its features are zero, and add exactly nothing."""
    device = conditioning.text.states.device
    everyone, having = torch.arange(len(conditioning.present), device=device), indices_of(conditioning.present, device)
    if features is None:
        return ConditioningGroup(everyone, conditioning.text)
    spread = {name: x.new_zeros(len(everyone), *x.shape[1:]).index_put((having,), x) for name, x in features.items()}
    return ConditioningGroup(everyone, conditioning.text, features=spread)
