"""Two-way classifier-free guidance (docs/method.md section 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from taming_core.contexts import Told, denoise
from taming_core.subject_model import SubjectModel, parts

Words = tuple[Tensor, Tensor]  # text states (batch, length, width), and where `<object>` stands in them


def guided(
    model: SubjectModel, latents: Tensor, t: Tensor, passes: Sequence[tuple[float, Words, Tensor | None]]
) -> Tensor:
    """The weighted sum of the denoiser's predictions, all of them in one batch."""
    text, holes = (torch.cat([words[i] for _, words, _ in passes]) for i in (0, 1))
    given = [o for _, _, o in passes if o is not None]
    present = torch.tensor([o is not None for _, _, o in passes], device=text.device)
    told = Told(text, holes, present.repeat_interleave(len(latents)), torch.cat(given) if given else None)
    batch = torch.cat([latents] * len(passes))
    times = t.to(batch.device).expand(len(batch))
    out = denoise(model.denoiser, batch, times, parts(model, told, times))
    return sum(weight * e for (weight, _, _), e in zip(passes, out.chunk(len(passes)), strict=True))  # pyright: ignore[reportReturnType]


def guidance_passes(
    text: Words, null: Words, silent: Words, objects: Tensor | None, guidance_object: float, guidance_text: float
) -> list[tuple[float, Words, Tensor | None]]:
    """Two-way guidance as (weight, words, objects) per pass of the denoiser; passes of weight 0 are left out.

    eps = e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), docs/method.md section 6. With equal scales
    e(0,z) cancels, and two passes do the work of three. `silent` is what 0 is beside an object: `substitute` needs the
    word in whose place the object stands.
    """
    if objects is None:
        found = [(1 - guidance_text, null, None), (guidance_text, text, None)]
    else:
        found = [
            (1 - guidance_object, null, None),
            (guidance_object - guidance_text, silent, objects),
            (guidance_text, text, objects),
        ]
    return [p for p in found if p[0] != 0]
