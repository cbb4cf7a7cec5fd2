"""The loop: what trains, what does not, and that micro-batches change nothing."""

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from pydantic import ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from taming_core.errors import TamingError
from taming_core.model.diffusion import Noise, slice_noise
from taming_core.model.inputs import Batch
from taming_core.model.subject_model import require_size, subject_model
from taming_core.params.train import EncoderParams, TrainParams
from taming_core.projects.memory import AllocationTracker
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import loop
from taming_core.training.batches import BatchAt, ExampleSource, batch_at
from taming_core.training.data_loader import batch_slice
from taming_core.training.ema import ema_weights
from taming_core.training.identity import IdentityNetwork, load_identity_network
from taming_core.training.objective import compute_loss_terms, compute_sample_weights
from taming_core.training.start import collage_size

ADAPTER = {"tune": "adapter", "denoiser_rate": 0.0}
LORA = {"tune": "lora", "lora": {"rank": 2, "alpha": 4.0}}
COLLAGE = {"drop": 0.2, "jitter": 0.1}
COLLAGE_LAYER = {"collage": list(collage_size(tiny.pipeline().family))}
WITH_TEXT = {"text_encoder_rate": 0.3}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("rows")), "train")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> IdentityNetwork:
    return load_identity_network(tiny.clip(tmp_path_factory.mktemp("clip")), "cpu")


def begun(p: TrainParams, identity: IdentityNetwork | None, injection: str = "concat", **made: Any) -> loop.Run:
    model = subject_model(tiny.pipeline(injection, **made).components)
    return loop.start_run(model, identity, loop.accelerator_for("cpu", p.precision), p)


def batches(rows: Rows, p: TrainParams, injection: str = "concat") -> BatchAt:
    return partial(batch_at, source=tiny.source(rows, p, injection))


def losses_of(run: loop.Run, batch: Batch, drawn: Noise, p: TrainParams) -> loop.Losses:
    """The losses of a batch, whose gradients are then there."""
    sums, counted = loop.forward_backward(run, batch, drawn, p)
    figures = torch.cat([sums, torch.zeros(1)])
    return loop.report_of(loop.pending_step(0, batch.row_ids, 0.0, figures, counted), p).losses


NAMES = {"text_encoder": "text", "object_encoder": "object"}


def weights(run: loop.Run) -> dict[str, Tensor]:
    parts = {NAMES.get(name, name): part for name, part in run.model.networks.items()}
    return {f"{n}.{k}": v.clone() for n, m in parts.items() for k, v in m.state_dict().items()}


