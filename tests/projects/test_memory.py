"""What is computed of pretended tensors is what real ones take, and the architectures are those of the real models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from taming_core.model.subject_model import subject_model
from taming_core.params.load import Params
from taming_core.params.train import TrainParams
from taming_core.projects import architectures, memory
from taming_core.training.distributed import gathered_weights
from taming_core.training.identity import load_identity_network
from taming_core.training.objective import SampleWeights, compute_loss_terms, total_loss

MILLIONS = {  # of parameters, as their authors and users count them
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {"unet": 859.5, "vae": 83.7, "text_encoder": 123.1},
    "stabilityai/stable-diffusion-xl-base-1.0": {"unet": 2567.5, "vae": 83.7, "text_encoder_2": 694.7},
    "stabilityai/stable-diffusion-3.5-medium": {"transformer": 2243.2, "vae": 83.8, "text_encoder_3": 4762.3},
    "black-forest-labs/FLUX.1-dev": {"transformer": 11901.4, "text_encoder": 123.1, "text_encoder_2": 4762.3},
}
SMALL = {"batch_size": 4, "micro_batch_size": 2, "identity_weight": 0.0, "identity_network": None,
         "identity_max_timestep": None}  # fmt: skip


@pytest.mark.parametrize("spec", MILLIONS)
def test_known_models_have_as_many_parameters_as_they_have(spec: str) -> None:
    configs = architectures.pipeline_configs(spec)
    with torch.device("meta"):
        found = {n: sum(w.numel() for w in memory.network(configs[n]).parameters()) / 1e6 for n in MILLIONS[spec]}
    assert found == pytest.approx(MILLIONS[spec], abs=0.06)


def params(folder: Path, **train: Any) -> Params:
    """To go on from a tiny encoder; pictures as large as make activations outweigh the weights."""
    p = tiny.PARAMS
    return p.model_copy(update={
        "train": tiny.train_params(start=str(folder), **{**SMALL, **train}),
        "materialize": p.materialize.model_copy(update={"size": 4 * tiny.SIDE}),
    })  # fmt: skip


def saved(injection: str, folder: Path) -> Path:
    tiny.pipeline(injection).save_pretrained(folder)
    return folder


def really_held(folder: Path, p: TrainParams, side: int) -> tuple[int, int]:
    """The most bytes that a real step holds: as our watch counts them, and as torch's own profiler does."""
    made = tiny.TamingPipeline.from_pretrained(folder)
    model = subject_model(made.components)
    trained = memory.prepare(model, p)
    identity = load_identity_network(p.identity_network, "cpu") if p.identity_network else None
    watched = memory.step_bytes(model, identity, trained, p, (side, side))
    batch, drawn = memory.batch_of(model, p, (side, side))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        memory.step(model, identity, batch, drawn, p)
    assert profile.profiler is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore
    held = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    return watched, int(held.max())


LORA = {"rank": 2, "alpha": 2.0}
CASES = [
    ("decoupled", {"tune": "adapter", "denoiser_rate": 0.0}),
    ("concat", {"tune": "whole", "gradient_checkpointing": True}),
    ("gated", {"tune": "lora", "lora": LORA, "cache": ["latents", "text"]}),
    ("concat", {"tune": "lora", "lora": LORA, "identity_weight": 0.05, "identity_max_timestep": 600}),
    ("concat", {"tune": "whole", "collage": {"drop": 0.0, "jitter": 0.0}}),
]


@pytest.mark.parametrize(("injection", "how"), CASES, ids=["adapter", "whole", "lora", "identity", "collage"])
def test_a_pretended_step_holds_what_a_real_one_does(tmp_path: Path, injection: str, how: dict[str, Any]) -> None:
    if "identity_weight" in how:
        how = {**how, "identity_network": tiny.dinov2(tmp_path / "dinov2")}
    p = params(saved(injection, tmp_path), **how)
    told = memory.memory_need(p)
    watched, profiled = really_held(tmp_path, p.train, 4 * tiny.SIDE)
    assert told.step == pytest.approx(watched, rel=0.02)
    assert told.step == pytest.approx(profiled, rel=0.1)


