"""The training and the measurements of the segmenter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from ruamel.yaml import YAML
from segment_anything.modeling import Sam
from typer.testing import CliRunner

from pipelines.mini import measure_objects, segmenter
from pipelines.mini.average_precision import Detections, average_precision, precision_with_interval
from pipelines.mini.segmenter import train_segmenter
from pipelines.mini.segmenter_crops import crops_of, moved_together
from pipelines.mini.segmenter_start import SegmenterParams, build, thinned
from pipelines.mini.stage_params import load_section
from pipelines.mini.world_data import WorldData
from taming_core.model.clip import load_tower
from taming_core.objects.segmenter import assemble, encoder, read_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import box_of, photos_of, plans
from taming_core.world.plan import Chances
from taming_core.world.render import draw

TRAINING: dict[str, Any] = {
    "seed": 0, "steps": 2, "batch_size": 2, "learning_rate": 1.0e-3, "warmup": 0, "weight_decay": 0.0, "ema": 0.5,
    "save_every": 1, "tower_rate": 0.5, "start": "clip", "depth": 2, "hidden": 64, "width": 32, "mlp_width": 16,
    "quality_width": 8, "view": {"zoom": 1.3, "edge_reach": 3, "edge_floor": 1.0e-3}, "sizes": [64, 96],
    "chances": {"two_objects": 0.5}, "overlap_chance": 0.5,
    "box_jitter": 0.1, "edge_weight": 1.0, "min_pixels": 20,
}  # fmt: skip
MEASURED = {
    "seed": 1, "photos": 3, "size": 96, "two_objects": 0.5, "image_size": 96, "min_score": 0.01,
    "min_score_recall": 0.1, "max_detections": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


def tiny_sam() -> Sam:
    torch.manual_seed(0)
    tower = encoder(
        image_size=64, patch_size=8, width=32, depth=3, heads=2, mlp_ratio=2, window=3, global_layers=(1,),
        prompt_width=32,
    )  # fmt: skip
    return assemble(tower, 32, 8, mask_channels=4, mlp_width=16, extra_masks=3, quality_width=8)


def parameters(**changed: Any) -> SegmenterParams:
    return SegmenterParams.model_validate(TRAINING | changed)


@torch.no_grad()
def test_the_image_tower_of_mini_starts_as_clip(world: World, pictures: Pictures) -> None:
    clip = load_tower("mini")
    shape: Any = clip.config
    images = draw(pictures, plans(world, 11, 0, 4, "unseen-concepts"), shape.image_size)[0]
    p = parameters(depth=shape.num_hidden_layers, hidden=shape.intermediate_size)
    sam = build(clip, images, p)
    sam.image_encoder.neck = torch.nn.Sequential()  # CLIP has no neck
    started = sam.image_encoder(sam.preprocess(255 * images)).flatten(2).mT
    seen = clip(pixel_values=2 * images - 1).last_hidden_state[:, 1:]
    assert F.cosine_similarity(started, seen, dim=-1).mean() > 0.85


def test_a_start_keeps_first_layers_and_strongest_units() -> None:
    state = tiny_sam().state_dict()
    first = "image_encoder.blocks.0.mlp."
    state[f"{first}lin1.weight"][7] = 0  # a unit without an input
    kept = thinned(state, 2, 63)
    assert not any(name.startswith("image_encoder.blocks.2") for name in kept)
    others = [i for i in range(64) if i != 7]
    assert torch.equal(kept[f"{first}lin1.bias"], state[f"{first}lin1.bias"][others])
    assert torch.equal(kept[f"{first}lin2.weight"], state[f"{first}lin2.weight"][:, others])
    assert torch.equal(kept["mask_decoder.iou_token.weight"], state["mask_decoder.iou_token.weight"])


def test_crops_show_each_object_in_its_box(world: World, pictures: Pictures) -> None:
    p = parameters(chances={"two_objects": 1, "style": 0}, box_jitter=0)
    sam = tiny_sam()
    crops = crops_of(sam, pictures, plans(world, 0, 0, 4, chances=p.chances), 0, p)
    assert crops.pixels.shape[1:] == (3, 64, 64)
    assert crops.truth.shape == crops.any_object.shape == (len(crops.boxes), 1, 64, 64)
    for box, truth, any_object in zip(crops.boxes, crops.truth, crops.any_object, strict=True):
        seen = torch.tensor(box_of(truth[0] > 0.5))
        assert (seen - box).abs().max() < 3
        assert (truth <= any_object + 1e-6).all()
        assert max(box[2:] - box[:2]) == pytest.approx(64 / p.view.zoom, abs=2)


def test_objects_moved_together_occlude_each_other_and_single_ones_stay(world: World, pictures: Pictures) -> None:
    pairs = plans(world, 0, 0, 6, chances=Chances(two_objects=1))
    rng = np.random.default_rng(0)
    near = [moved_together(plan, rng) for plan in pairs]
    larger = [[t.placement.scale / u.placement.scale for t, u in zip(a.objects, b.objects, strict=True)]
              for a, b in zip(near, pairs, strict=True)]  # fmt: skip

    def hidden(wanted: Any) -> float:
        """Pixels of the first objects that the second ones occlude."""
        alone = [replace(plan, objects=plan.objects[:1]) for plan in wanted]
        both, one = photos_of(world, pictures, wanted, 64).masks, photos_of(world, pictures, alone, 64).masks
        return sum(float(b[0].sum() - a[0].sum()) for a, b in zip(both, one, strict=True))

    assert hidden(near) > hidden(pairs)
    assert all(a == pytest.approx(b) and a >= 1 for a, b in larger)
    (lone,) = plans(world, 0, 0, 1, chances=Chances(two_objects=0))
    assert moved_together(lone, rng) == lone


def test_a_stopped_segmenter_training_resumes_to_the_same_weights(
    tmp_path: Path, world: World, pictures: Pictures
) -> None:
    p, clip = parameters(), load_tower("mini")
    images = draw(pictures, plans(world, 0, 0, 2), 128)[0]

    def fresh(state: str) -> tuple[Sam, Any]:
        torch.manual_seed(0)
        sam = build(clip, images, p)
        return sam, train_segmenter(sam, 8, WorldData(world, pictures, "cpu"), p, tmp_path / state)

    whole, reports = fresh("whole")
    assert [r.step for r in reports] == [1, 2]
    next(fresh("stopped")[1])
    resumed, reports = fresh("stopped")
    assert [r.step for r in reports] == [2]
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_the_command_writes_what_the_library_opens_and_it_is_measured(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    YAML().dump({"segmenter": TRAINING, "measure_objects": MEASURED}, tmp_path / "params.yaml")
    run(segmenter.main, "--out", "segmenter")
    assert json.loads((tmp_path / "segmenter" / "config.json").read_text()) == TRAINING["view"]
    assert read_state(tmp_path / "segmenter" / "model.safetensors")["image_encoder.blocks.1.mlp.lin1.bias"].shape == (
        64,
    )
    (tmp_path / "detector").symlink_to(MINI / "detector")
    run(measure_objects.main, "--weights", ".", "--out", "numbers")
    for model, figure in (("segmenter", "iou_true_boxes"), ("detector", "mask_ap50")):
        numbers = json.loads((tmp_path / "numbers" / model / "metrics.json").read_text())
        for which in ("", "styled/", "unseen-designs/"):
            key = which + figure
            assert 0 <= numbers[f"{key}_low"] <= numbers[key] <= numbers[f"{key}_high"] <= 1


def run(main: Any, *arguments: str) -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(main)
    command = ["--params", "params.yaml", "--device", "cpu", *arguments]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0


def test_full_size_params_of_the_segmenter_are_valid() -> None:
    load_section(SegmenterParams, "segmenter")
    load_section(measure_objects.MeasureParams, "measure_objects")


def test_average_precision_without_detections_is_zero() -> None:
    nothing = Detections(np.zeros(0, bool), np.zeros(0, np.int64), np.array([2, 1]))
    assert average_precision(nothing, np.ones(2, int)) == 0
    everything = Detections(np.ones(3, bool), np.array([0, 0, 1]), np.array([2, 1]))
    assert precision_with_interval("ap", everything) == {"ap": 1.0, "ap_low": 1.0, "ap_high": 1.0}
