"""Load the components of a text-to-image model."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from huggingface_hub import constants, try_to_load_from_cache

from taming_core.bases.families import family_class
from taming_core.bases.supported import Config, require_text_to_image
from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.weights.digests import weight_files
from taming_core.weights.load import no_progress_bars
from taming_core.weights.locate import is_hub_name
from taming_core.weights.mini import BASE

Dtypes = torch.dtype | Mapping[str, torch.dtype]  # of all networks, or by component with `default` for the others


def load_base(
    spec: str, dtype: Dtypes = torch.float32, names: Collection[str] | None = None, revision: str | None = None
) -> dict[str, Any]:
    """The components of a text-to-image model, by their names in diffusers pipelines.

    Weights are read in their final precision, one tensor at a time, so that memory never holds a second copy.

    Args:
        spec: `mini`, a folder in the layout of diffusers, or a hub name.
        dtype: the precision of the weights.
        names: of the components; None for all.
        revision: a commit on the hub; None for the newest.

    Raises:
        TamingError: there is no such model, its family is not supported, or it takes more than a text.
    """
    if spec == "mini" and not BASE.is_dir():
        raise TamingError("The base model `mini` is not in the installed package. Train in a checkout of the project, "
                          "set train.start to mini, or name another train.base.")  # fmt: skip
    # Offline the loader of tokenizers asks the hub for files that a repository does not have, so it gets the folder.
    place = str(folder_of(spec, revision)) if constants.HF_HUB_OFFLINE else place_of(spec)
    with as_base_error(spec):
        kinds = component_kinds(spec, place, revision)
        logging.disable_progress_bar()  # of diffusers; `no_progress_bars` does it for transformers
        with no_progress_bars():
            return {n: _component(place, n, kinds[n], dtype_of(n, dtype), revision) for n in names or kinds}


@contextmanager
def as_base_error(spec: str) -> Generator[None]:
    """Turns what diffusers raises in the block for a missing model or a missing part of one into a TamingError."""
    try:
        yield
    except (OSError, KeyError) as error:
        raise TamingError(f"There is no text-to-image model {spec}. Name `mini`, a folder in the layout of "
                          f"diffusers, or one that `hf download {spec}` finds.") from error  # fmt: skip


def component_kinds(spec: str, place: str, revision: str | None = None) -> dict[str, list[str]]:
    """Library and class of each component that a base has, by its name; only configs are read.

    Raises:
        OSError, KeyError: there is no such model.
        TamingError: its family is not supported, or it takes more than a text.
    """
    index = model_index(place, revision)
    family = family_class(index)
    require_text_to_image(spec, configs_of(place, index, family.denoiser_name, revision))
    return {n: index[n] for n in family.component_names() if index.get(n, [None])[0] is not None}


def require_base(spec: str, folder: Path) -> None:
    """Check the base `spec`, whose files are in `folder`, as `load_base` does, but without reading its weights.

    Raises:
        TamingError: `load_base` would raise it, or a network has no weights.
    """
    with as_base_error(spec):
        kinds = component_kinds(spec, str(folder))
    for name in kinds:
        if name != "scheduler" and not name.startswith("tokenizer") and not weight_files(folder / name):
            raise TamingError(f"{folder / name} holds no weights in the safetensors format. Get the whole model, such "
                              "as by `hf download`.")  # fmt: skip


def place_of(spec: str) -> str:
    """The argument of `from_pretrained`: the folder of `mini`, a folder, or a hub name."""
    return str(BASE) if spec == "mini" else str(Path(spec).expanduser())


def folder_of(spec: str, revision: str | None = None) -> Path:
    """The folder with the files of a model that has been loaded: for a hub name that of the revision in the cache."""
    place = Path(place_of(spec))
    if place.is_dir():
        return place
    found = try_to_load_from_cache(spec, "model_index.json", revision=revision) if is_hub_name(spec) else None
    return Path(found).parent if isinstance(found, str) else place


def dtype_of(name: str, dtype: Dtypes) -> torch.dtype:
    """The precision of a component."""
    return dtype if isinstance(dtype, torch.dtype) else dtype.get(name, dtype["default"])


def model_index(place: str, revision: str | None = None) -> dict[str, Any]:
    """Library and class of every component, from model_index.json; guessed for `mini` and old folders without it.

    Raises:
        OSError: there is no such model.
    """
    folder = Path(place)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        if not (folder / "unet" / "config.json").is_file():
            raise OSError(f"{folder} holds no model")
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")["_class_name"]
        return {
            "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "AutoTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", scheduler],
        }  # fmt: skip
    pipeline_class: Any = DiffusionPipeline
    return dict(pipeline_class.load_config(place, revision=revision))


def configs_of(place: str, index: Mapping[str, Any], denoiser: str, revision: str | None) -> dict[str, Config]:
    """The configs of denoiser and autoencoder, and empty ones of the other components that the index has."""
    present: dict[str, Config] = {
        name: {} for name, kind in index.items() if isinstance(kind, list) and kind[0] is not None
    }
    library: Any = diffusers
    networks = {
        n: getattr(library, index[n][1]).load_config(place, subfolder=n, revision=revision) for n in ("vae", denoiser)
    }
    return present | networks


def _component(place: str, name: str, kind: list[str], dtype: torch.dtype, revision: str | None) -> Any:
    """A component in the class [library, class] of the index."""
    files: dict[str, Any] = {"subfolder": name, "revision": revision}
    if name.startswith("tokenizer"):  # whatever class the index has: the newest one reads the files of all
        auto_tokenizer: Any = transformers.AutoTokenizer
        return auto_tokenizer.from_pretrained(place, **files)
    library: Any = {"diffusers": diffusers, "transformers": transformers}[kind[0]]
    component_class = getattr(library, kind[1])
    if name == "scheduler":
        return component_class.from_pretrained(place, **files)
    return component_class.from_pretrained(place, **files, dtype=dtype, use_safetensors=True)
