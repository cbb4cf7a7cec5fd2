"""Train the detector of `mini`: a YOLO11n-seg, from scratch, on photos of the mini world.

Example:  python -m pipelines.mini.detector
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import typer
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save_file

from pipelines.mini.options import DeviceName, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, Section, load_section, require_outside_package
from pipelines.mini.training_loop import state_folder
from pipelines.mini.world_data import WorldData, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.objects.ultralytics_offline import import_ultralytics
from taming_core.world.artwork import class_nouns
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances

ARCHITECTURE = "yolo11n-seg.yaml"
BATCH = 16  # photos rendered at once; changes no pixel


class DetectorParams(Section):
    """Photos, and the settings of ultralytics."""

    seed: int
    photos: PositiveInt
    size: PositiveInt = Field(multiple_of=32)  # side of a photo in pixels
    chances: Chances
    min_pixels: PositiveInt  # objects with fewer visible pixels are not labelled
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat  # peak, then cosine decay
    last_rate: PositiveFloat  # factor of the learning rate in the last epoch
    warmup: NonNegativeFloat  # epochs
    weight_decay: NonNegativeFloat
    mosaic: float = Field(ge=0, le=1)  # share of photos that are mosaics of four
    plain_epochs: NonNegativeInt  # last epochs, without mosaic
    scale: float = Field(ge=0, lt=1)  # largest relative change of size
    translate: float = Field(ge=0, lt=1)  # largest shift, as a share of the side


def write_data(source: WorldData, folder: Path, p: DetectorParams) -> Path:
    """Render photos and polygon labels in YOLO's layout, unless they are there; returns the data file."""
    data = folder / "data.yaml"
    if data.is_file():
        return data
    for split, part, count in (("train", "train", p.photos), ("val", "unseen-concepts", min(p.photos, 128))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(-(-count // BATCH)):
            photos = render(source.world, source.pictures, p.seed, index, BATCH, p.size, part, p.chances)
            write_photos(photos, folder, split, index * BATCH, count, p.min_pixels)
    config = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val", "names": list(class_nouns())}
    data.write_text(yaml.safe_dump(config), encoding="utf-8")  # last: where it exists, all photos do
    return data


def write_photos(photos: Photos, folder: Path, split: str, first: int, end: int, min_pixels: int) -> None:
    """Write a PNG and a label file for each photo before `end`: `class x y x y ...`, relative to the photo's side."""
    numbers = range(first, min(first + len(photos.plans), end))
    for i, image, masks, subjects in zip(numbers, photos.image, photos.masks, photos.objects, strict=False):
        Image.fromarray(image.numpy()).save(folder / "images" / split / f"{i:06}.png", compress_level=1)
        lines = [
            " ".join([str(class_nouns().index(s.noun)), *(f"{v:.5f}" for v in outline(mask.numpy()).ravel())])
            for s, mask in zip(subjects, masks, strict=True)
            if mask.sum() >= min_pixels
        ]
        (folder / "labels" / split / f"{i:06}.txt").write_text("\n".join(lines), encoding="utf-8")


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One polygon (points, 2) around all parts of a mask, in [0, 1]; parts are joined as in ultralytics."""
    from ultralytics.data.converter import merge_multi_segment

    parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = sorted((p.reshape(-1, 2) for p in parts), key=len)[-8:]  # the eight largest parts
    joined = parts[0] if len(parts) == 1 else np.concatenate(merge_multi_segment([p.tolist() for p in parts]))
    return (joined + 0.5) / mask.shape[0]


def fit(data: Path, state: Path, device: str, p: DetectorParams) -> torch.nn.Module:
    """Train to the last epoch and return the EMA model; resumes after the last epoch saved below `state`."""
    last = state.resolve() / "fit" / "weights" / "last.pt"
    yolo: Any = import_ultralytics().YOLO(last if last.is_file() else ARCHITECTURE, task="segment")
    if last.is_file() and yolo.ckpt["epoch"] == -1:  # a finished run
        return yolo.model
    if last.is_file():
        yolo.train(resume=True, device=device)
    else:
        yolo.train(**settings(p), data=str(data), project=str(state.resolve()), name="fit", device=device)
    return yolo.trainer.ema.ema


def settings(p: DetectorParams) -> dict[str, Any]:
    """The params under ultralytics' names."""
    return {
        "epochs": p.epochs, "imgsz": p.size, "batch": p.batch_size, "nbs": p.batch_size, "seed": p.seed,
        "optimizer": "AdamW", "lr0": p.learning_rate, "cos_lr": True, "lrf": p.last_rate, "warmup_epochs": p.warmup,
        "weight_decay": p.weight_decay, "mosaic": p.mosaic, "close_mosaic": p.plain_epochs, "scale": p.scale,
        "translate": p.translate, "overlap_mask": False, "mask_ratio": 2, "pretrained": False, "amp": False,
        "plots": False, "workers": 0, "val": False, "cache": "ram", "exist_ok": True,
    }  # fmt: skip


def save(model: torch.nn.Module, out: Path, size: int) -> None:
    """Save half-precision weights, and the config that rebuilds the network."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    part = out / "model.safetensors.part"
    save_file({name: t.cpu().contiguous() for name, t in state.items()}, part)
    part.replace(out / "model.safetensors")
    config = {"architecture": ARCHITECTURE, "names": list(class_nouns()), "image_size": size}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    out: OutFolder = OUT / "detector",
    device: DeviceName = "auto",
) -> None:
    """Render photos, train and save the detector; `measure_objects` measures it. To resume, run the command again."""
    require_outside_package(out)
    import_ultralytics()  # before anything else imports it
    p, source = load_section(DetectorParams, "detector", params), load_data(world, device, render_on_cpu=True)
    state = state_folder("detector", p, folder_fingerprint(world))
    save(fit(write_data(source, state, p), state, source.device, p), out, p.size)


if __name__ == "__main__":
    typer.run(main)
