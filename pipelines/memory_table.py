"""Write the tables of docs/memory.md: the GPU memory of every preset of every profile, and of a sharded FLUX.

Example:  python -m pipelines.memory_table docs/memory.md
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from taming_core.params.load import Params, load_params
from taming_core.projects import profiles
from taming_core.projects.memory import GIB, MemoryNeed, memory_need

TABLE, SHARDED = ("<!-- table -->\n", "<!-- end of table -->\n"), ("<!-- sharded -->\n", "<!-- end of sharded -->\n")
HEAD = ("profile", "GPU", "micro-batch", "checkpointing", "optimizer", "offload", "weights", "gradients", "averages",
        "step", "in all")  # fmt: skip
SHARDED_HEAD = ("GPUs", "weights", "gradients", "averages", "step", "in all")
WHOLE_FLUX = {"train": {"tune": "whole", "denoiser_rate": 0.1, "micro_batch_size": 1}}


def main(page: Path) -> None:
    """Replace the tables of the page."""
    write(page, TABLE, HEAD, [row(p, m) for p in profiles.BASES for m in profiles.memory_presets(p)])
    write(page, SHARDED, SHARDED_HEAD, [sharded_row(n) for n in (4, 8)])


def write(page: Path, marks: tuple[str, str], head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the table between two marks of the page."""
    before, rest = page.read_text().split(marks[0])
    _, after = rest.split(marks[1])
    table = "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])
    page.write_text(f"{before}{marks[0]}\n{table}\n{marks[1]}{after}")


def params_of(text: str) -> Params:
    """The params of a params file with this text."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(text)
        return load_params(Path(folder) / "params.yaml")


def sharded_row(processes: int) -> list[str]:
    """The row of FLUX that is trained as a whole, its weights shared by so many processes."""
    params = params_of(profiles.with_values(profiles.params_text("flux", 80), WHOLE_FLUX))
    found = memory_need(params, processes)
    print("flux whole", processes, gib(found), flush=True)
    return [str(processes), *gib(found)]


def row(profile: str, memory: int) -> list[str]:
    """The table row of one preset."""
    params = params_of(profiles.params_text(profile, memory))
    p, found = params.train, memory_need(params)
    print(profile, memory, gib(found), flush=True)
    yes = {True: "yes", False: "no"}
    return [f"`{profile}`", f"{memory} GB", str(p.micro_batch_size), yes[p.gradient_checkpointing], p.optimizer,
            yes[p.offload], *gib(found)]  # fmt: skip


def gib(found: MemoryNeed) -> list[str]:
    """The parts of the memory and their sum, in GiB."""
    parts = (found.weights, found.gradients, found.optimizer, found.step, found.total)
    return [f"{part / GIB:.1f}" for part in parts]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
