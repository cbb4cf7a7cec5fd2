"""What a detector of open vocabulary looks for: words, as the text network that it grew up with sees them.

YOLO-World (Cheng et al., 2024) reads CLIP ViT-B/32, YOLOE (Wang et al., 2025) reads MobileCLIP, which its authors give
away as TorchScript. Words that a checkpoint knows already need neither: its own embeddings of them are used.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.objects.published import YOLO_RELEASE
from taming_core.weights.load import LOAD_ERRORS, no_progress_bars
from taming_core.weights.locate import on_disk, weights_folder

CLIP = "openai/clip-vit-base-patch32"
CLIP_FILES = "config.json tokenizer.json tokenizer_config.json vocab.json merges.txt"
SCRIPTS = {"mobileclip:blt": "mobileclip_blt.ts", "mobileclip2:b": "mobileclip2_b.ts"}  # as ultralytics names them
LENGTH = 77  # tokens of CLIP's texts
# TorchScript is a program, though one that can neither import nor start anything. These let it touch files or machines.
REACHING_OUT = re.compile(r"\.\s*(save|from_file|rpc_\w+)\b|\bops\s*\.\s*(?!prim\b)\w+|\btorch\s*\.\s*classes\b")


def set_classes(yolo: Any, classes: Sequence[str] | None, near: Path) -> None:
    """Let an `ultralytics.YOLO` model look for `classes`; None leaves it those it comes with.

    The files of the text network are looked for in the folder `near`, in the working directory and in
    `places.weights_folder()`. Raises TamingError if the model's vocabulary is closed, or empty and none is given, or if
    a file of the text network is missing.
    """
    if not is_open(yolo.model):
        if classes is not None:
            raise TamingError(
                "The detector has a closed vocabulary, so detect.classes has no effect. Set it to null, or "
                "detect.detector to a YOLOE or YOLO-World checkpoint."
            )
        return
    known = own_classes(yolo.model)
    if classes is None:
        if not known:
            raise TamingError(
                "The detector has no vocabulary of its own. Set detect.classes to what to look for, or "
                "detect.detector to a prompt-free checkpoint such as yoloe-11s-seg-pf.pt."
            )
    elif list(classes) != known:
        _say(yolo.model, _checked(classes), known, near)


def is_open(model: Any) -> bool:
    """Whether a network of ultralytics takes its classes as texts."""
    from ultralytics.nn.tasks import WorldModel, YOLOEModel

    return isinstance(model, (WorldModel, YOLOEModel))


def own_classes(model: Any) -> list[str]:
    """The classes that a network of open vocabulary finds as it stands, in order; [] if none were given to it."""
    names = list(model.names.values()) if isinstance(model.names, dict) else list(model.names)
    return names if _is_world(model) or hasattr(model, "pe") or _is_settled(model) else []


def _is_world(model: Any) -> bool:
    return hasattr(model, "txt_feats")


def _is_settled(model: Any) -> bool:
    """Whether the classes of a YOLOE are part of its weights, for good."""
    return hasattr(model.model[-1], "lrpc") or model.model[-1].is_fused


def _checked(classes: Sequence[str]) -> list[str]:
    words = [word.strip() for word in classes]
    if not words or "" in words or len(set(words)) < len(words):
        raise TamingError("detect.classes needs words, each of them once. Set it to null for the detector's own.")
    return words


def _say(model: Any, classes: list[str], known: list[str], near: Path) -> None:
    if not _is_world(model) and _is_settled(model):
        raise TamingError(
            f"The detector's {len(known)} classes are part of its weights. Set detect.classes to null, or "
            "detect.detector to a checkpoint that takes texts, such as yoloe-11s-seg.pt."
        )
    if set(classes) <= set(known):
        own = model.txt_feats if _is_world(model) else model.pe
        embeddings = own[:, [known.index(word) for word in classes]]
    else:
        embeddings = _embeddings(model, classes, near)
    if _is_world(model):
        model.txt_feats, model.model[-1].nc = embeddings, len(classes)
        model.names = dict(enumerate(classes))
    else:
        model.set_classes(classes, embeddings)


@torch.no_grad()
def _embeddings(model: Any, classes: list[str], near: Path) -> Float[Tensor, "1 classes width"]:
    """As ultralytics computes them, which fetches a text network and installs a package for it."""
    if _is_world(model):
        return clip_features(classes, near)[None]
    return model.model[-1].get_tpe(script_features(SCRIPTS[model.text_model], classes, near)[None])


def clip_features(texts: list[str], near: Path) -> Float[Tensor, "n width"]:
    """CLIP ViT-B/32's features of texts, of unit length."""
    from transformers import CLIPTextModelWithProjection  # seconds, which a detector of no words does not need

    with _fetched(CLIP, ""), no_progress_bars():
        network: Any = CLIPTextModelWithProjection.from_pretrained(_clip(near), dtype=torch.float32)
    tokens = clip_tokens(texts, near, network.config.max_position_embeddings)
    return F.normalize(network.eval()(input_ids=tokens).text_embeds, dim=-1)


def script_features(file: str, texts: list[str], near: Path) -> Float[Tensor, "n width"]:
    """The features of texts by a text network in TorchScript, as it gives them."""
    path = on_disk(file, near)
    if path is None:
        raise TamingError(
            f"detect.classes needs the text network {file}, which is neither beside the detector nor in the working "
            f"directory nor in {weights_folder()}. Download {YOLO_RELEASE}/{file} into one of them."
        )
    _require_harmless(path)
    return torch.jit.load(path, map_location="cpu")(clip_tokens(texts, near, LENGTH))


def _require_harmless(path: Path) -> None:
    """TorchScript is code, so it is read before it is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            code = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise TamingError(f"{path} is no TorchScript file, or is damaged. Download it again.") from error
    if found := next(filter(None, map(REACHING_OUT.search, code)), None):
        raise TamingError(f"{path} is not run, for its code holds `{found[0]}`. Download it from {YOLO_RELEASE}.")


def clip_tokens(texts: list[str], near: Path, length: int) -> Int[Tensor, "n length"]:
    """Texts as CLIP's own tokenizer gives them: opened, closed, and filled up with zeros."""
    from transformers import AutoTokenizer

    with _fetched(CLIP, CLIP_FILES), no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(_clip(near))
    rows = tokenizer(texts, truncation=True, max_length=length).input_ids
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def _clip(near: Path) -> str:
    """The folder of CLIP ViT-B/32, or its name on the hub."""
    return str(on_disk(CLIP.split("/")[1], near) or CLIP)


@contextmanager
def _fetched(repo: str, files: str) -> Iterator[None]:
    try:
        yield
    except LOAD_ERRORS as error:
        raise TamingError(
            f"detect.classes needs CLIP's text network or tokenizer, and {repo} is not on this machine. Run "
            f"`hf download {f'{repo} {files}'.strip()}` where there is a network, or put its files into a folder "
            f"{repo.split('/')[1]} beside the detector or in {weights_folder()}."
        ) from error
