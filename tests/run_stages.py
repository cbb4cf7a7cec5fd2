"""What a stage needs and DVC has not run yet, in its order, all in this process; then DVC records their results.

It runs in the folder of a project: `python run_stages.py pipelines/mini/dvc.yaml card`.
"""

import runpy
import shlex
import sys
from pathlib import Path

import networkx
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from stages.process import prepare


def main(chain: str, target: str) -> None:
    prepare()
    with Repo() as repo:
        todo = stages_before(repo, chain, target)
    for stage in todo:
        missing = [str(d) for d in stage.deps if not d.exists]
        assert not missing, f"{stage.addressing} needs {missing}, which no stage before it has made"
        execute(stage.cmd)
    with Repo() as repo:
        for stage in todo:
            repo.commit(stage.addressing, force=True)


def stages_before(repo: Repo, chain: str, target: str) -> list[PipelineStage]:
    """The target and what it needs, each after those that make its inputs; what is in dvc.lock has run."""
    lock = Path(chain).with_suffix(".lock")
    done = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    graph = repo.index.graph  # its arrows lead to what a stage needs
    (last,) = repo.stage.collect(f"{chain}:{target}")
    order = reversed(list(networkx.topological_sort(graph.subgraph({last, *networkx.descendants(graph, last)}))))
    return [stage for stage in order if stage.name not in done]


def execute(command: str) -> None:
    """Run `python -m MODULE ...` or `taming ...` in this process, so that imports are shared between stages."""
    program, *arguments = shlex.split(command)
    before = sys.argv
    try:
        if program == "python":
            _, module, *arguments = arguments  # the first is -m
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            from stages.cli import main as taming

            sys.argv = [program, *arguments]
            taming()
    except SystemExit as end:  # typer ends so
        if end.code:
            raise
    finally:
        sys.argv = before


if __name__ == "__main__":
    main(*sys.argv[1:])
