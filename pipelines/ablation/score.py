"""Measure without drawing what a cell's training did: to plain text-to-image, and with the object's tokens.

Both compare denoising errors on held-out photos under the same noise, with and without what is asked about. So a few
photos tell differences that take a few hundred drawn images to see.

Example:  python -m pipelines.ablation.score --encoder out/ablation/encoders/ours
          --params out/ablation/cells/ours/params.yaml --out out/ablation/measures/ours.json
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipelines.ablation.cells import CELLS, MADE, ScoreParams, load
from taming_core.bases.families import family_of
from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.images.families import load_pipeline
from taming_core.model.diffusion import Noise, noised, part_of, target_of
from taming_core.model.inputs import Shown
from taming_core.model.subject_model import SubjectModel, predict, subject_model
from taming_core.params.load import load_params
from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for
from taming_core.tables.rows import Rows, load_rows
from taming_core.training.batches import Batch, Example, collate, example
from taming_core.training.loop import rows_of
from taming_core.training.losses import denoising_loss
from taming_core.training.objective import latents_of
from taming_core.weights.device import pick_device

Latents = Float[Tensor, "batch channels rows columns"]
Says = Callable[[Latents, Noise, Batch], Latents]  # noised latents -> what a denoiser says of them
Value = dict[str, Any]  # subject, row, and a number for each measure


@dataclass(frozen=True)
class Setting:
    """What all measures of a cell have in common."""

    model: SubjectModel
    trained: TrainParams
    shown: Shown
    subject_side: int  # pixels
    device: torch.device
    p: ScoreParams


def main(
    encoder: Annotated[Path, typer.Option("--encoder", help="The folder that `taming train` wrote.")],
    params: Annotated[Path, typer.Option("--params", help="What it was trained with.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    rows: Annotated[Path, typer.Option("--in", help="Rows of held-out things and photos.")] = MADE / "unseen-rows",
    cells: Annotated[Path, typer.Option("--cells", help="What is measured.")] = CELLS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write a value of each measure for every held-out photo."""
    p, trained, where = load(cells).score, load_params(params).train, pick_device(device)
    pipeline = load_pipeline(str(encoder), where)
    found = pipeline.object_encoder
    model, shown = subject_model(pipeline.components), Shown.of(found.config)
    s = Setting(model, trained, shown, found.image_size, torch.device(where), p)
    write({"use": uses(s, load_rows(rows, "test")), "plain": plain_changes(s, load_rows(rows, "train"))}, out)
    print(out)


def write(values: dict[str, list[Value]], out: Path) -> None:
    """As JSON, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    part.replace(out)


def uses(s: Setting, rows: Rows) -> list[Value]:
    """By what share the object's tokens lower the error inside the object, against no tokens and another object's.

    The tokens come from another view of the thing, and the caption is the one that the cell's training would give.
    """
    found = told(s, rows, by_turns(rows)[: s.p.rows])
    swapped = [replace(e, subject=donor.subject) for e, donor in zip(found, [*found[1:], found[0]], strict=True)]
    silent = [replace(e, present=False) for e in found]
    own, another, none = (errors(s, examples, says(s.model), inside=True) for examples in (found, swapped, silent))
    identities = rows_by_id(rows)
    return [
        {"subject": identities[e.row_id], "row": e.row_id, "against_none": float(1 - a / c),
         "against_another": float(1 - a / b)}
        for e, a, b, c in zip(found, own, another, none, strict=True)
    ]  # fmt: skip


def plain_changes(s: Setting, rows: Rows) -> list[Value]:
    """By what share the error of plain text-to-image is larger than the base model's; 0 is as good, below 0 better."""
    found = told(s, rows, rows.general[: s.p.pairs].tolist())
    tamed, base = errors(s, found, says(s.model)), errors(s, found, base_says(s))
    return [
        {"subject": e.row_id, "row": e.row_id, "plain_change": float(a / b - 1)}
        for e, a, b in zip(found, tamed, base, strict=True)
    ]


