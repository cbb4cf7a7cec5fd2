"""Classes of open-vocabulary detectors: text embeddings by the text encoder that the detector was trained with.

YOLO-World (Cheng et al., 2024) uses CLIP ViT-B/32, YOLOE (Wang et al., 2025) MobileCLIP, which is published as
TorchScript. Class names that are built into a checkpoint need neither: its stored embeddings are used.
"""

import re
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.objects.published import YOLO_RELEASE
from taming_core.weights.load import LOAD_ERRORS, no_progress_bars
from taming_core.weights.locate import find_on_disk, weights_folder

CLIP = "openai/clip-vit-base-patch32"
CLIP_FILES = "config.json tokenizer.json tokenizer_config.json vocab.json merges.txt"
SCRIPTS = {"mobileclip:blt": "mobileclip_blt.ts", "mobileclip2:b": "mobileclip2_b.ts"}  # as ultralytics names them
LENGTH = 77  # CLIP's context length, in tokens
# TorchScript is code. It can neither import modules nor start processes, but these access files or the network.
UNSAFE = re.compile(r"\.\s*(save|from_file|rpc_\w+)\b|\bops\s*\.\s*(?!prim\b)\w+|\btorch\s*\.\s*classes\b")


def set_classes(yolo: Any, classes: Sequence[str] | None, near: Path) -> None:
    """Set the classes that an `ultralytics.YOLO` model detects; None keeps its built-in ones.

    The files of the text encoder are searched for in the folder `near`, the working directory and `weights_folder()`.

    Raises:
        TamingError: the vocabulary is closed, or empty and `classes` is None, or a file of the text encoder is missing.
    """
    if not is_open(yolo.model):
        if classes is not None:
            raise TamingError(
                "The detector has a closed vocabulary, so detect.classes has no effect. Set it to null, or "
                "detect.detector to a YOLOE or YOLO-World checkpoint."
            )
        return
    known = builtin_classes(yolo.model)
    if classes is None:
        if not known:
            raise TamingError(
                "The detector has no built-in vocabulary. Set detect.classes to the classes to detect, or "
                "detect.detector to a prompt-free checkpoint such as yoloe-11s-seg-pf.pt."
            )
    elif list(classes) != known:
        _set_texts(yolo.model, _checked_names(classes), known, near)


def is_open(model: Any) -> bool:
    """Whether an ultralytics model has an open vocabulary."""
    from ultralytics.nn.tasks import WorldModel, YOLOEModel

    return isinstance(model, (WorldModel, YOLOEModel))


def builtin_classes(model: Any) -> list[str]:
    """The classes that an open-vocabulary model detects as loaded, in order; [] if it has none."""
    classes: dict[int, str] | list[str] = model.names
    names = list(classes.values()) if isinstance(classes, dict) else classes
    return list(names) if _is_world(model) or hasattr(model, "pe") or _has_fixed_classes(model) else []


def _is_world(model: Any) -> bool:
    return hasattr(model, "txt_feats")


def _has_fixed_classes(model: Any) -> bool:
    """Whether the classes of a YOLOE are fused into its weights."""
    return hasattr(model.model[-1], "lrpc") or model.model[-1].is_fused


def _checked_names(classes: Sequence[str]) -> list[str]:
    names = [name.strip() for name in classes]
    if not names or "" in names or len(set(names)) < len(names):
        raise TamingError("detect.classes needs class names, each of them once. Set it to null for the detector's own.")
    return names


def _set_texts(model: Any, classes: list[str], known: list[str], near: Path) -> None:
    if not _is_world(model) and _has_fixed_classes(model):
        raise TamingError(
            f"The detector's {len(known)} classes are part of its weights. Set detect.classes to null, or "
            "detect.detector to a checkpoint that takes texts, such as yoloe-11s-seg.pt."
        )
    if set(classes) <= set(known):
        stored = model.txt_feats if _is_world(model) else model.pe
        embeddings = stored[:, [known.index(name) for name in classes]]
    else:
        embeddings = _embeddings(model, classes, near)
    if _is_world(model):
        model.txt_feats, model.model[-1].nc = embeddings, len(classes)
        model.names = dict(enumerate(classes))
    else:
        model.set_classes(classes, embeddings)


