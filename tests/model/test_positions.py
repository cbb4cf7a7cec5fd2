"""Positions of the tokens' patches."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from taming_core.errors import TamingError
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.training.start import continued_pipeline


def encoder(**settings: Any) -> ObjectEncoder:
    return ObjectEncoder(tiny.TOWER, "full", 4, 16, "concat", **settings).eval()


def test_untrained_positions_change_nothing() -> None:
    torch.manual_seed(0)
    made, subject = encoder(), torch.rand(1, 3, 32, 32)
    before = made(subject)
    made.add_positions()
    assert torch.equal(made(subject), before)
    assert made.config["positions"] is True


def test_trained_ones_tell_patches_apart_that_look_alike() -> None:
    made = encoder(positions=True)
    grey = torch.zeros(2, 3, 32, 32)
    before = made(grey)
    nn.init.normal_(made.position_map.linear.weight)
    added = made(grey) - before
    torch.testing.assert_close(added[0], added[1])  # the place alone decides
    assert torch.pdist(added[0]).min() > 0.1  # of any two patches


def test_rows_and_columns_are_those_of_the_patches() -> None:
    """Two patches of one row have half of their features in common, and two of one column the other half."""
    made = encoder(positions=True)
    nn.init.zeros_(made.position_map.linear.weight)
    nn.init.eye_(made.position_map.linear.weight)
    places = made.position_map(torch.zeros(1, 4, 16))[0].view(2, 2, 16)
    same_row, same_column = (places[0, 0] == places[0, 1]), (places[0, 0] == places[1, 0])
    assert not torch.equal(same_row, same_column)


def test_saved_encoders_keep_their_positions(tmp_path: Path) -> None:
    made = encoder(positions=True)
    nn.init.normal_(made.position_map.linear.weight)
    made.save_pretrained(tmp_path)
    again, subject = ObjectEncoder.from_pretrained(tmp_path), torch.rand(1, 3, 32, 32)
    assert torch.equal(again(subject), made(subject))


def test_tokens_of_no_patches_have_none() -> None:
    with pytest.raises(TamingError, match=r"positions must be false unless the projector is full"):
        ObjectEncoder(tiny.TOWER, "linear", 3, 16, "concat", positions=True)


def test_a_start_gets_or_keeps_its_positions() -> None:
    made: Any = continued_pipeline(tiny.pipeline("concat"), tiny.train_params(positions=True))
    assert made.object_encoder.config["positions"]
    with pytest.raises(TamingError, match=r"train\.positions must be true"):
        continued_pipeline(made, tiny.train_params(positions=False))
