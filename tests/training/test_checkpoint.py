"""State of a run: two steps, stop, and four more are six steps, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_runs import begun, state, steps

from taming_core.errors import TamingError
from taming_core.model.subject_model import SubjectModel, subject_model
from taming_core.params.train import TrainParams
from taming_core.training import checkpoint
from taming_core.training.identity import IdentityNetwork, load_identity_network

LORA = {"tune": "lora", "lora": {"rank": 2, "alpha": 4.0}}
ADAPTER = {"tune": "adapter", "denoiser_rate": 0.0}
WATCHED = {"localization_weight": 0.5, "min_snr": 5.0, "offset_noise": 0.1}
RUNS = [
    ("substitute", {**WATCHED, **LORA}),
    ("concat", {"text_encoder_rate": 0.3, "ema": 0.9, **WATCHED}),
    ("decoupled", {**ADAPTER, "micro_batch_size": 4}),
    ("gated", {**LORA, "ema": 0.5}),
    ("reference", {"gradient_checkpointing": True}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> IdentityNetwork:
    return load_identity_network(tiny.clip(tmp_path_factory.mktemp("clip")), "cpu")


@pytest.mark.parametrize(("injection", "values"), RUNS, ids=[injection for injection, _ in RUNS])
def test_six_steps_are_two_and_four(
    injection: str, values: dict[str, Any], folder: Path, identity: IdentityNetwork, tmp_path: Path
) -> None:
    p = tiny.train_params(warmup=1, **values)
    whole = begun(p, injection, identity)
    reports = steps(whole, p, folder, 6)

    stopped = begun(p, injection, identity)
    assert steps(stopped, p, folder, 2) == reports[:2]
    checkpoint.save(stopped, tmp_path)
    torch.manual_seed(99)  # nothing hangs on the global generator
    again = begun(p, injection, identity)
    checkpoint.load(again, tmp_path)
    assert again.step == 2
    assert steps(again, p, folder, 6) == reports[2:]
    found, expected = state(again), state(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_state_holds_every_trained_weight_and_its_moments(folder: Path) -> None:
    p = tiny.train_params(regularization=0.0, object_drop=0.0)
    run = begun(p, "concat")
    steps(run, p, folder, 1)
    names = {n.rsplit("/", 1)[1] for n in state(run)}
    assert names == {"weight", "exp_avg", "exp_avg_sq", "step"}
    assert len(state(run)) == 4 * sum(len(named) for named in run.trained.values())


def test_the_state_holds_the_average_where_one_is_kept(folder: Path, tmp_path: Path) -> None:
    p = tiny.train_params(ema=0.5)
    run = begun(p, "concat")
    steps(run, p, folder, 3)
    checkpoint.save(run, tmp_path)
    again = begun(p, "concat")
    checkpoint.load(again, tmp_path)
    assert run.ema is not None
    assert again.ema is not None
    assert again.ema.optimization_step == 3
    pairs = list(zip(again.ema.shadow_params, run.ema.shadow_params, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, w) for (a, _), w in zip(pairs, again.weights, strict=True))


def test_only_the_last_state_is_kept_and_a_half_written_one_is_not_looked_at(folder: Path, tmp_path: Path) -> None:
    p = tiny.train_params()
    run = begun(p, "concat")
    for until in (1, 2):
        steps(run, p, folder, until)
        checkpoint.save(run, tmp_path)
    assert [path.name for path in checkpoint.saved_states(tmp_path)] == ["state-000002"]
    (tmp_path / "state.part").mkdir()
    (tmp_path / "state.part" / "tensors.safetensors").write_bytes(b"half")
    again = begun(p, "concat")
    checkpoint.load(again, tmp_path)
    assert again.step == 2
    checkpoint.remove_states(tmp_path)
    assert checkpoint.saved_states(tmp_path) == []


def test_without_a_state_a_run_stays_at_its_beginning(tmp_path: Path) -> None:
    run = begun(tiny.train_params(), "concat")
    checkpoint.load(run, tmp_path / "nothing")
    assert run.step == 0


def test_the_fingerprint_covers_what_changes_weights_and_no_more(folder: Path, tmp_path: Path) -> None:
    p, model = tiny.train_params(), subject_model(tiny.pipeline().components)

    def fingerprint(p: TrainParams, rows: Path, model: SubjectModel) -> str:
        return checkpoint.fingerprint(p, checkpoint.origin_of(rows, model))

    own = fingerprint(p, folder, model)
    assert own == fingerprint(tiny.train_params(save_every=5), folder, model)
    assert own == fingerprint(p, folder, subject_model(tiny.pipeline().components))
    assert own != fingerprint(tiny.train_params(learning_rate=0.5), folder, model)
    assert own != fingerprint(p, folder, subject_model(tiny.pipeline(seed=1).components))
    assert own != fingerprint(p, tiny.write_rows(tmp_path / "more", identities=3), model)
    assert own == fingerprint(p, tiny.write_rows(tmp_path / "again"), model)  # the same rows, written later


@pytest.mark.parametrize("left", [0, 5, 11, -1], ids=["nothing", "the magic number", "no length", "half"])
def test_rows_that_are_cut_off_are_named(folder: Path, tmp_path: Path, left: int) -> None:
    whole = next(folder.glob("train-*.parquet")).read_bytes()
    (tmp_path / "test-00000.parquet").write_bytes(whole[: len(whole) // 2] if left < 0 else whole[:left])
    with pytest.raises(TamingError, match=r"test-00000.parquet is not a Parquet file, or is damaged\. Run "):
        checkpoint.rows_state(tmp_path)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_size_of_a_state_is_known_before_the_first_step(folder: Path, tmp_path: Path, ema: float) -> None:
    p = tiny.train_params(ema=ema)
    run = begun(p, "concat")
    expected = checkpoint.state_bytes(run, p)
    steps(run, p, folder, until=1)
    checkpoint.save(run, tmp_path)
    (saved,) = tmp_path.glob("state-*/tensors.safetensors")
    assert saved.stat().st_size == pytest.approx(expected, rel=0.1)
