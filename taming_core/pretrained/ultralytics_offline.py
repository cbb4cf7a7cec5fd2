"""ultralytics, kept from the network, from stray files and from unpickling.

Importing ultralytics looks a host up, writes settings below the user's configuration folder, and its default loader
unpickles. What is set here must be set before the first import, so nothing else imports it.
"""

import os
import shutil
from pathlib import Path
from types import ModuleType

from taming_core.pretrained.places import cache_folder

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"  # where their files are, to fetch by hand
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
    import ultralytics

    known = {name: False for name in INTEGRATIONS if name in ultralytics.settings}
    if any(ultralytics.settings[name] for name in known):
        ultralytics.settings.update(known)
    return ultralytics


def _place_font(target: Path) -> None:
    """ultralytics fetches a font that it does not find; a font that matplotlib brings along stands in."""
    if target.exists():
        return
    import matplotlib

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", target)
