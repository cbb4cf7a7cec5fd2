"""The record of a baseline, beside its weights: what it was trained on, and what that cost."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from taming_core.baselines.methods import Method
from taming_core.errors import TamingError
from taming_core.files import read_json, write_json
from taming_core.fingerprints import digest, fingerprint
from taming_core.images.families import TamingPipeline
from taming_core.params.baseline import BaselineParams

RECORD = "baseline.json"
OF_DREAMBOOTH = frozenset({"identifier", "prior"})  # params that Textual Inversion does not read


@dataclass(frozen=True)
class BaselineRecord:
    """A model tuned to one object."""

    method: Method
    noun: str | None  # the class noun; None where the class is not known
    words: str  # what stands for the object in prompts
    trained: list[str]  # component names of the networks with trained weights
    fingerprint: str  # of base, params, photos and class noun
    base: str  # digest of the base's weights
    photos: str  # digest of the photos
    steps: int
    seconds: float  # of the training on this object, without images that are drawn once for a class
    prior_seconds: float  # of drawing the class images; 0 where there are none, or they were there
    peak_bytes: int  # the most memory above what was used before: of the process on a CPU, allocated on a GPU
    bytes: int  # of the weights to keep for the object

    def write(self, folder: Path) -> None:
        """Write it to a folder."""
        write_json(folder / RECORD, asdict(self))


def read_record(folder: Path) -> BaselineRecord:
    """The record in a folder.

    Raises:
        TamingError: the folder holds none.
    """
    if not (folder / RECORD).is_file():
        raise TamingError(f"{folder} holds no baseline. Run `taming baseline` first, or name another folder.")
    return BaselineRecord(**read_json(folder / RECORD))


def finished(folder: Path, expected: str) -> BaselineRecord | None:
    """The record of a folder if it is that of the expected fingerprint."""
    found = read_record(folder) if (folder / RECORD).is_file() else None
    return found if found is not None and found.fingerprint == expected else None


def base_digest(pipeline: TamingPipeline) -> str:
    """16 hex digits of the text-to-image model: the weights of all its networks, and its noise schedule."""
    weights = (w for network in pipeline.family.networks.values() for w in network.state_dict().values())
    parts = (w.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data for w in weights)
    return digest((str(sorted(pipeline.scheduler.config.items())).encode(), digest(parts).encode()))


def fingerprint_of(method: Method, noun: str | None, base: str, photos: str, p: BaselineParams) -> str:
    """16 hex digits of everything that the trained weights depend on, and of the steps that are kept."""
    others = {"textual_inversion", "dreambooth", "dreambooth_lora"} - {method.replace("-", "_")}
    unread: Any = OF_DREAMBOOTH if method == "textual-inversion" else frozenset[str]()
    return fingerprint(p, method, str(noun), base, photos, without=unread | others | {"gradient_checkpointing"})
