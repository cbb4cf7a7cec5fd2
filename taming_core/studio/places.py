"""Where the studio keeps what it shows and makes, below a project."""

from pathlib import Path

CACHE = Path("runs/studio")  # uploads, copies of what the page shows, corrected masks; safe to delete
MASKS = CACHE / "masks"  # of photos whose cut-outs a person corrected
OBJECTS = CACHE / "objects"  # folders of the photos of one object
IMAGES = Path("out/studio")  # drawn images and generation.json
