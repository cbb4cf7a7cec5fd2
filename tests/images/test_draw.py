"""Orders to images: seeds, batches, schedulers."""

import numpy as np
import pytest
import torch

from taming_core.errors import TamingError
from taming_core.images.draw import draw, load_scheduler
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest, batch_requests
from taming_core.params.sections import Sampling

ORDERS = [
    ImageRequest("a photo of a <object> on the beach", (0,), 11),
    ImageRequest("a photo of a <object> in the snow", (1,), 12),
    ImageRequest("a photo of a <object> underwater", (0,), 13),
]


def sampling(scheduler: str = "DPMSolverMultistepScheduler", batch_size: int = 3) -> Sampling:
    return Sampling(scheduler=scheduler, steps=2, guidance_object=3.5, guidance_text=3.5, batch_size=batch_size)


def test_an_image_does_not_depend_on_its_batch(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    together = [np.asarray(i, int) for i in draw(pipeline, ORDERS, embeds, sampling(batch_size=3))]
    apart = [np.asarray(i, int) for i in draw(pipeline, ORDERS[::-1], embeds, sampling(batch_size=2))][::-1]
    assert max(np.abs(a - b).max() for a, b in zip(together, apart, strict=True)) <= 2
    assert np.abs(together[0] - together[2]).mean() > 5


def test_the_pipeline_keeps_its_scheduler_even_after_an_error(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    own = pipeline.scheduler
    next(draw(pipeline, ORDERS[:1], embeds, sampling()))
    with pytest.raises(IndexError):
        list(draw(pipeline, [ImageRequest("a <object>", (7,), 0)], embeds, sampling()))
    assert pipeline.scheduler is own


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "EulerAncestralDiscreteScheduler"]
)
def test_schedulers_by_name_draw_something(pipeline: TamingPipeline, embeds: torch.Tensor, name: str) -> None:
    image = np.asarray(next(draw(pipeline, ORDERS[:1], embeds, sampling(name))))
    assert type(load_scheduler(name, pipeline.scheduler)).__name__ == name
    assert image.std() > 10


def test_a_scheduler_keeps_the_noise_schedule_of_the_model(pipeline: TamingPipeline) -> None:
    found = load_scheduler("DPMSolverMultistepScheduler", pipeline.scheduler)
    assert found.config["prediction_type"] == "v_prediction"
    assert found.config["rescale_betas_zero_snr"]


@pytest.mark.parametrize("name", ["Euler", "UNet2DConditionModel", "AutoencoderKL", "__name__"])
def test_what_is_no_scheduler_is_named(pipeline: TamingPipeline, name: str) -> None:
    with pytest.raises(TamingError, match=f"no scheduler '{name}'"):
        load_scheduler(name, pipeline.scheduler)


def test_batches_keep_the_order_and_never_mix_with_and_without_object() -> None:
    orders = [ImageRequest(str(i), () if i in (2, 3) else (0,), i) for i in range(8)]
    found = list(batch_requests(orders, 3))
    assert [[o.seed for o in run] for run in found] == [[0, 1], [2, 3], [4, 5, 6], [7]]
    assert list(batch_requests([], 3)) == []
