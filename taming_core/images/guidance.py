"""Two-way classifier-free guidance (docs/method.md section 6)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.model.conditioning import Conditioning, denoise
from taming_core.model.subject_model import SubjectModel, conditioning_groups


class EncodedPrompts(NamedTuple):
    """Prompts, read."""

    text: Text
    placeholder_positions: Tensor  # (batch, objects), where `<object>` stands


class GuidancePass(NamedTuple):
    """One of the denoiser's predictions for every image."""

    weight: float
    prompts: EncodedPrompts
    object_embeds: Tensor | None


def guided_prediction(
    model: SubjectModel,
    latents: Tensor,
    t: Tensor,
    passes: Sequence[GuidancePass],
    guidance_embedded: float | None = None,
) -> Tensor:
    """The weighted sum of the denoiser's predictions, all of them in one batch."""
    texts = [p.prompts.text for p in passes]
    pooled = [t.pooled for t in texts if t.pooled is not None]
    text = Text(torch.cat([t.states for t in texts]), torch.cat(pooled) if pooled else None)
    positions = torch.cat([p.prompts.placeholder_positions for p in passes])
    object_embeds = [p.object_embeds for p in passes if p.object_embeds is not None]
    present = torch.tensor([p.object_embeds is not None for p in passes])
    conditioning = Conditioning(
        text, positions, present.repeat_interleave(len(latents)), torch.cat(object_embeds) if object_embeds else None
    )
    batch = torch.cat([latents] * len(passes))
    times = t.to(batch.device).expand(len(batch))
    out = denoise(
        model.family, batch, times, conditioning_groups(model, conditioning, times), guidance=guidance_embedded
    )
    return sum(p.weight * e for p, e in zip(passes, out.chunk(len(passes)), strict=True))  # pyright: ignore[reportReturnType]


def guidance_passes(
    text: EncodedPrompts,
    null: EncodedPrompts,
    null_with_object: EncodedPrompts,
    object_embeds: Tensor | None,
    guidance_object: float,
    guidance_text: float,
) -> list[GuidancePass]:
    """Two-way guidance as passes of the denoiser; passes of weight 0 are left out.

    eps = e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), docs/method.md section 6. With equal scales
    e(0,z) cancels, and two passes do the work of three. `silent` is what 0 is beside an object: `substitute` needs the
    word in whose place the object stands.
    """
    if object_embeds is None:
        found = [GuidancePass(1 - guidance_text, null, None), GuidancePass(guidance_text, text, None)]
    else:
        found = [
            GuidancePass(1 - guidance_object, null, None),
            GuidancePass(guidance_object - guidance_text, null_with_object, object_embeds),
            GuidancePass(guidance_text, text, object_embeds),
        ]
    return [p for p in found if p.weight != 0]
