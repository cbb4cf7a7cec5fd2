"""Train the small BLIP captioner of `mini`: photos of the mini world in, plain captions out.

The vision tower starts as the CLIP tower of `mini`, which knows the world already. It stays frozen until the decoder
can read it, or the decoder's first errors would ruin it. Some photos are called by their class, so that the captioner
can say "animal" where it does not know which, and can go on after "a photo of an animal". Positions, sizes and
recolouring are not taught: the world mentions them at random.

Example:  python pipelines/mini/captioner.py
          python pipelines/mini/captioner.py --steps 4 --batch-size 8 --test-photos 8 --out out/captioner    # smoke run
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
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
    Parts,
    blip_config,
    parse,
    pixels,
    processor,
    rate_at,
    save,
    start_from_clip,
    vocabulary,
    wording,
)
from torch import Tensor
from transformers import BertTokenizer, BlipForConditionalGeneration

from taming_core.pretrained.captioner import load_captioner
from taming_core.seeds import seed_for
from taming_core.world import Photos, World, load_world, render


def lessons(photos: Photos, every: int) -> list[str]:
    """Style, object and scene; each `every`-th object is called by its class."""
    names = [what.noun if i % every == 0 else what.name for i, (what,) in enumerate(photos.objects)]
    return [wording(Parts(*parts)) for parts in zip(photos.style, names, photos.scene, strict=True)]


def encode(tokenizer: BertTokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, int64 (n, length), padded on the right; labels are -100 where nothing is to be learnt."""
    tokens = [[DEC, *tokenizer.encode(text, add_special_tokens=False), SEP] for text in captions]
    longest = max(map(len, tokens))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in tokens])
    return ids, ids.masked_fill((ids == PAD) | (ids == DEC), -100)


@torch.no_grad()
def look_at_class_token(model: BlipForConditionalGeneration, images: Tensor) -> None:
    """Point the first head of each cross-attention at the tower's class token.

    CLIP keeps there what the thing is. Among hundreds of patches, all of which show the scene, the decoder would be
    long in finding it.
    """
    seen = model.vision_model(pixel_values=images).last_hidden_state
    marks, patches = seen[:, 0], seen[:, 1:].flatten(0, 1)
    apart, spread = marks.mean(0) - patches.mean(0), marks.T.cov() + patches.T.cov()
    direction = torch.linalg.solve(spread + 0.1 * torch.eye(len(apart)), apart)  # Fisher's linear discriminant
    for layer in model.text_decoder.bert.encoder.layer:
        cross = layer.crossattention.self
        cross.key.weight[0] = direction / (direction @ apart)
        cross.query.weight[0] = 0.0
        cross.query.bias[0] = 12.0 * cross.attention_head_size**0.5  # the class token's logit is 12 above the patches'


def train(
    model: BlipForConditionalGeneration, tokenizer: BertTokenizer, world: World, *, seed: int, steps: int,
    batch_size: int, text_rate: float, vision_rate: float, frozen: float, blocks: int, every: int,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Yield (steps done, loss) after every step; the tower's last `blocks` learn after the first share `frozen`."""
    upper = model.vision_model.encoder.layers[-blocks:]
    vision, text = list(upper.parameters()), list(model.text_decoder.parameters())
    groups = [{"params": vision, "peak": vision_rate}, {"params": text, "peak": text_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98))
    model.vision_model.requires_grad_(False)
    model.train()
    for step in range(steps):
        if step == round(steps * frozen):
            upper.requires_grad_(True)
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
    steps: Annotated[int, typer.Option(help="Optimizer steps; 4 are a smoke test.")] = 600,
    batch_size: Annotated[int, typer.Option(help="Photos per step.")] = 32,
    text_rate: Annotated[float, typer.Option(help="Peak learning rate of the text decoder.")] = 1e-3,
    vision_rate: Annotated[float, typer.Option(help="Peak learning rate of the vision tower.")] = 2e-4,
    frozen: Annotated[float, typer.Option(help="Share of the steps, the first ones, with the tower as it was.")] = 0.3,
    blocks: Annotated[int, typer.Option(help="Last blocks of the tower that learn.")] = 3,
    classes: Annotated[int, typer.Option(help="Each n-th photo is called by its class.")] = 4,
    save_every: Annotated[int, typer.Option(help="Steps between saved weights.")] = 100,
    test_photos: Annotated[int, typer.Option(help="New photos per measurement.")] = 256,
    seed: Annotated[int, typer.Option(help="Of weights and photos.")] = 0,
) -> None:
    """Train, save and measure the captioner."""
    torch.manual_seed(seed_for(seed, "captioner/weights", 0))
    artwork = load_world(world)
    words = vocabulary(artwork)
    reader = processor(words)
    model = BlipForConditionalGeneration(blip_config(len(words)))
    start_from_clip(model.vision_model, clip / "model.safetensors")
    look_at_class_token(model, pixels(render(artwork, seed, 0, 128, SIZE, chances=CHANCES)))
    started, loss_sum = time.monotonic(), 0.0
    for step, loss in train(
        model, reader.tokenizer, artwork, seed=seed, steps=steps, batch_size=batch_size, text_rate=text_rate,
        vision_rate=vision_rate, frozen=frozen, blocks=blocks, every=classes,
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
