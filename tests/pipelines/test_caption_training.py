"""The training captions of captioner and matcher are true and false where their labels say so."""

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.mini import blip, captioner, matcher_captions, teacher_features
from pipelines.mini.captioner_params import CaptionerParams
from pipelines.mini.matcher_captions import MatcherParams
from pipelines.mini.stage_params import load_section
from pipelines.mini.teacher_features import PhotoFacts, TeacherFeatures
from taming_core.weights.mini import MINI
from taming_core.world.artwork import World, load_world
from taming_core.world.photos import plans
from taming_core.world.wording import facts_of

CAPTIONER = load_section(CaptionerParams, "captioner")
MATCHER = load_section(MatcherParams, "matcher")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def facts(world: World) -> list[PhotoFacts]:
    return [teacher_features.facts_of(world, plan) for plan in plans(world, 5, 0, 48, chances=CAPTIONER.chances)]


def captions(facts: list[PhotoFacts], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [captioner.training_caption(f, rng, CAPTIONER) for f in facts]


def test_a_training_caption_is_true(world: World, facts: list[PhotoFacts]):
    for what, text in zip(facts, captions(facts, 0), strict=True):
        parsed = facts_of(text, world.scenes)
        assert (parsed.style, parsed.scene) == (what.style, what.scene)
        true = [
            f"{size} {noun}".strip() for size in ("", what.size) for noun in (what.name, what.noun, blip.ANY_OBJECT)
        ]
        assert f"{parsed.size} {parsed.object_words}".strip() in true  # an airplane may be a "small airplane" by name
        assert not parsed.place


def test_the_vocabulary_has_every_word_of_the_training_captions(world: World, facts: list[PhotoFacts]):
    known = blip.vocabulary(world)
    texts = [text for step in range(20) for text in captions(facts, step)]
    assert {word for text in texts for word in text.replace(",", " ,").split()} <= known.keys()
    assert blip.processor(known).tokenizer.encode("a photo of an animal", add_special_tokens=False) == [
        known[word] for word in ["a", "photo", "of", "an", "animal"]
    ]


def test_a_false_caption_is_false_where_it_is_labelled_so(world: World, facts: list[PhotoFacts]):
    rng, names = np.random.default_rng(0), ["abacus", "zebra"]
    for what, other in zip(facts, [*facts[1:], facts[0]], strict=True):
        made = matcher_captions.training_captions(what, other, world, names, rng, MATCHER)
        assert [sorted(c.false) for c in made[:-1]] == [[], [], ["style"], ["scene"], ["noun"], ["noun"]]
        for caption in made:
            parsed = facts_of(matcher_captions.text_of(caption), world.scenes)
            right = {
                "style": parsed.style == what.style,
                "scene": parsed.scene in ("", what.scene),
                "size": caption.size in ("", what.size),  # "small" may be part of a name
            }
            assert {part for part, fits in right.items() if not fits} == caption.false - {"noun"}


def test_every_token_of_a_caption_has_a_label(world: World, facts: list[PhotoFacts]):
    tokenizer = blip.processor(blip.vocabulary(world)).tokenizer
    rng = np.random.default_rng(0)
    for caption in matcher_captions.training_captions(facts[0], facts[1], world, ["zebra"], rng, MATCHER):
        tokens = tokenizer(matcher_captions.text_of(caption))["input_ids"]
        labels = matcher_captions.token_labels(tokenizer, caption, len(tokens) + 2)
        assert labels.index(-100) == len(tokens) - 1  # all but the last token
        assert (0 in labels) == bool(caption.false)


def test_swapped_objects_keep_scene_and_patches(world: World, facts: list[PhotoFacts]):
    trained = world.of_split("train")
    alone = torch.arange(len(trained)).half()[:, None] / 64
    features = torch.stack([alone[trained.index(what.cutout)].expand(3, 1) for what in facts])
    teacher = TeacherFeatures(features, tuple(facts), alone)
    swapped, true = teacher_features.swap_objects(teacher, world, [3, 4], np.random.default_rng(0), 1.0)
    for i, what in enumerate(true):
        art = world.cutouts[what.cutout]
        assert what.cutout != facts[3 + i].cutout
        assert (what.name, what.noun, what.scene) == (art.name, art.noun, facts[3 + i].scene)
        assert swapped[i, 0] == pytest.approx(alone[trained.index(what.cutout)].item(), abs=0.1)
        assert torch.equal(swapped[i, 1:], features[3 + i, 1:].float())
    plain, same = teacher_features.swap_objects(teacher, world, [3], np.random.default_rng(0), 0.0)
    assert torch.equal(plain, features[3:4].float())
    assert same == [facts[3]]


def test_each_epoch_has_every_photo_once():
    seen = [i for step in range(3) for i in teacher_features.shuffled_batch(7, 2, step, seed=1)]
    assert len(set(seen)) == 6
    assert teacher_features.shuffled_batch(7, 2, 3, seed=1) != teacher_features.shuffled_batch(7, 2, 0, seed=1)


def test_the_tower_starts_with_the_features_of_clip():
    from transformers import BlipVisionModel, CLIPVisionModel

    clip = MINI / "clip"
    tower = BlipVisionModel(blip.tower_config()).eval()
    blip.start_from_clip(tower, clip / "model.safetensors")
    photos = torch.rand(2, 3, blip.TOWER_SIZE, blip.TOWER_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own: Any = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = own(pixel_values=photos, interpolate_pos_encoding=True).pooler_output
        found = tower(pixel_values=photos).last_hidden_state[:, 0]
    # Position embeddings are downsampled with antialiasing here, and without it in CLIP.
    assert torch.cosine_similarity(expected, found).min() > 0.98
