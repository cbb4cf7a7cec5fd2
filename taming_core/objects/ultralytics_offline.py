"""Importing ultralytics without network access, files outside the cache folder, and unpickling.

On import ultralytics resolves a host name and writes settings below the user's configuration folder, and its default
loader unpickles. The variables below must be set before the first import, so no other module imports it.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from taming_core.weights.locate import cache_folder

INTEGRATIONS = ("sync", "raytune", "mlflow", "dvc", "clearml", "comet", "tensorboard", "wandb")


def import_ultralytics() -> Any:
    """The ultralytics package; its files stay below `settings_folder()`."""
    folder = settings_folder()
    os.environ |= {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "0",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(folder),
        "ULTRALYTICS_SAFE_LOAD": "1",
    }
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))  # matplotlib, which it imports, writes files too
    _place_font(folder / "Ultralytics" / "Arial.ttf")
    threads = os.environ.get("OMP_NUM_THREADS")
    import ultralytics

    if threads is None:  # ultralytics sets it to 1, which would slow down everything else
        os.environ.pop("OMP_NUM_THREADS", None)
    settings: Any = ultralytics.settings
    disabled = {name: False for name in INTEGRATIONS if name in settings}
    if any(settings[name] for name in disabled):
        settings.update(disabled)
    return ultralytics


@contextmanager
def keep_thread_count() -> Generator[None, None, None]:
    """Restores torch's number of threads after the block: ultralytics sets it to the number of cores minus one."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def settings_folder() -> Path:
    """`cache_folder()`, or a temporary folder, removed at exit, where that cannot be written."""
    folder = cache_folder()
    with suppress(OSError):
        (folder / "Ultralytics").mkdir(parents=True, exist_ok=True)
    if os.access(folder / "Ultralytics", os.W_OK):
        return folder
    folder = Path(tempfile.mkdtemp(prefix="taming-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _place_font(target: Path) -> None:
    """Put matplotlib's font where ultralytics expects one, which it would download."""
    if target.exists():
        return
    import matplotlib

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", target)
