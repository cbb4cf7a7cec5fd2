"""ultralytics, kept from the network, from stray files and from unpickling.

Importing ultralytics looks a host up, writes settings below the user's configuration folder, and its default loader
unpickles. What is set here must be set before the first import, so nothing else imports it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from taming_core.weights.locate import cache_folder

INTEGRATIONS = ("sync", "raytune", "mlflow", "dvc", "clearml", "comet", "tensorboard", "wandb")


def import_ultralytics() -> ModuleType:
    """The ultralytics package; its files stay below `cache_folder()`."""
    folder = cache_folder()
    os.environ |= {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "0",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(folder),
        "ULTRALYTICS_SAFE_LOAD": "1",
    }
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))  # ultralytics imports it, and it writes as well
    _place_font(folder / "Ultralytics" / "Arial.ttf")
    threads = os.environ.get("OMP_NUM_THREADS")
    import ultralytics

    if threads is None:  # ultralytics sets it to 1, and all that computes afterwards would take it for the user's wish
        os.environ.pop("OMP_NUM_THREADS", None)
    known = {name: False for name in INTEGRATIONS if name in ultralytics.settings}
    if any(ultralytics.settings[name] for name in known):
        ultralytics.settings.update(known)
    return ultralytics


@contextmanager
def same_threads() -> Iterator[None]:
    """ultralytics leaves torch with a thread less than the CPU has cores; afterwards there are as many as before."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _place_font(target: Path) -> None:
    """ultralytics fetches a font that it does not find; a font that matplotlib brings along stands in."""
    if target.exists():
        return
    import matplotlib

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", target)
