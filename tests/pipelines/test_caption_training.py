"""What captioner and matcher of `mini` are taught is true where it should be, and wrong where it says so."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taming_core.world.artwork import World, load_world
from taming_core.world.photos import plans
from taming_core.world.wording import facts_of

MINI = Path(__file__).parents[1] / "pipelines" / "mini"

sys.path.insert(0, str(MINI))
try:
    blip, looks, captioner, matcher, schooling = map(
        import_module, ("blip", "looks", "captioner", "matcher", "schooling")
    )
finally:
    sys.path.remove(str(MINI))

SAID: Any = schooling.section(captioner.CaptionerParams, "captioner")
CLAIMED: Any = schooling.section(matcher.MatcherParams, "matcher")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def told(world: World) -> list[Any]:
    return [looks.truth(world, plan) for plan in plans(world, 5, 0, 48, chances=SAID.chances)]


def lessons(told: list[Any], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [captioner.lesson(what, rng, SAID) for what in told]


def test_a_lesson_says_nothing_false(world: World, told: list[Any]):
    for what, text in zip(told, lessons(told, 0), strict=True):
        facts = facts_of(text, world.scenes)
        assert (facts.style, facts.scene) == (what.style, what.scene)
        true = [f"{size} {thing}".strip() for size in ("", what.size) for thing in (what.name, what.noun, blip.THING)]
        assert f"{facts.size} {facts.thing}".strip() in true  # an airplane may be a "small airplane" by name
        assert not facts.place


def test_the_words_of_every_lesson_are_known(world: World, told: list[Any]):
    known = blip.vocabulary(world)
    texts = [text for step in range(20) for text in lessons(told, step)]
    assert {word for text in texts for word in text.replace(",", " ,").split()} <= known.keys()
    assert blip.processor(known).tokenizer.encode("a photo of an animal", add_special_tokens=False) == [
        known[word] for word in ["a", "photo", "of", "an", "animal"]
    ]


def test_a_false_claim_is_wrong_where_it_says(world: World, told: list[Any]):
    rng, names = np.random.default_rng(0), ["abacus", "zebra"]
    for what, other in zip(told, [*told[1:], told[0]], strict=True):
        shown = matcher.claims(what, other, world, names, rng, CLAIMED)
        assert [sorted(c.wrong) for c in shown[:-1]] == [[], [], ["style"], ["scene"], ["thing"], ["thing"]]
        for claim in shown:
            facts = facts_of(matcher.text_of(claim), world.scenes)
            right = {
                "style": facts.style == what.style,
                "scene": facts.scene in ("", what.scene),
                "size": claim.size in ("", what.size),  # "small" may be part of a name
            }
            assert {part for part, fits in right.items() if not fits} == claim.wrong - {"thing"}


def test_every_word_of_a_claim_has_a_verdict(world: World, told: list[Any]):
    tokenizer = blip.processor(blip.vocabulary(world)).tokenizer
    shown = matcher.claims(told[0], told[1], world, ["zebra"], np.random.default_rng(0), CLAIMED)
    for claim in shown:
        tokens = tokenizer(matcher.text_of(claim))["input_ids"]
        verdicts = matcher.verdicts(tokenizer, claim, len(tokens) + 2)
        assert verdicts.index(-100) == len(tokens) - 1  # all but the closing token
        assert (0 in verdicts) == bool(claim.wrong)


def test_another_thing_stands_where_one_stood(world: World, told: list[Any]):
    learnt = world.of_split("train")
    alone = torch.arange(len(learnt)).half()[:, None] / 64
    seen = torch.stack([alone[learnt.index(what.cutout)].expand(3, 1) for what in told])
    shown, true = looks.exchanged(looks.Looks(seen, tuple(told), alone), world, [3, 4], np.random.default_rng(0), 1.0)
    for i, what in enumerate(true):
        art = world.cutouts[what.cutout]
        assert what.cutout != told[3 + i].cutout
        assert (what.name, what.noun, what.scene) == (art.name, art.noun, told[3 + i].scene)
        assert shown[i, 0] == pytest.approx(alone[learnt.index(what.cutout)].item(), abs=0.1)
        assert torch.equal(shown[i, 1:], seen[3 + i, 1:].float())  # patches stay
    plain, same = looks.exchanged(looks.Looks(seen, tuple(told), alone), world, [3], np.random.default_rng(0), 0.0)
    assert torch.equal(plain, seen[3:4].float())
    assert same == [told[3]]


def test_each_round_shows_every_photo_once():
    shown = [i for step in range(3) for i in looks.batch_at(7, 2, step, seed=1)]
    assert len(set(shown)) == 6
    assert looks.batch_at(7, 2, 3, seed=1) != looks.batch_at(7, 2, 0, seed=1)


def test_the_tower_starts_alike_with_clip():
    from transformers import BlipVisionModel, CLIPVisionModel

    clip = MINI.parents[1] / "taming_core" / "mini" / "clip"
    tower = BlipVisionModel(blip.tower_config()).eval()
    blip.start_from_clip(tower, clip / "model.safetensors")
    photos = torch.rand(2, 3, blip.SEEN, blip.SEEN, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own: Any = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = own(pixel_values=photos, interpolate_pos_encoding=True).pooler_output
        found = tower(pixel_values=photos).last_hidden_state[:, 0]
    # Positions are averaged where there are fewer, not sampled as CLIP does.
    assert torch.cosine_similarity(expected, found).min() > 0.98
