"""Options that several commands share, and the default paths."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from taming_core.storage.paths import AnyPath
else:
    AnyPath = Path  # of URLs `location` makes UPaths; importing them takes long, and --help needs none

RAW = Path("data/raw")
OBJECTS = Path("data/objects.parquet")
CAPTIONS = Path("data/captions.parquet")
ROWS = Path("data/rows")
ENCODER = Path("data/encoder")
EVALUATION = Path("data/evaluation")
JUDGES = Path("data/judges")

ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params", help="The params file. Default: params.yaml in the working directory, else that of the package."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="Of weights and computation: fp32, bf16 or fp16; the latter two halve the memory."
    ),
]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="Keep components in CPU memory until they are needed; slower, for a small GPU."),
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Folder or hub name of the encoder's base. Default: as the encoder names it."),
]


def location(text: str | Path) -> AnyPath:
    """A path or URL of the command line, such as data/raw or s3://bucket/photos; a default, which is a path, stays.

    Raises:
        TamingError: the URL cannot be used, see `as_path`.
    """
    if isinstance(text, Path) or "://" not in text:
        return Path(text)
    from taming_core.storage.paths import as_path

    return as_path(text)


def local_path(text: str | Path) -> Path:
    """A path of this machine on the command line; a default, which is a path, stays.

    Raises:
        TamingError: it is a URL.
    """
    if isinstance(text, Path):
        return text
    if "://" in text.removeprefix("file://"):
        from taming_core.errors import TamingError

        raise TamingError(f"{text} cannot be used here: this must be a file or folder of this machine. Name one, and "
                          "upload it when it is complete.")  # fmt: skip
    return Path(text.removeprefix("file://"))


CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        parser=local_path,
        metavar="<path>",
        help="With rows at a URL: keep a local copy here of each file that is needed. Default: fetch rows on access.",
    ),
]
RowsFolder = Annotated[
    AnyPath,
    typer.Option(
        "--in", parser=location, metavar="<path>", help="The folder of rows of `taming materialize`, or its URL."
    ),
]
RawFolder = Annotated[
    AnyPath,
    typer.Option(
        "--in",
        parser=location,
        metavar="<path>",
        help="Folder of photos, or its URL: s3://, gs://, hf://; sub-folders may name identities.",
        show_default=True,
    ),
]
Overrides = Annotated[
    AnyPath | None,
    typer.Option(
        "--overrides",
        parser=location,
        metavar="<path>",
        help="The table of what a person said of objects, or its URL. Default: overrides.parquet beside the table of "
        "objects, if it is there.",
    ),
]
Engine = Annotated[
    str, typer.Option("--engine", help="What makes the shards of the table: local, or ray for a cluster.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that read and decode photos ahead of the models; 0: threads of this process. Default: 0 for "
        "fewer than 1000 photos, else a process for each core but one, up to 16; of each actor of Ray at least one.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="The Ray cluster: auto, host:port, ray://host:port, or local for one of its own on this machine. Default: "
        "RAY_ADDRESS of the environment, else local.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        "--actors",
        min=1,
        help="Processes of Ray, each with the models in memory. Default: as many as --gpus and --cpus leave room for.",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        min=0,
        help="GPUs of each actor of Ray, such as 1, or 0.5 for two on one. Default: 1, if there are any.",
    ),
]
Cpus = Annotated[
    float | None,
    typer.Option(
        "--cpus", min=0.01, help="CPUs of each actor of Ray. Default: its share of those beside the GPUs, or 1."
    ),
]
