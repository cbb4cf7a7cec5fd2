"""Train the segmenter of `mini`: a small SAM that sees each box in a square of its own, on photos of the mini world.

Its image tower starts from the vision tower of mini's CLIP, which knows where things end before the first step.

Example:  python pipelines/mini/segmenter.py
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from devices import ready
from jaxtyping import Bool, Float
from numpy.random import Generator
from pydantic import Field, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from schooling import Figures, Lesson, PlanBook
from segment_anything.modeling import Sam
from torch import Tensor, nn
from transformers import CLIPVisionModel

from taming_core.model import clip as clips
from taming_core.objects.segmenter import (
    PIXEL_MEAN,
    PIXEL_STD,
    View,
    assemble,
    cut,
    encoder,
    enlarged,
    normalized,
    predict_masks,
    read_state,
    resized,
    snap_to_edges,
    square_around,
    within,
)
from taming_core.seeds import seed_for
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import box_of, plans
from taming_core.world.plan import Chances, Plan
from taming_core.world.render import draw

START_PHOTOS = 16  # are enough to measure how far CLIP's tokens deviate from their mean


class SegmenterParams(Lesson):
    """How the segmenter learns; a batch is so many photos, each with one or two things."""

    tower_rate: PositiveFloat  # share of the learning rate: the image tower has been trained before, the rest has not
    start: str  # `clip`, whose vision tower becomes the image tower, or a file of a SAM of the same widths
    depth: PositiveInt  # first layers of the tower that are kept
    hidden: PositiveInt  # units of each layer's MLP that are kept, the strongest
    width: PositiveInt  # of the prompts and of the mask decoder
    mlp_width: PositiveInt  # of the mask decoder
    quality_width: PositiveInt
    view: View
    sizes: tuple[PositiveInt, ...]  # sides in pixels of the photos, in turn
    chances: Chances
    huddle: float = Field(ge=0, le=1)  # of two things, that one hides a part of the other
    looseness: float = Field(ge=0)  # how far the sides of a box are off, over its width and height
    edge: float = Field(ge=0)  # how much more the pixels near an outline count
    smallest: PositiveInt  # pixels of the photo; less of a thing is no thing


@dataclass(frozen=True)
class Crops:
    """Squares around things, as the network sees them."""

    pixels: Float[Tensor, "n 3 size size"]  # normalized
    boxes: Float[Tensor, "n 4"]  # about the thing, in pixels of the square
    truth: Float[Tensor, "n 1 size size"]  # share of each pixel that the thing covers
    things: Float[Tensor, "n 1 size size"]  # share that any thing covers


def build(clip: CLIPVisionModel, photos: Float[Tensor, "n 3 size size"], p: SegmenterParams) -> Sam:
    """A SAM of the shape of CLIP's tower, all of its layers global, started as `p.start` says; one mask per box."""
    shape: Any = clip.config
    grid = shape.image_size // shape.patch_size
    tower = encoder(
        image_size=shape.image_size, patch_size=shape.patch_size, width=shape.hidden_size, depth=p.depth,
        heads=shape.num_attention_heads, mlp_ratio=p.hidden / shape.hidden_size, window=grid,
        global_layers=tuple(range(p.depth)), prompt_width=p.width,
    )  # fmt: skip
    sam = assemble(
        tower, p.width, grid,
        mask_channels=4, mlp_width=p.mlp_width, extra_masks=0, quality_width=p.quality_width,
    )  # fmt: skip
    if p.start == "clip":
        start = {f"image_encoder.{name}": weight for name, weight in clip_start(clip, photos).items()}
    else:
        start = read_state(Path(p.start))
    sam.load_state_dict(sam.state_dict() | thinned(start, p.depth, p.hidden))
    return sam


def thinned(state: Mapping[str, Tensor], depth: int, hidden: int) -> dict[str, Tensor]:
    """The first `depth` layers of SAM's tower, with the `hidden` strongest units of each MLP, and all the rest."""
    kept = {name: w for name, w in state.items() if _layer(name) < depth}
    for i in range(depth):
        into, out = f"image_encoder.blocks.{i}.mlp.lin1", f"image_encoder.blocks.{i}.mlp.lin2"
        strength = kept[f"{into}.weight"].norm(dim=1) * kept[f"{out}.weight"].norm(dim=0)
        units = strength.topk(hidden).indices.sort().values
        kept |= {f"{into}.{kind}": kept[f"{into}.{kind}"][units] for kind in ("weight", "bias")}
        kept[f"{out}.weight"] = kept[f"{out}.weight"][:, units]
    return kept


