"""Train the small BLIP captioner of `mini`: photos of the mini world in, plain captions out.

The vision tower starts from the CLIP tower of `mini`, which knows the world already. Two kinds of lesson are mixed:
most photos teach their whole caption, the others only how to continue "a photo of an animal", which is what a
conditional caption asks for.

Example:  python pipelines/mini/captioner.py
          python pipelines/mini/captioner.py --steps 4 --batch-size 8 --test-photos 8 --out out/captioner    # smoke run
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from blip import (
    CHANCES,
    DEC,
    PAD,
    SEP,
    SIZE,
    blip_config,
    captions_of,
    parse,
    pixels,
    processor,
    rate_at,
    save,
    start_from_clip,
    vocabulary,
)
from torch import Tensor
from transformers import BertTokenizer, BlipForConditionalGeneration, BlipVisionModel

from taming_core.pretrained.captioner import load_captioner
from taming_core.seeds import seed_for
from taming_core.world import Photos, World, article, load_world, render


@dataclass(frozen=True)
class Lesson:
    """One training caption."""

    given: str  # read, not learnt: "" or "a photo of an animal"
    said: str  # learnt: "in the snow"


def lessons(photos: Photos, every: int) -> list[Lesson]:
    """The whole caption, but for each `every`-th photo only how to go on after its class."""
    nouns = [objects[0].noun for objects in photos.objects]
    asked = [f"a photo of {article(noun)} {noun}" for noun in nouns]
    rows = zip(asked, photos.scene, captions_of(photos), strict=True)
    return [Lesson(a, scene) if i % every == 0 else Lesson("", whole) for i, (a, scene, whole) in enumerate(rows)]


def encode(tokenizer: BertTokenizer, batch: list[Lesson]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, int64 (n, length), padded on the right; labels are -100 where nothing is to be learnt."""
    given = [tokenizer.encode(lesson.given, add_special_tokens=False) for lesson in batch]
    said = [tokenizer.encode(lesson.said, add_special_tokens=False) for lesson in batch]
    tokens = [[DEC, *g, *s, SEP] for g, s in zip(given, said, strict=True)]
    labels = [[-100] * (1 + len(g)) + [*s, SEP] for g, s in zip(given, said, strict=True)]
    return _right_padded(tokens, PAD), _right_padded(labels, -100)


def _right_padded(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def drop_patches(tower: BlipVisionModel, seed: int, kept: float) -> torch.utils.hooks.RemovableHandle:
    """Let the tower see a random share of the patches: faster steps, hence more photos (FLIP, Li et al. 2023).

    All photos of a batch lose the same patches.
    """
    draw = torch.Generator().manual_seed(seed)

    def keep_some(_module: object, _inputs: object, tokens: Tensor) -> Tensor:
        patches = torch.randperm(tokens.shape[1] - 1, generator=draw)[: round(kept * (tokens.shape[1] - 1))]
        return tokens[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + patches.sort().values])]

    return tower.embeddings.register_forward_hook(keep_some)


def train(
    model: BlipForConditionalGeneration, tokenizer: BertTokenizer, world: World, *, seed: int, steps: int,
    batch_size: int, text_rate: float, vision_rate: float, kept: float, whole: float, every: int,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Yield (steps done, loss) after every step; the last share `whole` of the steps sees all patches."""
    vision, text = list(model.vision_model.parameters()), list(model.text_decoder.parameters())
    groups = [{"params": vision, "peak": vision_rate}, {"params": text, "peak": text_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98))
    dropping = drop_patches(model.vision_model, seed_for(seed, "patches", 0), kept)
    model.train()
    for step in range(steps):
        if step == round(steps * (1 - whole)):
            dropping.remove()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(step, steps)
        photos = render(world, seed, step, batch_size, SIZE, chances=CHANCES)
        tokens, labels = encode(tokenizer, lessons(photos, every))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(pixel_values=pixels(photos), input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step + 1, loss.item()
    dropping.remove()


def measure(world: World, folder: Path, seed: int, count: int) -> dict[str, float]:
    """Shares of `count` new photos whose caption is right: of things never seen, then of things learnt."""
    describe = load_captioner(str(folder), "cpu", num_beams=3, max_new_tokens=24)
    scores = {}
    for split in ("unseen_concept", "train"):
        photos = render(world, seed, 0, count, SIZE, split, replace(CHANCES, recolor=0.0))
        found = [parse(world, text) for text in describe([image.numpy() for image in photos.image], "")]
        truth = zip(found, photos.style, photos.objects, photos.scene, strict=True)
        hits = [(f.style == style, f.name == what.name, f.scene == scene) for f, style, (what,), scene in truth]
        style, name, scene = (sum(column) / count for column in zip(*hits, strict=True))
        scores |= {f"{split}/style": style, f"{split}/scene": scene, f"{split}/concept": name}
    return scores


def main(
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = Path("pipelines/mini/world"),
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP whose tower is the start.")] = Path(
        "taming_core/pretrained/mini/clip"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path(
        "taming_core/pretrained/mini/captioner"
    ),
    steps: Annotated[int, typer.Option(help="Optimizer steps; 4 are a smoke test.")] = 800,
    batch_size: Annotated[int, typer.Option(help="Photos per step.")] = 48,
    text_rate: Annotated[float, typer.Option(help="Peak learning rate of the text decoder.")] = 1e-3,
    vision_rate: Annotated[float, typer.Option(help="Peak learning rate of the vision tower.")] = 3e-4,
    kept: Annotated[float, typer.Option(help="Share of the patches seen at first.")] = 0.5,
    whole: Annotated[float, typer.Option(help="Share of the steps, the last ones, that sees all patches.")] = 0.2,
    conditional: Annotated[int, typer.Option(help="Every n-th photo teaches to go on after its class.")] = 8,
    save_every: Annotated[int, typer.Option(help="Steps between saved weights.")] = 100,
    test_photos: Annotated[int, typer.Option(help="New photos per measurement.")] = 256,
    seed: Annotated[int, typer.Option(help="Of weights, photos and patches.")] = 0,
) -> None:
    """Train, save and measure the captioner."""
    torch.manual_seed(seed_for(seed, "captioner/weights", 0))
    artwork = load_world(world)
    words = vocabulary(artwork)
    reader = processor(words)
    model = BlipForConditionalGeneration(blip_config(len(words)))
    start_from_clip(model.vision_model, clip / "model.safetensors")
    started, loss_sum = time.monotonic(), 0.0
    for step, loss in train(
        model, reader.tokenizer, artwork, seed=seed, steps=steps, batch_size=batch_size, text_rate=text_rate,
        vision_rate=vision_rate, kept=kept, whole=whole, every=conditional,
    ):  # fmt: skip
        loss_sum += loss
        if step % 20 == 0:
            print(json.dumps({"step": step, "loss": loss_sum / 20, "seconds": time.monotonic() - started}), flush=True)
            loss_sum = 0.0
        if step % save_every == 0:
            save(model, reader, out)
    save(model, reader, out)
    scores = measure(artwork, out, seed_for(seed, "captioner/test", 0), test_photos)
    (out / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
