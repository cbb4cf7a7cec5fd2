"""Train the small BLIP captioner of `mini` on stored features of the tower.

The decoder is initialised from the tower's heads (see `captioner_start.py`). It reads captions in many wordings, of
which the canonical one is the most frequent, so that is what it generates. Some captions use the class of an object
instead of its name, so that the captioner can answer "animal", and can continue "a photo of an animal". Notable sizes
are in some captions. Places and recolouring are in none: the tower does not distinguish left from right.

Example:  python -m pipelines.mini.captioner
          python -m pipelines.mini.captioner --measure taming_core/mini/captioner    # measure, train nothing
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from jaxtyping import Int
from numpy.random import Generator
from torch import Tensor
from transformers import BlipForConditionalGeneration

from pipelines.mini.blip import ANY_OBJECT, DEC, PAD, SEP, blip_config, processor, vocabulary
from pipelines.mini.caption_measures import measure
from pipelines.mini.captioner_params import CaptionerParams
from pipelines.mini.captioner_start import log_frequencies, start_from_heads, train_words, word_features
from pipelines.mini.devices import autocast
from pipelines.mini.options import (
    DeviceName,
    FeaturesFile,
    MeasureOnly,
    OutFolder,
    ParamsFile,
    TowerFolder,
    WorldFolder,
)
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, file_digest, load_section
from pipelines.mini.teacher_features import (
    FILE,
    PhotoFacts,
    TeacherFeatures,
    load_tower,
    read,
    shuffled_batch,
    swap_objects,
)
from pipelines.mini.tower_heads import load_heads
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, save_half_precision, train, train_and_measure
from pipelines.mini.world_data import WorldData, load_data
from taming_core.world.plan import generator
from taming_core.world.wording import choose_wording, scene_wordings, sentence, style_wordings


@dataclass(frozen=True)
class CaptionModel:
    """The captioner with its processor and training data."""

    model: Any  # BlipForConditionalGeneration; torch types its submodules wrongly
    processor: Any
    teacher: TeacherFeatures


def training_caption(facts: PhotoFacts, rng: Generator, p: CaptionerParams) -> str:
    """A random true caption of a photo."""
    draw = rng.random()
    noun = ANY_OBJECT if draw < p.object_share else facts.noun if draw < p.object_share + p.class_share else facts.name
    size = facts.size if rng.random() < p.size_share else ""
    style = choose_wording(rng, style_wordings(facts.style), p.paraphrase)
    scene = choose_wording(rng, scene_wordings(facts.scene), p.paraphrase)
    return sentence(style, [f"{size} {noun}".strip()], scene)


def encode(tokenizer: Any, captions: Sequence[str]) -> tuple[Int[Tensor, "n length"], Int[Tensor, "n length"]]:
    """Token ids and labels, padded on the right; labels are -100 at the start token and the padding."""
    tokens = [[DEC, *tokenizer.encode(text, add_special_tokens=False), SEP] for text in captions]
    longest = max(map(len, tokens))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in tokens])
    return ids, ids.masked_fill((ids == PAD) | (ids == DEC), -100)


def new_captioner(data: WorldData, tower: Path, features: Path, p: CaptionerParams) -> CaptionModel:
    """The trained tower with an initialised decoder."""
    words, teacher = vocabulary(data.world), read(features)
    reader: Any = processor(words)
    model = BlipForConditionalGeneration(blip_config(len(words)))
    model.vision_model = load_tower(tower, "cpu")
    rng = generator(p.seed, "captioner/frequencies", 0)
    _, labels = encode(reader.tokenizer, [training_caption(facts, rng, p) for facts in teacher.facts])
    embeddings = word_features(load_heads(tower, data.world), data.world, list(words))
    start_from_heads(model, teacher.photos[:512].float(), embeddings, log_frequencies(labels, len(words)))
    train_words(model, reader.tokenizer, data.world, teacher, p)
    on_device: Any = model
    return CaptionModel(on_device.to(data.device), reader, teacher)


def train_captioner(captioner: CaptionModel, data: WorldData, p: CaptionerParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step; only the decoder is trained, on stored features of the tower."""
    decoder, teacher = captioner.model.text_decoder, captioner.teacher

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        chosen = shuffled_batch(len(teacher.facts), p.batch_size, step, p.seed)
        rng = generator(p.seed, "captioner", step)
        features, facts = swap_objects(teacher, data.world, chosen, rng, p.swap_share)
        ids, labels = encode(captioner.processor.tokenizer, [training_caption(f, rng, p) for f in facts])
        ids, features, labels = (tensor.to(data.device) for tensor in (ids, features, labels))
        with autocast(data.device):
            output = decoder(input_ids=ids, encoder_hidden_states=features, labels=labels)
        return output.loss, {}

    yield from train(new_train_state({"decoder": decoder}, p), loss_at, p, folder)


def save(captioner: CaptionModel, out: Path) -> None:
    """Save model and processor, weights in half precision."""
    save_half_precision(captioner.model.cpu(), out)
    captioner.processor.save_pretrained(out)


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    tower: TowerFolder = OUT / "tower",
    features: FeaturesFile = FILE,
    out: OutFolder = OUT / "captioner",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the captioner; to resume, run the same command again."""
    p, data = load_section(CaptionerParams, "captioner", params), load_data(world, device, render_on_cpu=True)
    stage = Stage(
        name="captioner",
        build=lambda: new_captioner(data, tower, features, p),
        train=lambda captioner, state: train_captioner(captioner, data, p, state),
        save=save,
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [file_digest(features)],
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
