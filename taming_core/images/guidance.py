"""Two-way classifier-free guidance (docs/explanation/method.md section 6)."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.model.conditioning import Conditioning, denoise
from taming_core.model.subject_model import SubjectModel, conditioning_groups


class EncodedPrompts(NamedTuple):
    """Prompt embeddings, and where the placeholders are."""

    text: Text
    placeholder_positions: Int[Tensor, "batch _"]  # token positions of each `<object>`
    placeholder_states: Float[Tensor, "batch _ width"]  # their prompt embeddings


class GuidancePass(NamedTuple):
    """One pass of the denoiser over all images, and its weight in the guided output."""

    weight: float
    prompts: EncodedPrompts
    object_embeds: Float[Tensor, "batch objects tokens width"] | None


def guided_prediction(
    model: SubjectModel,
    latents: Float[Tensor, "batch channels rows columns"],
    t: Tensor,
    passes: Sequence[GuidancePass],
    guidance_embedded: float | None = None,
    boxes: Float[Tensor, "batch objects 4"] | None = None,
    shares: list[Tensor] | None = None,
) -> Float[Tensor, "batch channels rows columns"]:
    """The weighted sum of the denoiser outputs of all passes, computed in one batch.

    Args:
        model: the model.
        latents: noised latents, scaled for the scheduler.
        t: the timestep, a scalar.
        passes: of `guidance_passes`.
        guidance_embedded: the scale for a guidance-distilled denoiser; None for any other.
        boxes: where the objects of each image go (`collage.Boxes`); None for no collage.
        shares: receives the attention to the object, of the last pass, as `conditioning.denoise` records it.
    """
    texts = [p.prompts.text for p in passes]
    pooled = [t.pooled for t in texts if t.pooled is not None]
    text = Text(torch.cat([t.states for t in texts]), torch.cat(pooled) if pooled else None)
    positions, states = (
        torch.cat([getattr(p.prompts, name) for p in passes])
        for name in ("placeholder_positions", "placeholder_states")
    )
    object_embeds = [p.object_embeds for p in passes if p.object_embeds is not None]
    present = torch.tensor([p.object_embeds is not None for p in passes])
    conditioning = Conditioning(
        text, positions, present.repeat_interleave(len(latents)), torch.cat(object_embeds) if object_embeds else None,
        states, None if boxes is None or not object_embeds else boxes.repeat(len(object_embeds), 1, 1),
    )  # fmt: skip
    batch = torch.cat([latents] * len(passes))
    times = t.to(batch.device).expand(len(batch))
    groups = conditioning_groups(model, conditioning, times, (latents.shape[2], latents.shape[3]))
    recorded = None if shares is None else list[Tensor]()
    out = denoise(model.family, batch, times, groups, recorded, guidance=guidance_embedded)
    if shares is not None and recorded:
        shares.extend(share[-len(latents) :] for share in recorded)
    return cast(Tensor, sum(p.weight * e for p, e in zip(passes, out.chunk(len(passes)), strict=True)))


def guidance_passes(
    text: EncodedPrompts,
    null: EncodedPrompts,
    null_with_object: EncodedPrompts,
    object_embeds: Tensor | None,
    guidance_object: float,
    guidance_text: float,
) -> list[GuidancePass]:
    """The denoiser passes of two-way guidance; passes of weight 0 are left out.

    eps = e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), docs/explanation/method.md section 6. With equal
    scales e(0,z) cancels, and two passes suffice.

    Args:
        text: c, the prompts.
        null: the empty (or negative) prompt.
        null_with_object: the empty prompt beside an object; for `substitute` it holds the placeholder.
        object_embeds: z, (B, objects, K, D); None for plain text-to-image.
        guidance_object: s_obj.
        guidance_text: s_txt.
    """
    if object_embeds is None:
        passes = [GuidancePass(1 - guidance_text, null, None), GuidancePass(guidance_text, text, None)]
    else:
        passes = [
            GuidancePass(1 - guidance_object, null, None),
            GuidancePass(guidance_object - guidance_text, null_with_object, object_embeds),
            GuidancePass(guidance_text, text, object_embeds),
        ]
    return [p for p in passes if p.weight != 0]
