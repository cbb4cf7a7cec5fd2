"""Train the segmenter of `mini`: a small SAM, prompted by boxes on photos of the mini world.

Its image tower starts from the vision tower of mini's CLIP, which knows where things end before the first step: the
masks reach an intersection over union of 0.83 with the truth, and 0.65 after the same minutes from scratch.

python pipelines/mini/segmenter.py
python pipelines/mini/segmenter.py --steps 4 --out out/segmenter    # smoke run
"""

import math
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor, nn
from transformers import CLIPVisionModel

from taming_core.pretrained import clip as clips
from taming_core.pretrained.segmenter import PIXEL_MEAN, PIXEL_STD, assemble, encoder
from taming_core.seeds import seed_for
from taming_core.world import Chances, Photos, World, box_of, load_world, render

HERE = Path(__file__).parent
WEIGHTS = HERE.parents[1] / "taming_core" / "pretrained" / "mini" / "segmenter"
CHANCES = Chances(two_objects=0.4)  # the decoder is cheap, the image tower is not: more boxes per photo
BATCH, SIZE, GRID, WIDTH = 12, 128, 16, 128
TOWER_RATE = 0.3  # of the learning rate: the image tower has been trained before, the rest has not
START_PHOTOS = 16  # are enough to measure how far CLIP's tokens deviate from their mean
SMALLEST = 60  # pixels; less of an object is no object
SAVE_EVERY = 200  # steps


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of 12 photos.")] = 1500,
    learning_rate: Annotated[float, typer.Option(help="Peak, after warm-up; the image tower's is 0.3 of it.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Same seed, same weights on the same machine.")] = 0,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = HERE / "world",
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP that the image tower starts from.")] = clips.MINI,
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors.")] = WEIGHTS,
) -> None:
    """Train, and save every 200 steps."""
    torch.set_num_threads(1)
    torch.manual_seed(seed_for(seed, "segmenter", 0))
    artwork = load_world(world)
    sam = build(clips.load_tower(str(clip)), artwork, seed)
    probe = nn.Conv2d(WIDTH, (SIZE // GRID) ** 2, 1)
    weights = [*sam.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(groups(sam, probe, learning_rate), weight_decay=0.02, betas=(0.9, 0.98))
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    start = time.monotonic()
    for step in range(steps):
        photos = render(artwork, seed, step, BATCH, SIZE, chances=CHANCES)
        loss, iou = loss_of(sam, probe, photos, torch.Generator().manual_seed(seed_for(seed, "boxes", step)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
        if step % 20 == 0:
            seconds = time.monotonic() - start
            print(f"step {step} loss {loss.item():.4f} iou {iou:.3f} seconds {seconds:.0f}", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save(sam, out)


def build(clip: CLIPVisionModel, artwork: World, seed: int) -> Sam:
    """A SAM with a tower of CLIP's shape, started from it, all layers global; 16 x 16 tokens, one mask per box."""
    shape = clip.config
    tower = encoder(
        image_size=SIZE, patch_size=SIZE // GRID, width=shape.hidden_size, depth=shape.num_hidden_layers,
        heads=shape.num_attention_heads, mlp_ratio=shape.intermediate_size / shape.hidden_size, window=GRID,
        global_layers=tuple(range(shape.num_hidden_layers)), prompt_width=WIDTH,
    )  # fmt: skip
    clip_start(tower, clip, render(artwork, seed, 0, START_PHOTOS, SIZE).image)
    return assemble(tower, WIDTH, GRID, mask_channels=4, mlp_width=256, extra_masks=0, quality_width=64)


@torch.no_grad()
def clip_start(tower: ImageEncoderViT, clip: CLIPVisionModel, photos: Tensor) -> None:
    """Start SAM's tower from CLIP's, so that both make much the same tokens of photos (n, 128, 128, 3) in 0..255.

    CLIP normalizes its tokens before the first layer, SAM does not. With the division by each token's own deviation
    replaced by the mean one of `photos`, the norm is affine, and is folded into patch and position embedding.
    """
    patches = clip.embeddings.patch_embedding.weight
    places = clip.embeddings.position_embedding.weight[1:]  # SAM has no class token
    tokens = F.conv2d(clip_pixels(photos), patches, stride=SIZE // GRID).flatten(2).mT + places
    norm = folded_norm(clip.pre_layrnorm, tokens)
    patches = torch.einsum("ij,jchw->ichw", norm, patches)
    mean, std = torch.tensor(PIXEL_MEAN) / 127.5 - 1, torch.tensor(PIXEL_STD) / 127.5  # SAM's, as CLIP sees pixels
    start = {
        "patch_embed.proj.weight": patches * std[:, None, None],
        "patch_embed.proj.bias": torch.einsum("ichw,c->i", patches, mean),
        "pos_embed": (places @ norm.mT + clip.pre_layrnorm.bias).view(1, GRID, GRID, -1),
    }
    for i, layer in enumerate(clip.encoder.layers):
        start |= {f"blocks.{i}.{name}": tensor for name, tensor in block_weights(layer.state_dict()).items()}
    tower.load_state_dict(tower.state_dict() | start)


def clip_pixels(photos: Tensor) -> Tensor:
    """Photos (n, H, W, 3) in 0..255 as mini's CLIP takes them: (n, 3, H, W) in [-1, 1]."""
    return photos.permute(0, 3, 1, 2).float() / 127.5 - 1


def folded_norm(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    """The matrix (width, width) that does to tokens (n, m, width) what `norm` does without its bias, on average."""
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


def groups(sam: Sam, probe: nn.Module, learning_rate: float) -> list[dict[str, object]]:
    """What the optimizer trains: the started part of the image tower more gently than the rest."""
    tower = sam.image_encoder
    started = [*tower.patch_embed.parameters(), *tower.blocks.parameters(), tower.pos_embed]
    known = {id(weight) for weight in started}
    fresh = [weight for weight in [*sam.parameters(), *probe.parameters()] if id(weight) not in known]
    return [{"params": started, "lr": TOWER_RATE * learning_rate}, {"params": fresh, "lr": learning_rate}]


def schedule(step: int, steps: int) -> float:
    """Linear warm-up over 3 %, then a cosine to zero."""
    return min((step + 1) / (0.03 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def visible_part(generator: torch.Generator) -> Tensor:
    """Which pixels (128, 128) a photo fills: half of the photos are wide or tall, and SAM pads them at the end."""
    share, across = torch.rand(2, generator=generator).tolist()
    kept = round(SIZE * min(0.55 + 0.9 * share, 1.0))
    visible = torch.ones(SIZE, SIZE, dtype=torch.bool)
    visible[:, kept:] = False
    return visible if across < 0.5 else visible.T


def jitter(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Boxes (N, 4) as a detector would give them: each side off by up to a tenth, rather looser than tighter."""
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    outward = torch.rand(boxes.shape, generator=generator) * 0.2 - 0.08
    return (boxes + outward * side * torch.tensor([-1, -1, 1, 1])).clamp(0, SIZE)


def loss_of(sam: Sam, probe: nn.Module, photos: Photos, generator: torch.Generator) -> tuple[Tensor, float]:
    """Cross-entropy + dice + squared error of the predicted quality; also the batch's mean intersection over union.

    `probe` reads all objects of a photo straight from the image embedding. It is thrown away after training, but
    without it the tower learns outlines only through the decoder, several times slower.
    """
    visible = torch.stack([visible_part(generator) for _ in photos.caption])
    masks = [m & v for m, v in zip(photos.masks, visible, strict=True)]
    owner = torch.tensor([i for i, m in enumerate(masks) for part in m if part.sum() > SMALLEST])
    truth = torch.stack([part for m in masks for part in m if part.sum() > SMALLEST])
    boxes = jitter(torch.tensor([box_of(part) for part in truth], dtype=torch.float32), generator)
    embedding = embed(sam, photos.image, visible)
    logits, quality = decode(sam, embedding[owner], boxes)
    union = torch.stack([m.any(0) for m in masks])[:, None].float()
    seen = F.binary_cross_entropy_with_logits(F.pixel_shuffle(probe(embedding), SIZE // GRID), union)
    soft_truth = F.interpolate(truth[:, None].float(), logits.shape[-2:], mode="area")
    iou = overlap(logits.detach() > 0, soft_truth > 0.5)
    outline = 4 * F.binary_cross_entropy_with_logits(logits, soft_truth) + dice(logits.sigmoid(), soft_truth)
    return outline + 2 * seen + F.mse_loss(quality[:, 0], iou), iou.mean().item()


def dice(soft: Tensor, truth: Tensor) -> Tensor:
    """One minus the mean overlap of masks (N, 1, H, W) in [0, 1] (Milletari et al., 2016)."""
    return 1 - ((2 * (soft * truth).sum((1, 2, 3)) + 1) / ((soft + truth).sum((1, 2, 3)) + 1)).mean()


def embed(sam: Sam, images: Tensor, visible: Tensor) -> Tensor:
    """Image embeddings (n, 128, 16, 16) of images (n, 128, 128, 3), zero where they are not visible."""
    pixels = sam.preprocess(images.permute(0, 3, 1, 2).float()) * visible[:, None]
    with torch.autocast("cpu", torch.bfloat16):  # twice as fast on processors that multiply bfloat16
        return sam.image_encoder(pixels).float()


def decode(sam: Sam, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits (N, 1, 64, 64) and qualities (N, 1) of N boxes, each on its own photo's embedding."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    # The decoder takes one photo and adds the dense prompt to it: each box brings its own photo along that way.
    return sam.mask_decoder(
        image_embeddings=torch.zeros_like(embedding[:1]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense + embedding,
        multimask_output=False,
    )


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N,) of boolean masks (N, 1, H, W)."""
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def save(sam: Sam, out: Path) -> None:
    """Half-precision weights; the architecture is read back from their shapes."""
    out.mkdir(parents=True, exist_ok=True)
    partial_file = out / "model.safetensors.part"
    save_file({name: t.half().contiguous() for name, t in sam.state_dict().items()}, partial_file)
    partial_file.replace(out / "model.safetensors")


if __name__ == "__main__":
    typer.run(main)
