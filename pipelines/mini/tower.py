"""Train the tower that captioner and matcher of `mini` look through: photos in, what is on them out.

It starts from CLIP's tower and learns to tell pieces of artwork, their names and classes apart by the class token, and
scenes, styles, sizes and places by the mean of the patches, each with one linear head. Captioner and matcher then read
the tower; the heads only show the captioner what to look for, see `captioner.py`.

CLIP tells things apart far better than its words do, so the heads for artwork and names start as the discriminants of
what it sees of them alone, and its lowest blocks stay as they are.

Example:  python pipelines/mini/tower.py
          python pipelines/mini/tower.py --measure out/mini/tower    # measure, train nothing
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import schooling
import torch
import torch.nn.functional as F
import typer
from blip import SIZE, file_state, start_from_clip, tower_config
from devices import half, ready
from jaxtyping import Float, Int
from looks import AT_ONCE, OUT, load_tower, look_alone, pixels, truth
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import load_file, save_file
from schooling import Figures, Lesson, PlanBook
from torch import Tensor, nn
from transformers import BlipVisionModel

from taming_core.seeds import seed_for
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import SPLITS, Pictures, World, class_nouns, load_pictures, load_world
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan
from taming_core.world.render import draw
from taming_core.world.styles import STYLES
from taming_core.world.wording import PLACES, SIZES

UNKNOWN = -100  # a right answer that no head can give
OF_THE_THING = ("cutout", "name", "noun")  # questions that the class token answers; the patches answer the others
DISCRIMINANTS = ("cutout", "name")  # questions whose heads know something from the start
UNASKED = {"train": (), "unseen-designs": ("cutout",), "unseen-concepts": ("cutout", "name")}  # by split


class TowerParams(Lesson):
    """Photos and losses of the tower."""

    chances: Chances
    weights: dict[str, PositiveFloat]  # of each question's loss
    discriminants_rate: PositiveFloat  # share of the learning rate: of the heads that start as discriminants,
    heads_rate: PositiveFloat  # and of the others
    frozen: NonNegativeInt  # of the lowest blocks
    sampled: PositiveInt  # photos that show how views of a thing differ, before training
    shrinkage: PositiveFloat  # of that difference towards an even one
    confidence: PositiveFloat  # of the first answers, as a share of what an even spread would allow
    workers: int  # processes that draw plans ahead
    measured: PositiveInt  # photos per measurement


def learnt_names(world: World) -> list[str]:
    """What things are called that the models are taught."""
    return sorted({c.name for c in world.cutouts if c.split == "train"})


def answers(world: World) -> dict[str, tuple[str | int, ...]]:
    """What can be answered to each question."""
    return {
        "cutout": tuple(world.of_split("train")),
        "name": tuple(learnt_names(world)),
        "noun": class_nouns(),
        "scene": world.scenes,
        "style": STYLES,
        "size": ("", *SIZES),
        "place": ("", *PLACES),
    }


def truths(world: World, wanted: Sequence[Plan]) -> dict[str, Int[Tensor, " n"]]:
    """The index of the right answer to each question about photos of one thing; UNKNOWN where it is no answer."""
    told = [asdict(truth(world, p)) for p in wanted]
    places = {question: {said: i for i, said in enumerate(found)} for question, found in answers(world).items()}
    return {q: torch.tensor([place.get(t[q], UNKNOWN) for t in told]) for q, place in places.items()}


def new_heads(world: World, width: int) -> nn.ModuleDict:
    """A linear head per question, all of whose answers are alike."""
    heads = nn.ModuleDict({question: nn.Linear(width, len(found)) for question, found in answers(world).items()})
    for weight in heads.parameters():
        nn.init.zeros_(weight)
    return heads


def seen(tower: BlipVisionModel, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 2 width"]:
    """The class tokens of images with values in [0, 1], and the means of their patches."""
    tokens = tower(pixel_values=pixels(images)).last_hidden_state
    return torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def logits(heads: nn.ModuleDict, found: Float[Tensor, "n 2 width"]) -> dict[str, Float[Tensor, "n answers"]]:
    """What the heads make of what the tower saw."""
    return {question: head(found[:, 0 if question in OF_THE_THING else 1]) for question, head in heads.items()}


@torch.no_grad()
def start_heads(heads: nn.ModuleDict, tower: BlipVisionModel, world: World, pictures: Pictures, p: TowerParams) -> None:
    """Let the heads for artwork and names start as linear discriminants of the class token (Fisher, 1936).

    The centre of a piece of artwork is what the tower sees of it alone on grey, moved by what a photo adds on average.
    """
    learnt = world.of_split("train")
    centres = look_alone(tower, world, pictures, p.seed, p.chances)
    shown = plans(world, seed_for(p.seed, "tower/sampled", 0), 0, p.sampled, chances=p.chances)
    photos = torch.cat([seen(tower, draw(pictures, some, SIZE)[0])[:, 0] for some in _chunks(shown)])
    added = photos - centres[[learnt.index(plan.objects[0].cutout) for plan in shown]]
    centres = centres + added.mean(0)
    names = learnt_names(world)
    named = torch.tensor([names.index(world.cutouts[i].name) for i in learnt], device=centres.device)
    means = torch.zeros(len(names), centres.shape[1], device=centres.device)
    means = means.index_add(0, named, centres) / named.bincount()[:, None]
    spread = added.T.cov()
    _discriminate(heads["cutout"], centres, spread, p)
    _discriminate(heads["name"], means, spread + (centres - means[named]).T.cov(), p)


def _discriminate(head: nn.Module, centres: Tensor, spread: Float[Tensor, "width width"], p: TowerParams) -> None:
    """Weights and biases that favour the nearest centre, if all spread alike (McLachlan, 1992, section 3.1)."""
    even = spread.diag().mean() * torch.eye(len(spread), device=spread.device)
    weight = torch.linalg.solve((1 - p.shrinkage) * spread + p.shrinkage * even, centres.T).T
    head.load_state_dict({"weight": p.confidence * weight, "bias": -0.5 * p.confidence * (weight * centres).sum(1)})


def _chunks(wanted: Sequence[Plan]) -> list[Sequence[Plan]]:
    return [wanted[i : i + AT_ONCE] for i in range(0, len(wanted), AT_ONCE)]


def train(
    tower: BlipVisionModel, heads: nn.ModuleDict, world: World, pictures: Pictures, device: str, p: TowerParams,
    state: Path,
) -> Iterator[schooling.Report]:  # fmt: skip
    """Yield a report per step: cross-entropy, weighted, over all questions."""
    plans_at = schooling.opened(PlanBook(world, p, lambda _: p.chances), p.steps, p.workers)
    for part in (tower.embeddings, *tower.encoder.layers[: p.frozen]):
        part.requires_grad_(False)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        wanted, _ = plans_at(step)
        right = truths(world, wanted)
        with half(device):
            said = logits(heads, seen(tower, draw(pictures, wanted, SIZE)[0]))
            losses = {q: F.cross_entropy(found.float(), right[q].to(device)) for q, found in said.items()}
        return torch.stack([p.weights[q] * loss for q, loss in losses.items()]).sum(), losses

    early = nn.ModuleDict({question: heads[question] for question in DISCRIMINANTS})
    late = nn.ModuleDict({question: head for question, head in heads.items() if question not in DISCRIMINANTS})
    rates = {"discriminants": p.discriminants_rate, "heads": p.heads_rate}
    school = schooling.begin({"tower": tower, "discriminants": early, "heads": late}, p, rates)
    yield from schooling.learn(school, loss_at, p, state)


@torch.no_grad()
def correct(
    tower: BlipVisionModel, heads: nn.ModuleDict, world: World, pictures: Pictures, wanted: Sequence[Plan]
) -> dict[str, list[bool]]:
    """Whether each question about photos is answered right."""
    right = truths(world, wanted)
    found = torch.cat([seen(tower, draw(pictures, some, SIZE)[0]) for some in _chunks(wanted)])
    return {q: (said.argmax(1).cpu() == right[q]).tolist() for q, said in logits(heads, found).items()}


def measure(folder: Path, world: World, pictures: Pictures, device: str, p: TowerParams) -> dict[str, Any]:
    """Shares of new photos of things learnt, in designs never seen, and never seen, whose heads answer right."""
    tower, heads = load_tower(folder, device), load_heads(folder, world).to(device)
    figures: dict[str, Any] = {"weights": sum(w.numel() for w in tower.parameters()), "photos": p.measured}
    for split in SPLITS:
        wanted = plans(world, seed_for(p.seed, "tower/test", 0), 0, p.measured, split, p.chances)
        names = [world.cutouts[plan.objects[0].cutout].name for plan in wanted]
        for question, right in correct(tower, heads, world, pictures, wanted).items():
            if question not in UNASKED[split]:
                figures |= schooling.estimated(f"{split}/{question}", right, names)
    return figures


def load_heads(folder: Path, world: World) -> nn.ModuleDict:
    """The heads that were trained with the tower."""
    weights = load_file(folder / "heads.safetensors")
    heads = new_heads(world, weights["name.weight"].shape[1])
    heads.load_state_dict(weights)
    return heads


def save(tower: BlipVisionModel, heads: nn.ModuleDict, out: Path) -> None:
    """Weights as captioner and looks read them; only the captioner's copy of the tower is shipped."""
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("model", tower), ("heads", heads)):
        save_file({k: v.float().cpu().contiguous() for k, v in part.state_dict().items()}, out / f"{name}.safetensors")


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP to start from.")] = schooling.WEIGHTS / "clip",
    out: Annotated[Path, typer.Option(help="Folder of the trained tower.")] = OUT / "tower",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure the tower; to resume, run the same command again."""
    p, device = schooling.section(TowerParams, "tower", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork, device)
    if measure_only:
        print(json.dumps(measure(measure_only, artwork, pictures, device, p), indent=2))
        return
    torch.manual_seed(seed_for(p.seed, "tower/weights", 0))
    network: Any = BlipVisionModel(tower_config())  # transformers types `to` wrongly
    tower, start = network.to(device), clip / "model.safetensors"
    state = schooling.state_folder("tower", p, rows_state(world), file_state(start))
    heads = new_heads(artwork, tower.config.hidden_size).to(device)
    start_from_clip(tower, start)
    start_heads(heads, tower, artwork, pictures, p)
    learning = train(tower, heads, artwork, pictures, device, p, state)
    schooling.watch(learning, "tower", p.steps, state)
    save(tower, heads, out)
    schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size,
                                  **measure(out, artwork, pictures, device, p)})  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
