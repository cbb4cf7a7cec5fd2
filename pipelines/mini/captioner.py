"""Train the small BLIP captioner of `mini`: what the trained tower saw in, plain captions out.

The decoder starts near the tower's own answer: it looks at the class token, and knows each word by what the tower's
heads make of it. It reads captions in many wordings, of which the canonical one is the most frequent, so that is what
it says. Some photos are called by their class, so that the captioner can say "animal" where it does not know which, and
can go on after "a photo of an animal". Sizes are said where it is sure of them. Places and
recolouring are not taught: the tower does not tell the left from the right.

Example:  python pipelines/mini/captioner.py
          python pipelines/mini/captioner.py --measure taming_core/mini/captioner    # train nothing
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from blip import DEC, PAD, SEP, SIZE, THING, blip_config, file_state, processor, vocabulary
from devices import half, ready
from jaxtyping import Float, Int
from looks import OUT, Looks, Told, batch_at, exchanged, load_tower, read, truth
from numpy.random import Generator
from pydantic import Field, NonNegativeInt, PositiveInt
from schooling import Figures, Lesson
from torch import Tensor, nn
from tower import answers, load_heads
from transformers import BlipForConditionalGeneration

from taming_core.captions.captioner import Captioner, load_captioner
from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Cutout, Pictures, World, load_pictures, load_world
from taming_core.world.photos import render
from taming_core.world.plan import Chances, generator
from taming_core.world.styles import STYLES
from taming_core.world.wording import Facts, choose_wording, facts_of, scene_wordings, sentence, style_wordings

SPLITS = ("train", "unseen-concepts")
LOUD = 3.0  # the class token beside the words before it, where the last layer reads it


class CaptionerParams(Lesson):
    """How the captioner learns to speak; shares are of the captions it reads."""

    exchanged: float = Field(ge=0, le=1)  # of photos as if another thing stood there
    classed: float = Field(ge=0, lt=1)  # that call a thing by its class
    vague: float = Field(ge=0, lt=1)  # that call a thing an object
    paraphrase: float = Field(ge=0, lt=1)  # per fact, in another wording than the canonical one
    sizes: float = Field(ge=0, le=1)  # that tell a size that is notable
    naming_steps: NonNegativeInt  # before captions, see `learn_names`
    naming_batch: PositiveInt
    measured: PositiveInt  # photos per measurement
    chances: Chances  # of the photos it is measured on


def lesson(what: Told, rng: Generator, p: CaptionerParams) -> str:
    """One of the captions that are true of a photo."""
    name, noun, thing = what.name, what.noun, rng.random()
    said = THING if thing < p.vague else noun if thing < p.vague + p.classed else name
    size = what.size if rng.random() < p.sizes else ""
    style, scene = (
        choose_wording(rng, wordings, p.paraphrase) for wordings in (style_wordings(what.style), scene_wordings(what.scene))
    )
    return sentence(style, [f"{size} {said}".strip()], scene)


def encode(tokenizer: Any, captions: Sequence[str]) -> tuple[Int[Tensor, "n length"], Int[Tensor, "n length"]]:
    """Token ids and labels, padded on the right; labels are -100 where nothing is to be learnt."""
    tokens = [[DEC, *tokenizer.encode(text, add_special_tokens=False), SEP] for text in captions]
    longest = max(map(len, tokens))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in tokens])
    return ids, ids.masked_fill((ids == PAD) | (ids == DEC), -100)


@torch.no_grad()
def word_features(heads: nn.ModuleDict, world: World, words: Sequence[str]) -> Float[Tensor, "words width"]:
    """Each word as the mean of those names and classes that it is part of, as the tower's heads look for them.

    Zero where there are none.
    """
    known: list[tuple[set[str], Tensor]] = []
    for question in ("name", "noun"):
        head: Any = heads[question]  # torch types what a ModuleDict holds as a module
        rows = head.weight - head.weight.mean(0)
        said = [set(str(answer).split()) for answer in answers(world)[question]]
        known += zip(said, rows / rows.std().clamp(1e-6), strict=True)
    meant = [[row for said, row in known if word in said] for word in words]
    return torch.stack([torch.stack(some).mean(0) if some else torch.zeros_like(known[0][1]) for some in meant])


def class_token_direction(seen: Float[Tensor, "n tokens width"]) -> Float[Tensor, " width"]:
    """Fisher's linear discriminant; its product with class tokens is 1 above that with patches."""
    marks, patches = seen[:, 0], seen[:, 1:].flatten(0, 1)
    apart, spread = marks.mean(0) - patches.mean(0), marks.T.cov() + patches.T.cov()
    direction = torch.linalg.solve(spread + 0.1 * torch.eye(len(apart)), apart)
    return direction / (direction @ apart)


