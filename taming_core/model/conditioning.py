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
from taming_core.model.attention import recorded, recording, show, watched


@dataclass(frozen=True)
class Told:
    """A batch's text and objects."""

    text: Text  # T(c)
    holes: Int[Tensor, "batch places"]  # where `<object>` stands in the text; read by `substitute` alone
    present: Bool[Tensor, " batch"]  # which samples have objects; the others get the null embedding. On the CPU
    objects: Float[Tensor, "shown count tokens width"] | None  # z of the samples that have any; None where none has


@dataclass(frozen=True)
class Part:
    """Some samples of a batch, and what the denoiser attends to for them."""

    rows: Int[Tensor, " part"]  # their numbers in the batch
    text: Text  # its states, where the design has it so, with tokens of objects
    columns: int = 0  # of the last states that are tokens of objects
    features: Mapping[str, Float[Tensor, "part pixels channels"]] = field(default_factory=dict)  # that layers are shown


def numbers(chosen: Bool[Tensor, " batch"], device: torch.device) -> Int[Tensor, " some"]:
    """The numbers of the chosen samples, on the device; with `chosen` on the CPU nobody waits for the device."""
    return chosen.nonzero().flatten().to(device, non_blocking=True)


def parts_of(told: Told, injection: str, shown_beside: Collection[str] = ()) -> list[Part]:
    """What the denoiser attends to, in parts of equal length; for every design but `reference`.

    Args:
        told: text and objects.
        injection: the network design.
        shown_beside: names of the layers to which `decoupled` shows objects beside the context, in a transformer.
    """
    states, pooled = told.text
    everyone = torch.arange(len(states), device=states.device)
    if told.objects is None:
        return [Part(everyone, told.text)]
    tokens = told.objects.flatten(1, 2).to(states.dtype)
    having = numbers(told.present, states.device)
    if injection in ("decoupled", "gated"):
        # Without bias, zero tokens have zero values: what is added is exactly nothing.
        shown = tokens.new_zeros(len(states), *tokens.shape[1:]).index_put((having,), tokens)
        if shown_beside:
            return [Part(everyone, told.text, features=dict.fromkeys(shown_beside, shown))]
        return [Part(everyone, Text(torch.cat([states, shown], 1), pooled), tokens.shape[1])]
    own = states[having]
    if injection == "substitute":
        own = without(own, told.holes[having])
    # Null samples go by themselves, not masked: diffusers hands no mask to layers of `only_cross_attention`.
    with_object = part_of(having, torch.cat([own, tokens], 1), pooled, tokens.shape[1])
    if bool(told.present.all()):
        return [with_object]
    plain = numbers(~told.present, states.device)
    return [with_object, part_of(plain, states[plain], pooled)]


def part_of(
    rows: Int[Tensor, " part"], states: Float[Tensor, "part length width"], pooled: Tensor | None, columns: int = 0
) -> Part:
    """A part of a batch whose summaries are `pooled`."""
    return Part(rows, Text(states, None if pooled is None else pooled[rows]), columns)


def without(
    text: Float[Tensor, "batch length width"], holes: Int[Tensor, "batch places"]
) -> Float[Tensor, "batch rest width"]:
    """The text states that do not stand at `holes`.

    Attention does not know the order of what it attends to, so the object's tokens, which follow, stand in the place
    of the states that are left out.
    """
    gone = torch.zeros(text.shape[:2], dtype=torch.uint8, device=text.device).scatter(1, holes, value=1)
    # Not by a mask, whose number of places a device would have to be asked for.
    kept = gone.argsort(dim=1, stable=True)[:, : text.shape[1] - holes.shape[1]]
    return text.gather(1, kept[..., None].expand(-1, -1, text.shape[2]))


def holes_in(ids: Int[Tensor, "batch length"], placeholder: int, count: int) -> Int[Tensor, "batch {count}"]:
    """Where the first `count` placeholders stand; one that is missing, cut off perhaps, stands at the text's end."""
    length = ids.shape[1]
    places = torch.where(ids == placeholder, torch.arange(length, device=ids.device), length).sort(1).values[:, :count]
    ends = torch.arange(length - count, length, device=ids.device)
    return torch.where(places < length, places, ends)


def denoise(
    family: Family,
    latents: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    parts: Sequence[Part],
    shares: list[Tensor] | None = None,
    guidance: float | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """The denoiser's prediction for every sample of the parts.

    Where a list of `shares` is given, it takes the share of attention (shown, pixels) that each cross-attention gives
    to the objects; `guidance` is for a denoiser that reads it.
    """
    found = []
    for p in parts:
        show(family.denoiser, p.features)
        with watched(family.denoiser, p.columns) if shares is not None and p.columns else nullcontext([]) as told:
            found.append(family.say(latents[p.rows], timesteps[p.rows], p.text, guidance))
        if shares is not None:
            shares.extend(told)
    if len(parts) == 1:
        return found[0]
    return torch.cat(found)[torch.argsort(torch.cat([p.rows for p in parts]))]


@torch.no_grad()
def reference_features(
    family: Family,
    noised: Float[Tensor, "shown references channels height width"],
    timesteps: Int[Tensor, " shown"],
    silence: Text,
) -> dict[str, Float[Tensor, "shown pixels channels"]]:
    """What the layers of `reference` see of the subjects' noised latents, told nothing; no gradient flows through it.

    The denoiser reads the subject as it stands in this moment of the training: a copy of it, as in "Animate Anyone",
    would double the model.
    """
    shown, references = noised.shape[:2]
    show(family.denoiser, {})
    with recording(family.denoiser):
        times = timesteps.repeat_interleave(references)
        family.say(noised.flatten(0, 1), times, repeated(silence, shown * references))
    return {name: x.unflatten(0, (shown, references)).flatten(1, 2) for name, x in recorded(family.denoiser).items()}


def repeated(text: Text, count: int) -> Text:
    """The text of one prompt, `count` times."""
    return text.each(lambda x: x.expand(count, *x.shape[1:]))


def reference_part(told: Told, features: Mapping[str, Float[Tensor, "shown pixels channels"]] | None) -> Part:
    """All samples at once: where a sample has no object its features are zero, and add exactly nothing."""
    device = told.text.states.device
    everyone, having = torch.arange(len(told.present), device=device), numbers(told.present, device)
    if features is None:
        return Part(everyone, told.text)
    spread = {name: x.new_zeros(len(everyone), *x.shape[1:]).index_put((having,), x) for name, x in features.items()}
    return Part(everyone, told.text, features=spread)
