"""Train the small BLIP matcher of `mini`: does this caption describe this photo?

It looks through the captioner's tower, which is frozen and stored once: the matcher's index file points to the
captioner's weights. Its text encoder starts from the captioner's decoder, as both read alike.

Example:  python pipelines/mini/matcher.py
          python pipelines/mini/matcher.py --measure taming_core/mini/matcher    # train nothing
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from blip import SIZE, THING, file_state
from devices import half, ready
from looks import OUT, Looks, Told, batch_at, exchanged, read, truth
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from safetensors.torch import save_file
from schooling import Figures, Lesson
from torch import Tensor
from tower import learnt_names
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from taming_core.captions.captioner import load_blip
from taming_core.captions.matcher import Matcher, load_matcher, token_scores
from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, class_nouns, load_pictures, load_world
from taming_core.world.photos import render
from taming_core.world.plan import Chances, generator
from taming_core.world.styles import STYLES
from taming_core.world.wording import article, choose_wording, scene_wordings, sentence, style_wordings

TRUE = ("named", "class")  # the kinds of caption each photo is shown with
FALSE = ("other style", "other scene", "other name", "other class", "other photo")


class MatcherParams(Lesson):
    """How the matcher learns; shares are of the captions it reads."""

    exchanged: float = Field(ge=0, le=1)  # of photos as if another thing stood there
    silent: float = Field(ge=0, le=1)  # true captions without a scene, for silence is no error
    vague: float = Field(ge=0, le=1)  # captions that call the thing an object
    paraphrase: float = Field(ge=0, le=1)  # per fact, in another wording than the canonical one
    sizes: float = Field(ge=0, le=1)  # that tell a size that is notable
    measured: PositiveInt  # photos per measurement
    chances: Chances  # of the photos it is measured on


@dataclass(frozen=True)
class Claim:
    """A caption in parts, and which of them are wrong."""

    style: str  # in any wording
    size: str
    thing: str
    scene: str
    wrong: frozenset[str] = frozenset()  # names of fields


def claim(what: Told, thing: str, rng: Generator, p: MatcherParams) -> Claim:
    """A true caption, in any wording, that calls the thing so."""
    size = what.size if rng.random() < p.sizes else ""
    scene = choose_wording(rng, scene_wordings(what.scene), p.paraphrase)
    return Claim(choose_wording(rng, style_wordings(what.style), p.paraphrase), size, thing, scene)


def claims(
    what: Told, other: Told, world: World, names: Sequence[str], rng: Generator, p: MatcherParams
) -> list[Claim]:
    """One of each kind in TRUE, then in FALSE; `other` is what is true of another photo."""
    true = [claim(what, thing, rng, p) for thing in (what.name, THING if rng.random() < p.vague else what.noun)]
    named, classed = (replace(c, scene="") if rng.random() < p.silent else c for c in true)
    spoiled = [claim(what, thing, rng, p) for thing in (what.name, what.noun)]
    style = choose_wording(rng, style_wordings(_another(rng, STYLES, what.style)), p.paraphrase)
    scene = choose_wording(rng, scene_wordings(_another(rng, world.scenes, what.scene)), p.paraphrase)
    return [
        named,
        classed,
        replace(spoiled[rng.integers(2)], style=style, wrong=frozenset({"style"})),
        replace(spoiled[rng.integers(2)], scene=scene, wrong=frozenset({"scene"})),
        replace(spoiled[0], thing=_another(rng, names, what.name), wrong=frozenset({"thing"})),
        replace(spoiled[1], thing=_another(rng, class_nouns(), what.noun), wrong=frozenset({"thing"})),
        told_of(what, other, rng, p),
    ]


def told_of(what: Told, other: Told, rng: Generator, p: MatcherParams) -> Claim:
    """The caption of another photo, and what of it is wrong here."""
    named = rng.random() < 0.5
    said = claim(other, other.name if named else other.noun, rng, p)
    right = {
        "style": other.style == what.style,
        "size": said.size == what.size,
        "thing": other.name == what.name if named else other.noun == what.noun,
        "scene": other.scene == what.scene,
    }
    return replace(said, wrong=frozenset(part for part, fits in right.items() if getattr(said, part) and not fits))


def text_of(c: Claim) -> str:
    """The caption."""
    return sentence(c.style, [f"{c.size} {c.thing}".strip()], c.scene)


def verdicts(tokenizer: Any, c: Claim, length: int) -> list[int]:
    """Per token 1 if true and 0 if not, -100 for closing and padding; the first token answers for the whole."""
    found = [int(not c.wrong)]
    parts = (("style", c.style), ("size", f"{article(f'{c.size} {c.thing}'.strip())} {c.size}".strip()),
             ("thing", c.thing), ("scene", c.scene))  # fmt: skip
    for part, text in parts:
        found += [int(part not in c.wrong)] * len(tokenizer.encode(text, add_special_tokens=False))
    return found + [-100] * (length - len(found))


def _another(rng: Generator, choices: Sequence[str], than: str) -> str:
    rest = [c for c in choices if c != than]
    return rest[rng.integers(len(rest))]


def start_from_captioner(captioner: BlipForConditionalGeneration) -> BlipForImageTextRetrieval:
    """Tower and text layers are the captioner's, the matching head is fresh; only text and head will learn."""
    model = BlipForImageTextRetrieval(captioner.config)
    model.vision_model.load_state_dict(captioner.vision_model.state_dict())
    model.text_encoder.load_state_dict(captioner.text_decoder.bert.state_dict())
    return model


