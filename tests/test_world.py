"""The mini world: the same numbers give the same photos, and what is said about a photo is true."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taming_core.errors import TamingError
from taming_core.world import Chances, World, box_of, class_nouns, group_noun, load_world, render
from taming_core.world_styles import STYLES, stylize

FOLDER = Path(__file__).parents[1] / "pipelines" / "mini" / "world"


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(FOLDER)


def test_the_same_numbers_give_the_same_bytes(world: World) -> None:
    first, again = (render(world, 3, 0, 4, 96) for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert (first.caption, first.objects) == (again.caption, again.objects)


def test_a_photo_does_not_depend_on_its_batch(world: World) -> None:
    one_by_one = [render(world, 3, i, 1, 96) for i in range(4)]
    assert torch.equal(render(world, 3, 0, 4, 96).image, torch.cat([p.image for p in one_by_one]))
    assert torch.equal(render(world, 3, 1, 2, 96).image[1], one_by_one[3].image[0])


def test_seeds_and_splits_give_other_photos(world: World) -> None:
    images = [render(world, *how).image for how in [(0, 0, 1, 64), (1, 0, 1, 64), (0, 0, 1, 64, "unseen_concept")]]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_a_plan_looks_alike_at_any_size(world: World) -> None:
    small, large = (render(world, 5, 0, 6, size, chances=Chances(style=0)) for size in (96, 192))
    assert small.caption == large.caption
    shrunk = torch.nn.functional.avg_pool2d(large.image.permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
    assert (shrunk - small.image).abs().mean() < 4


def test_boxes_and_masks_agree(world: World) -> None:
    photos = render(world, 0, 0, 24, 96, chances=Chances(two_objects=0.5))
    for masks, subjects in zip(photos.masks, photos.objects, strict=True):
        assert len(masks) == len(subjects)
        assert [box_of(mask) for mask in masks] == [s.box_xyxy for s in subjects]
        assert all(0.01 < mask.float().mean() < 0.9 for mask in masks)
        assert masks.sum(0).max() == 1  # a pixel shows one object
    assert {len(m) for m in photos.masks} == {1, 2}


def test_the_object_is_where_the_mask_says(world: World) -> None:
    """Artwork swapped for its own negative changes the photo inside the mask and in its soft rim, nowhere else."""
    chances = Chances(recolor=0, style=0, two_objects=0)
    number = render(world, 2, 0, 1, 128, chances=chances).objects[0][0].cutout
    art = [world.cutouts[number], replace(world.cutouts[number], png=negative(world.cutouts[number].png))]
    here, there = (render(World((a,), world.scenes, world.backdrops), 2, 0, 1, 128, a.split, chances) for a in art)
    changed = (here.image[0] != there.image[0]).any(-1)
    rim = torch.nn.functional.max_pool2d(here.masks[0].float(), 5, 1, 2)[0] > 0
    assert torch.equal(here.masks[0], there.masks[0])
    assert not (changed & ~rim).any()
    assert (changed & here.masks[0][0]).sum() > 0.95 * here.masks[0].sum()


def negative(png: bytes) -> bytes:
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGBA"))
    pixels[..., :3] = 255 - pixels[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_captions_name_what_is_there(world: World) -> None:
    photos = render(world, 1, 0, 32, 64, chances=Chances(recolor=0, style=0.5, two_objects=0.3, unnamed_scene=0))
    for i, caption in enumerate(photos.caption):
        assert caption.startswith(photos.style[i])
        assert photos.scene[i] in caption
        assert all(f" {s.phrase} " in caption and s.name in s.phrase for s in photos.objects[i])


def test_recoloured_objects_do_not_keep_their_colour_word(world: World) -> None:
    photos = render(world, 1, 0, 64, 32, chances=Chances(recolor=1))
    phrases = [s.phrase.split() for subjects in photos.objects for s in subjects]
    assert all("recolored" in words and not {"red", "blue", "green"} & set(words) for words in phrases)


def test_held_out_concepts_stay_held_out(world: World) -> None:
    names = {split: {c.name for c in world.cutouts if c.split == split} for split in ("train", "unseen_concept")}
    assert not names["train"] & names["unseen_concept"]
    photos = render(world, 0, 0, 16, 32, "unseen_concept")
    assert {s.name for subjects in photos.objects for s in subjects} <= names["unseen_concept"]


def test_every_artwork_has_a_class(world: World) -> None:
    assert {c.noun for c in world.cutouts} == set(class_nouns())
    assert [group_noun(s) for s in ("animal-bug", "cat-face", "face-costume", "lock")] == [
        "animal", "animal", "creature", "tool",
    ]  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [96, 160])
def test_styles_keep_shape_and_are_finite(style: str, size: int) -> None:
    picture = torch.from_numpy(np.random.default_rng(0).random((1, 3, size, size))).float()
    styled = stylize(picture, style)
    assert styled.shape == picture.shape
    assert styled.isfinite().all()
    assert torch.equal(styled, picture) == (style == STYLES[0])


def test_errors_say_what_to_do(world: World, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="unseen_concept"):
        render(world, 0, 0, 1, 32, split="test")
    with pytest.raises(TamingError, match=r"cutouts\.parquet"):
        load_world(tmp_path)
