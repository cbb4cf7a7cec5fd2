"""Train the small BLIP captioner of `mini`: what the frozen tower saw in, plain captions out.

The decoder starts near CLIP's own answer: it looks at the class token, and knows each word by what CLIP's text tower
makes of it. Some photos are called by their class, so that the captioner can say "animal" where it does not know
which, and can go on after "a photo of an animal". Positions, sizes and recolouring are not taught: the world mentions
them at random.

Example:  python pipelines/mini/captioner.py
          python pipelines/mini/captioner.py --rounds 1 --test-photos 8 --out out/captioner    # smoke run
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from blip import DEC, PAD, SEP, SIZE, Parts, blip_config, parse, processor, rate_at, save, vocabulary, wording
from looks import CHANCES, Looks, Told, batches, clip_tower, read
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration, CLIPModel

from taming_core.pretrained.captioner import load_captioner
from taming_core.seeds import seed_for
from taming_core.world import World, load_world, render


@torch.no_grad()
def word_features(clip: Path, world: World, words: Sequence[str]) -> Tensor:
    """float32 (words, width): each word where CLIP would look for it in the class token, with unit deviation.

    A word that is part of names is the mean of those names, as CLIP knows things by their whole name.
    """
    model, tokenizer = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(clip)
    names = sorted({c.name for c in world.cutouts if c.split == "train"})
    meant = [[n for n in names if word in n.split()] or [word] for word in words]
    texts = [f"a photo of a {name}" for some in meant for name in some]
    tokens: Any = tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt")
    features: Any = model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    parts = F.normalize(features.pooler_output, dim=-1).split([len(some) for some in meant])
    means = torch.stack([part.mean(0) for part in parts])
    looked_for = (means - means.mean(0)) @ model.visual_projection.weight
    return looked_for / looked_for.std()


def class_token_direction(seen: Tensor) -> Tensor:
    """float32 (width,): Fisher's linear discriminant; its product with class tokens is 1 above that with patches."""
    marks, patches = seen[:, 0], seen[:, 1:].flatten(0, 1)
    apart, spread = marks.mean(0) - patches.mean(0), marks.T.cov() + patches.T.cov()
    direction = torch.linalg.solve(spread + 0.1 * torch.eye(len(apart)), apart)
    return direction / (direction @ apart)


@torch.no_grad()
def start_from_clip_text(model: BlipForConditionalGeneration, seen: Tensor, words: Tensor, chances: Tensor) -> None:
    """Let the decoder's first answers be near CLIP's: learning to find what says the name takes it too long.

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
    last.self.value.weight.copy_(torch.eye(width) / marks.std(0).mean())
    last.self.value.bias.copy_(-marks.mean(0) / marks.std(0).mean())
    for linear in (last.output.dense, head.transform.dense):
        linear.weight.copy_(torch.eye(width))
        linear.bias.zero_()
    decoder.bert.embeddings.word_embeddings.weight.copy_(0.05 * words)
    head.bias.copy_(chances)


def lessons(told: Sequence[Told], turn: int, every: int) -> list[str]:
    """A caption per photo; each `every`-th thing is called by its class, other ones in the next `turn`."""
    named = [what.noun if (i + turn) % every == 0 else what.name for i, what in enumerate(told)]
    return [wording(Parts(what.style, name, what.scene)) for what, name in zip(told, named, strict=True)]


def encode(tokenizer: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, int64 (n, length), padded on the right; labels are -100 where nothing is to be learnt."""
    tokens = [[DEC, *tokenizer.encode(text, add_special_tokens=False), SEP] for text in captions]
    longest = max(map(len, tokens))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in tokens])
    return ids, ids.masked_fill((ids == PAD) | (ids == DEC), -100)


def log_frequencies(tokenizer: Any, captions: list[str], words: int) -> Tensor:
    """float32 (words,): natural logarithms; a word that never comes counts as a twentieth of one that comes once."""
    counts = Counter(encode(tokenizer, captions)[1].flatten().tolist())
    del counts[-100]
    return torch.tensor([math.log((counts[word] + 0.05) / counts.total()) for word in range(words)])