def train(
    model: BlipForImageTextRetrieval, tokenizer: Any, world: World, looks: Looks, device: str, p: MatcherParams,
    state: Path,
) -> Iterator[schooling.Report]:  # fmt: skip
    """Yield a report per step: cross-entropy of true against false, both weighing the same on the whole.

    The head is asked about the caption, and in training about each of its words too: told only that something is
    wrong, the encoder learns hardly more than styles.
    """
    kinds, names = len(TRUE) + len(FALSE), learnt_names(world)
    balance = torch.tensor([len(TRUE) / kinds, len(FALSE) / kinds], device=device)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        chosen, rng = batch_at(len(looks.told), p.batch_size, step, p.seed), generator(p.seed, "matcher", step)
        seen, told = exchanged(looks, world, chosen, rng, p.exchanged)
        pairs = zip(told, [*told[1:], told[0]], strict=True)
        shown = [c for what, other in pairs for c in claims(what, other, world, names, rng, p)]
        text = tokenizer([text_of(c) for c in shown], padding=True, return_tensors="pt").to(device)
        truths = torch.tensor([verdicts(tokenizer, c, text["input_ids"].shape[1]) for c in shown]).to(device)
        with half(device):
            looked = seen.to(device).repeat_interleave(kinds, 0)
            scores = token_scores(model, looked, text["input_ids"], text["attention_mask"]).float()
        whole = F.cross_entropy(scores[:, 0], truths[:, 0], balance)
        words = F.cross_entropy(scores[:, 1:].mT, truths[:, 1:], ignore_index=-100)
        return whole + words, {"whole": whole, "words": words}

    school = schooling.begin({"text": model.text_encoder, "head": model.itm_head}, p)
    yield from schooling.learn(school, loss_at, p, state)


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
    """Area under the ROC curve: how often a true caption scores above a false one.

    >>> ranking(np.float32([0.9, 0.4]), np.float32([0.4, 0.1]))
    0.875
    """
    above, level = true[:, None] > false[None], true[:, None] == false[None]
    return float(above.mean() + 0.5 * level.mean())


def measure(match: Matcher, world: World, pictures: Pictures, p: MatcherParams) -> dict[str, Any]:
    """AUC of true captions against each kind of false one, on new photos of things learnt and never seen.

    Each photo has one caption of each kind, in any wording and with a scene. Things never seen are called by their
    class, as their names were never read. `accepted` and `refused` are shares at a probability of one half.
    """
    figures: dict[str, Any] = {"photos": p.measured}
    plain = p.model_copy(update={"silent": 0.0, "vague": 0.0})
    for split, true in (("train", 0), ("unseen-concepts", 1)):
        photos = render(world, pictures, seed_for(p.seed, "matcher/test", 0), 0, p.measured, SIZE, split, p.chances)
        rng, told = np.random.default_rng(p.seed), [truth(world, plan) for plan in photos.plans]
        others = [*told[1:], told[0]]
        shown = [claims(w, o, world, learnt_names(world), rng, plain) for w, o in zip(told, others, strict=True)]
        columns = scored(match, [image.numpy() for image in photos.image], shown)
        false = {k: columns[i] for i, k in enumerate(FALSE, len(TRUE)) if split == "train" or k != "other name"}
        figures |= {f"{split}/{kind}": ranking(columns[true], column) for kind, column in false.items()}
        facts = np.concatenate([column for kind, column in false.items() if kind != "other photo"])
        figures[f"{split}/any one fact"] = ranking(columns[true], facts)
        figures |= schooling.estimated(f"{split}/accepted", columns[true] > 0.5, [w.name for w in told])
        figures |= schooling.estimated(f"{split}/refused", false["other photo"] < 0.5, [w.name for w in told])
    return figures


def scored(
    match: Matcher, images: Sequence[NDArray[np.uint8]], shown: Sequence[Sequence[Claim]]
) -> NDArray[np.float32]:
    """The matcher's scores (kinds, photos) of some captions of each photo."""
    return np.stack([match(images, [text_of(c) for c in kind]) for kind in zip(*shown, strict=True)])


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    looks: Annotated[Path, typer.Option(help="File that looks.py wrote.")] = OUT / "looks.safetensors",
    captioner: Annotated[Path, typer.Option(help="Folder of the captioner to start from.")] = (
        schooling.WEIGHTS / "captioner"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = schooling.WEIGHTS / "matcher",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure the matcher; to resume, run the same command again."""
    p, device = schooling.section(MatcherParams, "matcher", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork)
    if not measure_only:
        torch.manual_seed(seed_for(p.seed, "matcher/weights", 0))
        teacher, processor = load_blip(str(captioner), "captioner", BlipForConditionalGeneration, "cpu")
        model: Any = start_from_captioner(teacher)
        model = model.to(device)
        inputs = file_state(looks), file_state(captioner / "model.safetensors")
        state = schooling.state_folder("matcher", p, *inputs)
        learning = train(model, processor.tokenizer, artwork, read(looks), device, p, state)
        schooling.watch(learning, "matcher", p.steps, state)
        save(model.cpu(), processor, captioner, out)
    figures = measure(load_matcher(str(measure_only or out), device), artwork, pictures, p)
    if measure_only:
        print(json.dumps(figures, indent=2))
    else:
        schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size, **figures})


if __name__ == "__main__":
    typer.run(main)