def moved(run: loop.Run, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in weights(run).items() if not torch.equal(value, before[name])}


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    p = tiny.train_params(steps=10, warmup=3, learning_rate=1.0, schedule="linear")
    assert [loop.learning_rate_at(s, p) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert loop.learning_rate_at(9, p) == pytest.approx(1 / 7)
    cosine = p.model_copy(update={"schedule": "cosine"})
    assert loop.learning_rate_at(3, cosine) == pytest.approx(1)
    assert 0 < loop.learning_rate_at(9, cosine) < 0.06
    constant = p.model_copy(update={"schedule": "constant"})
    assert {loop.learning_rate_at(s, constant) for s in range(3, 10)} == {1.0}


@pytest.mark.parametrize("injection", tiny.DESIGNS)
@pytest.mark.parametrize("tune", [{}, WITH_TEXT, LORA, ADAPTER], ids=["whole", "whole with text", "lora", "adapter"])
def test_all_that_should_train_does_and_nothing_else(
    rows: Rows, identity: IdentityNetwork, injection: str, tune: dict[str, Any]
) -> None:
    # Three steps: zero-initialised layers, a gate over a LoRA at most, hide what lies behind them in the first two.
    p = tiny.train_params(steps=3, schedule="constant", regularization=0.0, object_drop=0.0, ema=0.5, **tune)
    run = begun(p, identity, injection)
    before = weights(run)
    list(loop.train(run, p, batches(rows, p, injection)))
    parts = {"object"} | ({"denoiser"} if tune != ADAPTER else set()) | ({"text"} if tune == WITH_TEXT else set())
    expected = {n for n in before if n.split(".")[0] in parts and "position_ids" not in n}
    if tune == LORA:
        expected -= {n for n in before if n.startswith("denoiser.") and "lora_" not in n}
    expected -= {n for n in before if n.startswith("object.vision.post_layernorm.")}  # `full` reads what is before it
    assert moved(run, before) == expected
    # Weight decay alone moves a weight: look at the gradients, too.
    moments = {
        f"{NAMES.get(part, part)}.{name}": run.optimizer.state[w]["exp_avg_sq"]
        for part, named in run.trained.items() for name, w in named.items()
    }  # fmt: skip
    # A key bias cancels in the softmax.
    assert {n for n, m in moments.items() if not m.any() and "k_proj.bias" not in n} == set()


@pytest.mark.parametrize("projector", ["full", "linear"])
def test_of_a_fresh_tower_the_last_blocks_train(rows: Rows, projector: str) -> None:
    fresh = {"start": None, "base": "mini", "injection": "concat", "background": "removed"}
    encoder = EncoderParams(tower="mini", projector=projector, tokens=4, tower_blocks=1)
    p = tiny.train_params(**fresh, encoder=encoder.model_dump(), steps=1, regularization=0.0, object_drop=0.0)
    pipeline = tiny.pipeline()
    pipeline.register_modules(object_encoder=tiny.object_encoder(pipeline.unet, "concat", projector))
    run = loop.start_run(subject_model(pipeline.components), None, loop.accelerator_for("cpu", "fp32"), p)
    before = weights(run)
    list(loop.train(run, p, batches(rows, p)))
    tower = {n.removeprefix("object.vision.") for n in moved(run, before) if n.startswith("object.vision.")}
    assert {n.split(".")[0] for n in tower} == ({"encoder", "post_layernorm"} if projector == "linear" else {"encoder"})
    assert {n.split(".")[2] for n in tower if n.startswith("encoder")} == {"1"}


def test_a_tower_has_only_so_many_blocks() -> None:
    encoder = {"tower": "mini", "projector": "full", "tokens": 4, "tower_blocks": 3}
    p = tiny.train_params(start=None, base="mini", injection="concat", background="removed", encoder=encoder)
    with pytest.raises(TamingError, match="tower_blocks is 3, but the projector uses 2 blocks"):
        begun(p, None)


@pytest.mark.parametrize("injection", ["substitute", "concat"])
def test_micro_batches_add_up_to_the_batch(rows: Rows, identity: IdentityNetwork, injection: str) -> None:
    terms = {"identity_weight": 1.0, "identity_max_timestep": 1000, "localization_weight": 2.0, "min_snr": 2.0}
    gradients, losses = [], []
    for size in (4, 2, 1):
        p = tiny.train_params(micro_batch_size=size, offset_noise=0.1, object_drop=0.0, **terms)
        run = begun(p, identity, injection)
        batch = batches(rows, p, injection)(0)
        losses.append(losses_of(run, batch, loop.noise_for_batch(run, batch, 0, p), p))
        gradients.append([w.grad for w in run.weights])
    whole = losses[0]
    assert whole.identity is not None
    assert whole.localization is not None
    assert whole.loss == pytest.approx(whole.denoising + whole.identity + 2 * whole.localization)
    for found, loss in zip(gradients[1:], losses[1:], strict=True):
        assert asdict(loss) == pytest.approx(asdict(whole), rel=1e-5)
        torch.testing.assert_close(found, gradients[0], atol=1e-6, rtol=1e-3)


def test_rates_are_shares_of_the_learning_rate(rows: Rows) -> None:
    p = tiny.train_params(steps=1, denoiser_rate=0.5, text_encoder_rate=0.25, learning_rate=0.008)
    run = begun(p, None)
    report = next(loop.train(run, p, batches(rows, p)))
    assert report.learning_rate == 0.008
    assert [g["lr"] for g in run.optimizer.param_groups] == [0.008, 0.004, 0.002]


def test_gradients_are_clipped(rows: Rows) -> None:
    p = tiny.train_params(steps=1, max_grad_norm=1e-3)
    run, seen = begun(p, None), []
    step = run.optimizer.step
    named = [w for part in run.trained.values() for w in part.values()]
    run.optimizer.step = lambda: (seen.extend(w.grad for w in named if w.grad is not None), step())  # type: ignore
    report = next(loop.train(run, p, batches(rows, p)))
    assert report.grad_norm > 1e-2
    assert torch.stack([g.norm() for g in seen]).norm() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.usefixtures("_another_precision")
def test_steps_leave_the_environment_to_the_threads_that_read_it(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    p = tiny.train_params(steps=2, precision="bf16")
    run = begun(p, None)

    def refuse(*_: Any) -> None:
        raise AssertionError("the environment is written while threads of the data loader run")

    steps = loop.train(run, p, batches(rows, p))
    with monkeypatch.context() as patch:
        for method in ("__setitem__", "__delitem__"):
            patch.setattr(type(os.environ), method, refuse)
        assert len(list(steps)) == 2


def test_the_loss_goes_down_on_rows_it_sees_again_and_again(rows: Rows, identity: IdentityNetwork) -> None:
    p = tiny.train_params(
        steps=60, batch_size=6, micro_batch_size=6, regularization=0.0, learning_rate=4e-3, denoiser_rate=1.0,
        object_drop=0.0,
        text_drop=0.0, schedule="constant", identity_weight=0.1,
    )  # fmt: skip
    run = begun(p, identity)
    losses = [r.losses for r in loop.train(run, p, lambda _: batches(rows, p)(0))]
    first, last = (sum(x.denoising for x in part) / 10 for part in (losses[:10], losses[-10:]))
    assert last < 0.75 * first


def test_a_collage_is_learnt_and_lowers_the_loss(rows: Rows) -> None:
    last: list[float] = []
    for collage, made in ((None, {}), ({"drop": 0.0, "jitter": 0.0}, COLLAGE_LAYER)):
        p = tiny.train_params(
            steps=60, batch_size=6, micro_batch_size=6, regularization=0.0, learning_rate=2e-2, object_drop=0.0,
            text_drop=0.0, schedule="constant", cross_reference=0.0, collage=collage, **ADAPTER,
        )  # fmt: skip
        run = begun(p, None, **made)
        losses = [
            r.losses.denoising
            for r in loop.train(run, p, partial(batch_at, source=ExampleSource.of(run.model, rows, p)))
        ]
        last.append(sum(losses[-20:]))
    assert last[1] < last[0]


def test_the_identity_loss_alone_brings_the_estimate_nearer(rows: Rows, identity: IdentityNetwork) -> None:
    p = tiny.train_params(
        steps=25, regularization=0.0, object_drop=0.0, identity_weight=50.0, identity_max_timestep=1000
    )
    run = begun(p, identity)
    batch = batches(rows, p)(0)
    drawn = loop.noise_for_batch(run, batch, 0, p)
    found = []
    for _ in range(p.steps):
        found.append(losses_of(run, batch, drawn, p).identity)
        run.optimizer.step()
        run.optimizer.zero_grad()
    assert found[-1] < 0.8 * found[0]


def test_without_objects_there_is_no_identity_loss(rows: Rows, identity: IdentityNetwork) -> None:
    p = tiny.train_params(steps=1, object_drop=1.0)
    run = begun(p, identity)
    before = weights(run)
    report = next(loop.train(run, p, batches(rows, p)))
    assert report.losses.identity is None
    assert not {n for n in moved(run, before) if n.startswith("object")}  # no gradient, so no decay either


@pytest.mark.parametrize("injection", tiny.DESIGNS)
def test_an_encoder_that_trains_alone_learns_nothing_from_a_batch_without_objects(rows: Rows, injection: str) -> None:
    p = tiny.train_params(steps=1, object_drop=1.0, **ADAPTER)
    run = begun(p, None, injection)
    before = weights(run)
    report = next(loop.train(run, p, batches(rows, p, injection)))
    assert report.grad_norm == 0
    assert moved(run, before) == set()


def test_a_loss_that_is_not_finite_names_step_and_rows(rows: Rows) -> None:
    p = tiny.train_params(steps=3)
    broken = batches(rows, p)(1)
    broken = replace(broken, target=broken.target * float("nan"))
    run = begun(p, None)
    with pytest.raises(TamingError, match=f"loss is nan in step 2, with rows {broken.row_ids[0]}"):
        list(loop.train(run, p, lambda step: broken if step == 1 else batches(rows, p)(step)))
    assert run.step == 1


def test_epsilon_and_zero_snr_do_not_poison_the_gradients(rows: Rows, identity: IdentityNetwork) -> None:
    p = tiny.train_params(steps=1, regularization=0.0, object_drop=0.0, identity_max_timestep=1000)
    run = begun(p, identity, prediction="epsilon")
    batch = batches(rows, p)(0)
    drawn = replace(loop.noise_for_batch(run, batch, 0, p), timesteps=torch.tensor([999, 999, 10, 300]))
    losses = losses_of(run, batch, drawn, p)
    assert losses.identity is not None
    assert all(w.grad is None or w.grad.isfinite().all() for named in run.trained.values() for w in named.values())


def test_a_gradient_that_is_not_finite_names_step_and_rows_and_changes_nothing(rows: Rows) -> None:
    p = tiny.train_params(steps=3)
    run, seen = begun(p, None), batches(rows, p)(1)
    reports = loop.train(run, p, batches(rows, p))
    next(reports)
    before = weights(run)
    run.model.family.denoiser.conv_out.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TamingError, match=f"gradient norm is (inf|nan) in step 2, with rows {seen.row_ids[0]}"):
        next(reports)
    assert run.step == 1
    assert moved(run, before) == set()


def test_the_average_decays_as_it_says_and_stands_in_for_the_weights_for_a_while(rows: Rows) -> None:
    p = tiny.train_params(steps=4, ema=0.2)
    run = begun(p, None)
    assert run.ema is not None
    seen = []
    for _ in loop.train(run, p, batches(rows, p)):
        seen.append(run.weights[0].detach().clone())
    # The first step's weights, then (1 + n) / (10 + n) for n = 1, and 0.2 at most.
    expected = seen[0]
    for weight, decay in zip(seen[1:], (2 / 11, 0.2, 0.2), strict=True):
        expected = decay * expected + (1 - decay) * weight
    with ema_weights(run.ema, run.weights):
        torch.testing.assert_close(run.weights[0].detach(), expected)
        assert not torch.equal(run.weights[0], seen[-1])
    assert torch.equal(run.weights[0], seen[-1])
    assert begun(p.model_copy(update={"ema": 0.0}), None).ema is None


def test_the_localization_loss_alone_draws_attention_to_the_object(rows: Rows) -> None:
    p = tiny.train_params(steps=15, regularization=0.0, object_drop=0.0, localization_weight=100.0, learning_rate=4e-3)
    run = begun(p, None, "concat")
    batch = batches(rows, p)(0)
    drawn = loop.noise_for_batch(run, batch, 0, p)
    found = []
    for _ in range(p.steps):
        found.append(losses_of(run, batch, drawn, p).localization)
        run.optimizer.step()
        run.optimizer.zero_grad()
    assert found[-1] < found[0] - 0.05


def test_only_samples_with_an_object_have_a_localization_loss(rows: Rows) -> None:
    p = tiny.train_params(steps=1, object_drop=1.0, localization_weight=1.0)
    report = next(loop.train(begun(p, None), p, batches(rows, p)))
    assert report.losses.localization is None
    assert report.losses.loss == report.losses.denoising


@pytest.mark.parametrize("injection", tiny.DESIGNS)
def test_computing_twice_gives_the_same_gradients(rows: Rows, injection: str) -> None:
    watched = {"localization_weight": 1.0} if injection in ("substitute", "concat") else {}
    gradients, calls = {}, {}
    for twice in (False, True):
        p = tiny.train_params(micro_batch_size=4, gradient_checkpointing=twice, regularization=0.5, **watched)
        run = begun(p, None, injection)
        steps, count = batches(rows, p, injection), []
        list(loop.train(run, p.model_copy(update={"steps": 2}), steps))  # until no layer is zero
        block = run.model.family.denoiser.down_blocks[1].attentions[0].transformer_blocks[0]
        # Before and not after it, for the second time it stops where backward needs no more.
        block.register_forward_pre_hook(lambda *_, count=count: count.append(torch.is_grad_enabled()))
        losses = losses_of(run, steps(2), loop.noise_for_batch(run, steps(2), 2, p), p)
        gradients[twice] = [torch.tensor(losses.loss), *(w.grad for w in run.weights)]
        calls[twice] = sum(count)  # the passes of `reference` over the subject keep no gradient
    torch.testing.assert_close(gradients[True], gradients[False], atol=1e-6, rtol=1e-4)
    assert calls[True] == 2 * calls[False] > 0


def test_the_identity_loss_decodes_one_image_at_a_time_and_twice(rows: Rows, identity: IdentityNetwork) -> None:
    gradients: dict[bool, list[Any]] = {}
    shapes: dict[bool, list[int]] = {}
    peaks: dict[bool, int] = {}
    only = {"identity_weight": 1.0, "identity_max_timestep": 1000, "regularization": 0.0, "object_drop": 0.0}
    for twice in (False, True):
        p = tiny.train_params(micro_batch_size=4, gradient_checkpointing=twice, cache=["latents"], **only)
        run, sizes = begun(p, identity), list[int]()
        batch = batches(rows, p)(0)
        run.model.family.vae.decoder.up_blocks[-1].register_forward_pre_hook(
            lambda _, inputs, sizes=sizes: sizes.append(len(inputs[0]))
        )
        with AllocationTracker() as tracker:
            losses = losses_of(run, batch, loop.noise_for_batch(run, batch, 0, p), p)
        gradients[twice] = [torch.tensor(losses.loss), *(w.grad for w in run.weights)]
        shapes[twice], peaks[twice] = sizes, tracker.peak
    torch.testing.assert_close(gradients[True], gradients[False], atol=1e-6, rtol=1e-4)
    assert shapes == {False: [4], True: [1] * 8}
    assert peaks[True] < 0.6 * peaks[False]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"regularization": 1.0}, "train.regularization must be below 1"),
        ({"tune": "adapter"}, "must be 0 where train.tune is 'adapter'"),
        ({"denoiser_rate": 0.0}, "train.denoiser_rate must be above 0"),
        ({"identity_weight": 0.0}, "else null"),
        ({"injection": "decoupled"}, "train.injection must be null where train.start is set"),
    ],
)
def test_settings_that_could_have_no_effect_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        tiny.train_params(**values)


