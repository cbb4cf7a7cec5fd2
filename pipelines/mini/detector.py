"""Train the detector of `mini`: a YOLO11n-seg, from scratch, on photos of the mini world.

Example:  python pipelines/mini/detector.py
"""

import json
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import schooling
import torch
import typer
import yaml
from devices import ready
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from schooling import Section

from taming_core.objects.ultralytics_offline import import_ultralytics
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, class_nouns, load_pictures, load_world
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances

ARCHITECTURE = "yolo11n-seg.yaml"
AT_ONCE = 16  # photos in memory while they are rendered; changes no pixel


class DetectorParams(Section):
    """Photos, and what ultralytics is told."""

    seed: int
    photos: PositiveInt
    size: PositiveInt = Field(multiple_of=32)  # side of a photo in pixels
    chances: Chances
    smallest: PositiveInt  # visible pixels; less of a thing is no thing
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat  # peak; a cosine follows
    last_rate: PositiveFloat  # share of the learning rate in the last epoch
    warmup: NonNegativeFloat  # epochs
    weight_decay: NonNegativeFloat
    mosaic: float = Field(ge=0, le=1)  # share of photos that are put together from four
    plain_epochs: NonNegativeInt  # at the end, without mosaic
    scale: float = Field(ge=0, lt=1)  # photos are enlarged or made smaller by up to this share
    translate: float = Field(ge=0, lt=1)  # and moved, as a share of their side


def write_data(world: World, pictures: Pictures, folder: Path, p: DetectorParams) -> Path:
    """Photos and polygon labels in YOLO's layout, rendered once; returns the data file."""
    data = folder / "data.yaml"
    if data.is_file():
        return data
    for split, part, count in (("train", "train", p.photos), ("val", "unseen-concepts", min(p.photos, 128))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(-(-count // AT_ONCE)):
            photos = render(world, pictures, p.seed, index, AT_ONCE, p.size, part, p.chances)
            write_photos(photos, folder, split, index * AT_ONCE, count, p.smallest)
    facts = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val", "names": list(class_nouns())}
    data.write_text(yaml.safe_dump(facts))  # last: where it lies, all photos do
    return data


def write_photos(photos: Photos, folder: Path, split: str, first: int, end: int, smallest: int) -> None:
    """One PNG and one label file for each photo before `end`: `class x y x y ...`, relative to the photo's side."""
    numbers = range(first, min(first + len(photos.plans), end))
    for i, image, masks, subjects in zip(numbers, photos.image, photos.masks, photos.objects, strict=False):
        Image.fromarray(image.numpy()).save(folder / "images" / split / f"{i:06}.png", compress_level=1)
        lines = [
            " ".join([str(class_nouns().index(s.noun)), *(f"{v:.5f}" for v in outline(mask.numpy()).ravel())])
            for s, mask in zip(subjects, masks, strict=True)
            if mask.sum() >= smallest
        ]
        (folder / "labels" / split / f"{i:06}.txt").write_text("\n".join(lines))


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One polygon (points, 2) around all parts of a mask, in [0, 1]; parts are joined as ultralytics joins them."""
    from ultralytics.data.converter import merge_multi_segment

    parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = sorted((p.reshape(-1, 2) for p in parts), key=len)[-8:]  # crumbs beyond eight parts are dropped
    joined = parts[0] if len(parts) == 1 else np.concatenate(merge_multi_segment([p.tolist() for p in parts]))
    return (joined + 0.5) / mask.shape[0]


def fit(data: Path, state: Path, device: str, p: DetectorParams) -> torch.nn.Module:
    """The averaged model after all epochs; goes on after the last whole epoch that a run below `state` has finished."""
    last = state.resolve() / "fit" / "weights" / "last.pt"
    yolo: Any = import_ultralytics().YOLO(last if last.is_file() else ARCHITECTURE, task="segment")
    if last.is_file() and yolo.ckpt["epoch"] == -1:  # so ultralytics marks a run that is done
        return yolo.model
    if last.is_file():
        yolo.train(resume=True, device=device)
    else:
        yolo.train(**settings(p), data=str(data), project=str(state.resolve()), name="fit", device=device)
    return yolo.trainer.ema.ema


def settings(p: DetectorParams) -> dict[str, Any]:
    """The numbers under ultralytics' names."""
    return {
        "epochs": p.epochs, "imgsz": p.size, "batch": p.batch_size, "nbs": p.batch_size, "seed": p.seed,
        "optimizer": "AdamW", "lr0": p.learning_rate, "cos_lr": True, "lrf": p.last_rate, "warmup_epochs": p.warmup,
        "weight_decay": p.weight_decay, "mosaic": p.mosaic, "close_mosaic": p.plain_epochs, "scale": p.scale,
        "translate": p.translate, "overlap_mask": False, "mask_ratio": 2, "pretrained": False, "amp": False,
        "plots": False, "workers": 0, "val": False, "cache": "ram", "exist_ok": True,
    }  # fmt: skip


def save(model: torch.nn.Module, out: Path, size: int) -> None:
    """Half-precision weights and the three facts needed to build the network again."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    part = out / "model.safetensors.part"
    save_file({name: t.cpu().contiguous() for name, t in state.items()}, part)
    part.replace(out / "model.safetensors")
    config = {"architecture": ARCHITECTURE, "names": list(class_nouns()), "image_size": size}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors.")] = schooling.WEIGHTS / "detector",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Render photos, train on them and save; `measure_objects.py` measures. To resume, run the same command again."""
    p, device = schooling.section(DetectorParams, "detector", params), ready(device)
    state = schooling.state_folder("detector", p, rows_state(world))
    import_ultralytics()  # before anything else imports it
    artwork = load_world(world)
    data = write_data(artwork, load_pictures(artwork), state, p)
    save(fit(data, state, device, p), out, p.size)


if __name__ == "__main__":
    typer.run(main)
