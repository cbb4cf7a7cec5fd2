"""The detector, the segmenter and the classifier that params name, as callables."""

from typing import TYPE_CHECKING

from taming_core.objects.filters import Detector, Segmenter
from taming_core.params.sections import DetectParams, is_salient

if TYPE_CHECKING:
    from taming_core.objects.classifier import ObjectClassifier  # imports transformers


def load_networks(p: DetectParams, device: str) -> tuple[Detector, Segmenter | None]:
    """The detector and the segmenter of the params; no segmenter where the detector's masks are used.

    Raises:
        TamingError: one of them is not on this machine, or is not of a kind that is supported.
    """
    if p.detector == "none":
        from taming_core.objects.salient import load_salient_detector

        return load_salient_detector(p.segmenter, device, p.island), None
    from taming_core.objects.detector import load_detector

    detect = load_detector(
        p.detector, device, p.image_size, p.score_floor, p.max_found,
        classes=p.classes, with_masks=p.segmenter == "detector",
    )  # fmt: skip
    return detect, load_segmenter(p.segmenter, device)


def load_classifier(p: DetectParams, device: str) -> "ObjectClassifier | None":
    """The classifier of the params; None where objects keep the detector's class.

    Raises:
        TamingError: it is not on this machine, or `class_names` do not fit it.
    """
    if p.classifier is None:
        return None
    from taming_core.objects.classifier import load_object_classifier

    return load_object_classifier(p.classifier, p.class_names, device)


def load_segmenter(spec: str, device: str) -> Segmenter | None:
    """The segmenter of this name; None where the detector's masks are used.

    Raises:
        TamingError: it is not on this machine, or is not of a kind that is supported.
    """
    if spec == "detector":
        return None
    if is_salient(spec):
        from taming_core.objects.salient import load_salient_segmenter

        return load_salient_segmenter(spec, device)
    from taming_core.objects import segmenter

    return segmenter.load_segmenter(spec, device)