def by_turns(rows: Rows) -> list[int]:
    """The numbers of the object rows, all things taking turns, so that the row after is of another thing.

    Raises:
        TamingError: there are fewer than two things.
    """
    identities, taken = rows.column("identity"), dict[str, int]()
    places = list[tuple[int, str, int]]()
    for number in rows.objects.tolist():
        identity = identities[number]
        taken[identity] = taken.get(identity, -1) + 1
        places.append((taken[identity], identity, number))
    if len(taken) < 2:
        raise TamingError("The held-out rows show fewer than two things. Raise photos.unseen in cells.yaml.")
    return [number for _, _, number in sorted(places)]


def rows_by_id(rows: Rows) -> dict[str, str]:
    """row_id -> identity."""
    return dict(zip(rows.column("row_id"), rows.column("identity"), strict=True))


def told(s: Setting, rows: Rows, numbers: Sequence[int]) -> list[Example]:
    """The rows as the cell's training sees them, but that nothing is dropped and subjects are of another view."""
    p = s.trained.model_copy(update={"object_drop": 0.0, "text_drop": 0.0, "cross_reference": 1.0})
    return [example(rows, number, i, s.subject_side, p, s.shown) for i, number in enumerate(numbers)]


def says(model: SubjectModel) -> Says:
    """What the tamed denoiser says, told what the batch tells."""
    return lambda latents, noise, b: predict(model, latents, noise.timesteps, b.tokens, b.subject, b.present).said


def base_says(s: Setting) -> Says:
    """What the base model's denoiser said of the same captions, before any taming."""
    assert s.trained.base is not None  # cells start afresh
    base = family_of(load_base(s.trained.base))
    for part in base.trained_parts.values():
        part.to(s.device)
    return lambda latents, noise, batch: base.say(latents, noise.timesteps, base.text(batch.tokens))


@torch.no_grad()
def errors(s: Setting, examples: Sequence[Example], said: Says, inside: bool = False) -> Float[Tensor, " examples"]:
    """Squared error of each example, the mean over the timesteps; `inside` looks at the object alone."""
    found = list[Tensor]()
    for start in range(0, len(examples), s.p.batch_size):
        chosen = examples[start : start + s.p.batch_size]
        batch = rows_of(collate(chosen, s.model.family.token_ids), slice(None), s.device)
        numbers = range(start, start + len(chosen))
        found.append(torch.stack([_errors(s, batch, t, numbers, said, inside) for t in s.p.timesteps]).mean(0))
    return torch.cat(found).cpu()


def _errors(
    s: Setting, batch: Batch, timestep: int, numbers: Sequence[int], said: Says, inside: bool
) -> Float[Tensor, " batch"]:
    """Of one timestep."""
    noise = noise_of(s, batch, timestep, numbers)
    latents = latents_of(s.model, batch, noise)
    heard = said(noised(s.model.schedule, latents, noise), noise, batch)
    where = batch.mask if inside else torch.ones_like(batch.mask)
    weights = adaptive_avg_pool2d(where, (latents.shape[2], latents.shape[3]))
    weights = weights / weights.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return denoising_loss(heard, target_of(s.model.schedule, latents, noise), weights)


def noise_of(s: Setting, batch: Batch, timestep: int, numbers: Sequence[int]) -> Noise:
    """Noise that depends on an example's number and on the timestep alone, so that all cells meet the same."""
    family = s.model.family
    height, width = (side // family.vae_side for side in batch.mask.shape[2:])
    shape = (2, family.latent_channels, height, width)
    drawn = torch.stack([
        torch.randn(shape, generator=torch.Generator().manual_seed(seed_for(s.p.seed, f"score {timestep}", n)))
        for n in numbers
    ])  # fmt: skip
    timesteps = torch.full((len(numbers),), timestep)
    return part_of(Noise(timesteps, drawn[:, 0], drawn[:, 1]), slice(None), s.device)


if __name__ == "__main__":
    typer.run(main)
