"""Train the judges of `mini`, which no other training may use: a lenient one and a strict one.

The lenient judge looks at whole photos and forgives bent shapes. The strict one looks at the object alone, cut out and
enlarged, and has learnt to tell it from spoiled copies of itself (see spoiled.py).

Example:  python pipelines/mini/judges.py --which strict_judge
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import typer
from devices import half, ready
from jaxtyping import Bool, Float
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveFloat, PositiveInt
from schooling import (
    PARAMS,
    WEIGHTS,
    Lesson,
    PlanBook,
    Section,
    begin,
    learn,
    section,
    state_folder,
    watch,
    write_metrics,
)
from spoiled import KINDS, VISIBLE, Art, coloured, difference, spoiled, warped
from torch import Tensor, nn
from transformers import (
    LevitConfig,
    LevitModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessor,
)

from taming_core.evaluation import statistics
from taming_core.evaluation.judges import FILL, SIDE, ImageJudge, Role, features_of, load_judge, pose_images, quiet
from taming_core.evaluation.judges import composite_on_grey as on_grey_ground
from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import SPLITS, Pictures, World, load_pictures, load_world
from taming_core.world.plan import Chances, Colour, PlannedObject, generator, plan_of
from taming_core.world.render import CPU_AT_ONCE, composite_on_grey, draw, objects, references

Pixels = Float[Tensor, "n 3 side side"]
Designs = dict[str, list[int]]  # concept -> its cut-outs
Views = Callable[[int], tuple[Pixels, Pixels]]  # step -> two views of each of its things
BLOCK = 8  # pixels of a JPEG block
DRAWN_AT_ONCE = 64  # photos in a measurement
COLOURS = Chances(recolor=1.0)
HELD_OUT = SPLITS[1:]


class Looks(Section):
    """How one photo of a thing is taken."""

    size: PositiveInt  # pixels
    smallest: PositiveFloat  # side of the artwork over side of the photo
    largest: PositiveFloat

    turn: float  # radians, standard deviation; the rest of a turn is undone before anything is compared
    torn: float  # share of masks with a hole

    def chances(self) -> Chances:
        """Plain photos of one thing in its own colours."""
        return Chances(
            recolor=0, style=0, two_objects=0, attributes=0, mirror=0, turn=self.turn,
            smallest=self.smallest, largest=self.largest,
        )  # fmt: skip


class LenientParams(Lesson):
    """The judge that looks at whole photos."""

    widths: list[PositiveInt]  # of the ResNet's stages
    depths: list[PositiveInt]
    features: PositiveInt
    recolor: float
    style: float
    scale_max: PositiveFloat  # of the logits, which is one over the temperature


class StrictParams(Lesson):
    """The judge that looks at cut-outs; a batch holds `batch_size` things and two views of each."""

    widths: list[PositiveInt]  # of the LeViT's stages
    heads: list[PositiveInt]
    depths: list[PositiveInt]
    key_width: PositiveInt
    spoiled: PositiveInt  # copies of each thing, each spoiled in another way
    kinds: dict[str, PositiveFloat]  # how often each way is taken
    recolor: float  # share of things that are shown in other colours than their own
    sibling: float  # share of donors that are another design of the same concept
    views: tuple[Looks, Looks]  # reference and photo
    measured_views: tuple[Looks, Looks]  # the same, as photos of the world are
    scale_max: PositiveFloat
    accepted: float  # share of true pairs that the threshold lets pass
    measured: PositiveInt  # things of a split, at most


@dataclass(frozen=True)
class Copy:
    """One thing of a batch: artwork, perhaps spoiled."""

    cutout: int
    donor: int
    kind: str  # one of KINDS, or empty for the thing itself
    colour: Colour | None


def lenient_network(p: LenientParams) -> ResNetForImageClassification:
    """A ResNet whose logits are the features."""
    sizes: dict[str, Any] = {"hidden_sizes": p.widths, "depths": p.depths, "num_labels": p.features}
    return ResNetForImageClassification(ResNetConfig(embedding_size=32, layer_type="basic", **sizes))


def strict_network(p: StrictParams) -> LevitModel:
    """A LeViT: a few convolutions, then attention; it is compared place by place, so that shapes count."""
    stages = len(p.widths)
    sizes: dict[str, Any] = {
        "hidden_sizes": p.widths, "num_attention_heads": p.heads, "depths": p.depths,
        "key_dim": [p.key_width] * stages, "mlp_ratio": [2] * stages, "attention_ratio": [2] * stages,
        "down_ops": [["Subsample", p.key_width, w // p.key_width, 4, 2, 2] for w in p.widths[:-1]],
        "by_place": True,
    }  # fmt: skip
    return LevitModel(LevitConfig(image_size=SIDE, **sizes))


class Temperature(nn.Module):
    """The learnt scale of cosines."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(2.3))
        self.largest = largest

    def forward(self) -> Tensor:
        """The scale, at most `largest`."""
        return self.log.exp().clamp(max=self.largest)


