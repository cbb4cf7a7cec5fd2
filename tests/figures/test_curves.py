"""The picture of a training: every figure that a step has, and none that it lacks."""

import pytest

from taming_core.figures.curves import curves, smooth


def line(step: int, **values: float | None) -> dict[str, float | int | None]:
    return {"step": step, "loss": 1.0, "denoising": 0.9, "grad_norm": 0.5, "learning_rate": 1e-3, **values}


def test_a_term_that_no_step_has_is_not_drawn_and_one_that_some_have_is_drawn_there() -> None:
    lines = [line(1, identity=0.3, localization=None), line(2, identity=None, localization=None), line(3, identity=0.1)]
    terms, norm, rate = curves(lines).axes
    assert [text.get_text() for text in terms.get_legend().get_texts()] == ["loss", "denoising", "identity"]
    bold = {drawn.get_label(): drawn for drawn in terms.get_lines()}
    assert list(bold["identity"].get_xdata()) == [1, 3]
    assert list(bold["identity"].get_ydata()) == [0.3, 0.1]
    assert list(norm.get_lines()[0].get_ydata()) == [0.5, 0.5, 0.5]
    assert list(rate.get_lines()[0].get_xdata()) == [1, 2, 3]


def test_the_held_out_loss_is_drawn_at_the_steps_where_it_was_measured() -> None:
    terms, *_ = curves([line(1), line(2, held_out=0.8), line(3), line(4, held_out=0.7)]).axes
    bold = {drawn.get_label(): drawn for drawn in terms.get_lines()}
    assert list(bold["denoising, held out"].get_xdata()) == [2, 4]
    assert list(bold["denoising, held out"].get_ydata()) == pytest.approx([0.8, 0.7])


def test_smoothing_looks_back_only() -> None:
    assert smooth([4.0, 2.0, 0.0, 8.0], 3) == pytest.approx([4.0, 3.0, 2.0, 10 / 3])
    assert smooth([4.0, 2.0], 1) == [4.0, 2.0]
