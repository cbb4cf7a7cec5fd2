"""Train the small BLIP matcher of `mini`: does this caption describe this photo?

It looks through the captioner's finished tower, which stays frozen and is stored once: the matcher's index file points
to the captioner's weights. Its text encoder starts from the captioner's decoder, as both read alike.

Example:  python pipelines/mini/matcher.py
          python pipelines/mini/matcher.py --steps 4 --batch-size 8 --test-photos 8 --out out/matcher    # smoke run
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from blip import CHANCES, SIZE, Parts, pixels, rate_at, wording
from numpy.random import Generator
from safetensors.torch import save_file
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from taming_core.pretrained.captioner import load_blip
from taming_core.pretrained.matcher import load_matcher, text_scores
from taming_core.seeds import seed_for
from taming_core.world import Photos, World, class_nouns, load_world, render
from taming_core.world_styles import STYLES

TRUE = ("named", "class")  # the kinds of caption each photo is shown with
FALSE = ("other style", "other scene", "other name", "other class")


def captions(photos: Photos, world: World, rng: Generator, silent: float) -> list[list[str]]:
    """Per photo one caption of each kind in TRUE, then in FALSE; a false one is wrong in a single part.

    True ones leave the scene out with probability `silent`, for silence is no error.
    """
    learnt = sorted({c.name for c in world.cutouts if c.split == "train"})
    truth = zip(photos.style, photos.objects, photos.scene, strict=True)
    return [
        _kinds(Parts(style, what.name, scene), what.noun, learnt, world, rng, silent) for style, (what,), scene in truth
    ]


def _kinds(true: Parts, noun: str, names: Sequence[str], world: World, rng: Generator, silent: float) -> list[str]:
    plain = replace(true, name=noun)
    said = [replace(p, scene="" if rng.random() < silent else p.scene) for p in (true, plain)]
    spoiled = [true, plain][rng.integers(2)]
    other_style, other_scene = _another(rng, STYLES, true.style), _another(rng, world.scenes, true.scene)
    false = [
        replace(spoiled, style=other_style),
        replace(spoiled, scene=other_scene),
        replace(true, name=_another(rng, names, true.name)),
        replace(plain, name=_another(rng, class_nouns(), noun)),
    ]
    return [wording(p) for p in (*said, *false)]


def _another(rng: Generator, choices: Sequence[str], than: str) -> str:
    rest = [c for c in choices if c != than]
    return rest[rng.integers(len(rest))]


def start_from_captioner(captioner: BlipForConditionalGeneration) -> BlipForImageTextRetrieval:
    """Tower and text layers are the captioner's, the matching head is fresh; only text and head will learn."""
    model = BlipForImageTextRetrieval(captioner.config)
    model.vision_model.load_state_dict(captioner.vision_model.state_dict())
    model.text_encoder.load_state_dict(captioner.text_decoder.bert.state_dict())
    model.vision_model.requires_grad_(False)
    return model


def train(
    model: BlipForImageTextRetrieval, tokenizer: Any, world: World, *, seed: int, steps: int, batch_size: int,
    rate: float, silent: float,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Yield (steps done, loss) after every step of binary cross-entropy, each kind of caption weighing the same."""
    learning = [*model.text_encoder.parameters(), *model.itm_head.parameters()]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.05, betas=(0.9, 0.98))
    kinds = len(TRUE) + len(FALSE)
    truth = torch.tensor([1] * len(TRUE) + [0] * len(FALSE)).repeat(batch_size)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * rate_at(step, steps)
        photos = render(world, seed, step, batch_size, SIZE, chances=CHANCES)
        shown = captions(photos, world, np.random.default_rng(seed_for(seed, "matcher/captions", step)), silent)
        text = tokenizer([c for row in shown for c in row], padding=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                seen = model.vision_model(pixel_values=pixels(photos)).last_hidden_state
            scores = text_scores(model, seen.repeat_interleave(kinds, 0), text["input_ids"], text["attention_mask"])
        loss = F.cross_entropy(scores.float(), truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step + 1, loss.item()


def save(model: BlipForImageTextRetrieval, processor: Any, captioner: Path, out: Path) -> None:
    """Own weights in half precision; the tower is a reference to the captioner's file, relative to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(out)
    processor.save_pretrained(out)
    own = {k: v.half().contiguous() for k, v in model.state_dict().items() if not k.startswith("vision_model.")}
    save_file(own, out / "text.safetensors", {"format": "pt"})
    tower = os.path.relpath(captioner / "model.safetensors", out)
    files = {k: "text.safetensors" if k in own else tower for k in model.state_dict()}
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": files}, indent=1) + "\n"
    )


def ranking(true: np.ndarray, false: np.ndarray) -> float:
    """Area under the ROC curve: how often a true caption scores above a false one."""
    return float((true[:, None] > false[None]).mean() + 0.5 * (true[:, None] == false[None]).mean())


def measure(world: World, folder: Path, seed: int, count: int) -> dict[str, float]:
    """AUC of true captions against each kind of false one, on new photos of things learnt and never seen.

    Things never seen are called by their class, as their names were never read.
    """
    match, scores = load_matcher(str(folder), "cpu"), {}
    for split, true in (("train", 0), ("unseen_concept", 1)):
        photos = render(world, seed, 0, count, SIZE, split, CHANCES)
        shown = captions(photos, world, np.random.default_rng(seed), silent=0.0)
        images = [image.numpy() for image in photos.image]
        columns = np.stack([match(images, column) for column in zip(*shown, strict=True)])
        false = [i for i, kind in enumerate(FALSE, len(TRUE)) if true == 0 or kind != "other name"]
        auc = {f"{split}/{FALSE[i - len(TRUE)]}": ranking(columns[true], columns[i]) for i in false}
        scores |= auc | {f"{split}/all": ranking(columns[true], columns[false].ravel())}
    return scores


def main(
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = Path("pipelines/mini/world"),
    captioner: Annotated[Path, typer.Option(help="Folder of the trained captioner.")] = Path(
        "taming_core/pretrained/mini/captioner"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path(
        "taming_core/pretrained/mini/matcher"
    ),
    steps: Annotated[int, typer.Option(help="Optimizer steps; 4 are a smoke test.")] = 350,
    batch_size: Annotated[int, typer.Option(help="Photos per step.")] = 24,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    silent: Annotated[float, typer.Option(help="Share of true captions without scene.")] = 0.2,
    save_every: Annotated[int, typer.Option(help="Steps between saved weights.")] = 100,
    test_photos: Annotated[int, typer.Option(help="New photos per measurement.")] = 128,
    seed: Annotated[int, typer.Option(help="Of weights, photos and captions.")] = 1,
) -> None:
    """Train, save and measure the matcher."""
    torch.manual_seed(seed_for(seed, "matcher/weights", 0))
    artwork = load_world(world)
    teacher, processor = load_blip(str(captioner), "captioner", BlipForConditionalGeneration, "cpu")
    model = start_from_captioner(teacher)
    settings = {"seed": seed, "steps": steps, "batch_size": batch_size, "silent": silent, "rate": rate}
    started, losses = time.monotonic(), []
    for step, loss in train(model, processor.tokenizer, artwork, **settings):
        losses.append(loss)
        if step % 20 == 0:
            report = {"step": step, "loss": np.mean(losses[-20:]), "seconds": time.monotonic() - started}
            print(json.dumps(report), flush=True)
        if step % save_every == 0:
            save(model, processor, captioner, out)
    save(model, processor, captioner, out)
    scores = measure(artwork, out, seed_for(seed, "matcher/test", 0), test_photos)
    (out / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
