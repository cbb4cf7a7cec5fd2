"""What stands out in a photo, with a salient-object segmenter in ONNX: ISNet, U2-Net, BiRefNet and their like.

Such a network sees a whole picture and needs no box. Without a detector it sees the photo, and what stands out there is
the object; with one it sees the crop around each box.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.objects.filters import Detections, Detector, Masks, Segmenter, pixel_box, remove_islands
from taming_core.objects.published import SALIENT_SEGMENTER
from taming_core.params.arguments import require_onnxruntime
from taming_core.photos.masks import Box, mask_box
from taming_core.weights.locate import find

Saliency = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # a picture (H, W, 3) -> shares (H, W) in [0, 1]

QUIET = 4  # of onnxruntime's severities: fatal errors only; the others are raised as well
DTYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
MARGIN = 0.1  # of a box's longer side, on each side of its crop: what ends at a crop's edge does not stand out there


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of a picture: its side, and (pixels / 255 - mean) / std."""

    mean: tuple[float, ...]  # of red, green and blue
    std: tuple[float, ...]
    side: int  # pixels, where the network takes any size


ISNET = Preprocessing((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), 1024)  # Inference.py of xuebinqin/DIS
U2NET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 320)  # data_loader.py of xuebinqin/U-2-Net
KINDS = {"isnet": ISNET, "u2net": U2NET, "silueta": U2NET, "birefnet": replace(U2NET, side=1024)}


def load_salient_detector(spec: str, device: str, island: float) -> Detector:
    """A callable from photos (H, W, 3) of any sizes to the object in each, with its mask: what stands out, or nothing.

    Args:
        spec: as for `load_saliency`.
        device: as for `load_saliency`.
        island: components of a mask below this share of the largest one do not belong to the object.

    Raises:
        TamingError: as `load_saliency`.
    """
    return partial(detect_salient, load_saliency(spec, device), island)


def load_salient_segmenter(spec: str, device: str) -> Segmenter:
    """A callable from a photo (H, W, 3) and boxes (N, 4), xyxy in pixels, to N masks: what stands out in each crop.

    Args:
        spec: as for `load_saliency`.
        device: as for `load_saliency`.

    Raises:
        TamingError: as `load_saliency`.
    """
    return partial(segment_salient, load_saliency(spec, device))


def load_saliency(spec: str, device: str) -> Saliency:
    """A callable from a picture (H, W, 3) to the share of each pixel (H, W), in [0, 1], that what stands out covers.

    Args:
        spec: a published name such as `isnet`, an .onnx file, or `owner/repo/file.onnx` of the hub.
        device: of torch; onnxruntime computes on the CPU where it has no provider for it.

    Raises:
        TamingError: there is no such file, it is not a segmenter in ONNX, or onnxruntime is not installed.
    """
    require_onnxruntime(spec)
    path = find(spec, SALIENT_SEGMENTER)
    return partial(saliency, open_session(path, device), preprocessing_of(path))


def open_session(path: Path, device: str) -> Any:
    """The `onnxruntime.InferenceSession` of a file, quiet, and with torch's number of threads.

    Raises:
        TamingError: onnxruntime cannot open it, or it does not turn a picture (1, 3, H, W) into a mask (1, 1, H, W).
    """
    import onnxruntime
    import torch

    runtime: Any = onnxruntime  # untyped
    errors = runtime.capi.onnxruntime_pybind11_state
    options = runtime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # see `stages.process.prepare`
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # ISNet: 1.1 instead of 2.2 GB, 8 % slower
    try:
        session = runtime.InferenceSession(str(path), options, providers=_providers(runtime, device))
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented,
            errors.RuntimeException) as error:  # fmt: skip
        raise TamingError(f"onnxruntime cannot open {path}. Fetch it again, or name another ONNX model.") from error
    _require_segmenter(path, session)
    return session