@torch.no_grad()
def start_from_heads(model: BlipForConditionalGeneration, seen: Tensor, words: Tensor, chances: Tensor) -> None:
    """Let the decoder's first answers be near the heads': learning to find what says the name takes it too long.

    A head of every cross-attention, and all heads of the last, look at the class token; the last hands it on as it is
    to the words' embeddings. A word that nothing speaks for is as likely as it is frequent.
    """
    direction, marks = class_token_direction(seen), seen[:, 0]
    decoder: Any = model.text_decoder  # torch types every submodule as a tensor or a module
    layers, head = decoder.bert.encoder.layer, decoder.cls.predictions
    for layer in layers:
        cross = layer.crossattention.self
        size = cross.attention_head_size
        for row in range(0, cross.all_head_size if layer is layers[-1] else 1, size):
            cross.key.weight[row] = direction
            cross.query.weight[row] = 0.0
            cross.query.bias[row] = 12.0 * size**0.5  # the class token's logit is 12 above the patches'
    last, width = layers[-1].crossattention, seen.shape[-1]
    loud = LOUD / marks.std(0).mean()
    last.self.value.weight.copy_(loud * torch.eye(width))
    last.self.value.bias.copy_(-loud * marks.mean(0))
    for linear in (last.output.dense, head.transform.dense):
        linear.weight.copy_(torch.eye(width))
        linear.bias.zero_()
    # Half chance, for words without an answer need to be told apart too.
    decoder.bert.embeddings.word_embeddings.weight.mul_(0.5).add_(0.05 * words)
    head.bias.copy_(chances)


def learn_names(
    model: BlipForConditionalGeneration, tokenizer: Any, world: World, looks: Looks, p: CaptionerParams
) -> None:
    """Let the decoder's last layer find words in class tokens alone, thousands a second, before it reads captions.

    What the other words of a caption contribute is noise to it here. A name's words count alike, its class as often as
    lessons say it.
    """
    decoder: Any = model.text_decoder
    layer, head = decoder.bert.encoder.layer[-1], decoder.cls
    learnt = world.of_split("train")
    words = torch.stack([_words(tokenizer, world.cutouts[i], p, len(tokenizer)) for i in learnt])
    places = torch.tensor([learnt.index(what.cutout) for what in looks.told])
    added, alone = looks.seen[:, 0].float() - looks.alone[places].float(), looks.alone.float()
    parts = nn.ModuleList([layer.crossattention.output, layer.intermediate, layer.output, head])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    random = torch.Generator().manual_seed(seed_for(p.seed, "captioner/names", 0))
    for step in range(p.naming_steps):
        optimizer.param_groups[0]["lr"] = p.learning_rate * (1 - step / p.naming_steps)
        photos = torch.randint(len(added), (p.naming_batch,), generator=random)
        others = torch.randint(len(alone), (p.naming_batch,), generator=random)
        things = torch.where(torch.rand(p.naming_batch, generator=random) < p.exchanged, others, places[photos])
        value = layer.crossattention.self.value(added[photos] + alone[things])
        context = torch.randn(value.shape, generator=random)
        found = head(layer.feed_forward_chunk(layer.crossattention.output(value, context)))
        F.cross_entropy(found, words[things]).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)


def _words(tokenizer: Any, art: Cutout, p: CaptionerParams, count: int) -> Float[Tensor, " words"]:
    """How often each word should name a thing."""
    name, noun = (tokenizer.encode(text, add_special_tokens=False) for text in (art.name, art.noun))
    shares = torch.zeros(count).index_add_(0, torch.tensor(name), torch.full((len(name),), (1 - p.classed) / len(name)))
    return shares.index_add_(0, torch.tensor(noun), torch.full((len(noun),), p.classed / len(noun)))


def log_frequencies(tokenizer: Any, captions: Sequence[str], words: int) -> Float[Tensor, " words"]:
    """Natural logarithms; a word that never comes counts as a twentieth of one that comes once."""
    counts = Counter(encode(tokenizer, captions)[1].flatten().tolist())
    del counts[-100]
    return torch.tensor([math.log((counts[word] + 0.05) / counts.total()) for word in range(words)])


def train(
    model: BlipForConditionalGeneration,
    tokenizer: Any,
    world: World,
    looks: Looks,
    device: str,
    p: CaptionerParams,
    state: Path,
) -> Iterator[schooling.Report]:
    """Yield a report per step; only the decoder learns, from photos that the tower has seen already."""
    decoder = model.text_decoder

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        chosen, rng = batch_at(len(looks.told), p.batch_size, step, p.seed), generator(p.seed, "captioner", step)
        seen, told = exchanged(looks, world, chosen, rng, p.exchanged)
        tokens, labels = encode(tokenizer, [lesson(what, rng, p) for what in told])
        with half(device):
            said = decoder(
                input_ids=tokens.to(device),
                encoder_hidden_states=seen.to(device),
                labels=labels.to(device),
            )
        return said.loss, {}

    yield from schooling.learn(schooling.begin({"decoder": decoder}, p), loss_at, p, state)


