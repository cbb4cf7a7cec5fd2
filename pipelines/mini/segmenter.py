"""Train the segmenter of `mini`: a small SAM that crops a square around each box, on photos of the mini world.

Its image tower is initialised from the vision tower of mini's CLIP; see `segmenter_start.py`.

Example:  python -m pipelines.mini.segmenter
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import typer
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor, nn
from transformers import CLIPVisionModel

from pipelines.mini.options import ClipFolder, DeviceName, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.segmenter_crops import Crops, crops_of
from pipelines.mini.segmenter_start import SegmenterParams, build
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, load_section
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import PlanDataset, WorldData, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.model.clip import load_tower
from taming_core.objects.segmenter import CropSettings, predict_masks, snap_to_edges, upsample
from taming_core.weights.mini import MINI
from taming_core.world.photos import plans
from taming_core.world.render import draw

START_PHOTOS = 16  # to estimate the standard deviation of CLIP's tokens


def new_sam(tower: CLIPVisionModel, data: WorldData, p: SegmenterParams) -> Sam:
    """The initialised SAM on the device."""
    shape: Any = tower.config
    examples = draw(data.pictures, plans(data.world, p.seed, 0, START_PHOTOS), shape.image_size)[0]
    return build(tower, examples.cpu(), p).to(data.device)


def loss_of(sam: Sam, probe: nn.Module, crops: Crops, p: SegmenterParams) -> tuple[Tensor, Logs]:
    """Cross-entropy + dice, also of the mask snapped to edges, + squared error of the predicted quality.

    `probe` predicts all objects of a crop directly from the image embedding. It is discarded after training; without
    it the tower gets outlines only through the decoder, and training takes several times longer.
    """
    embedding = sam.image_encoder(crops.pixels)
    coarse, quality = predict_masks(sam, embedding, crops.boxes)
    logits, weight = upsample(coarse, sam.image_encoder.img_size), 1 + p.edge_weight * outline(crops.truth)
    soft = logits.sigmoid()
    snapped = snap_to_edges(soft, crops.pixels, p.view)
    entropy = F.binary_cross_entropy_with_logits(logits, crops.truth, weight, reduction="sum") / weight.sum()
    auxiliary = F.binary_cross_entropy_with_logits(probe(embedding), crops.any_object)
    iou = overlap(snapped.detach() > 0.5, crops.truth > 0.5)
    masks = 4 * entropy + dice(soft, crops.truth) + dice(snapped, crops.truth)
    loss = masks + auxiliary + F.mse_loss(quality[:, 0], iou)
    return loss, {"iou": iou.mean(), "iou_before_snapping": overlap(soft > 0.5, crops.truth > 0.5).mean()}


def outline(truth: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Where a mask changes within two pixels, in [0, 1]."""
    return F.max_pool2d(truth, 5, 1, 2) + F.max_pool2d(-truth, 5, 1, 2)


def dice(soft: Float[Tensor, "n 1 h w"], truth: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """Dice loss of masks in [0, 1] (Milletari et al., 2016)."""
    return 1 - ((2 * (soft * truth).sum((1, 2, 3)) + 1) / ((soft + truth).sum((1, 2, 3)) + 1)).mean()


def overlap(a: Bool[Tensor, "n 1 h w"], b: Bool[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Intersection over union of masks."""
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def save(sam: Sam, view: CropSettings, out: Path) -> None:
    """Save half-precision weights, whose shapes define the architecture, and the view."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / "model.safetensors.part"
    save_file({name: t.detach().half().cpu().contiguous() for name, t in sam.state_dict().items()}, part)
    part.replace(out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(asdict(view), indent=2) + "\n", encoding="utf-8")


def train_segmenter(sam: Sam, patch: int, data: WorldData, p: SegmenterParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step; at the end the EMA weights are in place."""
    probe = nn.Sequential(nn.Conv2d(p.width, patch**2, 1), nn.PixelShuffle(patch)).to(sam.device)
    modules = {"tower": sam.image_encoder, "prompt": sam.prompt_encoder, "decoder": sam.mask_decoder, "probe": probe}
    batches = PlanDataset(data.world, p, lambda _: p.chances)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        return loss_of(sam, probe, crops_of(sam, data.pictures, batches[step], step, p), p)

    yield from train(new_train_state(modules, p, {"tower": p.tower_rate}), loss_at, p, folder)


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    clip: ClipFolder = MINI / "clip",
    out: OutFolder = OUT / "segmenter",
    device: DeviceName = "auto",
) -> None:
    """Train and save the segmenter; `measure_objects` measures it. To resume, run the same command again."""
    p, data = load_section(SegmenterParams, "segmenter", params), load_data(world, device)
    tower = load_tower(str(clip))
    shape: Any = tower.config
    stage = Stage(
        name="segmenter",
        build=lambda: new_sam(tower, data, p),
        train=lambda sam, state: train_segmenter(sam, shape.patch_size, data, p, state),
        save=lambda sam, folder: save(sam, p.view, folder),
        inputs=lambda: [folder_fingerprint(world), str(clip)],
    )
    train_and_measure(stage, p, out)


if __name__ == "__main__":
    typer.run(main)
