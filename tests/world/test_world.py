"""The mini world: the same numbers give the same photos, and what is said about a photo is true."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT, article
from taming_core.world import wording
from taming_core.world.artwork import Pictures, World, class_nouns, group_noun, load_pictures, load_world
from taming_core.world.photos import Photos, box_of, photos_of, plans, render
from taming_core.world.plan import Chances, generator, plan_of, views_at
from taming_core.world.render import composite_on_grey, references
from taming_core.world.styles import STYLES, stylize


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


def shown(world: World, pictures: Pictures, count: int = 16, seed: int = 0, size: int = 96, **chances: float) -> Photos:
    return render(world, pictures, seed, 0, count, size, chances=Chances(**chances))


def test_the_same_numbers_give_the_same_bytes(world: World, pictures: Pictures) -> None:
    first, again = (render(world, pictures, 3, 0, 12, 96) for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert first.objects == again.objects
    assert [p.caption for p in first.plans] == [p.caption for p in again.plans]


def test_a_photo_does_not_depend_on_its_batch(world: World, pictures: Pictures) -> None:
    one_by_one = torch.cat([render(world, pictures, 3, i, 1, 96).image for i in range(12)])
    assert torch.equal(render(world, pictures, 3, 0, 12, 96).image, one_by_one)
    assert torch.equal(render(world, pictures, 3, 1, 5, 96).image[1], one_by_one[6])


def test_threads_change_no_byte(world: World, pictures: Pictures) -> None:
    threads = torch.get_num_threads()
    images = []
    for count in (1, 2):
        torch.set_num_threads(count)
        images.append(shown(world, pictures, 12, style=0.8).image)
    torch.set_num_threads(threads)
    assert torch.equal(*images)


def test_seeds_and_splits_give_other_photos(world: World, pictures: Pictures) -> None:
    hows = [(0, 0, 1, 64), (1, 0, 1, 64), (0, 0, 1, 64, "unseen-concepts")]
    images = [render(world, pictures, *how).image for how in hows]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_a_plan_looks_alike_at_any_size(world: World, pictures: Pictures) -> None:
    small, large = (shown(world, pictures, 6, 5, size, style=0) for size in (96, 192))
    shrunk = torch.nn.functional.avg_pool2d(large.image.permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
    assert (shrunk - small.image).abs().mean() < 4


def test_boxes_and_masks_agree(world: World, pictures: Pictures) -> None:
    photos = shown(world, pictures, 24, two_objects=0.5)
    for masks, subjects in zip(photos.masks, photos.objects, strict=True):
        assert len(masks) == len(subjects)
        assert [box_of(mask) for mask in masks] == [s.box_xyxy for s in subjects]
        assert all(0.01 < mask.float().mean() < 0.9 for mask in masks)
        assert masks.sum(0).max() == 1  # a pixel shows one object
    assert {len(m) for m in photos.masks} == {1, 2}


def test_the_object_is_where_the_mask_says(world: World, pictures: Pictures) -> None:
    """Artwork swapped for its own negative changes the photo inside the mask and in its soft rim, nowhere else."""
    wanted = plans(world, 2, 0, 1, chances=Chances(recolor=0, style=0, two_objects=0))
    negative = pictures.cutouts.clone()
    negative[:, :3] = 255 - negative[:, :3]
    here, there = (photos_of(world, p, wanted, 128) for p in (pictures, replace(pictures, cutouts=negative)))
    changed = (here.image[0] != there.image[0]).any(-1)
    rim = torch.nn.functional.max_pool2d(here.masks[0].float(), 5, 1, 2)[0] > 0
    assert torch.equal(here.masks[0], there.masks[0])
    assert not (changed & ~rim).any()
    assert (changed & here.masks[0][0]).sum() > 0.95 * here.masks[0].sum()


def test_captions_say_what_is_there(world: World, pictures: Pictures) -> None:
    photos = shown(world, pictures, 48, 1, 32, style=0.5, two_objects=0, silent=0, paraphrase=0.5)
    for made, (subject,) in zip(photos.plans, photos.objects, strict=True):
        facts = wording.facts_of(made.caption, world.scenes)
        assert (facts.style, facts.object_words, facts.scene) == (made.style, subject.words, made.scene)
        assert made.caption.replace(subject.words, OBJECT) == made.object_caption.replace(
            f"a {OBJECT}", f"{article(subject.words)} {OBJECT}"
        )


def test_paraphrases_change_words_but_not_the_photo(world: World, pictures: Pictures) -> None:
    plain, other = (shown(world, pictures, 16, 4, 48, paraphrase=p) for p in (0.0, 1.0))
    assert torch.equal(plain.image, other.image)
    assert not {p.caption for p in plain.plans} & {p.caption for p in other.plans}


def test_every_wording_means_one_fact(world: World) -> None:
    scenes = [w for s in world.scenes for w in wording.scene_wordings(s)]
    styles = [w for s in STYLES for w in wording.style_wordings(s)]
    assert len(set(scenes)) == len(scenes) >= 3 * len(world.scenes)
    assert len(set(styles)) == len(styles)
    for scene in world.scenes:
        for said in wording.scene_wordings(scene):
            assert wording.facts_of(f"a photo of a dog {said}", world.scenes).scene == scene


def test_size_and_place_are_said_where_they_are_seen(world: World) -> None:
    chances = Chances(attributes=1, two_objects=0)
    for made in plans(world, 0, 0, 200, chances=chances):
        facts, placed = wording.facts_of(made.caption, world.scenes), made.objects[0].placement
        assert (facts.size == "large") == (placed.scale > 0.74)
        assert facts.place != ", on the left" or placed.x < -0.14


def test_a_recoloured_thing_is_called_by_its_new_colour(world: World, pictures: Pictures) -> None:
    photos = shown(world, pictures, 64, 1, 32, recolor=1, two_objects=0)
    words = [subject.words.split() for (subject,) in photos.objects]
    assert all(w[0] in wording.COLOURS and not set(w[1:]) & set(wording.COLOURS) for w in words)
    assert len({w[0] for w in words}) > 4


def test_both_views_of_a_thing_are_mirrored_alike(world: World) -> None:
    things = [p.objects[0] for p in plans(world, 0, 0, 64)]
    assert {t.placement.mirror for t in things} == {-1.0, 1.0}
    assert all(t.placement.mirror == t.reference.mirror for t in things)


def test_references_show_the_whole_thing_alone(world: World, pictures: Pictures) -> None:
    layers = references(pictures, plans(world, 0, 0, 8), 64)
    assert layers.shape == (8, 4, 64, 64)
    assert (layers[:, 3].amax((1, 2)) > 0.9).all()
    grey = composite_on_grey(layers)
    assert ((grey - 0.5).abs().amax(1) < 1e-5)[layers[:, 3] == 0].all()


def test_views_grow_harder_in_steps() -> None:
    full = Chances(mirror=0.5, turn=0.2, tilt=0.1)
    early, middle, late = (views_at(at, full) for at in (0.1, 0.5, 0.9))
    assert early.mirror == 0
    assert early.turn < middle.turn < late.turn
    assert late == full


def test_given_colours_stay(world: World) -> None:
    rng = generator(0, "train", 0)
    made = plan_of(world, (3,), rng, Chances(recolor=1), [None])
    assert made.objects[0].colour is None
    assert made.objects[0].words == world.cutouts[3].name


def test_held_out_concepts_stay_held_out(world: World) -> None:
    names = {split: {c.name for c in world.cutouts if c.split == split} for split in ("train", "unseen-concepts")}
    assert not names["train"] & names["unseen-concepts"]
    drawn = {world.cutouts[t.cutout].name for p in plans(world, 0, 0, 32, "unseen-concepts") for t in p.objects}
    assert drawn <= names["unseen-concepts"]


def test_every_artwork_has_a_class(world: World) -> None:
    assert {c.noun for c in world.cutouts} == set(class_nouns())
    assert [group_noun(s) for s in ("animal-bug", "cat-face", "face-costume", "lock")] == [
        "animal", "animal", "creature", "tool",
    ]  # fmt: skip


def test_the_telling_colour_is_the_artworks(world: World) -> None:
    for cutout in world.cutouts[::97]:
        pixels = np.asarray(Image.open(io.BytesIO(cutout.image)).convert("RGBA"), np.float32) / 255
        rgb, alpha = pixels[..., :3], pixels[..., 3]
        weights = alpha * (0.05 + rgb.max(-1) - rgb.min(-1))
        mean = (rgb * weights[..., None]).sum((0, 1)) / weights.sum()
        assert np.abs(mean - cutout.colour).max() < 0.05


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [96, 160])
def test_styles_keep_shape_and_are_finite(style: str, size: int) -> None:
    picture = torch.from_numpy(np.random.default_rng(0).random((1, 3, size, size))).float()
    styled = stylize(picture, style)
    assert styled.shape == picture.shape
    assert styled.isfinite().all()
    assert torch.equal(styled, picture) == (style == STYLES[0])


def test_a_sketched_object_has_dark_lines_on_light_paper(world: World, pictures: Pictures) -> None:
    """The first edition's sketches were faint; sketches of plain scenes leave the lines to the object."""
    wanted = [p for p in plans(world, 0, 0, 400, chances=Chances(style=0, two_objects=0, recolor=0))
              if "background" in p.scene and "black" not in p.scene][:12]  # fmt: skip
    drawn = photos_of(world, pictures, [replace(p, style="a pencil sketch of") for p in wanted], 128)
    grey = drawn.image.float().mean(-1)
    darkest = torch.stack([g[m[0]].quantile(0.03) for g, m in zip(grey, drawn.masks, strict=True)])
    paper = torch.stack([g[~m[0]].median() for g, m in zip(grey, drawn.masks, strict=True)])
    assert (darkest < 90).all()
    assert (paper > 200).all()


def test_errors_say_what_to_do(world: World, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="unseen-concepts"):
        world.of_split("test")
    with pytest.raises(TamingError, match=r"cutouts\.parquet"):
        load_world(tmp_path)
