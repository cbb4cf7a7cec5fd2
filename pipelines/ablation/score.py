"""Measure the denoising error of a cell on held-out photos: with the object's tokens, and of plain text-to-image.

Errors are compared under the same noise, so a few photos show differences that would take hundreds of images.

Example:  python -m pipelines.ablation.score --encoder out/ablation/encoders/ours/0
          --params out/ablation/cells/ours/0/params.yaml --out out/ablation/measures/ours/0.json
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

from pipelines.ablation.cells import CELLS, OUT, ScoreParams, load
from taming_core.bases.families import family_of
from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.images.families import load_pipeline
from taming_core.model.diffusion import Noise, add_noise, slice_noise, training_target
from taming_core.model.inputs import Batch
from taming_core.model.subject_model import SubjectModel, predict, subject_model
from taming_core.params.load import load_params
from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for
from taming_core.tables.rows import Rows, load_rows
from taming_core.training.batches import Example, ExampleSource, collate, make_example
from taming_core.training.data_loader import batch_slice
from taming_core.training.losses import denoising_loss
from taming_core.training.objective import latents_of
from taming_core.weights.device import pick_device

Latents = Float[Tensor, "batch channels rows columns"]
Denoiser = Callable[[Latents, Noise, Batch], Latents]  # noised latents -> its output
Value = dict[str, Any]  # subject, row, and a number for each metric


@dataclass(frozen=True)
class Setting:
    """Model and params of the measurements of a cell."""

    model: SubjectModel
    train_params: TrainParams
    device: torch.device
    p: ScoreParams


def main(
    encoder: Annotated[Path, typer.Option("--encoder", help="Folder that `taming train` wrote.")],
    params: Annotated[Path, typer.Option("--params", help="Params of its training.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    rows: Annotated[Path, typer.Option("--in", help="Rows of held-out objects and text-image pairs.")] = OUT
    / "unseen-rows",
    cells: Annotated[Path, typer.Option("--cells", help="File with the section score.")] = CELLS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write every metric for every held-out photo."""
    p, train_params, where = load(cells).score, load_params(params).train, pick_device(device)
    pipeline = load_pipeline(str(encoder), where)
    s = Setting(subject_model(pipeline.components), train_params, torch.device(where), p)
    write({"use": token_effects(s, load_rows(rows, "test")), "plain": plain_changes(s, load_rows(rows, "train"))}, out)
    print(out)


def write(values: dict[str, list[Value]], out: Path) -> None:
    """Write JSON, under a temporary name first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    part.replace(out)


def token_effects(s: Setting, rows: Rows) -> list[Value]:
    """Relative reduction of the error inside the object by its tokens, compared with none and with another object's.

    The tokens are from another view of the object, and the caption is the one of the cell's training.
    """
    source = source_of(s, rows)
    examples = [make_example(source, number, i) for i, number in enumerate(interleaved(rows)[: s.p.rows])]
    swapped = [
        replace(e, subject=donor.subject) for e, donor in zip(examples, [*examples[1:], examples[0]], strict=True)
    ]
    absent = [replace(e, object_count=0) for e in examples]
    own, another, none = (
        errors(s, source, chosen, tuned_denoiser(s.model), inside=True) for chosen in (examples, swapped, absent)
    )
    identities = rows_by_id(rows)
    return [
        {"subject": identities[e.row_id], "row": e.row_id, "against_none": float(1 - a / c),
         "against_another": float(1 - a / b)}
        for e, a, b, c in zip(examples, own, another, none, strict=True)
    ]  # fmt: skip


def plain_changes(s: Setting, rows: Rows) -> list[Value]:
    """Relative change of the error without an object, to the base model's; below 0 is better."""
    source = source_of(s, rows)
    examples = [make_example(source, number, i) for i, number in enumerate(rows.regularization[: s.p.pairs].tolist())]
    tuned, base = (errors(s, source, examples, denoiser) for denoiser in (tuned_denoiser(s.model), base_denoiser(s)))
    return [
        {"subject": e.row_id, "row": e.row_id, "plain_change": float(a / b - 1)}
        for e, a, b in zip(examples, tuned, base, strict=True)
    ]