def matching(first: Float[Tensor, "n e"], second: Float[Tensor, "n e"], scale: Tensor) -> tuple[Tensor, float]:
    """InfoNCE over all views of a batch, each looking for its partner, and how many find it.

    Source: NT-Xent in Chen et al., "A Simple Framework for Contrastive Learning", 2020, equation 1.
    """
    views = F.normalize(torch.cat([first, second]).float(), dim=-1)
    own = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (scale * views @ views.T).masked_fill(own, float("-inf"))
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(logits, partner), float((logits.argmax(1) == partner).float().mean())


# ---------------------------------------------------------------------------------------------- what a batch shows


def copies(world: World, designs: Designs, rng: Generator, p: StrictParams) -> list[Copy]:
    """Things of different concepts, each followed by its spoiled copies."""
    groups = p.batch_size // (1 + p.spoiled)
    names = rng.choice(np.array(sorted(designs)), groups, replace=groups > len(designs))
    return [copy for name in names for copy in _group(world, designs, name, rng, p)]


def _group(world: World, designs: Designs, name: str, rng: Generator, p: StrictParams) -> list[Copy]:
    cutout = int(rng.choice(designs[name]))
    colour = recolouring(world, cutout, rng) if rng.random() < p.recolor else None
    shares = np.array([p.kinds[kind] for kind in KINDS])
    kinds = rng.choice(KINDS, p.spoiled, replace=False, p=shares / shares.sum())
    return [Copy(cutout, cutout, "", colour), *(copy_of(world, designs, cutout, k, colour, rng, p) for k in kinds)]


def copy_of(
    world: World, designs: Designs, cutout: int, kind: str, colour: Colour | None, rng: Generator, p: StrictParams
) -> Copy:
    """A spoiled copy of a thing; its donor is another design of the concept, or of any other concept."""
    donors = [i for i in designs[world.cutouts[cutout].name] if i != cutout]
    if not donors or (kind != "redesigned" and rng.random() >= p.sibling):
        donors = designs[str(rng.choice(list(designs)))]
    shown = recolouring(world, cutout, rng) if kind == "recoloured" else colour
    return Copy(cutout, int(rng.choice(donors)), kind, shown)


def designs_of(world: World, candidates: Sequence[int]) -> Designs:
    """The candidates of each concept."""
    found: Designs = {}
    for i in candidates:
        found.setdefault(world.cutouts[i].name, []).append(i)
    return found


def recolouring(world: World, cutout: int, rng: Generator) -> Colour | None:
    """Other colours for a thing, as photos of the world have them."""
    return plan_of(world, [cutout], rng, COLOURS).objects[0].colour


def painted(pictures: Pictures, wanted: Sequence[Copy], rng: Generator) -> tuple[Art, Bool[Tensor, " n"]]:
    """The artwork of copies, and for each whether it differs visibly from the thing it is a copy of."""
    art, donors = (premultiplied(pictures, [getattr(c, key) for c in wanted]) for key in ("cutout", "donor"))
    recoloured = torch.tensor([c.kind == "recoloured" for c in wanted], device=art.device)
    found, shows = spoiled(art, donors, ["" if c.kind == "recoloured" else c.kind for c in wanted], rng)
    found = coloured(found, [c.colour for c in wanted])
    return found, torch.where(recoloured, difference(art, found) > VISIBLE, shows)


def premultiplied(pictures: Pictures, cutouts: Sequence[int]) -> Art:
    """Artwork as floats."""
    art = pictures.cutouts[list(cutouts)].float() / 255
    return torch.cat([art[:, :3] * art[:, 3:], art[:, 3:]], 1)


