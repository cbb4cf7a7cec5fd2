"""Two-way classifier-free guidance (docs/method.md section 6)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.model.conditioning import Told, denoise
from taming_core.model.subject_model import SubjectModel, parts


class Words(NamedTuple):
    """Prompts, read."""

    text: Text
    holes: Tensor  # (batch, objects), where `<object>` stands


class Pass(NamedTuple):
    """One of the denoiser's predictions for every image."""

    weight: float
    words: Words
    objects: Tensor | None


def guided(
    model: SubjectModel, latents: Tensor, t: Tensor, passes: Sequence[Pass], guidance_embedded: float | None = None
) -> Tensor:
    """The weighted sum of the denoiser's predictions, all of them in one batch."""
    texts = [p.words.text for p in passes]
    pooled = [t.pooled for t in texts if t.pooled is not None]
    text = Text(torch.cat([t.states for t in texts]), torch.cat(pooled) if pooled else None)
    holes = torch.cat([p.words.holes for p in passes])
    given = [p.objects for p in passes if p.objects is not None]
    present = torch.tensor([p.objects is not None for p in passes])
    told = Told(text, holes, present.repeat_interleave(len(latents)), torch.cat(given) if given else None)
    batch = torch.cat([latents] * len(passes))
    times = t.to(batch.device).expand(len(batch))
    out = denoise(model.family, batch, times, parts(model, told, times), guidance=guidance_embedded)
    return sum(p.weight * e for p, e in zip(passes, out.chunk(len(passes)), strict=True))  # pyright: ignore[reportReturnType]


def guidance_passes(
    text: Words, null: Words, silent: Words, objects: Tensor | None, guidance_object: float, guidance_text: float
) -> list[Pass]:
    """Two-way guidance as passes of the denoiser; passes of weight 0 are left out.

    eps = e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), docs/method.md section 6. With equal scales
    e(0,z) cancels, and two passes do the work of three. `silent` is what 0 is beside an object: `substitute` needs the
    word in whose place the object stands.
    """
    if objects is None:
        found = [Pass(1 - guidance_text, null, None), Pass(guidance_text, text, None)]
    else:
        found = [
            Pass(1 - guidance_object, null, None),
            Pass(guidance_object - guidance_text, silent, objects),
            Pass(guidance_text, text, objects),
        ]
    return [p for p in found if p.weight != 0]
