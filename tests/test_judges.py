"""The shipped judges on the world's own things and on spoiled copies of them, their training, and other models."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from small_rows import artwork, composed
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from taming_core.errors import TamingError
from taming_core.evaluation import judges
from taming_core.evaluation.judges import (
    ImageJudge,
    TextJudge,
    composite_on_grey,
    load_judge,
    load_text_judge,
    pose_images,
)
from taming_core.world.artwork import SPLITS, Pictures, World, load_pictures, load_world

THINGS = 8
MINI = Path(__file__).parents[1] / "pipelines" / "mini"

sys.path.insert(0, str(MINI))
try:
    spoiled, schooling, lessons = (import_module(name) for name in ("spoiled", "schooling", "judges"))
finally:
    sys.path.remove(str(MINI))


@pytest.fixture(scope="module")
def text_judge() -> TextJudge:
    return load_text_judge("mini", "cpu")


def test_the_judge_finds_a_thing_among_others() -> None:
    judge = load_judge("mini", "cpu")
    gallery = judge([composite_on_grey(t.resize((128, 128))) for t in artwork(THINGS)])
    photos = judge([Image.fromarray(composed(t, i, tilt=12)[0]) for i, t in enumerate(artwork(THINGS))])
    assert gallery.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    assert (photos @ gallery.T).argmax(1).tolist() == list(range(THINGS))


def test_a_feature_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, things = load_judge("mini", "cpu"), [composite_on_grey(t) for t in artwork(3)]
    together = judge(things)
    monkeypatch.setattr(judges, "AT_ONCE", 1)
    np.testing.assert_allclose(judge(things), together, atol=1e-5)


def test_the_text_judge_reads_the_scene(text_judge: TextJudge) -> None:
    blue, green = (Image.new("RGB", (128, 128), colour) for colour in ((60, 110, 220), (60, 170, 80)))
    photos = [Image.composite(artwork(1)[0].convert("RGB").resize((128, 128)), ground, small(artwork(1)[0]))
              for ground in (blue, green)]  # fmt: skip
    choices = text_judge.texts([f"a photo of a <object> on a {c} background" for c in ("blue", "green", "red")])
    assert (text_judge.images(photos) @ choices.T).argmax(1).tolist() == [0, 1]


def small(thing: Image.Image) -> Image.Image:
    """Its alpha, so that it lies in the middle of a ground."""
    mask = Image.new("L", (128, 128))
    mask.paste(thing.getchannel("A").resize((80, 80)), (24, 24))
    return mask


def test_a_text_is_cut_to_the_models_length(text_judge: TextJudge) -> None:
    long = text_judge.texts(["a photo of a dog " * 40])
    assert np.isfinite(long).all()
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, atol=1e-5)


def test_mid_grey_is_what_the_encoder_sees_around_a_subject() -> None:
    seen = np.asarray(composite_on_grey(Image.new("RGBA", (4, 4), (255, 0, 0, 0))))
    assert (seen == 128).all()
    half = np.asarray(composite_on_grey(Image.new("RGBA", (4, 4), (255, 255, 255, 128))))
    assert abs(int(half[0, 0, 0]) - 192) <= 1


def test_a_folder_with_another_vision_model_judges_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    found = load_judge(str(tmp_path), "cpu")([composite_on_grey(t) for t in artwork(2)])
    assert found.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_judge_without_a_pooler_gets_no_random_one(tmp_path: Path) -> None:
    """As facebook/dino-vits16 is published."""
    torch.manual_seed(0)
    shape = ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16)
    model = ViTModel(shape, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    judge, images = load_judge(str(tmp_path), "cpu"), [composite_on_grey(t) for t in artwork(2)]
    with torch.no_grad():
        first = model(judge.preprocess(images)).last_hidden_state[:, 0]
    np.testing.assert_allclose(judge(images), torch.nn.functional.normalize(first, dim=-1).numpy(), atol=1e-6)


def test_a_judge_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    shape = Dinov2Config(image_size=28, patch_size=14, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    Dinov2Model(shape).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    shape.num_hidden_layers = 2
    shape.save_pretrained(tmp_path)
    with pytest.raises(TamingError, match=r"is no judge, for it has no .*1\."):
        load_judge(str(tmp_path), "cpu")


@pytest.fixture
def other_clip(tmp_path: Path) -> Path:
    """A CLIP with its own image size whose tokenizer does not know the placeholder."""
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 880, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 3}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(judges.MINI / "clip")
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<object>", "<other>"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<object>", "<other>"))
    return tmp_path


def test_a_clip_folder_is_judge_of_both(other_clip: Path) -> None:
    images = [composite_on_grey(t) for t in artwork(2)]
    both = load_text_judge(str(other_clip), "cpu")
    assert both.images(images).shape == (2, 20)
    np.testing.assert_allclose(load_judge(str(other_clip), "cpu")(images), both.images(images), atol=1e-6)


def test_a_model_that_never_saw_the_placeholder_reads_object(other_clip: Path) -> None:
    judge = load_text_judge(str(other_clip), "cpu")
    said = judge.texts(["a photo of a <object> underwater", "a photo of a object underwater", "a photo of a cat"])
    np.testing.assert_array_equal(said[0], said[1])
    assert np.abs(said[0] - said[2]).max() > 1e-4


@pytest.mark.parametrize("load", [load_judge, load_text_judge])
@pytest.mark.parametrize("spec", ["nobody/nothing", "./nowhere"])
def test_an_absent_model_says_what_to_do(load, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TamingError, match=r"to mini") as error:
        load(spec, "cpu")
    assert ("hf download" in str(error.value)) == (spec == "nobody/nothing")


def test_a_vision_model_is_no_text_judge(tmp_path: Path) -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(TamingError, match="text_judge"):
        load_text_judge(str(tmp_path), "cpu")


@pytest.fixture(scope="module")
def world() -> tuple[World, Pictures]:
    whole = load_world()
    few = [i for split, count in zip(SPLITS, (30, 4, 2), strict=True) for i in whole.of_split(split)[:count]]
    part = World(tuple(whole.cutouts[i] for i in few), dict(list(whole.backdrops.items())[:2]))
    return part, load_pictures(part)


def art_of(things: list[Image.Image]) -> Any:
    """Premultiplied RGBA (n, 4, 128, 128) of cut-outs."""
    pixels = np.stack([np.asarray(t.resize((128, 128)), np.float32) / 255 for t in things])
    pixels[..., :3] *= pixels[..., 3:]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def leaning() -> Image.Image:
    """Nothing of it is symmetric: a blue L with a red corner."""
    thing = np.zeros((128, 128, 4), np.uint8)
    thing[10:118, 20:50] = thing[90:118, 20:110] = 30, 60, 220, 255
    thing[10:40, 20:50] = 220, 40, 30, 255
    return Image.fromarray(thing)


def ball() -> Image.Image:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    return Image.fromarray(np.where((x**2 + y**2 < 0.8)[..., None], np.uint8([200, 60, 40, 255]), np.uint8(0)))


@pytest.mark.parametrize("kind", ["bent", "warped", "stretched", "mirrored", "swapped", "redesigned"])
def test_a_spoiled_thing_differs_and_keeps_its_size(kind: str) -> None:
    art, donor = art_of([leaning()] * 4), art_of([ball()] * 4)
    first, again = (spoiled.spoiled(art, donor, [kind] * 4, np.random.default_rng(0)) for _ in range(2))
    assert first[0].shape == art.shape
    assert ((first[0] >= 0) & (first[0] <= 1)).all()
    assert first[1].all()
    assert torch.equal(first[0], again[0])


def test_a_mirror_blend_of_a_ball_shows_no_difference() -> None:
    art = art_of([ball(), leaning()])
    _, shows = spoiled.spoiled(art, art, ["mirrored"] * 2, np.random.default_rng(0))
    assert shows.tolist() == [False, True]


def test_a_mirror_blend_is_symmetric() -> None:
    found, _ = spoiled.spoiled(art_of([leaning()]), art_of([ball()]), ["mirrored"], np.random.default_rng(0))
    columns = found[0, 3].sum(0)
    middle = int((columns * torch.arange(128)).sum() / columns.sum() + 0.5)
    reach = min(middle, 128 - middle)
    left, right = columns[middle - reach : middle].flip(0), columns[middle : middle + reach]
    assert (left - right).abs().mean() < 0.1 * columns.mean()


def test_poses_fill_the_square_and_hold_the_subject_itself() -> None:
    found = pose_images(leaning())
    assert len(found) == 22
    assert {p.size for p in found} == {(128, 128)}
    upright = np.asarray(found[5], np.int64)
    seen = (np.abs(upright - 128) > 40).any(-1)
    assert max(np.ptp(np.flatnonzero(seen.any(axis))) for axis in (0, 1)) == pytest.approx(0.92 * 128, abs=3)
    mirrored = np.asarray(found[16], np.int64)
    assert np.abs(mirrored[:, ::-1] - upright).mean() < 2


def likeness(judge: ImageJudge, subject: Image.Image, seen: Image.Image) -> float:
    """As `taming eval` compares: a subject in its poses, and a cut-out, brought to the same size."""
    return float((judge(pose_images(subject)) @ judge([pose_images(seen)[5]])[0]).max())


def turned_and_lit(thing: Image.Image) -> Image.Image:
    dark = Image.blend(thing, Image.new("RGBA", thing.size, (0, 0, 0, 255)), 0.12)
    dark.putalpha(thing.getchannel("A"))
    return dark.rotate(11, Image.Resampling.BICUBIC, expand=True)


def blend_and_bend(thing: Image.Image) -> list[Image.Image]:
    """A mirror blend, and the thing bent twice over."""
    art = art_of([thing])
    blend, bend = spoiled.mirrored(art, np.random.default_rng(0)), art
    for _ in range(2):
        bend = spoiled.bent(bend, np.random.default_rng(0))
    return [Image.fromarray(lessons.as_cutouts(wrong)[0].permute(1, 2, 0).numpy()) for wrong in (blend, bend)]


@pytest.mark.parametrize("number", [7, 21])  # clearly asymmetric; of milder cases metrics.json tells the shares
def test_the_strict_judge_accepts_a_turned_and_lit_view_and_no_blend_or_bend(number: int) -> None:
    judge, thing = load_judge("mini", "cpu", "strict_judge"), artwork(number + 1)[number]
    assert judge.acceptance_threshold is not None
    assert min(likeness(judge, thing, seen) for seen in (turned_and_lit(thing), ImageOps.mirror(thing))) > 0.9
    assert max(likeness(judge, thing, wrong) for wrong in blend_and_bend(thing)) < judge.acceptance_threshold


SMALL = {"steps": 2, "batch_size": 4, "warmup": 0, "save_every": 1}


@pytest.mark.parametrize("which", ["judge", "strict_judge"])
def test_a_judge_is_trained_measured_and_opens(which: str, world: tuple[World, Pictures], tmp_path: Path) -> None:
    lesson = lessons.LESSONS[which]
    p = schooling.section(lesson.params, which).model_copy(update={**SMALL, "measured": 3})
    torch.manual_seed(0)
    network = lesson.network(p)
    lessons.train(which, network, lesson.pixels(*world, p), p, "cpu", tmp_path / "state")
    lessons.save(network.eval(), tmp_path / "judge")
    found = lesson.measured(tmp_path / "judge", *world, p)
    assert 0 <= found["top1_low"] <= found["top1"] <= found["top1_high"] <= 1
    opened = load_judge(str(tmp_path / "judge"), "cpu")
    assert opened.acceptance_threshold == found.get("accepted_from")
    assert opened([composite_on_grey(leaning())]).shape[0] == 1


def test_two_views_of_a_step_show_the_same_things_and_come_again(world: tuple[World, Pictures]) -> None:
    p = schooling.section(lessons.StrictParams, "strict_judge").model_copy(update=SMALL)
    of = lessons.strict_pixels(*world, p)
    (first, second), again = of(3), of(3)
    assert first.shape == second.shape == (4, 3, 128, 128)
    assert torch.equal(first, again[0])
    apart = [float((a - b).abs().mean()) for a in first for b in second]
    assert min(apart[0::5]) < np.mean(apart)
