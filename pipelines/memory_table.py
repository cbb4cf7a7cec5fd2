"""Write the table of docs/memory.md: the GPU memory of every preset of every profile.

Example:  python -m pipelines.memory_table docs/memory.md
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from taming_core.params.load import load_params
from taming_core.projects import profiles
from taming_core.projects.memory import GIB, MemoryNeed, memory_need

BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
HEAD = ("profile", "GPU", "micro-batch", "checkpointing", "optimizer", "offload", "weights", "gradients", "averages",
        "step", "in all")  # fmt: skip


def main(page: Path) -> None:
    """Replace the table of the page."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    lines = [HEAD, ["---"] * len(HEAD), *(row(p, m) for p in profiles.BASES for m in profiles.memory_presets(p))]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def row(profile: str, memory: int) -> list[str]:
    """The table row of one preset."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(profiles.params_text(profile, memory))
        params = load_params(Path(folder) / "params.yaml")
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