@pytest.fixture
def _another_precision() -> Iterator[None]:
    """Accelerate allows one precision in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_another_precision")
@pytest.mark.parametrize(
    ("injection", "values"),
    [
        ("decoupled", {}),
        ("concat", ADAPTER),
        ("reference", LORA),
        ("gated", {"gradient_checkpointing": True, **ADAPTER}),
        ("substitute", {"localization_weight": 1.0, **LORA}),
    ],
)
def test_bf16_computes_in_half_and_trains_single_weights(
    rows: Rows, identity: IdentityNetwork, injection: str, values: dict[str, Any]
) -> None:
    p = tiny.train_params(
        steps=1, precision="bf16", identity_max_timestep=1000, regularization=0.0, object_drop=0.0, **values
    )
    run = begun(p, identity, injection)
    kinds = []
    run.model.family.denoiser.conv_out.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    report = next(loop.train(run, p, batches(rows, p, injection)))
    assert torch.bfloat16 in kinds
    assert {w.dtype for w in run.weights} == {torch.float32}
    frozen = {
        name: w.dtype
        for part in run.model.networks.values() for name, w in part.named_parameters() if not w.requires_grad
    }  # fmt: skip
    assert {kind for name, kind in frozen.items() if "norm" not in name} == {torch.bfloat16}
    assert {kind for name, kind in frozen.items() if "norm" in name} == {torch.float32}
    AcceleratorState._reset_state(reset_partial_state=True)
    p = p.model_copy(update={"precision": "fp32"})
    single = next(loop.train(begun(p, identity, injection), p, batches(rows, p, injection)))
    assert report.losses.loss == pytest.approx(single.losses.loss, rel=0.03)
    assert report.grad_norm == pytest.approx(single.grad_norm, rel=0.1)


def test_results_go_into_a_model_whose_frozen_weights_are_whole(rows: Rows) -> None:
    p = tiny.train_params(steps=1, regularization=0.0, object_drop=0.0, **LORA)
    run = begun(p, None, "decoupled")
    list(loop.train(run, p, batches(rows, p, "decoupled")))
    for part in run.model.networks.values():  # as if the precision had been low
        for weight in part.parameters():
            weight.data = weight.data if weight.requires_grad else weight.data.bfloat16().float()
    fresh = subject_model(tiny.pipeline("decoupled").components)
    whole = {n: w.clone() for n, w in fresh.family.denoiser.named_parameters()}
    loop.load_results(loop.trained_weights(run), fresh, p)
    found = dict(fresh.family.denoiser.named_parameters())
    assert all(torch.equal(found[n.replace(".weight", ".base_layer.weight")] if n not in found else found[n], w)
               for n, w in whole.items() if not n.endswith(".bias") or n in found)  # fmt: skip
    trained = {**fresh.networks["denoiser"].state_dict(), **fresh.object_encoder.state_dict()}
    for weights in run.trained.values():
        assert all(torch.equal(trained[n], w) for n, w in weights.items())


class NoAnswer(TorchDispatchMode):
    """Nothing may move from the CPU to the device but by copies that nobody waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            assert kwargs.get("non_blocking") or str(kwargs.get("device", "cpu")) == "cpu", "a copy that waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("injection", "collage"), [*((design, None) for design in tiny.DESIGNS), ("concat", COLLAGE)])
