"""What the denoiser should say, against hand-computed values."""

import math

import pytest
import tiny
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    VQDiffusionScheduler,
)

from taming_core.errors import TamingError
from taming_core.model.diffusion import (
    Noise,
    add_noise,
    alpha_bar,
    estimate_clean,
    noise_at,
    noise_schedule_of,
    slice_noise,
    training_target,
    with_zero_terminal_snr,
)

SHAPE = (3, 4, 2, 2)
SCHEDULE = noise_schedule_of(tiny.scheduler())


def steps(*timesteps: int) -> Noise:
    drawn = noise_at(0, (len(timesteps), 4, 2, 2), SCHEDULE, 0, 0.0)
    return Noise(torch.tensor(timesteps), drawn.posterior, drawn.diffusion)


def abar(t: int) -> float:
    """Stable Diffusion's schedule, with zero terminal SNR (Lin et al., 2024, algorithm 1), in double precision."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return float(root[t] ** 2)


def test_the_noise_schedule_is_the_models_own() -> None:
    found = alpha_bar(noise_schedule_of(tiny.scheduler()), torch.tensor([0, 300, 999])).flatten()
    torch.testing.assert_close(found, torch.tensor([abar(0), abar(300), 0.0]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_targets_and_the_estimates_they_imply(kind: str) -> None:
    schedule, drawn = noise_schedule_of(tiny.scheduler(kind)), steps(10, 700)
    clean = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    dirty, target = add_noise(schedule, clean, drawn), training_target(schedule, clean, drawn)
    for i, t in enumerate((10, 700)):
        signal, rest = math.sqrt(abar(t)), math.sqrt(1 - abar(t))
        eps = drawn.diffusion[i]
        expected = {"epsilon": eps, "v_prediction": signal * eps - rest * clean[i], "sample": clean[i]}
        torch.testing.assert_close(dirty[i], signal * clean[i] + rest * eps, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(target[i], expected[kind], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(estimate_clean(schedule, dirty, target, drawn.timesteps), clean, atol=1e-3, rtol=1e-3)


def test_the_last_step_of_zero_snr_is_noise_alone() -> None:
    schedule, drawn = noise_schedule_of(tiny.scheduler()), steps(999)
    clean = torch.ones(1, 4, 2, 2)
    assert torch.equal(add_noise(schedule, clean, drawn), drawn.diffusion)
    assert torch.equal(training_target(schedule, clean, drawn), -clean)
    torch.testing.assert_close(estimate_clean(schedule, drawn.diffusion, -clean, drawn.timesteps), clean)


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler])
def test_any_scheduler_of_added_noise_will_do(kind: type) -> None:
    own = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    found = alpha_bar(noise_schedule_of(own), torch.tensor([0, 999])).flatten()
    torch.testing.assert_close(found, own.alphas_cumprod[[0, 999]].float())


def test_a_scheduler_without_a_noise_schedule_is_refused() -> None:
    with pytest.raises(TamingError, match="VQDiffusionScheduler has no noise schedule"):
        noise_schedule_of(VQDiffusionScheduler(num_vec_classes=4))


def test_of_flow_matching_the_latents_lie_on_the_line_between_image_and_noise() -> None:
    schedule = noise_schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    clean = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    drawn = Noise(torch.tensor([250.0, 1000.0]), clean, torch.ones_like(clean))
    dirty, target = add_noise(schedule, clean, drawn), training_target(schedule, clean, drawn)
    torch.testing.assert_close(dirty[0], 0.75 * clean[0] + 0.25)
    assert torch.equal(dirty[1], torch.ones(4, 2, 2))
    assert torch.equal(target, 1 - clean)
    torch.testing.assert_close(estimate_clean(schedule, dirty, target, drawn.timesteps), clean, atol=1e-6, rtol=1e-5)
    signal = alpha_bar(schedule, drawn.timesteps).flatten()
    torch.testing.assert_close(signal, torch.tensor([0.75**2 / (0.75**2 + 0.25**2), 0.0]))


def test_flow_matching_trains_on_middle_steps_shifted_towards_noise() -> None:
    """The median of a logit-normal share of noise is 1/2, which a shift of 3 makes 3/4 (Esser et al., 2024)."""
    for scheduler, expected in [
        (FlowMatchEulerDiscreteScheduler(), 0.5),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), 0.75),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0), 0.75),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), math.exp(0.5) / (math.exp(0.5) + 1)),
    ]:
        # 256 patches of 2 x 2 latents: there FLUX's shift is e**0.5
        drawn = noise_at(0, (2000, 1, 32, 32), noise_schedule_of(scheduler), 0, 0.0).timesteps / 1000
        assert 0 < drawn.min() < drawn.max() < 1
        assert float(drawn.median()) == pytest.approx(expected, abs=0.02)


def test_noise_depends_on_seed_and_step_alone() -> None:
    first, again, later, other = (
        noise_at(step, SHAPE, SCHEDULE, seed, 0.0) for step, seed in ((2, 0), (2, 0), (3, 0), (2, 1))
    )
    for name in ("timesteps", "posterior", "diffusion"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(later, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert not torch.equal(first.posterior, first.diffusion)


def test_a_part_is_some_rows_of_the_whole() -> None:
    whole = noise_at(0, SHAPE, SCHEDULE, 0, 0.0)
    part = slice_noise(whole, slice(1, 3), torch.device("cpu"))
    assert torch.equal(part.diffusion, whole.diffusion[1:])
    assert torch.equal(part.timesteps, whole.timesteps[1:])


def test_a_power_draws_noisy_timesteps_more_often() -> None:
    uniform, cubic = (noise_at(0, (20000, 1, 1, 1), SCHEDULE, 0, 0.0, power=power).timesteps for power in (1.0, 3.0))
    assert torch.equal(uniform, noise_at(0, (20000, 1, 1, 1), SCHEDULE, 0, 0.0).timesteps)
    steps = SCHEDULE.config["num_train_timesteps"]
    assert int(cubic.max()) == steps - 1
    for share in (0.25, 0.5, 0.875):  # P(1 - u^3 < share) = 1 - (1 - share)^(1/3)
        expected = 1 - (1 - share) ** (1 / 3)
        assert float((cubic < share * steps).float().mean()) == pytest.approx(expected, abs=0.015)


def test_all_timesteps_are_drawn() -> None:
    drawn = noise_at(0, (20000, 1, 1, 1), SCHEDULE, 0, 0.0).timesteps
    assert (drawn.min(), drawn.max()) == (0, 999)
    assert abs(drawn.float().mean() - 499.5) < 10


def test_an_offset_is_one_number_per_image_and_channel_and_changes_nothing_else() -> None:
    plain, shifted = (noise_at(3, (40, 4, 8, 8), SCHEDULE, 0, offset) for offset in (0.0, 0.5))
    added = shifted.diffusion - plain.diffusion
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added), atol=1e-6, rtol=0)
    assert float(added[..., 0, 0].std()) == pytest.approx(0.5, rel=0.2)
    assert torch.equal(plain.posterior, shifted.posterior)
    assert torch.equal(plain.timesteps, shifted.timesteps)
    still, moved = (noise_at(4, (40, 4, 8, 8), SCHEDULE, 0, offset).diffusion for offset in (0.0, 0.5))
    later = moved - still
    assert not torch.allclose(later, added, atol=1e-3)


def test_guidance_is_one_scale_or_drawn_from_a_range() -> None:
    fixed, drawn, again = (noise_at(4, (2000, 4, 1, 1), SCHEDULE, 0, 0.0, g) for g in (3.5, [1.0, 5.0], [1.0, 5.0]))
    assert fixed.guidance is not None
    assert drawn.guidance is not None
    assert torch.equal(fixed.guidance, torch.full((2000,), 3.5))
    assert torch.equal(drawn.guidance, again.guidance)
    assert 1.0 <= float(drawn.guidance.min()) < 1.1
    assert 4.9 < float(drawn.guidance.max()) <= 5.0
    assert float(drawn.guidance.mean()) == pytest.approx(3.0, abs=0.1)
    assert torch.equal(slice_noise(drawn, slice(3, 5), torch.device("cpu")).guidance, drawn.guidance[3:5])
    assert torch.equal(fixed.timesteps, drawn.timesteps)  # nothing else is drawn otherwise


PLAIN = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def test_a_schedule_can_be_made_to_end_in_noise_alone() -> None:
    scheduler = DDIMScheduler(**PLAIN, prediction_type="v_prediction", timestep_spacing="leading")
    found = with_zero_terminal_snr(scheduler)
    assert isinstance(found, DDIMScheduler)
    assert found.config["timestep_spacing"] == "trailing"
    assert found.config["beta_start"] == 0.00085
    assert scheduler.alphas_cumprod[-1] > 0
    expected = torch.tensor([abar(0), abar(300), 0.0])
    signal = alpha_bar(noise_schedule_of(found), torch.tensor([0, 300, 999])).flatten()
    torch.testing.assert_close(signal, expected, atol=1e-5, rtol=1e-4)
    assert DDIMScheduler.from_config(found.config).alphas_cumprod[-1] == 0


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (DDIMScheduler(**PLAIN), "predicts the noise cannot learn from pure noise"),
        (tiny.scheduler(), "ends in pure noise already"),
        (PNDMScheduler(prediction_type="v_prediction"), "PNDMScheduler cannot end in pure noise"),
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler cannot end in pure noise"),
        (
            EulerDiscreteScheduler(
                prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
            ),
            "ends in pure noise already",
        ),
    ],
)
def test_a_schedule_that_cannot_end_in_noise_or_does_is_refused(scheduler: object, words: str) -> None:
    with pytest.raises(TamingError, match=f"{words}.*train.zero_terminal_snr"):
        with_zero_terminal_snr(scheduler)
