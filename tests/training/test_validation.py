"""The held-out loss: a number that depends on the weights alone, and changes nothing of the training."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from taming_core.model.subject_model import subject_model
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import loop
from taming_core.training.batches import batch_at
from taming_core.training.validation import held_out_loss, held_out_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("rows"), validation=3)


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    return load_rows(folder, "train")


@pytest.fixture(scope="module")
def held_out(folder: Path) -> Rows:
    return load_rows(folder, "validation")


def params(**values: object) -> TrainParams:
    p = tiny.train_params(identity_weight=0.0, identity_network=None, identity_max_timestep=None, **values)
    return p.model_copy(update={"validation": p.validation.model_copy(update={"batches": 2})})


def begun(p: TrainParams) -> loop.Run:
    model = subject_model(tiny.pipeline("concat").components)
    return loop.start_run(model, None, loop.accelerator_for("cpu", p.precision), p)


def measured(run: loop.Run, rows: Rows, held_out: Rows, p: TrainParams) -> float:
    loss = held_out_loss(run, held_out_source(tiny.source(rows, p, "concat"), held_out))
    assert loss is not None
    return loss


def test_it_is_the_same_each_time_whatever_the_step_and_the_micro_batches(rows: Rows, held_out: Rows) -> None:
    p = params()
    run = begun(p)
    first = measured(run, rows, held_out, p)
    run.step = 3
    assert measured(run, rows, held_out, p) == first > 0
    other = params(micro_batch_size=p.batch_size)
    assert measured(begun(other), rows, held_out, other) == pytest.approx(first, rel=1e-5)
    assert all(w.grad is None for w in run.weights)


def test_it_is_of_held_out_objects_with_their_captions(rows: Rows, held_out: Rows) -> None:
    source = held_out_source(tiny.source(rows, params(object_drop=0.5, text_drop=0.5, regularization=0.5)), held_out)
    batches = [batch_at(n, source) for n in range(4)]
    assert {i for b in batches for i in b.row_ids} == set(held_out.column("row_id"))
    assert all(b.present.all() for b in batches)
    tokens = torch.cat([b.tokens for b in batches])
    assert (tokens == tokens[0]).all()  # no empty prompt among them


def test_it_goes_down_with_training_and_leaves_the_training_as_it_is(rows: Rows, held_out: Rows) -> None:
    p = params(steps=12, learning_rate=3e-3)
    losses, weights = list[float](), list[dict[str, dict[str, Tensor]]]()
    for is_measured in (True, False):
        run = begun(p)
        for _ in loop.train(run, p, lambda step: batch_at(step, tiny.source(rows, p, "concat"))):
            losses += [measured(run, rows, held_out, p)] if is_measured else []
        weights.append(loop.trained_weights(run))
    assert losses[-1] < losses[0]
    one, other = weights
    assert all(torch.equal(one[part][name], other[part][name]) for part in one for name in one[part])


def test_there_is_none_without_batches_or_objects(rows: Rows, folder: Path, tmp_path: Path) -> None:
    p = params()
    source, run = tiny.source(rows, p, "concat"), begun(p)
    none = load_rows(tiny.write_rows(tmp_path / "rows", validation=0), "validation")
    assert held_out_loss(run, held_out_source(source, none)) is None
    without = p.model_copy(update={"validation": p.validation.model_copy(update={"batches": 0})})
    assert held_out_loss(run, held_out_source(replace(source, params=without), load_rows(folder, "validation"))) is None
