"""Train the small BLIP matcher of `mini`: does this caption describe this photo?

It looks through the captioner's tower, which is frozen and stored once: the matcher's index file points to the
captioner's weights. Its text encoder starts from the captioner's decoder, as both read alike.

Example:  python pipelines/mini/matcher.py
          python pipelines/mini/matcher.py --rounds 1 --test-photos 8 --out out/matcher    # smoke run
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from blip import SIZE, Parts, rate_at, wording
from looks import CHANCES, Looks, Told, batches, read, truth
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from taming_core.pretrained.captioner import load_blip
from taming_core.pretrained.matcher import load_matcher, token_scores
from taming_core.seeds import seed_for
from taming_core.world import World, article, class_nouns, load_world, render
from taming_core.world_styles import STYLES

TRUE = ("named", "class")  # the kinds of caption each photo is shown with
FALSE = ("other style", "other scene", "other name", "other class")


@dataclass(frozen=True)
class Claim:
    """A caption and what is wrong with it."""

    parts: Parts
    wrong: str = ""  # "style", "name" or "scene"; empty if all is true


def claims(what: Told, world: World, names: Sequence[str], rng: Generator, silent: float) -> list[Claim]:
    """One of each kind in TRUE, then in FALSE.

    True ones leave the scene out with probability `silent`, for silence is no error.
    """
    named, classed = Parts(what.style, what.name, what.scene), Parts(what.style, what.noun, what.scene)
    true = [replace(p, scene="" if rng.random() < silent else p.scene) for p in (named, classed)]
    spoiled = [named, classed][rng.integers(2)]
    return [
        *map(Claim, true),
        Claim(replace(spoiled, style=_another(rng, STYLES, what.style)), "style"),
        Claim(replace(spoiled, scene=_another(rng, world.scenes, what.scene)), "scene"),
        Claim(replace(named, name=_another(rng, names, what.name)), "name"),
        Claim(replace(classed, name=_another(rng, class_nouns(), what.noun)), "name"),
    ]


def verdicts(tokenizer: Any, claim: Claim, length: int) -> list[int]:
    """Per token 1 if true and 0 if not, -100 for closing and padding; the first token answers for the whole."""
    found = [int(not claim.wrong)]
    phrase = f"{article(claim.parts.name)} {claim.parts.name}"
    for part, text in (("style", claim.parts.style), ("name", phrase), ("scene", claim.parts.scene)):
        found += [int(claim.wrong != part)] * len(tokenizer.encode(text, add_special_tokens=False))
    return found + [-100] * (length - len(found))


def learnt_names(world: World) -> list[str]:
    """What things are called that the models are taught."""
    return sorted({c.name for c in world.cutouts if c.split == "train"})


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
    model: BlipForImageTextRetrieval, tokenizer: Any, world: World, looks: Looks, *, seed: int, rounds: int,
    batch_size: int, rate: float, silent: float,
) -> Iterator[float]:  # fmt: skip
    """Yield the loss of every step: cross-entropy of true against false, each kind of caption weighing the same.

    The head is asked about the caption, and in training about each of its words too: told only that something is
    wrong, the encoder learns hardly more than styles.
    """
    learning = [*model.text_encoder.parameters(), *model.itm_head.parameters()]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.05, betas=(0.9, 0.98))
    kinds, names = len(TRUE) + len(FALSE), learnt_names(world)
    steps = rounds * (len(looks.told) // batch_size)
    order = (chosen for turn in range(rounds) for chosen in batches(len(looks.told), batch_size, turn, seed))
    for step, chosen in enumerate(order):
        optimizer.param_groups[0]["lr"] = rate * rate_at(step, steps)
        rng = np.random.default_rng(seed_for(seed, "matcher/captions", step))
        shown = [claim for i in chosen for claim in claims(looks.told[i], world, names, rng, silent)]
        text = tokenizer([wording(claim.parts) for claim in shown], padding=True, return_tensors="pt")
        truths = torch.tensor([verdicts(tokenizer, claim, text["input_ids"].shape[1]) for claim in shown])
        with torch.autocast("cpu", torch.bfloat16):
            seen = looks.seen[chosen].float().repeat_interleave(kinds, 0)
            scores = token_scores(model, seen, text["input_ids"], text["attention_mask"]).float()
        loss = F.cross_entropy(scores[:, 0], truths[:, 0]) + F.cross_entropy(scores[:, 1:].mT, truths[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


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


def ranking(true: NDArray[np.float32], false: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a true caption scores above a false one."""
    above, level = true[:, None] > false[None], true[:, None] == false[None]
    return float(above.mean() + 0.5 * level.mean())


def measure(world: World, folder: Path, seed: int, count: int) -> dict[str, float]:
    """AUC of true captions against each kind of false one, on new photos of things learnt and never seen.

    Things never seen are called by their class, as their names were never read.
    """
    match, scores = load_matcher(str(folder), "cpu"), {}
    for split, true in (("train", 0), ("unseen_concept", 1)):
        photos, rng = render(world, seed, 0, count, SIZE, split, CHANCES), np.random.default_rng(seed)
        shown = [claims(what, world, learnt_names(world), rng, silent=0.0) for what in truth(photos)]
        images = [image.numpy() for image in photos.image]
        columns = np.stack([match(images, [wording(c.parts) for c in kind]) for kind in zip(*shown, strict=True)])
        false = {k: i for i, k in enumerate(FALSE, len(TRUE)) if split == "train" or k != "other name"}
        scores |= {f"{split}/{kind}": ranking(columns[true], columns[i]) for kind, i in false.items()}
        scores[f"{split}/all"] = ranking(columns[true], columns[list(false.values())].ravel())
    return scores


def main(
    looks: Annotated[Path, typer.Option(help="File that looks.py wrote.")] = Path("out/mini/looks.safetensors"),
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = Path("pipelines/mini/world"),
    captioner: Annotated[Path, typer.Option(help="Folder of the trained captioner.")] = Path(
        "taming_core/pretrained/mini/captioner"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path(
        "taming_core/pretrained/mini/matcher"
    ),
    rounds: Annotated[int, typer.Option(help="How often every photo is read.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Photos per step.")] = 32,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    silent: Annotated[float, typer.Option(help="Share of true captions without scene.")] = 0.2,
    test_photos: Annotated[int, typer.Option(help="New photos per measurement.")] = 128,
    seed: Annotated[int, typer.Option(help="Of weights, order and captions.")] = 0,
) -> None:
    """Train, save and measure the matcher."""
    torch.manual_seed(seed_for(seed, "matcher/weights", 0))
    artwork, seen = load_world(world), read(looks)
    teacher, processor = load_blip(str(captioner), "captioner", BlipForConditionalGeneration, "cpu")
    model = start_from_captioner(teacher)
    started, losses = time.monotonic(), []
    for loss in train(
        model, processor.tokenizer, artwork, seen, seed=seed, rounds=rounds, batch_size=batch_size, rate=rate,
        silent=silent,
    ):  # fmt: skip
        losses.append(loss)
        if len(losses) % 20 == 0:
            recent = {"step": len(losses), "loss": sum(losses[-20:]) / 20, "seconds": time.monotonic() - started}
            print(json.dumps(recent), flush=True)
    save(model, processor, captioner, out)
    scores = measure(artwork, out, seed_for(seed, "matcher/test", 0), test_photos)
    (out / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