def as_cutouts(art: Art) -> Tensor:
    """Artwork as a `Pictures` holds it."""
    alpha = art[:, 3:]
    plain = torch.cat([art[:, :3] / alpha.clamp(min=1e-3), alpha], 1)
    return (plain.clamp(0, 1) * 255).round().to(torch.uint8)


def view(world: World, pictures: Pictures, art: Art, looks: Looks, rng: Generator) -> Art:
    """The cut-out from one photo of each piece of artwork."""
    shown = replace(pictures, cutouts=as_cutouts(art))
    things = [replace(_thing(world, looks, rng), cutout=number) for number in range(len(art))]
    layers = torch.cat([
        objects(shown, some, [t.placement for t in some], looks.size)
        for some in (things[i : i + CPU_AT_ONCE] for i in range(0, len(things), CPU_AT_ONCE))
    ])  # fmt: skip
    images = layers[:, :3] + grounds(len(art), looks.size, rng).to(layers) * (1 - layers[:, 3:])
    return enlarged(worn(images, rng), noisy(layers[:, 3], looks.torn, rng))


def _thing(world: World, looks: Looks, rng: Generator) -> PlannedObject:
    """Some thing, of which only the placement matters."""
    return plan_of(world, [0], rng, looks.chances(), [None]).objects[0]


def grounds(count: int, size: int, rng: Generator) -> Pixels:
    """What is behind things: patches of colour. All but a rim of it is cut away."""
    patches = torch.from_numpy(rng.uniform(0, 1, (count, 3, 3, 3))).float()
    return F.interpolate(patches, size=(size, size), mode="bilinear")


def worn(images: Pixels, rng: Generator) -> Pixels:
    """Images as they come out of a decoder: some blurred, some with JPEG's blocks, all with a cast, in [0, 1]."""
    cast = torch.from_numpy(rng.normal(1, 0.03, (len(images), 3, 1, 1))).to(images)
    images = images * cast
    blurred, blocky = (torch.from_numpy(np.flatnonzero(rng.random(len(images)) < 0.4)) for _ in range(2))
    images[blurred] = _blurred(images[blurred], rng)
    images[blocky] = _blocky(images[blocky], _column(images, rng.uniform(0.01, 0.16, len(blocky))))
    return images.clamp(0, 1)