def _layer(name: str) -> int:
    """The layer of the image tower that a weight belongs to, -1 if none."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["image_encoder", "blocks"] else -1


@torch.no_grad()
def clip_start(clip: CLIPVisionModel, photos: Float[Tensor, "n 3 size size"]) -> dict[str, Tensor]:
    """CLIP's tower under the names of SAM's, so that both make much the same tokens of photos in [0, 1].

    CLIP normalizes its tokens before the first layer, SAM does not. With the division by each token's own deviation
    replaced by the mean one of `photos`, the norm is affine, and is folded into patch and position embedding.
    """
    patches = clip.embeddings.patch_embedding.weight
    places = clip.embeddings.position_embedding.weight[1:]  # SAM has no class token
    tokens = F.conv2d(2 * photos - 1, patches, stride=patches.shape[-1]).flatten(2).mT + places
    norm = folded_norm(clip.pre_layrnorm, tokens)
    patches = torch.einsum("ij,jchw->ichw", norm, patches)
    mean, std = torch.tensor(PIXEL_MEAN) / 127.5 - 1, torch.tensor(PIXEL_STD) / 127.5  # SAM's, as CLIP sees pixels
    grid = math.isqrt(len(places))
    start = {
        "patch_embed.proj.weight": patches * std[:, None, None],
        "patch_embed.proj.bias": torch.einsum("ichw,c->i", patches, mean),
        "pos_embed": (places @ norm.mT + clip.pre_layrnorm.bias).view(1, grid, grid, -1),
    }
    for i, layer in enumerate(clip.encoder.layers):
        start |= {f"blocks.{i}.{name}": tensor for name, tensor in block_weights(layer.state_dict()).items()}
    return start


def folded_norm(norm: nn.LayerNorm, tokens: Float[Tensor, "n m width"]) -> Float[Tensor, "width width"]:
    """The matrix that does to tokens what `norm` does without its bias, on average."""
    width = tokens.shape[-1]
    centring = torch.eye(width) - 1 / width
    return norm.weight[:, None] * centring * (1 / tokens.std(-1, unbiased=False)).mean()


def block_weights(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIP layer under the names of SAM's; the relative positions that SAM adds stay at zero."""
    names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.lin1", "mlp.fc2": "mlp.lin2",
             "self_attn.out_proj": "attn.proj"}  # fmt: skip
    kinds = ("weight", "bias")
    same = {f"{to}.{kind}": layer[f"{name}.{kind}"] for name, to in names.items() for kind in kinds}
    joint = {f"attn.qkv.{kind}": torch.cat([layer[f"self_attn.{n}_proj.{kind}"] for n in "qkv"]) for kind in kinds}
    return same | joint


@torch.no_grad()
def crops_of(sam: Sam, pictures: Pictures, wanted: Sequence[Plan], step: int, p: SegmenterParams) -> Crops:
    """What the network sees in a step: every thing of the photos in a square around a box that is a little off."""
    rng = np.random.default_rng(seed_for(p.seed, "crops", step))
    wanted = [huddled(plan, rng) if rng.random() < p.huddle else plan for plan in wanted]
    images, masks = draw(pictures, wanted, p.sizes[step % len(p.sizes)])
    crops = [
        crop_of(sam, image, seen, i, p, rng)
        for image, seen in zip(normalized(sam, 255 * images), masks, strict=True)
        for i, mask in enumerate(seen)
        if mask.sum() > p.smallest
    ]
    return Crops(*(torch.stack(column) for column in zip(*crops, strict=True)))


