"""Train the detector of `mini`: a YOLO11n-seg, from scratch, on photos of the mini world.

python pipelines/mini/detector.py
python pipelines/mini/detector.py --photos 64 --epochs 1 --out out/detector    # smoke run
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from taming_core.pretrained.ultralytics_offline import import_ultralytics
from taming_core.world import Chances, Photos, World, class_nouns, load_world, render

HERE = Path(__file__).parent
WEIGHTS = HERE.parents[1] / "taming_core" / "pretrained" / "mini" / "detector"
CHANCES = Chances(two_objects=0.3)  # a second object is free supervision
BATCH = 16


def main(
    photos: Annotated[int, typer.Option(help="Training photos to render, a multiple of 16.")] = 5600,
    epochs: Annotated[int, typer.Option(help="Times each photo is seen.")] = 5,
    size: Annotated[int, typer.Option(help="Side of a photo in pixels, a multiple of 32.")] = 160,
    seed: Annotated[int, typer.Option(help="Same seed, same photos.")] = 0,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = HERE / "world",
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")] = WEIGHTS,
) -> None:
    """Render photos, train on them, save the weights in half precision."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(load_world(world), Path(scratch), photos, size, seed)
        model = fit(data, Path(scratch) / "runs", epochs, size, seed)
    save(model, out, size)


def write_data(world: World, folder: Path, count: int, size: int, seed: int) -> Path:
    """Photos and polygon labels in YOLO's layout; returns the data file."""
    for split, part, number in (("train", "train", count), ("val", "unseen_concept", min(count, 128))):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(number // BATCH):
            batch = render(world, seed, index, BATCH, size, part, CHANCES)
            write_photos(batch, folder, split, index * BATCH)
    data = {"path": str(folder), "train": "images/train", "val": "images/val", "names": list(class_nouns())}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


def write_photos(batch: Photos, folder: Path, split: str, first: int) -> None:
    """One PNG and one label file per photo: `class x y x y ...`, relative to the photo's side."""
    for i, (image, masks, subjects) in enumerate(zip(batch.image, batch.masks, batch.objects, strict=True), first):
        Image.fromarray(image.numpy()).save(folder / "images" / split / f"{i:06}.png", compress_level=1)
        lines = [
            " ".join([str(class_nouns().index(s.noun)), *(f"{v:.5f}" for v in outline(mask.numpy()).ravel())])
            for s, mask in zip(subjects, masks, strict=True)
        ]
        (folder / "labels" / split / f"{i:06}.txt").write_text("\n".join(lines))


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One polygon (points, 2) around all parts of a mask, in [0, 1]; parts are joined as ultralytics joins them."""
    from ultralytics.data.converter import merge_multi_segment

    parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = sorted((p.reshape(-1, 2) for p in parts), key=len)[-8:]  # crumbs beyond eight parts are dropped
    joined = parts[0] if len(parts) == 1 else np.concatenate(merge_multi_segment([p.tolist() for p in parts]))
    return (joined + 0.5) / mask.shape[0]


def fit(data: Path, runs: Path, epochs: int, size: int, seed: int) -> torch.nn.Module:
    """The averaged model after `epochs`."""
    yolo = import_ultralytics().YOLO("yolo11n-seg.yaml", task="segment")
    yolo.train(
        data=str(data), epochs=epochs, imgsz=size, batch=BATCH, nbs=BATCH, seed=seed, project=str(runs), name="fit",
        pretrained=False, amp=False, plots=False, workers=0, device="cpu", val=False, cache="ram",
        optimizer="AdamW", lr0=0.002, cos_lr=True, lrf=0.02, warmup_epochs=0.3, weight_decay=0.0005,
        mosaic=0.5, close_mosaic=max(epochs // 3, 1), scale=0.3, translate=0.08, overlap_mask=False, mask_ratio=2,
    )  # fmt: skip
    return yolo.trainer.ema.ema


def save(model: torch.nn.Module, out: Path, size: int) -> None:
    """Half-precision weights and the three facts needed to build the network again."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    save_file({name: t.contiguous() for name, t in state.items()}, out / "model.safetensors")
    config = {"architecture": "yolo11n-seg.yaml", "names": list(class_nouns()), "image_size": size}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