@pytest.mark.parametrize("regularization", [0.0, 0.5])
def test_no_step_asks_the_device_for_a_number(
    rows: Rows, injection: str, collage: dict[str, float] | None, regularization: float
) -> None:
    """On PyTorch's device `meta` tensors have no numbers: to ask for one, or how many are true, is an error."""
    watched = {"localization_weight": 1.0} if injection in ("substitute", "concat") else {}
    p = tiny.train_params(micro_batch_size=4, regularization=regularization, object_drop=0.0, text_drop=0.5,
                          collage=collage, **watched)  # fmt: skip
    run, meta = begun(p, None, injection, **(COLLAGE_LAYER if collage else {})), torch.device("meta")
    model = run.model
    batch = batch_at(0, ExampleSource.of(model, rows, p))
    drawn = loop.noise_for_batch(run, batch, 0, p)
    counts = compute_sample_weights(model, None, torch.tensor(batch.object_counts), drawn.timesteps, p)
    loop.move_to_device(model, meta, p)
    with NoAnswer():
        part, noise_here = batch_slice(batch, slice(None), meta), slice_noise(drawn, slice(None), meta)
        terms = compute_loss_terms(model, None, part, noise_here, counts, p)
        (terms.denoising + terms.localization).backward()
        trained = [w for part in model.networks.values() for w in part.parameters() if w.grad is not None]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
    assert {weight.grad.device.type for weight in trained if weight.grad is not None} == {"meta"}


