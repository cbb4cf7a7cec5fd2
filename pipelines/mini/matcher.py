"""Train the small BLIP matcher of `mini`: does a caption describe a photo?

It uses the captioner's frozen tower, which is stored once: the matcher's index file points to the captioner's weights.
Its text encoder is initialised from the captioner's decoder.

Example:  python -m pipelines.mini.matcher
          python -m pipelines.mini.matcher --measure taming_core/mini/matcher    # measure, train nothing
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from pipelines.mini.devices import autocast
from pipelines.mini.matcher_captions import (
    FALSE,
    TRUE,
    Caption,
    MatcherParams,
    text_of,
    token_labels,
    training_captions,
)
from pipelines.mini.matcher_measures import measure
from pipelines.mini.options import DeviceName, FeaturesFile, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, file_digest, load_section
from pipelines.mini.teacher_features import FILE, TeacherFeatures, read, shuffled_batch, swap_objects
from pipelines.mini.tower_heads import trained_names
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import WorldData, load_data
from taming_core.captions.captioner import load_blip
from taming_core.captions.matcher import token_scores
from taming_core.world.plan import generator

KINDS = len(TRUE) + len(FALSE)  # captions per photo


@dataclass(frozen=True)
class MatcherModel:
    """The matcher with its processor and training data."""

    model: Any  # BlipForImageTextRetrieval; torch types its submodules wrongly
    processor: Any
    teacher: TeacherFeatures


def new_matcher(captioner: Path, features: Path, device: str) -> MatcherModel:
    """A matcher initialised from the captioner, on the device."""
    source, processor = load_blip(str(captioner), "captioner", BlipForConditionalGeneration, "cpu")
    model: Any = start_from_captioner(source)
    return MatcherModel(model.to(device), processor, read(features))


def start_from_captioner(captioner: BlipForConditionalGeneration) -> BlipForImageTextRetrieval:
    """A matcher with the captioner's tower and text layers, and a fresh matching head."""
    model = BlipForImageTextRetrieval(captioner.config)
    model.vision_model.load_state_dict(captioner.vision_model.state_dict())
    model.text_encoder.load_state_dict(captioner.text_decoder.bert.state_dict())
    return model


def train_matcher(matcher: MatcherModel, data: WorldData, p: MatcherParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step: cross-entropy of true against false captions, both classes weighted equally.

    The head classifies the whole caption and, in training, each of its tokens too: with a label for the whole caption
    only, the encoder learns little more than styles.
    """
    names = trained_names(data.world)
    balance = torch.tensor([len(TRUE) / KINDS, len(FALSE) / KINDS], device=data.device)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        features, captions = training_batch(matcher.teacher, data, names, step, p)
        text, labels = tokenized(matcher.processor.tokenizer, captions)
        text, labels = text.to(data.device), labels.to(data.device)
        with autocast(data.device):
            repeated = features.to(data.device).repeat_interleave(KINDS, 0)
            scores = token_scores(matcher.model, repeated, text["input_ids"], text["attention_mask"]).float()
        whole = F.cross_entropy(scores[:, 0], labels[:, 0], balance)
        words = F.cross_entropy(scores[:, 1:].mT, labels[:, 1:], ignore_index=-100)
        return whole + words, {"whole": whole, "words": words}

    modules = {"text": matcher.model.text_encoder, "head": matcher.model.itm_head}
    yield from train(new_train_state(modules, p), loss_at, p, folder)


def training_batch(
    teacher: TeacherFeatures, data: WorldData, names: Sequence[str], step: int, p: MatcherParams
) -> tuple[Float[Tensor, "n tokens width"], list[Caption]]:
    """Features of the photos of a step, and KINDS captions of each."""
    chosen, rng = shuffled_batch(len(teacher.facts), p.batch_size, step, p.seed), generator(p.seed, "matcher", step)
    features, facts = swap_objects(teacher, data.world, chosen, rng, p.swap_share)
    pairs = zip(facts, [*facts[1:], facts[0]], strict=True)
    return features, [c for own, other in pairs for c in training_captions(own, other, data.world, names, rng, p)]


def tokenized(tokenizer: Any, captions: Sequence[Caption]) -> tuple[Any, Int[Tensor, "n length"]]:
    """Padded token ids with their attention mask, and the label of each token."""
    text = tokenizer([text_of(c) for c in captions], padding=True, return_tensors="pt")
    length = text["input_ids"].shape[1]
    return text, torch.tensor([token_labels(tokenizer, c, length) for c in captions])


def save(matcher: MatcherModel, captioner: Path, out: Path) -> None:
    """Save the text weights in half precision; the index names the captioner's file for the tower."""
    out.mkdir(parents=True, exist_ok=True)
    model = matcher.model.cpu()
    model.config.save_pretrained(out)
    matcher.processor.save_pretrained(out)
    own = {k: v.half().contiguous() for k, v in model.state_dict().items() if not k.startswith("vision_model.")}
    save_file(own, out / "text.safetensors", {"format": "pt"})
    tower = os.path.relpath(captioner / "model.safetensors", out)
    files = {k: "text.safetensors" if k in own else tower for k in model.state_dict()}
    index = json.dumps({"metadata": {}, "weight_map": files}, indent=1)
    (out / "model.safetensors.index.json").write_text(index + "\n", encoding="utf-8")


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    features: FeaturesFile = FILE,
    captioner: Annotated[Path, typer.Option(help="Folder of the captioner to start from.")] = OUT / "captioner",
    out: OutFolder = OUT / "matcher",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the matcher; to resume, run the same command again."""
    p, data = load_section(MatcherParams, "matcher", params), load_data(world, device, render_on_cpu=True)
    stage = Stage(
        name="matcher",
        build=lambda: new_matcher(captioner, features, data.device),
        train=lambda matcher, state: train_matcher(matcher, data, p, state),
        save=lambda matcher, folder: save(matcher, captioner, folder),
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [file_digest(features), file_digest(captioner / "model.safetensors")],
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
