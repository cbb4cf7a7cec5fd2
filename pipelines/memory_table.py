"""Write the tables of GPU memory: all profiles and a sharded FLUX in docs/how-to/memory.md, each profile in its README.

Example:  python -m pipelines.memory_table
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from taming_core.params.load import Params, load_params
from taming_core.params.train import TrainParams
from taming_core.projects import profiles
from taming_core.projects.memory import GIB, MemoryNeed, memory_need

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "memory.md"
TABLE, SHARDED = ("<!-- table -->\n", "<!-- end of table -->\n"), ("<!-- sharded -->\n", "<!-- end of sharded -->\n")
SETTINGS = ("tune", "identity loss", "micro-batch", "checkpointing", "optimizer", "offload")
PARTS = ("weights", "gradients", "averages", "step", "in all")
HEAD, SHARDED_HEAD = ("profile", "GPU", *SETTINGS, *PARTS), ("GPUs", *PARTS)
YES = {True: "yes", False: "no"}
WHOLE_FLUX = {
    "train": {"tune": "whole", "lora": None, "denoiser_rate": 0.1, "micro_batch_size": 1},
}  # fmt: skip


def main() -> None:
    """Compute all tables, and write them into their pages."""
    rows = {profile: list(rows_of(profile)) for profile in (*profiles.BASES, *profiles.IP_ADAPTERS)}
    write(PAGE, TABLE, HEAD, [row for part in rows.values() for row in part])
    for profile, part in rows.items():
        write(profiles.folder(profile) / "README.md", TABLE, HEAD, part)
    write(PAGE, SHARDED, SHARDED_HEAD, [sharded_row(n) for n in (4, 8)])


def write(page: Path, marks: tuple[str, str], head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the table between two marks of the page."""
    before, rest = page.read_text(encoding="utf-8").split(marks[0])
    _, after = rest.split(marks[1])
    table = "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])
    page.write_text(f"{before}{marks[0]}\n{table}\n{marks[1]}{after}", encoding="utf-8")


def rows_of(profile: str) -> Iterable[list[str]]:
    """The rows of a profile, one for each preset."""
    for memory in profiles.memory_presets(profile):
        params = preset_params(profile, memory)
        row = [f"`{profile}`", f"{memory} GB", *settings(params.train), *gib(memory_need(params))]
        print(*row, flush=True)
        yield row


def preset_params(profile: str, memory: int) -> Params:
    """The params of a preset."""
    return params_of(profiles.params_text(profile, memory))


def params_of(text: str) -> Params:
    """The params of a params file with this text."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(text, encoding="utf-8")
        return load_params(Path(folder) / "params.yaml")


def sharded_row(processes: int) -> list[str]:
    """The row of FLUX that is trained as a whole, its weights shared by so many processes."""
    params = params_of(profiles.with_values(profiles.params_text("flux-ip-adapter", 80), WHOLE_FLUX))
    found = memory_need(params, processes)
    print("flux whole", processes, gib(found), flush=True)
    return [str(processes), *gib(found)]


def settings(p: TrainParams) -> list[str]:
    """What a preset changes, in the columns of `SETTINGS`."""
    return [p.tune, YES[p.identity_weight > 0], str(p.micro_batch_size), YES[p.gradient_checkpointing], p.optimizer,
            YES[p.offload]]  # fmt: skip


def gib(found: MemoryNeed) -> list[str]:
    """The parts of the memory and their sum, in GiB."""
    parts = (found.weights, found.gradients, found.optimizer, found.step, found.total)
    return [f"{part / GIB:.1f}" for part in parts]


if __name__ == "__main__":
    main()