def test_figures_that_come_late_are_the_same_and_none_are_late_when_something_is_due(rows: Rows) -> None:
    p = tiny.train_params(steps=6, save_every=4)
    p = p.model_copy(update={"validation": p.validation.model_copy(update={"every": 0})})
    runs = begun(p, None), begun(p, None)
    at_once = list(loop.train(runs[0], p, batches(rows, p), lag=0))
    late, stood = [], []
    for report in loop.train(runs[1], p, batches(rows, p), lag=1):
        late.append(report)
        stood.append(runs[1].step)
    assert late == at_once
    assert stood == [2, 3, 4, 4, 6, 6]


def test_a_loss_that_is_read_late_is_read_before_anything_is_saved(rows: Rows) -> None:
    p = tiny.train_params(steps=6, save_every=3)
    broken = replace(batches(rows, p)(2), target=torch.full((4, 3, tiny.SIDE, tiny.SIDE), float("nan")))
    reports = loop.train(
        begun(p, None), p, lambda step: broken if step == 2 else batches(rows, p)(step), lag=1
    )  # fmt: skip
    assert next(reports).step == 1
    assert next(reports).step == 2
    with pytest.raises(TamingError, match=f"loss is nan in step 3, with rows {broken.row_ids[0]}"):
        next(reports)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(TamingError, match=r"train.precision fp16 needs a GPU"):
        loop.accelerator_for("cpu", "fp16")


def test_pictures_that_cannot_be_halved_are_refused() -> None:
    model = subject_model(tiny.pipeline().components)
    require_size(model, 32)
    with pytest.raises(TamingError, match=r"30 pixels wide.* multiple of 4"):
        require_size(model, 30)


@pytest.mark.parametrize(("step", "every", "expected"), [(4, 2, True), (5, 2, False), (6, 4, True), (6, 0, False)])
def test_what_is_due(step: int, every: int, expected: bool) -> None:
    assert loop.is_due(step, every, 6) is expected
