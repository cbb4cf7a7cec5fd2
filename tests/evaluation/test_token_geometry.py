"""What tokens say of the place of their patch."""

import pytest
import tiny
import torch
from PIL import Image

from taming_core.evaluation.token_geometry import geometry, measure, shown_patches

SIDE, WIDTH, SUBJECTS = 8, 16, 6


def content(seed: int) -> torch.Tensor:
    """What each patch shows: another thing in every subject, anywhere."""
    return torch.randn(SUBJECTS, SIDE, SIDE, WIDTH, generator=torch.Generator().manual_seed(seed))


def positions() -> torch.Tensor:
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.stack([row, column], -1)[None].float().repeat(SUBJECTS, 1, 1, 1)


SHOWN = torch.ones(SUBJECTS, SIDE, SIDE, dtype=torch.bool)


def test_tokens_that_are_what_a_patch_shows_do_not_say_where_it_is() -> None:
    shows = content(0)
    found = geometry(shows.flatten(1, 2), shows.flip(2).flatten(1, 2), SHOWN)
    assert found.mirrored == pytest.approx(1)
    assert found.column < 0.1
    assert found.row < 0.1


def test_tokens_with_their_place_say_it_and_differ_from_those_of_the_mirrored_subject() -> None:
    shows, places = content(0), 2 * positions()
    at = torch.cat([shows, places], -1).flatten(1, 2)
    mirrored = torch.cat([shows.flip(2), places], -1).flatten(1, 2)
    found = geometry(at, mirrored, SHOWN)
    assert found.mirrored < 0.9
    assert found.column > 0.95
    assert found.row > 0.95


def test_rows_alone_are_read_as_rows() -> None:
    at = torch.cat([content(1), positions()[..., :1]], -1).flatten(1, 2)
    found = geometry(at, at.flip(1), SHOWN)
    assert found.row > 0.9 > 0.3 > found.column


def test_only_patches_that_show_the_subject_count() -> None:
    picture = Image.new("RGBA", (64, 64))
    picture.paste((255, 0, 0, 255), (0, 0, 32, 64))
    shown = shown_patches(picture, 4)
    assert shown.tolist() == [[True, True, False, False]] * 4


def test_subjects_of_a_patch_or_none_have_no_geometry() -> None:
    whole, thin = Image.new("RGBA", (32, 32), "red"), Image.new("RGBA", (32, 32))
    thin.paste((255, 0, 0, 255), (0, 0, 16, 16))
    pipeline = tiny.pipeline()
    assert pipeline.object_encoder.config["projector"] == "full"
    assert measure(pipeline, [whole, whole]) is not None
    assert measure(pipeline, [whole, thin]) is None
