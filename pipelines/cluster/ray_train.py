"""Train by Ray Train, on one machine or a cluster.

    python pipelines/cluster/ray_train.py --workers 16 -- --in data/rows --out data/encoder

What follows `--` goes to `taming train`. Of a cluster all machines see the working directory, by the same path.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def train(config: dict[str, Any]) -> None:
    """`taming train` as one of Ray's workers, which has joined the process group."""
    from stages.cli import app
    from stages.process import prepare

    os.chdir(config["folder"])
    prepare()
    app(["train", *config["arguments"]], standalone_mode=False)


def main(
    arguments: Annotated[list[str] | None, typer.Argument(help="Of `taming train`.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes, of all machines together.", min=1)] = 2,
    gpu: Annotated[bool, typer.Option("--gpu/--no-gpu", help="Whether each has a GPU of its own.")] = True,
    restarts: Annotated[
        int, typer.Option("--restarts", help="How often the training goes on by itself after a worker is lost.", min=0)
    ] = 3,
) -> None:
    """Train an object encoder in Ray's workers; a lost one is replaced, and all go on from the last saved state."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder = Path.cwd()
    TorchTrainer(
        train,
        train_loop_config={"folder": str(folder), "arguments": arguments or []},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            storage_path=str(folder / "runs" / "ray"), failure_config=FailureConfig(max_failures=restarts)
        ),
    ).fit()


if __name__ == "__main__":
    typer.run(main)
