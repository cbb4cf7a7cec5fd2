"""Write the tables of GPU memory: of every profile in docs/memory.md, of each profile in its README.

Example:  python -m pipelines.memory_table
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from taming_core.params.load import Params, load_params
from taming_core.params.train import TrainParams
from taming_core.projects import profiles
from taming_core.projects.memory import GIB, MemoryNeed, memory_need

PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
SETTINGS = ("tune", "identity loss", "micro-batch", "checkpointing", "optimizer", "offload")
HEAD = ("profile", "GPU", *SETTINGS, "weights", "gradients", "averages", "step", "in all")
YES = {True: "yes", False: "no"}


def main() -> None:
    """Compute all tables, and write them into their pages."""
    rows = {profile: list(rows_of(profile)) for profile in (*profiles.BASES, *profiles.IP_ADAPTERS)}
    write_table(PAGE, (row for part in rows.values() for row in part))
    for profile, part in rows.items():
        write_table(profiles.folder(profile) / "README.md", part)


def rows_of(profile: str) -> Iterable[list[str]]:
    """The rows of a profile, one for each preset."""
    for memory in profiles.memory_presets(profile):
        params = preset_params(profile, memory)
        row = [f"`{profile}`", f"{memory} GB", *settings(params.train), *gib(memory_need(params))]
        print(*row, flush=True)
        yield row


def preset_params(profile: str, memory: int) -> Params:
    """The params of a preset."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(profiles.params_text(profile, memory))
        return load_params(path)


def settings(p: TrainParams) -> list[str]:
    """What a preset changes, in the columns of `SETTINGS`."""
    return [p.tune, YES[p.identity_weight > 0], str(p.micro_batch_size), YES[p.gradient_checkpointing], p.optimizer,
            YES[p.offload]]  # fmt: skip


def gib(found: MemoryNeed) -> list[str]:
    """The parts of the memory and their sum, in GiB."""
    parts = (found.weights, found.gradients, found.optimizer, found.step, found.total)
    return [f"{part / GIB:.1f}" for part in parts]


def write_table(page: Path, rows: Iterable[list[str]]) -> None:
    """Replace the table of a page."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    table = "".join(f"| {' | '.join(line)} |\n" for line in (HEAD, ["---"] * len(HEAD), *rows))
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
