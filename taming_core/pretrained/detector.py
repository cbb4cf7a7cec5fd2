"""Photos to objects with ultralytics YOLO: a closed vocabulary (YOLO11) or a built-in open one (YOLOE)."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from taming_core.errors import TamingError
from taming_core.objects import Detections
from taming_core.pretrained.ultralytics_offline import import_ultralytics

MINI = Path(__file__).parent / "mini" / "detector"

Detector = Callable[[Sequence[NDArray[np.uint8]]], list[Detections]]


def load_detector(spec: str, device: str, image_size: int, score_floor: float, max_objects: int) -> Detector:
    """A callable from photos (H, W, 3) of any sizes to what is on each, best score first.

    `spec` is `mini`, a YOLO checkpoint (.pt), or a folder with config.json and model.safetensors such as mini's own.
    `image_size` is the longer side, in pixels, that the network sees; findings below `score_floor` and beyond
    `max_objects` per photo are not returned. A network without a segmentation head gives masks that are all False.
    Raises TamingError if there is no such file, or if it needs code to be unpickled.
    """
    yolo = open_yolo(find_weights(spec))
    settings = {"imgsz": image_size, "conf": score_floor, "max_det": max_objects, "device": device}
    return partial(detect, yolo, settings)


def find_weights(spec: str) -> Path:
    """The checkpoint or folder that `spec` means."""
    path = MINI if spec == "mini" else Path(spec)
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.pt"))
        path = found[0] if len(found) == 1 else path / "best.pt"
    if not path.exists():
        name = path.name if path.suffix == ".pt" else "yolo11n-seg.pt"
        raise TamingError(
            f"There is no detector file {path}. Put the weights there, for example {name} of the ultralytics "
            "releases, or set the detector to mini or to the path of a .pt file."
        )
    return path


def open_yolo(path: Path) -> Any:
    """The `ultralytics.YOLO` model of a folder (safetensors) or of a .pt checkpoint, read without running its code."""
    if path.is_dir():
        return _from_folder(path)
    ultralytics = import_ultralytics()
    from ultralytics.utils import SAFE_LOAD

    if path.suffix != ".pt" or not SAFE_LOAD:
        raise TamingError(
            f"{path} cannot be loaded without running code from it. "
            "Use a .pt checkpoint, and let nothing import ultralytics before this package."
        )
    try:
        return ultralytics.YOLO(path)
    except (TypeError, AttributeError, KeyError) as error:  # what ultralytics raises for foreign or damaged files
        raise TamingError(f"{path} is not a YOLO checkpoint, or is damaged. Use one of ultralytics.") from error


def _from_folder(folder: Path) -> Any:
    config = json.loads((folder / "config.json").read_text())
    ultralytics = import_ultralytics()
    from ultralytics.nn.tasks import SegmentationModel

    yolo = ultralytics.YOLO(config["architecture"], task="segment")
    network: Any = SegmentationModel(config["architecture"], nc=len(config["names"]), verbose=False)
    network.load_state_dict({name: t.float() for name, t in load_file(folder / "model.safetensors").items()})
    network.names = dict(enumerate(config["names"]))
    network.task = "segment"  # what ultralytics writes into a checkpoint it saves
    yolo.model = network.eval()
    return yolo


def detect(yolo: Any, settings: dict[str, Any], photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
    """What `yolo` sees on each photo; one object is kept once, whatever classes compete for it."""
    if not photos:
        return []
    bgr = [np.ascontiguousarray(photo[..., ::-1]) for photo in photos]
    # rect=False pads every photo to a square, so that what is found on it does not depend on its neighbours.
    results = yolo.predict(bgr, agnostic_nms=True, retina_masks=True, rect=False, verbose=False, **settings)
    return [_detections(result) for result in results]


def _detections(result: Any) -> Detections:
    height, width = result.orig_shape
    order = result.boxes.conf.argsort(descending=True, stable=True).cpu()
    masks = torch.zeros(len(order), height, width) if result.masks is None else result.masks.data.cpu()
    return Detections(
        boxes_xyxy=result.boxes.xyxy.cpu()[order].float().numpy(),
        scores=result.boxes.conf.cpu()[order].float().numpy(),
        classes=tuple(result.names[int(i)].lower() for i in result.boxes.cls.cpu()[order]),
        masks=(masks > 0.5)[order].numpy(),
    )