def crop_of(
    sam: Sam, image: Float[Tensor, "3 side side"], masks: Bool[Tensor, "things side side"], i: int,
    p: SegmenterParams, rng: Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The fields of `Crops` for thing `i` of a normalized photo."""
    box = loose(box_of(masks[i]), p.looseness, rng, image.shape[-1])
    square, size = square_around(box, p.view.zoom), sam.image_encoder.img_size
    pixels, mask, things = resized(
        cut(torch.cat([image, masks[i : i + 1].float(), masks.any(0, keepdim=True).float()]), square), size
    ).split([3, 1, 1])
    return pixels, within(torch.tensor(box), square, size).to(image.device), mask, things


def loose(box_xyxy: Sequence[int], looseness: float, rng: Generator, side: int) -> list[float]:
    """A box as a detector would give it: its sides are off, rather outwards, some boxes by more than others."""
    x0, y0, x1, y1 = box_xyxy
    reach = looseness * rng.random() * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    outward = reach * rng.uniform(-0.8, 1, 4) * [-1, -1, 1, 1]
    return np.clip(box_xyxy + outward, 0, side).tolist()


def huddled(plan: Plan, rng: Generator) -> Plan:
    """Things side by side moved together, so that one may hide a part of the other; one thing stays where it is."""
    near, larger = rng.uniform(0.25, 0.9), rng.uniform(1, 1.5)
    if len(plan.objects) == 1:
        return plan
    moved = [
        replace(t, placement=replace(t.placement, x=near * t.placement.x, scale=larger * t.placement.scale))
        for t in plan.objects
    ]
    return replace(plan, objects=tuple(moved))


def loss_of(sam: Sam, probe: nn.Module, crops: Crops, p: SegmenterParams) -> tuple[Tensor, Figures]:
    """Cross-entropy + dice, of the mask also as drawn to edges, + squared error of its predicted quality.

    `probe` reads all things of a crop straight from the image embedding. It is thrown away after training, but
    without it the tower learns outlines only through the decoder, several times slower.
    """
    embedding = sam.image_encoder(crops.pixels)
    coarse, quality = predict_masks(sam, embedding, crops.boxes)
    logits, weight = enlarged(coarse, sam.image_encoder.img_size), 1 + p.edge * outline(crops.truth)
    shares = logits.sigmoid()
    drawn = snap_to_edges(shares, crops.pixels, p.view)
    told = F.binary_cross_entropy_with_logits(logits, crops.truth, weight, reduction="sum") / weight.sum()
    seen = F.binary_cross_entropy_with_logits(probe(embedding), crops.things)
    iou = overlap(drawn.detach() > 0.5, crops.truth > 0.5)
    loss = 4 * told + dice(shares, crops.truth) + dice(drawn, crops.truth) + seen + F.mse_loss(quality[:, 0], iou)
    return loss, {"iou": iou.mean(), "undrawn": overlap(shares > 0.5, crops.truth > 0.5).mean()}


def outline(truth: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Where a mask changes within two pixels, in [0, 1]."""
    return F.max_pool2d(truth, 5, 1, 2) + F.max_pool2d(-truth, 5, 1, 2)


def dice(soft: Float[Tensor, "n 1 h w"], truth: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """One minus the mean overlap of masks in [0, 1] (Milletari et al., 2016)."""
    return 1 - ((2 * (soft * truth).sum((1, 2, 3)) + 1) / ((soft + truth).sum((1, 2, 3)) + 1)).mean()


def overlap(a: Bool[Tensor, "n 1 h w"], b: Bool[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Intersection over union of masks."""
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def save(sam: Sam, view: View, out: Path) -> None:
    """Half-precision weights, whose shapes tell the architecture, and the view."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / "model.safetensors.part"
    save_file({name: t.detach().half().cpu().contiguous() for name, t in sam.state_dict().items()}, part)
    part.replace(out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(asdict(view), indent=2) + "\n")


def train(
    sam: Sam, patch: int, world: World, pictures: Pictures, p: SegmenterParams, state: Path
) -> Iterator[schooling.Report]:
    """Yield a report per step; then the averaged weights are in place."""
    probe = nn.Sequential(nn.Conv2d(p.width, patch**2, 1), nn.PixelShuffle(patch)).to(sam.device)
    parts = {"tower": sam.image_encoder, "prompt": sam.prompt_encoder, "decoder": sam.mask_decoder, "probe": probe}
    book = PlanBook(world, p, lambda _: p.chances)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        return loss_of(sam, probe, crops_of(sam, pictures, book[step], step, p), p)

    yield from schooling.learn(schooling.begin(parts, p, {"tower": p.tower_rate}), loss_at, p, state)


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP whose shape the tower has.")] = MINI / "clip",
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors.")] = schooling.WEIGHTS / "segmenter",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Train and save; `measure_objects.py` measures. To resume, run the same command again."""
    p, device = schooling.section(SegmenterParams, "segmenter", params), ready(device)
    artwork = load_world(world)
    pictures, tower = load_pictures(artwork, device), clips.load_tower(str(clip))
    torch.manual_seed(seed_for(p.seed, "segmenter/weights", 0))
    shape: Any = tower.config
    examples = draw(pictures, plans(artwork, p.seed, 0, START_PHOTOS), shape.image_size)[0]
    sam = build(tower, examples.cpu(), p).to(device)
    state = schooling.state_folder("segmenter", p, rows_state(world), str(clip))
    reports = train(sam, shape.patch_size, artwork, pictures, p, state)
    schooling.watch(reports, "segmenter", p.steps, state)
    save(sam, p.view, out)


if __name__ == "__main__":
    typer.run(main)