def _blurred(images: Pixels, rng: Generator) -> Pixels:
    """Made smaller and enlarged again."""
    side = images.shape[-1]
    small = F.interpolate(images, size=round(side * rng.uniform(0.5, 0.9)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear")


def _blocky(images: Pixels, step: Float[Tensor, "n 1 1 1"]) -> Pixels:
    """Rounded in the cosine basis of 8x8 blocks, coarser at higher frequencies, as JPEG does."""
    basis = _cosines().to(images)
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(3, 4)
    waves = basis @ blocks @ basis.T
    order = torch.arange(BLOCK).to(images)
    steps = (step * (0.3 + (order[:, None] + order) / BLOCK))[:, :, None, None].clamp(min=1e-4)
    rough = basis.T @ (torch.round(waves / steps) * steps) @ basis
    return rough.transpose(3, 4).reshape(n, c, h, w)


def _cosines() -> Float[Tensor, "block block"]:
    """The orthonormal cosine transform."""
    k, x = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    rows = torch.cos(torch.pi * k * (2 * x + 1) / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    return torch.where(k == 0, rows / 2**0.5, rows)


def noisy(alpha: Float[Tensor, "n side side"], torn: float, rng: Generator) -> Float[Tensor, "n side side"]:
    """Masks as a segmenter finds them: edges that wander, too wide or too narrow, at times with a hole."""
    n, side, _ = alpha.shape
    soft = F.interpolate(F.interpolate(alpha[:, None], scale_factor=0.25, mode="area"), size=side, mode="bilinear")
    wander = _clouds(rng, n, 12, side) * _column(alpha, rng.uniform(0, 0.2, n))
    edge = _column(alpha, rng.uniform(0.35, 0.65, n)) - wander
    holes = _clouds(rng, n, 8, side) > _column(alpha, np.where(rng.random(n) < torn, rng.uniform(0.75, 0.9, n), 2.0))
    found = ((0.5 * (soft + alpha[:, None]) > edge) & ~holes)[:, 0]
    lost = found.sum((1, 2)) < 0.5 * (alpha > 0.5).sum((1, 2))
    return torch.where(lost[:, None, None], alpha > 0.5, found).float()  # of a thin thing too little may be left


def _clouds(rng: Generator, count: int, cells: int, side: int) -> Float[Tensor, "n 1 side side"]:
    coarse = torch.from_numpy(rng.uniform(-1, 1, (count, 1, cells, cells))).float()
    return F.interpolate(coarse, size=(side, side), mode="bilinear")


def enlarged(images: Pixels, masks: Float[Tensor, "n side side"]) -> Art:
    """The object of each mask, its longer side FILL of SIDE; as `objects.cutout`, many at a time."""
    side = images.shape[-1]
    (x0, x1), (y0, y1) = _ends(masks.amax(1)), _ends(masks.amax(2))
    half_side = torch.maximum(x1 - x0, y1 - y0) / FILL / side
    axis = (torch.arange(SIDE, device=images.device) + 0.5) / SIDE * 2 - 1
    x, y = (((a + b) / side - 1)[:, None] + half_side[:, None] * axis for a, b in ((x0, x1), (y0, y1)))
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    return F.grid_sample(torch.cat([images * masks[:, None], masks[:, None]], 1), grid, align_corners=False)


def _ends(seen: Float[Tensor, "n side"]) -> tuple[Tensor, Tensor]:
    """The first place that is not zero, and the one after the last."""
    there = (seen > 0).float()
    return there.argmax(1).float(), seen.shape[1] - there.flip(1).argmax(1).float()


def _column(like: Tensor, values: NDArray[np.floating]) -> Float[Tensor, "n 1 1 1"]:
    return torch.from_numpy(values).to(like)[:, None, None, None]


# -------------------------------------------------------------------------------------------------------- training


def strict_pixels(world: World, pictures: Pictures, p: StrictParams) -> Views:
    """From step to two views of its things; a copy that shows no difference is warped instead."""
    designs = designs_of(world, world.of_split("train"))

    def of(step: int) -> tuple[Pixels, Pixels]:
        rng = generator(p.seed, "strict_judge", step)
        wanted = copies(world, designs, rng, p)
        art, shows = painted(pictures, wanted, rng)
        hidden = ~shows.cpu() & torch.tensor([bool(c.kind) for c in wanted])
        if hidden.any():
            art[hidden] = warped(art[hidden], rng)
        flipped = torch.from_numpy(rng.random(len(art)) < 0.5)
        art[flipped] = art[flipped].flip(-1)
        first, second = (composite_on_grey(view(world, pictures, art, looks, rng)) * 2 - 1 for looks in p.views)
        return first, second

    return of


def lenient_pixels(world: World, pictures: Pictures, p: LenientParams) -> Views:
    """From step to whole photos and the reference views of their first things."""
    book = PlanBook(world, p, lambda _: Chances(recolor=p.recolor, style=p.style))

    def of(step: int) -> tuple[Pixels, Pixels]:
        plans = book[step]
        images, _ = draw(pictures, plans, SIDE)
        return images * 2 - 1, composite_on_grey(references(pictures, plans, SIDE)) * 2 - 1

    return of


def train(
    which: str, network: nn.Module, pixels: Views, p: StrictParams | LenientParams, device: str, state: Path
) -> None:
    """Teach a network that two views of one thing are alike."""
    parts: dict[str, nn.Module] = {"network": network.to(device).train(), "scale": Temperature(p.scale_max).to(device)}

    def loss_at(step: int) -> tuple[Tensor, dict[str, float]]:
        first, second = pixels(step)
        with half(device):
            found = features_of(parts["network"], torch.cat([first, second]).to(device))
        loss, right = matching(found[: len(first)], found[len(first) :], parts["scale"]())
        return loss, {"right": right, "scale": parts["scale"]().item()}

    watch(learn(begin(parts, p), loss_at, p, state), which, p.steps, state)


def save(network: Any, out: Path) -> None:
    """Half precision, with the preparation that makes the folder work by its name too."""
    with quiet():
        network.half().save_pretrained(out)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(out)


# ------------------------------------------------------------------------------------------------------- measuring


def features(judge: ImageJudge, pixels: Pixels) -> statistics.Features:
    """Unit features (n, e) of prepared pixels."""
    with torch.no_grad():
        found = [features_of(judge.model, chunk.to(judge.model.device)) for chunk in pixels.split(32)]
    return F.normalize(torch.cat(found).float(), dim=-1).cpu().numpy()


class Wrong(NamedTuple):
    """Pairs that are not of one thing."""

    alike: NDArray[np.float32]  # (m,) cosines
    things: NDArray[np.int64]  # (m,) whose references they are


@dataclass(frozen=True)
class Trial:
    """A strict judge before some of the world's things."""

    judge: ImageJudge
    world: World
    pictures: Pictures
    p: StrictParams
    rng: Generator
    cutouts: NDArray[np.int64]  # (n,) the things

    def cut(self, wanted: Sequence[Copy], looks: Looks) -> tuple[list[Image.Image], NDArray[np.bool_]]:
        """A cut-out (RGBA) of each copy, half of them mirrored, and whether it differs visibly from the thing."""
        art, shows = painted(self.pictures, wanted, self.rng)
        flipped = torch.from_numpy(self.rng.random(len(art)) < 0.5)
        art[flipped] = art[flipped].flip(-1)
        seen = [view(self.world, self.pictures, chunk, looks, self.rng) for chunk in art.split(DRAWN_AT_ONCE)]
        pixels = as_cutouts(torch.cat(seen)).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in pixels], shows.cpu().numpy()

    def own(self) -> list[Copy]:
        """The things themselves."""
        return [Copy(int(i), int(i), "", None) for i in self.cutouts]

    def references(self) -> NDArray[np.float32]:
        """Features (n, poses, e) of a reference view of each thing, as `taming eval` takes them."""
        return np.stack([self.judge(pose_images(cut)) for cut in self.cut(self.own(), self.p.measured_views[0])[0]])

    def photos(self, wanted: Sequence[Copy]) -> tuple[statistics.Features, NDArray[np.bool_]]:
        """Features (n, e) of a photo of each copy, and whether it shows a difference."""
        cut, shows = self.cut(wanted, self.p.measured_views[1])
        return self.judge([on_grey_ground(picture) for picture in cut]), shows

    def spoiled(self, references: NDArray[np.float32], kind: str) -> Wrong:
        """Things beside copies of them that are spoiled in one way, where it shows."""
        designs = designs_of(self.world, range(len(self.world.cutouts)))
        wanted = [copy_of(self.world, designs, int(i), kind, None, self.rng, self.p) for i in self.cutouts]
        photos, shows = self.photos(wanted)
        return Wrong(paired(references, photos)[shows], self.cutouts[shows])


def paired(references: NDArray[np.float32], photos: statistics.Features) -> NDArray[np.float32]:
    """The cosine (n,) of each photo with its own reference in the best pose."""
    return np.einsum("npe,ne->np", references, photos).max(1)


def verification(trial: Trial, least: float) -> dict[str, float]:
    """Retrieval among the things, shares of true pairs accepted and of false ones rejected, and areas under the ROC."""
    references, (photos, _) = trial.references(), trial.photos(trial.own())
    alike, seed = statistics.best_pose_cosines(photos, references), trial.p.seed
    true, apart = np.diagonal(alike), ~np.eye(len(alike), dtype=bool)
    found = _interval("top1", statistics.ranks_from_cosines(alike, np.arange(len(alike))) == 0, trial.cutouts, seed)
    found |= _interval("accepted", true >= least, trial.cutouts, seed)
    false = {kind: trial.spoiled(references, kind) for kind in KINDS}
    others = Wrong(alike.T[apart], np.repeat(trial.cutouts, len(alike) - 1))
    for kind, wrong in {**false, "other_things": others}.items():
        found |= _interval(f"rejected_{kind}", wrong.alike < least, wrong.things, seed)
        found[f"auc_{kind}"] = ranking(true, wrong.alike)
    return found


def retrieval(photo: statistics.Features, reference: statistics.Features, seed: int) -> dict[str, float]:
    """How often the true thing is found among all of them."""
    order = np.arange(len(photo))
    return _interval("top1", statistics.ranks(photo, reference, order) == 0, order, seed)


def whole_photos(
    judge: ImageJudge, world: World, pictures: Pictures, cutouts: Sequence[int], seed: int
) -> tuple[statistics.Features, statistics.Features]:
    """What the lenient judge makes of whole photos and of reference views."""
    rng = generator(seed, "measure/whole", 0)
    plans = [plan_of(world, [i], rng, Chances(recolor=0, style=0, two_objects=0)) for i in cutouts]
    images, _ = draw(pictures, plans, SIDE)
    return features(judge, images * 2 - 1), features(judge, composite_on_grey(references(pictures, plans, SIDE)) * 2 - 1)


def ranking(true: NDArray[np.float32], false: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a true pair is more alike than a false one."""
    below = np.searchsorted(np.sort(false), true, "left") + np.searchsorted(np.sort(false), true, "right")
    return float(below.mean() / 2 / len(false))


def _interval(key: str, values: NDArray[np.bool_], groups: Sequence[Any] | NDArray[Any], seed: int) -> dict[str, float]:
    """A mean with the ends of its bootstrap interval over things."""
    e = statistics.estimate(values.astype(np.float64), list(groups), seed)
    return {key: e.mean, f"{key}_low": e.low, f"{key}_high": e.high}


def held_out(world: World) -> list[int]:
    """Every cut-out that no training sees."""
    return [i for split in HELD_OUT for i in world.of_split(split)]


def drawn(cutouts: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` of them."""
    if len(cutouts) <= count:
        return list(cutouts)
    rng = np.random.default_rng(seed_for(seed, "measured", 0))
    return sorted(rng.choice(np.asarray(cutouts), count, replace=False).tolist())


def measure_strict(folder: Path, world: World, pictures: Pictures, p: StrictParams) -> dict[str, float]:
    """Find the threshold on things of the training, write it into the config, and measure on all others."""
    judge, rng = load_judge(str(folder), "cpu"), generator(p.seed, "measure strict_judge", 0)
    learnt, others = (
        Trial(judge, world, pictures, p, rng, np.array(drawn(some, p.measured, p.seed)))
        for some in (world.of_split("train"), held_out(world))
    )
    true = paired(learnt.references(), learnt.photos(learnt.own())[0])
    least = round(float(np.quantile(true, 1 - p.accepted)), 4)
    judge.model.config.accepted_from = least
    judge.model.config.save_pretrained(folder)
    return {"things": len(others.cutouts), "accepted_from": least, **verification(others, least)}


def measure_lenient(folder: Path, world: World, pictures: Pictures, p: LenientParams) -> dict[str, float]:
    """Retrieval on all things that were held out."""
    things = held_out(world)
    photos, subjects = whole_photos(load_judge(str(folder), "cpu"), world, pictures, things, p.seed)
    return {"things": len(things), **retrieval(photos, subjects, p.seed)}


class Judging(NamedTuple):
    """How one of the judges is made."""

    params: type[Any]
    network: Callable[[Any], nn.Module]
    pixels: Callable[[World, Pictures, Any], Views]
    measured: Callable[[Path, World, Pictures, Any], dict[str, float]]


LESSONS = {
    "judge": Judging(LenientParams, lenient_network, lenient_pixels, measure_lenient),
    "strict_judge": Judging(StrictParams, strict_network, strict_pixels, measure_strict),
}


def main(
    which: Annotated[Role, typer.Option(help="Which of the two.")] = "strict_judge",
    params: Annotated[Path, typer.Option(help="File with the numbers.")] = PARAMS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    out: Annotated[Path | None, typer.Option(help="Folder of the trained judge.")] = None,
) -> None:
    """Train, save and measure one judge."""
    where, folder, art = ready(device), out or WEIGHTS / which, load_world(world)
    pictures = load_pictures(art, where)
    lesson = LESSONS[which]
    p = section(lesson.params, which, params)
    torch.manual_seed(seed_for(p.seed, which, 0))
    network = lesson.network(p)
    train(which, network, lesson.pixels(art, pictures, p), p, where, state_folder(which, p))
    save(network.cpu().eval(), folder)
    write_metrics(folder, lesson.measured(folder, art, pictures, p))


if __name__ == "__main__":
    typer.run(main)