def interleaved(rows: Rows) -> list[int]:
    """The numbers of the object rows, identities interleaved, so that the next row is of another one.

    Raises:
        TamingError: there are fewer than two identities.
    """
    identities, counts = rows.column("identity"), dict[str, int]()
    places = list[tuple[int, str, int]]()
    for number in rows.objects.tolist():
        identity = identities[number]
        counts[identity] = counts.get(identity, -1) + 1
        places.append((counts[identity], identity, number))
    if len(counts) < 2:
        raise TamingError("The held-out rows have fewer than two identities. Raise photos.unseen in cells.yaml.")
    return [number for _, _, number in sorted(places)]


def rows_by_id(rows: Rows) -> dict[str, str]:
    """row_id -> identity."""
    return dict(zip(rows.column("row_id"), rows.column("identity"), strict=True))


def source_of(s: Setting, rows: Rows) -> ExampleSource:
    """Examples as in the cell's training, without dropout and with subjects from another view."""
    fixed = s.train_params.model_copy(update={"object_drop": 0.0, "text_drop": 0.0, "cross_reference": 1.0})
    return ExampleSource.of(s.model, rows, fixed)


def tuned_denoiser(model: SubjectModel) -> Denoiser:
    """The output of the trained denoiser, with the batch's text and subjects."""
    return lambda latents, noise, batch: predict(model, latents, noise.timesteps, batch).output


def base_denoiser(s: Setting) -> Denoiser:
    """The output of the base model's denoiser, with the batch's text."""
    assert s.train_params.base is not None  # cells start from a base model
    base = family_of(load_base(s.train_params.base))
    for part in base.networks.values():
        part.to(s.device)
    return lambda latents, noise, batch: base.predict(latents, noise.timesteps, base.text(batch.tokens))


@torch.no_grad()
def errors(
    s: Setting, source: ExampleSource, examples: Sequence[Example], denoiser: Denoiser, inside: bool = False
) -> Float[Tensor, " examples"]:
    """Squared error of each example, averaged over the timesteps; with `inside` only within the object's mask."""
    batches = list[Tensor]()
    for start in range(0, len(examples), s.p.batch_size):
        chosen = examples[start : start + s.p.batch_size]
        batch = batch_slice(collate(chosen, source), slice(None), s.device)
        numbers = range(start, start + len(chosen))
        losses = [_errors(s, batch, t, numbers, denoiser, inside) for t in s.p.timesteps]
        batches.append(torch.stack(losses).mean(0))
    return torch.cat(batches).cpu()


def _errors(
    s: Setting, batch: Batch, timestep: int, numbers: Sequence[int], denoiser: Denoiser, inside: bool
) -> Float[Tensor, " batch"]:
    """Squared errors at one timestep."""
    noise = noise_of(s, batch, timestep, numbers)
    latents = latents_of(s.model, batch, noise)
    output = denoiser(add_noise(s.model.schedule, latents, noise), noise, batch)
    where = batch.mask if inside else torch.ones_like(batch.mask)
    weights = adaptive_avg_pool2d(where, (latents.shape[2], latents.shape[3]))
    weights = weights / weights.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return denoising_loss(output, training_target(s.model.schedule, latents, noise), weights)


def noise_of(s: Setting, batch: Batch, timestep: int, numbers: Sequence[int]) -> Noise:
    """Noise that depends only on an example's number and the timestep, so that it is the same in all cells."""
    family = s.model.family
    height, width = (side // family.vae_scale_factor for side in batch.mask.shape[2:])
    shape = (2, family.latent_channels, height, width)
    drawn = torch.stack([
        torch.randn(shape, generator=torch.Generator().manual_seed(seed_for(s.p.seed, f"score {timestep}", n)))
        for n in numbers
    ])  # fmt: skip
    timesteps = torch.full((len(numbers),), timestep)
    return slice_noise(Noise(timesteps, drawn[:, 0], drawn[:, 1]), slice(None), s.device)


if __name__ == "__main__":
    typer.run(main)