@pytest.mark.parametrize("injection", ["concat", "decoupled"])
def test_rows_that_lose_their_object_take_no_more(tmp_path: Path, injection: str) -> None:
    p = params(saved(injection, tmp_path), identity_weight=0.05, identity_max_timestep=600,
               identity_network=tiny.dinov2(tmp_path / "dinov2")).train  # fmt: skip
    model = subject_model(tiny.TamingPipeline.from_pretrained(tmp_path).components)
    assert p.identity_network is not None
    identity, trained = load_identity_network(p.identity_network, "cpu"), memory.prepare(model, p)
    batch, drawn = memory.batch_of(model, p, (4 * tiny.SIDE, 4 * tiny.SIDE))
    peaks: list[int] = []
    for counts in ((1, 1), (1, 0), (0, 0)):
        some = torch.tensor(counts)
        weights = SampleWeights(torch.ones(2), some.float(), some.float())
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
        with memory.AllocationTracker() as tracker:
            terms = compute_loss_terms(model, identity, replace(batch, object_counts=counts), drawn, weights, p)
            total_loss(terms.denoising, terms.identity, terms.localization, p).backward()
        peaks.append(tracker.peak)
    assert peaks[0] > peaks[1] > peaks[2]


def test_weights_gradients_and_averages_are_those_of_the_parts(tmp_path: Path) -> None:
    saved("decoupled", tmp_path)
    adapter = {"tune": "adapter", "denoiser_rate": 0.0}
    model = subject_model(tiny.TamingPipeline.from_pretrained(tmp_path).components)
    sizes = {name: sum(w.numel() for w in part.parameters()) for name, part in model.networks.items()}
    trained = sum(w.numel() for w in memory.prepare(model, params(tmp_path, **adapter).train))

    plain = memory.memory_need(params(tmp_path, **adapter))
    assert plain.weights == 4 * sum(sizes.values())
    assert (plain.gradients, plain.optimizer) == (4 * trained, 8 * trained)
    assert plain.total > memory.CONTEXT + plain.weights + plain.gradients + plain.optimizer + plain.step

    spared = {"cache": ["text"], "offload": True, "optimizer": "adamw8bit", "ema": 0.9, "precision": "bf16"}
    half = memory.memory_need(params(tmp_path, **adapter, **spared, micro_batch_size=1))
    norms = [m for n, part in model.networks.items() if n != "text_encoder" for m in part.modules()
             if "Norm" in type(m).__name__]  # fmt: skip
    whole = trained + sum(w.numel() for m in norms for w in m.parameters() if not w.requires_grad)
    assert half.weights == 2 * (sum(sizes.values()) - sizes["text_encoder"]) + 2 * whole
    assert half.optimizer == (2 + 4) * trained
    assert half.step < 0.5 * plain.step


def test_processes_that_shard_share_the_denoiser_and_gather_some_of_it(tmp_path: Path) -> None:
    p = params(saved("decoupled", tmp_path), tune="whole")
    alone, shared = memory.memory_need(p), memory.memory_need(p, 4)
    numbers = sum(w.numel() for w in tiny.unet().parameters())
    elsewhere = numbers - numbers // 4
    assert alone.weights - shared.weights == alone.gradients - shared.gradients == pytest.approx(4 * elsewhere, abs=4)
    assert alone.optimizer - shared.optimizer == 8 * elsewhere
    blocks = [sum(w.numel() for w in group) for group in gathered_weights(tiny.unet())]
    assert shared.step - alone.step == 2 * 4 * (blocks[-1] + 2 * max(blocks[:-1]))


def test_the_watch_counts_storages_and_not_views() -> None:
    given = torch.zeros(100)
    with memory.AllocationTracker() as held:
        made = given + 1
        views = [made[:50], made.view(10, 10), given.view(4, 25)]
        assert held.now == 400
        del made, views
        assert held.now == 0
        torch.zeros(7)
    assert held.peak == 400


def test_the_fullest_batch_shows_every_object() -> None:
    with memory.WorstCaseBatch():
        present = torch.tensor([False, True])
        assert bool(present.any())
        assert not bool(torch.zeros(0).any())
        kept: Tensor = torch.arange(2)[present]
    assert kept.tolist() == [0, 1]
