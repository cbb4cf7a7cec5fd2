"""Published weights of detectors and segmenters, by their common names."""

from taming_core.params.sections import SALIENT_SEGMENTERS, is_salient
from taming_core.weights.locate import PublishedWeights

YOLO_RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"  # for manual downloads
SAM_RELEASE = "https://dl.fbaipublicfiles.com/segment_anything"
REMBG_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"  # ONNX of the authors' weights

PUBLISHED = (
    *(f"yolo{version}{size}{head}" for version in ("11", "26", "v8") for size in "nsmlx" for head in ("-seg", "")),
    *(f"yolo12{size}" for size in "nsmlx"),
    *(f"yoloe-{family}{size}-seg{free}" for family in ("11", "v8") for size in "sml" for free in ("", "-pf")),
    *(f"yoloe-26{size}-seg{free}" for size in "nsmlx" for free in ("", "-pf")),
    *(f"yolov8{size}-world{version}" for size in "smlx" for version in ("v2", "")),
)
DETECTOR = PublishedWeights(
    "detector", "detect.detector", (".pt",), "best.pt", {name: f"{YOLO_RELEASE}/{name}.pt" for name in PUBLISHED},
    licence="AGPL-3.0",
)  # fmt: skip

SAMS = ("sam_vit_b_01ec64", "sam_vit_l_0b3195", "sam_vit_h_4b8939")
SEGMENTER = PublishedWeights(
    "segmenter", "detect.segmenter", (".pth", ".safetensors"), "model.safetensors",
    {name: f"{SAM_RELEASE}/{file}.pth" for file in SAMS for name in (file[:9], file)},
    licence="Apache-2.0",
)  # fmt: skip

SALIENT_SEGMENTER = PublishedWeights(
    "salient-object segmenter", "detect.segmenter", (".onnx",), "model.onnx",
    {name: f"{REMBG_RELEASE}/{file}.onnx" for name, file in SALIENT_SEGMENTERS.items()},
    licence="MIT or Apache-2.0",
)  # fmt: skip


def segmenter_role(spec: str) -> PublishedWeights:
    """The role of the segmenter that `detect.segmenter` names."""
    return SALIENT_SEGMENTER if is_salient(spec) else SEGMENTER
