"""Paths of `mini`, the models that ship with the package."""

from pathlib import Path

from taming_core.errors import TamingError

MINI = Path(__file__).parents[1] / "mini"  # one folder per model
PIPELINE = MINI / "encoder"
# The text-to-image model that `mini` was trained from; only in a checkout, not in the installed package.
BASE = Path(__file__).parents[2] / "pipelines" / "mini" / "base"


def encoder_folder(spec: str) -> Path:
    """The encoder folder of `mini`, or a folder that `taming train` wrote.

    Raises:
        TamingError: the folder holds no encoder.
    """
    folder = PIPELINE if spec == "mini" else Path(spec)
    if not (folder / "model_index.json").is_file():
        raise TamingError(f"{folder} holds no encoder. Run `taming train` first, or name `mini` or another folder.")
    return folder