@torch.no_grad()
def _embeddings(model: Any, classes: list[str], near: Path) -> Float[Tensor, "1 classes width"]:
    """The embeddings that ultralytics would compute, without its downloads and package installation."""
    if _is_world(model):
        return clip_features(classes, near)[None]
    return model.model[-1].get_tpe(script_features(SCRIPTS[model.text_model], classes, near)[None])


def clip_features(texts: list[str], near: Path) -> Float[Tensor, "n width"]:
    """CLIP ViT-B/32's features of texts, of unit length."""
    from transformers import CLIPTextModelWithProjection  # slow to import, and rarely needed

    with _as_missing_files(CLIP, ""), no_progress_bars():
        kind: Any = CLIPTextModelWithProjection
        network = kind.from_pretrained(_clip(near), dtype=torch.float32)
    tokens = clip_tokens(texts, near, network.config.max_position_embeddings)
    return F.normalize(network.eval()(input_ids=tokens).text_embeds, dim=-1)


def script_features(file: str, texts: list[str], near: Path) -> Float[Tensor, "n width"]:
    """The features of texts by a text encoder in TorchScript, not normalized."""
    path = find_on_disk(file, near)
    if path is None:
        raise TamingError(
            f"detect.classes needs the text encoder {file}, which is neither beside the detector nor in the working "
            f"directory nor in {weights_folder()}. Download {YOLO_RELEASE}/{file} into one of them."
        )
    return _load_script(path)(clip_tokens(texts, near, LENGTH))


def _load_script(path: Path) -> Any:
    """The module of a TorchScript file whose code is safe; raises TamingError for any other file."""
    jit: Any = torch.jit  # partly untyped
    try:
        return jit.load(_checked_script(path), map_location="cpu")
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, RuntimeError) as error:
        raise TamingError(f"{path} is no TorchScript file, or is damaged. Download it again.") from error


def _checked_script(path: Path) -> BytesIO:
    """A TorchScript file of the entries that were checked: PyTorch reads zip archives in another way than Python.

    It takes the first of two entries of one name, names in any case, and a table of contents in another place.

    Raises:
        TamingError: its code contains unsafe operations, or two entries have one name.
    """
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    code = [data.decode() for name, data in entries if name.lower().endswith(".py")]
    if len({name.lower() for name, _ in entries}) < len(entries):
        raise TamingError(f"{path} is not run, for it holds two entries of one name. Download it from {YOLO_RELEASE}.")
    if match := next(filter(None, map(UNSAFE.search, code)), None):
        raise TamingError(f"{path} is not run, for its code holds `{match[0]}`. Download it from {YOLO_RELEASE}.")
    copy = BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    copy.seek(0)
    return copy


def clip_tokens(texts: list[str], near: Path, length: int) -> Int[Tensor, "n length"]:
    """Token ids of texts by CLIP's tokenizer, with start and end tokens, padded with zeros."""
    from transformers import AutoTokenizer

    with _as_missing_files(CLIP, CLIP_FILES), no_progress_bars():
        kind: Any = AutoTokenizer
        tokenizer = kind.from_pretrained(_clip(near))
    rows = tokenizer(texts, truncation=True, max_length=length).input_ids
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def _clip(near: Path) -> str:
    """The folder of CLIP ViT-B/32, or its name on the hub."""
    return str(find_on_disk(CLIP.split("/")[1], near) or CLIP)


@contextmanager
def _as_missing_files(repo: str, files: str) -> Generator[None, None, None]:
    try:
        yield
    except LOAD_ERRORS as error:
        raise TamingError(
            f"detect.classes needs CLIP's text encoder or tokenizer, and {repo} is not on this machine. Run "
            f"`hf download {f'{repo} {files}'.strip()}` where there is a network, or put its files into a folder "
            f"{repo.split('/')[1]} beside the detector or in {weights_folder()}."
        ) from error
