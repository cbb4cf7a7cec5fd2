"""Initialisation of the captioner's decoder: from the tower's heads, then its last layer trained on single words."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration

from pipelines.mini.captioner_params import CaptionerParams
from pipelines.mini.teacher_features import TeacherFeatures
from pipelines.mini.tower_heads import classes_of
from taming_core.seeds import seed_for
from taming_core.world.artwork import Cutout, World

CLASS_TOKEN_SCALE = 3.0  # standard deviation of the class token beside the text states that the last layer adds it to
CLASS_TOKEN_LOGIT = 12.0  # of the attention to the class token, above that to patches


@torch.no_grad()
def word_features(heads: nn.ModuleDict, world: World, words: Sequence[str]) -> Float[Tensor, "words width"]:
    """The mean head weight of the names and classes that contain each word; zero where none does."""
    rows_of: list[tuple[set[str], Tensor]] = []
    for attribute in ("name", "noun"):
        head: Any = heads[attribute]  # torch types the values of a ModuleDict as modules
        rows = head.weight - head.weight.mean(0)
        texts = [set(str(value).split()) for value in classes_of(world)[attribute]]
        rows_of += zip(texts, rows / rows.std().clamp(1e-6), strict=True)
    matches = [[row for text, row in rows_of if word in text] for word in words]
    return torch.stack([torch.stack(some).mean(0) if some else torch.zeros_like(rows_of[0][1]) for some in matches])


def class_token_direction(tokens: Float[Tensor, "n tokens width"]) -> Float[Tensor, " width"]:
    """Fisher's linear discriminant; its product with class tokens is 1 above that with patches."""
    class_tokens, patches = tokens[:, 0], tokens[:, 1:].flatten(0, 1)
    difference, covariance = class_tokens.mean(0) - patches.mean(0), class_tokens.T.cov() + patches.T.cov()
    direction = torch.linalg.solve(covariance + 0.1 * torch.eye(len(difference)), difference)
    return direction / (direction @ difference)


@torch.no_grad()
def start_from_heads(
    model: BlipForConditionalGeneration, tokens: Float[Tensor, "n tokens width"], words: Tensor, log_chances: Tensor
) -> None:
    """Initialise the decoder so that its first predictions are near the heads'.

    One head of every cross-attention, and all heads of the last, attend to the class token; the last layer passes it
    unchanged to the output embeddings. The output bias is the log frequency of each word. From a random decoder,
    training takes too long to find where the name is.
    """
    decoder: Any = model.text_decoder  # torch types every submodule as a tensor or a module
    layers, head = decoder.bert.encoder.layer, decoder.cls.predictions
    direction = class_token_direction(tokens)
    for layer in layers:
        _attend_to_class_token(layer.crossattention.self, direction, all_heads=layer is layers[-1])
    _pass_class_token(layers[-1].crossattention, head, tokens[:, 0])
    # Half of the random weights stay, for words without a head need different embeddings too.
    decoder.bert.embeddings.word_embeddings.weight.mul_(0.5).add_(0.05 * words)
    head.bias.copy_(log_chances)


def _attend_to_class_token(cross: Any, direction: Float[Tensor, " width"], all_heads: bool) -> None:
    size = cross.attention_head_size
    for row in range(0, cross.all_head_size if all_heads else 1, size):
        cross.key.weight[row] = direction
        cross.query.weight[row] = 0.0
        cross.query.bias[row] = CLASS_TOKEN_LOGIT * size**0.5


def _pass_class_token(cross: Any, head: Any, class_tokens: Float[Tensor, "n width"]) -> None:
    width, scale = class_tokens.shape[-1], CLASS_TOKEN_SCALE / class_tokens.std(0).mean()
    cross.self.value.weight.copy_(scale * torch.eye(width))
    cross.self.value.bias.copy_(-scale * class_tokens.mean(0))
    for linear in (cross.output.dense, head.transform.dense):
        linear.weight.copy_(torch.eye(width))
        linear.bias.zero_()


def train_words(
    model: BlipForConditionalGeneration, tokenizer: Any, world: World, teacher: TeacherFeatures, p: CaptionerParams
) -> None:
    """Train the decoder's last layer to predict words of names and classes from class tokens alone.

    This is thousands of objects a second, before training on captions. Random text states stand for the rest of a
    caption.
    """
    decoder: Any = model.text_decoder
    layer, head = decoder.bert.encoder.layer[-1], decoder.cls
    targets = torch.stack(
        [word_shares(tokenizer, world.cutouts[i], p, len(tokenizer)) for i in world.of_split("train")]
    )
    rows, added = object_rows(teacher, world)
    modules = nn.ModuleList([layer.crossattention.output, layer.intermediate, layer.output, head])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    rng = torch.Generator().manual_seed(seed_for(p.seed, "captioner/names", 0))
    for step in range(p.word_steps):
        optimizer.param_groups[0]["lr"] = p.learning_rate * (1 - step / p.word_steps)
        photos, objects = sample_objects(rows, len(targets), rng, p)
        value = layer.crossattention.self.value(added[photos] + teacher.references[objects].float())
        text_states = torch.randn(value.shape, generator=rng)
        logits = head(layer.feed_forward_chunk(layer.crossattention.output(value, text_states)))
        F.cross_entropy(logits, targets[objects]).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)


def object_rows(teacher: TeacherFeatures, world: World) -> tuple[Int[Tensor, " photos"], Float[Tensor, "photos width"]]:
    """For each photo the row of its object in the references, and the difference of its class token to that."""
    trained = world.of_split("train")
    rows = torch.tensor([trained.index(facts.cutout) for facts in teacher.facts])
    return rows, teacher.photos[:, 0].float() - teacher.references[rows].float()


def sample_objects(
    rows: Int[Tensor, " photos"], objects: int, rng: torch.Generator, p: CaptionerParams
) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Random photos, and for each its own object or, for a share of them, any other."""
    photos = torch.randint(len(rows), (p.word_batch_size,), generator=rng)
    others = torch.randint(objects, (p.word_batch_size,), generator=rng)
    return photos, torch.where(torch.rand(p.word_batch_size, generator=rng) < p.swap_share, others, rows[photos])


def word_shares(tokenizer: Any, art: Cutout, p: CaptionerParams, count: int) -> Float[Tensor, " words"]:
    """Target distribution over words: those of the name equally, those of the class as often as in captions."""
    name, noun = (tokenizer.encode(text, add_special_tokens=False) for text in (art.name, art.noun))
    by_name = torch.full((len(name),), (1 - p.class_share) / len(name))
    shares = torch.zeros(count).index_add_(0, torch.tensor(name), by_name)
    return shares.index_add_(0, torch.tensor(noun), torch.full((len(noun),), p.class_share / len(noun)))


def log_frequencies(labels: Int[Tensor, "captions length"], words: int) -> Float[Tensor, " words"]:
    """Natural log of word frequencies; a word that never occurs counts as a twentieth of an occurrence."""
    counts = Counter(labels.flatten().tolist())
    del counts[-100]
    return torch.tensor([math.log((counts[word] + 0.05) / counts.total()) for word in range(words)])