def measure(describe: Captioner, world: World, pictures: Pictures, p: CaptionerParams) -> dict[str, Any]:
    """Shares of new photos, of things learnt and never seen, whose caption is right in each part; see `verdict`."""
    figures: dict[str, Any] = {"photos": p.measured}
    for split in SPLITS:
        photos = render(world, pictures, seed_for(p.seed, "captioner/test", 0), 0, p.measured, SIZE, split, p.chances)
        texts = describe([image.numpy() for image in photos.image], "")
        found = judged(texts, [truth(world, plan) for plan in photos.plans], world)
        figures |= {f"{split}/{part}": value for part, value in found.items()}
    return figures


def judged(texts: Sequence[str], told: Sequence[Told], world: World) -> dict[str, float]:
    """Figures of captions: shares that are right, and how they are worded."""
    said = [facts_of(text, world.scenes) for text in texts]
    nouns = {c.name: c.noun for c in world.cutouts}
    rows, figures = [verdict(f, t, nouns) for f, t in zip(said, told, strict=True)], dict[str, float]()
    for part in rows[0]:
        asked = [(bool(row[part]), t.name) for row, t in zip(rows, told, strict=True) if row[part] is not None]
        figures |= schooling.estimated(part, [r for r, _ in asked], [n for _, n in asked]) if asked else {}
    for style in STYLES:
        own = [bool(row["classed"]) for row, t in zip(rows, told, strict=True) if t.style == style]
        figures |= {f"classed/{style}": float(np.mean(own))} if own else {}
    pairs = list(zip(said, told, strict=True))
    shares = {
        "names_said": [f.object_words in nouns for f in said],
        "canonical": [_canonical(f) == text for f, text in zip(said, texts, strict=True)],
        "sizes_said": [bool(f.size) for f, t in pairs if t.size],
    }
    return figures | {share: float(np.mean(found)) for share, found in shares.items() if found}


def verdict(said: Facts, what: Told, nouns: dict[str, str]) -> dict[str, bool | None]:
    """Which parts of a caption are right; None where it tells no size. `nouns` are the classes of names.

    `named` things are called by their own name, `classed` ones by that or by their class, and of `kind` is any name of
    the right class.
    """
    own = what.name in (said.object_words, f"{said.size} {said.object_words}")  # "small" may be part of a name
    return {
        "style": said.style == what.style,
        "scene": said.scene == what.scene,
        "named": own,
        "classed": own or said.object_words == what.noun,
        "kind": own or nouns.get(said.object_words, said.object_words) == what.noun,
        "size": said.size == what.size if said.size else None,
    }


def _canonical(f: Facts) -> str:
    return sentence(f.style, [f"{f.size} {f.object_words}".strip()], f.scene, f.place)


def new_captioner(
    world: World, tower: Path, looks: Looks, reader: Any, words: dict[str, int], p: CaptionerParams
) -> BlipForConditionalGeneration:
    """The trained tower with a decoder that has read nothing yet."""
    model = BlipForConditionalGeneration(blip_config(len(words)))
    model.vision_model = load_tower(tower, "cpu")
    rng = generator(p.seed, "captioner/frequencies", 0)
    chances = log_frequencies(reader.tokenizer, [lesson(what, rng, p) for what in looks.told], len(words))
    features = word_features(load_heads(tower, world), world, list(words))
    start_from_heads(model, looks.seen[:512].float(), features, chances)
    learn_names(model, reader.tokenizer, world, looks, p)
    return model


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    tower: Annotated[Path, typer.Option(help="Folder of the tower that looked.")] = OUT / "tower",
    looks: Annotated[Path, typer.Option(help="File that looks.py wrote.")] = OUT / "looks.safetensors",
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = schooling.WEIGHTS / "captioner",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure the captioner; to resume, run the same command again."""
    p, device = schooling.section(CaptionerParams, "captioner", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork)
    if not measure_only:
        torch.manual_seed(seed_for(p.seed, "captioner/weights", 0))
        words, seen = vocabulary(artwork), read(looks)
        reader = processor(words)
        model: Any = new_captioner(artwork, tower, seen, reader, words, p)
        model = model.to(device)
        state = schooling.state_folder("captioner", p, file_state(looks))
        schooling.watch(train(model, reader.tokenizer, artwork, seen, device, p, state), "captioner", p.steps, state)
        schooling.keep(model.cpu(), out)
        reader.save_pretrained(out)
    describe = load_captioner(str(measure_only or out), device, num_beams=3, max_new_tokens=32)
    figures = measure(describe, artwork, pictures, p)
    if measure_only:
        print(json.dumps(figures, indent=2))
    else:
        schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size, **figures})


if __name__ == "__main__":
    typer.run(main)
