"""Where the weights of the embedded default, `mini`, are."""

from pathlib import Path

from taming_core.errors import TamingError

MINI = Path(__file__).parents[1] / "mini"  # a folder for each model
PIPELINE = MINI / "encoder"
# The text-to-image model that `mini` was trained from; it is in a checkout, and not in the installed package.
BASE = Path(__file__).parents[2] / "pipelines" / "mini" / "base"


def encoder_folder(spec: str) -> Path:
    """The folder of `mini`, or the one that `taming train` wrote.

    Raises:
        TamingError: there is none.
    """
    folder = PIPELINE if spec == "mini" else Path(spec)
    if not (folder / "model_index.json").is_file():
        raise TamingError(f"{folder} holds no encoder. Run `taming train` first, or name `mini` or another folder.")
    return folder
