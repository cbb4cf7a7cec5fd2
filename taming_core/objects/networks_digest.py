"""What identifies the detector and the segmenter that params name, wherever their files lie."""

from pathlib import Path

from taming_core.fingerprints import digest, file_chunks
from taming_core.objects.published import DETECTOR, segmenter_role
from taming_core.params.sections import DetectParams
from taming_core.weights.digests import file_digest, weights_digest
from taming_core.weights.locate import PublishedWeights, find, weights_file
from taming_core.weights.mini import MINI

NO_FILE = ("none", "detector")  # specs that name no weights


def networks_digest(p: DetectParams) -> dict[str, str]:
    """16 hex digits for the detector's and for the segmenter's weights; the spec itself where it names none.

    Raises:
        TamingError: one of them is not on this machine.
    """
    return {
        "detector": _digest(p.detector, MINI / "detector", DETECTOR),
        "segmenter": _digest(p.segmenter, MINI / "segmenter", segmenter_role(p.segmenter)),
    }


def _digest(spec: str, mini: Path, role: PublishedWeights) -> str:
    if spec in NO_FILE:
        return spec
    path = mini if spec == "mini" else find(spec, role)
    weights, config = weights_digest(path), path / "config.json"
    if weights is not None and config.is_file():
        return digest([weights.encode(), *file_chunks(config)])
    return file_digest(weights_file(path, role))
