"""Object detection with ultralytics YOLO: closed vocabulary (YOLO11) or open vocabulary (YOLOE, YOLO-World)."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import torch as safetensors_torch

from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.objects.filters import Detections, Detector
from taming_core.objects.open_vocabulary import set_classes
from taming_core.objects.published import DETECTOR
from taming_core.objects.ultralytics_offline import import_ultralytics, keep_thread_count
from taming_core.weights.locate import find, weights_file
from taming_core.weights.mini import MINI

safetensors: Any = safetensors_torch  # load_file is partly untyped


def load_detector(
    spec: str,
    device: str,
    image_size: int,
    score_floor: float,
    max_objects: int,
    *,
    classes: Sequence[str] | None = None,
    with_masks: bool = False,
) -> Detector:
    """A callable from images (H, W, 3) of any sizes to the detections in each, best score first.

    Args:
        spec: `mini`, a YOLO checkpoint (.pt), a folder with one or with config.json and model.safetensors, a published
            name such as `yolo11n-seg`, or `owner/repo/file.pt` of the hub.
        device: of torch.
        image_size: pixels of the longer side of the network's input.
        score_floor: detections below it are not returned.
        max_objects: detections per photo, at most.
        classes: class names for an open-vocabulary detector; None uses its built-in ones.
        with_masks: the masks of the detector's segmentation head too; without this they are all False.

    Raises:
        TamingError: there is no such file, it needs code to be unpickled, or it cannot detect `classes`.
    """  # fmt: skip
    path = MINI / "detector" if spec == "mini" else find(spec, DETECTOR)
    yolo = open_yolo(path)
    if with_masks and yolo.task != "segment":
        raise TamingError(
            f"The detector {spec} predicts no masks. Set detect.segmenter to mini or to a SAM, or "
            "detect.detector to one with -seg in its name."
        )
    set_classes(yolo, classes, path if path.is_dir() else path.parent)
    settings = {"imgsz": image_size, "conf": score_floor, "max_det": max_objects, "device": device}
    return partial(detect, yolo, settings, with_masks)


def open_yolo(path: Path) -> Any:
    """The `ultralytics.YOLO` model of a folder (safetensors) or a .pt checkpoint, loaded without running its code."""
    if "architecture" in _config(path):
        return _from_folder(path)
    path = weights_file(path, DETECTOR)
    ultralytics = import_ultralytics()
    from ultralytics.utils import SAFE_LOAD

    if path.suffix != ".pt" or not SAFE_LOAD:
        raise TamingError(
            f"{path} cannot be loaded without running code from it. "
            "Use a .pt checkpoint, and let nothing import ultralytics before this package."
        )
    try:
        yolo = ultralytics.YOLO(path)
    # what ultralytics raises for other or damaged files, and for a text encoder inside, which needs a package
    except (TypeError, AttributeError, KeyError, ImportError) as error:
        raise TamingError(f"{path} is not a YOLO checkpoint, or is damaged. Use one of ultralytics.") from error
    if yolo.task not in ("detect", "segment"):
        raise TamingError(f"{path} is a YOLO for the task {yolo.task}. Use one that detects or segments.")
    return yolo


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    return read_json(file) if file.is_file() else {}


def _from_folder(folder: Path) -> Any:
    config = _config(folder)
    names: list[str] = config["names"]
    ultralytics = import_ultralytics()
    from ultralytics.nn.tasks import SegmentationModel

    yolo = ultralytics.YOLO(config["architecture"], task="segment")
    network: Any = SegmentationModel(config["architecture"], nc=len(names), verbose=False)
    state = safetensors.load_file(folder / "model.safetensors")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    network.names = dict(enumerate(names))
    network.task = "segment"  # what ultralytics writes into a checkpoint it saves
    yolo.model = network.eval()
    return yolo


def detect(
    yolo: Any, settings: dict[str, Any], with_masks: bool, photos: Sequence[NDArray[np.uint8]]
) -> Iterator[Detections]:
    """The detections of `yolo` in each photo, after class-agnostic non-maximum suppression."""
    if not photos:
        return
    bgr = [np.ascontiguousarray(photo[..., ::-1]) for photo in photos]
    predictor = _packing_predictor(with_masks) if yolo.task == "segment" else None
    # rect=False pads every photo to a square, so that its detections do not depend on the rest of the batch.
    with keep_thread_count():
        results = yolo.predict(
            bgr, predictor=predictor, agnostic_nms=True, retina_masks=True, rect=False, verbose=False, **settings
        )
    yield from map(_detections, results)


@cache  # ultralytics starts anew with another class
def _packing_predictor(with_masks: bool) -> Any:
    """Ultralytics' predictor of masks, which keeps them at a bit per pixel, or not at all.

    It makes the masks of a whole batch of photos at once, and a byte per pixel of each would fill the memory.
    """
    from ultralytics.models.yolo.segment import SegmentationPredictor

    class PackingPredictor(SegmentationPredictor):
        def construct_result(self, pred: Any, img: Any, orig_img: Any, img_path: Any, proto: Any) -> Any:
            parent: Any = super()
            result = parent.construct_result(pred, img, orig_img, img_path, proto)
            masks, result.masks = result.masks, None
            if with_masks and masks is not None:
                result.packed_masks = np.packbits(masks.data.cpu().numpy() > 0, -1)
            return result

    return PackingPredictor


def _detections(result: Any) -> Detections:
    height, width = result.orig_shape
    order = result.boxes.conf.argsort(descending=True, stable=True).cpu()
    packed = getattr(result, "packed_masks", None)
    no_masks = np.broadcast_to(np.False_, (len(order), height, width))
    return Detections(
        boxes_xyxy=result.boxes.xyxy.cpu()[order].float().numpy(),
        scores=result.boxes.conf.cpu()[order].float().numpy(),
        classes=tuple(result.names[int(i)].lower() for i in result.boxes.cls.cpu()[order]),
        masks=no_masks if packed is None else np.unpackbits(packed[order.numpy()], -1, width).view(np.bool_),
    )
