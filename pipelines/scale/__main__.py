"""Measure the data stages on generated photos: photos per second, memory of all processes, seconds lost to SIGKILL.

Example:  python -m pipelines.scale --out out/scale --photos 1000 --photos 10000 --photos 100000
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.scale import photos as generated
from pipelines.scale import report, steps


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder for photos, tables and results.")] = Path("out/scale"),
    photos: Annotated[
        list[int] | None, typer.Option("--photos", min=1, help="Number of photos; repeatable. Default: 1000 and 10000.")
    ] = None,
    undisturbed: Annotated[
        int,
        typer.Option("--undisturbed", help="Up to so many photos, stages also run without a kill, to compare tables."),
    ] = 10_000,
    only: Annotated[list[str] | None, typer.Option("--only", help="A stage; repeatable. Default: all.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="--workers of the stages. Default: theirs.")] = None,
) -> None:
    """Generate photos, and run each stage on them; what is measured already is kept, so that a rerun goes on.

    A stage is killed (SIGKILL) when a third of its shards is finished, and started again.
    """
    params = out / "params.yaml"
    steps.write_params(params)
    words = () if workers is None else ("--workers", str(workers))
    for count in sorted(photos or [1000, 10_000]):
        raw = generated.make(count, out / "photos" / str(count), params)
        for kind in ("whole", "killed")[count > undisturbed :]:
            for stage in (s for s in steps.STAGES if s in (only or steps.STAGES)):
                steps.measure(stage, raw, count, out / str(count) / kind, params, words, kind == "killed")
                report.write(steps.results(out), out)
    print(report.markdown(steps.results(out)))


if __name__ == "__main__":
    typer.run(main)