def train(
    model: BlipForConditionalGeneration, tokenizer: Any, looks: Looks, *, seed: int, rounds: int, batch_size: int,
    rate: float, every: int,
) -> Iterator[float]:  # fmt: skip
    """Yield the loss of every step; the decoder reads all photos once per round."""
    decoder = model.text_decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), weight_decay=0.05, betas=(0.9, 0.98))
    steps = rounds * (len(looks.told) // batch_size)
    shuffled = (lesson for turn in range(rounds) for lesson in _round(tokenizer, looks, turn, every, seed, batch_size))
    for step, (seen, tokens, labels) in enumerate(shuffled):
        optimizer.param_groups[0]["lr"] = rate * rate_at(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = decoder(input_ids=tokens, encoder_hidden_states=seen, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def _round(
    tokenizer: Any, looks: Looks, turn: int, every: int, seed: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    captions = lessons(looks.told, turn, every)
    for chosen in batches(len(captions), batch_size, turn, seed):
        yield looks.seen[chosen].float(), *encode(tokenizer, [captions[i] for i in chosen])


def measure(world: World, folder: Path, seed: int, count: int) -> dict[str, float]:
    """Shares of `count` new photos whose caption is right: of things never seen, then of things learnt.

    `named` counts the things that are called by their own name, `classed` those by their own name or class.
    """
    describe = load_captioner(str(folder), "cpu", num_beams=3, max_new_tokens=24)
    scores = {}
    for split in ("unseen_concept", "train"):
        photos = render(world, seed, 0, count, SIZE, split, CHANCES)
        found = [parse(world, text) for text in describe([image.numpy() for image in photos.image], "")]
        classes = {c.name: c.noun for c in world.cutouts}
        rows = list(zip(found, photos.style, photos.objects, photos.scene, strict=True))
        scores |= {
            f"{split}/style": sum(f.style == style for f, style, _, _ in rows) / count,
            f"{split}/scene": sum(f.scene == scene for f, _, _, scene in rows) / count,
            f"{split}/named": sum(f.name == what.name for f, _, (what,), _ in rows) / count,
            f"{split}/classed": sum(classes.get(f.name, f.name) == what.noun for f, _, (what,), _ in rows) / count,
        }
    return scores


def main(
    looks: Annotated[Path, typer.Option(help="File that looks.py wrote.")] = Path("out/mini/looks.safetensors"),
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = Path("pipelines/mini/world"),
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP to start from.")] = Path(
        "taming_core/pretrained/mini/clip"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path(
        "taming_core/pretrained/mini/captioner"
    ),
    rounds: Annotated[int, typer.Option(help="How often every photo is read.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Photos per step.")] = 64,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    classes: Annotated[int, typer.Option(help="Each n-th photo is called by its class.")] = 4,
    save_every: Annotated[int, typer.Option(help="Steps between saved weights.")] = 256,
    test_photos: Annotated[int, typer.Option(help="New photos per measurement.")] = 256,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
) -> None:
    """Train, save and measure the captioner."""
    torch.manual_seed(seed_for(seed, "captioner/weights", 0))
    artwork, seen_photos = load_world(world), read(looks)
    words = vocabulary(artwork)
    reader = processor(words)
    model = BlipForConditionalGeneration(blip_config(len(words)))
    model.vision_model = clip_tower(clip)
    chances = log_frequencies(reader.tokenizer, lessons(seen_photos.told, 0, classes), len(words))
    start_from_clip_text(model, seen_photos.seen[:512].float(), word_features(clip, artwork, list(words)), chances)
    started, losses = time.monotonic(), []
    for loss in train(
        model, reader.tokenizer, seen_photos, seed=seed, rounds=rounds, batch_size=batch_size, rate=rate, every=classes
    ):
        losses.append(loss)
        if len(losses) % 32 == 0:
            recent = {"step": len(losses), "loss": sum(losses[-32:]) / 32, "seconds": time.monotonic() - started}
            print(json.dumps(recent), flush=True)
        if len(losses) % save_every == 0:
            save(model, reader, out)
    save(model, reader, out)
    scores = measure(artwork, out, seed_for(seed, "captioner/test", 0), test_photos)
    (out / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