def _providers(runtime: Any, device: str) -> list[Any]:
    """The execution providers for a device of torch; those of `onnxruntime` itself compute on the CPU alone."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _require_segmenter(path: Path, session: Any) -> None:
    """Raises TamingError if a network does not turn a picture into a mask."""
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    fits = len(inputs) == 1 and inputs[0].type in DTYPES and inputs[0].shape[1:2] == [3] and len(inputs[0].shape) == 4
    if not fits or len(output.shape) != 4:
        shapes = " and ".join(str(tuple(i.shape)) for i in inputs)
        raise TamingError(f"{path} is no salient-object segmenter, for it turns {shapes} into {tuple(output.shape)}. "
                          "Use one that turns a picture (1, 3, H, W) into a mask (1, 1, H, W).")  # fmt: skip


def preprocessing_of(path: Path) -> Preprocessing:
    """What the network in a file expects: by the preprocessor_config.json beside it or above its folder `onnx`, as on
    the hub, else by the kind that the file's name or a folder's holds, else that of an ISNet.
    """
    kind = next((KINDS[k] for part in reversed(path.parts) for k in KINDS if k in part.lower()), ISNET)
    beside = [folder / "preprocessor_config.json" for folder in (path.parent, path.parent.parent)]
    file = next((f for f in beside[: 1 + (path.parent.name == "onnx")] if f.is_file()), None)
    config: dict[str, Any] = {} if file is None else read_json(file)
    size: Any = config.get("size") or {}
    side = size if isinstance(size, int) else size.get("height", kind.side)
    return Preprocessing(tuple(config.get("image_mean", kind.mean)), tuple(config.get("image_std", kind.std)), side)


def saliency(session: Any, p: Preprocessing, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The share of each pixel of a picture (H, W, 3) that what stands out covers: (H, W) in [0, 1]."""
    source, output = session.get_inputs()[0], session.get_outputs()[0]  # further outputs are intermediate maps
    height, width = (side if isinstance(side, int) else p.side for side in source.shape[2:])
    scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    pixels = (np.asarray(scaled, np.float32) / 255 - np.array(p.mean, np.float32)) / np.array(p.std, np.float32)
    (found,) = session.run([output.name], {source.name: pixels.transpose(2, 0, 1)[None].astype(DTYPES[source.type])})
    share = Image.fromarray(as_shares(found[0, 0].astype(np.float32)))
    return np.asarray(share.resize(picture.shape[1::-1], Image.Resampling.BILINEAR))


def as_shares(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network's output as shares: as it is, or through a sigmoid if it has values outside of [0, 1], as logits do.

    >>> [as_shares(np.array(values, np.float32)).round(2).tolist() for values in ([0.0, 0.5, 1.0], [-9.0, 0.0, 9.0])]
    [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]
    """
    is_share = found.min() >= 0 and found.max() <= 1
    return found if is_share else (1 / (1 + np.exp(-found.clip(-80, 80)))).astype(np.float32)


def detect_salient(find_saliency: Saliency, island: float, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
    """What stands out in each photo: one detection without a class, or none."""
    return [_detection(find_saliency(photo), island) for photo in photos]


def _detection(share: NDArray[np.float32], island: float) -> Detections:
    mask = remove_islands(share > 0.5, island)
    boxes = [mask_box(mask)] if mask.any() else []
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([expected_iou(share, mask) for _ in boxes], np.float32),
        classes=tuple(None for _ in boxes),
        masks=mask[None][: len(boxes)],
    )


def segment_salient(find_saliency: Saliency, photo: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]) -> Masks:
    """What stands out in the crop around each box (N, 4), xyxy in pixels of the photo (H, W, 3), as masks (N, H, W)."""
    height, width = photo.shape[:2]
    masks, quality = np.zeros((len(boxes_xyxy), height, width), np.bool_), np.zeros(len(boxes_xyxy), np.float32)
    for i, box in enumerate(boxes_xyxy):
        x0, y0, x1, y1 = crop_box(box, width, height)
        share = find_saliency(photo[y0:y1, x0:x1])
        masks[i, y0:y1, x0:x1] = share > 0.5
        quality[i] = expected_iou(share, share > 0.5)
    return Masks(masks, quality)


def crop_box(box_xyxy: NDArray[np.float32], width: int, height: int) -> Box:
    """The crop of a photo around a box (4,).

    >>> crop_box(np.array([50, 50, 150, 100], np.float32), width=155, height=400)
    (40, 40, 155, 110)
    """
    margin = MARGIN * (box_xyxy[2:] - box_xyxy[:2]).max()
    return pixel_box(box_xyxy + margin * np.array([-1, -1, 1, 1], np.float32), width, height)


def expected_iou(share: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """The intersection over union to expect of a mask (H, W) with an object that covers `share` (H, W) of each pixel.

    >>> expected_iou(np.array([[1.0, 0.75, 0.25]], np.float32), np.array([[True, True, False]]))
    0.7777777777777778
    """
    union = mask.sum() + share[~mask].sum(dtype=np.float64)
    return float(share[mask].sum(dtype=np.float64) / max(union, 1))
