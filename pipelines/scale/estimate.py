"""Compute what data stages take on millions of photos, from the costs of one: tables of docs/explanation/scale.md.

Example:  python -m pipelines.scale.estimate
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.scale.report import table
from pipelines.scale.steps import STAGES
from taming_core.files import read_json, write_text

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explanation" / "scale.md"
PHOTOS = 10_000_000
GPUS = (1, 8, 64)
PLACES = ("disk", "S3")
SHARD = 128  # photos
READS = 3  # of every photo: each stage reads it once
HOUR, GB, TB = 3600, 1e9, 1e12

Costs = Mapping[str, float]


def costs() -> dict[str, float]:
    """The values of costs.json by name."""
    return {name: cost["value"] for name, cost in read_json(HERE / "costs.json").items()}


@dataclass(frozen=True)
class Rate:
    """How many photos a stage makes in a second, and what limits it."""

    per_second: float
    limit: str


def network_seconds(stage: str, c: Costs) -> float:
    """Seconds of a GPU for a photo; materialize has no network."""
    names = {"detect": ("detector", "segmenter"), "caption": ("captioner", "matcher")}.get(stage, ())
    computing = sum(c[f"{name}_tflop"] for name in names) / (c["peak_tflops"] * c["share_of_peak"])
    return computing + (12 * c["token_seconds"] / 8 if stage == "caption" else 0.0)


def between_seconds(stage: str, c: Costs) -> float:
    """Seconds of the process that computes, for a photo, in which its GPU waits."""
    return {"detect": c["masks_seconds"], "caption": 2 * c["preprocess_seconds"]}.get(stage, 0.0)


def worker_seconds(stage: str, place: str, c: Costs) -> float:
    """Seconds of a worker process for a photo: it waits for S3, decodes, and crops."""
    waiting = c["get_seconds"] if place == "S3" else 0.0
    return waiting + c["decode_seconds"] + (c["crop_seconds"] if stage == "materialize" else 0.0)


def rate(stage: str, gpus: int, place: str, c: Costs) -> Rate:
    """Photos per second of a stage on machines with one GPU each; the slowest of what takes part."""
    workers = c["cores"] if stage == "materialize" else c["cores"] - 1
    limits = [Rate(gpus * workers / worker_seconds(stage, place, c), "workers")]
    if (computing := network_seconds(stage, c) + between_seconds(stage, c)) > 0:
        limits.append(Rate(gpus / computing, "GPU"))
    if place == "S3":
        limits.append(Rate(c["get_limit"], "reads from one prefix"))
    return min(limits, key=lambda one: one.per_second)


def joining_seconds(stage: str, photos: int, c: Costs) -> float:
    """Seconds of the one process that writes the shards of a stage into its output."""
    size = {"detect": c["object_bytes"], "caption": c["caption_bytes"], "materialize": c["row_bytes"]}[stage]
    return photos * size / c["write_rate"]


def stage_hours(stage: str, gpus: int, place: str, photos: int, c: Costs) -> float:
    """Hours of a stage: listing, the shards, and the joining of them."""
    listing = photos * c["listing_seconds"] if stage != "materialize" else 0.0
    return (listing + photos / rate(stage, gpus, place, c).per_second + joining_seconds(stage, photos, c)) / HOUR


def cost_rows() -> Iterator[list[str]]:
    """What all is computed from, and where each number comes from."""
    for cost in read_json(HERE / "costs.json").values():
        yield [cost["what"], f"{cost['value']:,} {cost['unit']}".strip(), cost["from"], cost["source"]]


def rate_rows(c: Costs) -> Iterator[list[str]]:
    """Photos per second of one GPU, its machine and its disk."""
    for stage in STAGES:
        found = rate(stage, 1, "disk", c)
        parts = (network_seconds(stage, c), between_seconds(stage, c), worker_seconds(stage, "disk", c))
        yield [stage, *(f"{1000 * seconds:.0f}" for seconds in parts), f"{found.per_second:.1f}", found.limit]


def time_rows(c: Costs) -> Iterator[list[str]]:
    """Hours of each stage, and of all."""
    for place in PLACES:
        for gpus in GPUS:
            hours = [stage_hours(stage, gpus, place, PHOTOS, c) for stage in STAGES]
            limits = {stage: rate(stage, gpus, place, c).limit for stage in STAGES}
            yield [place, str(gpus), *(f"{h:.1f}" for h in hours), f"{sum(hours):.1f}", f"{sum(hours) / 24:.1f}",
                   ", ".join(f"{stage}: {limit}" for stage, limit in limits.items())]  # fmt: skip


def space_rows(c: Costs) -> Iterator[list[str]]:
    """Disk and memory."""
    rows = PHOTOS * c["row_bytes"]
    yield ["photos", f"{PHOTOS * c['photo_bytes'] / TB:.1f} TB"]
    yield ["objects.parquet", f"{PHOTOS * c['object_bytes'] / GB:.0f} GB, twice while it is joined"]
    yield ["captions.parquet", f"{PHOTOS * c['caption_bytes'] / GB:.0f} GB, twice while it is joined"]
    yield ["rows", f"{rows / TB:.2f} TB, twice while they are joined"]
    yield ["manifest of a stage", f"{PHOTOS * c['manifest_bytes'] / GB:.1f} GB"]
    yield ["index of materialize", f"{PHOTOS * c['index_bytes'] / GB:.1f} GB"]
    yield ["shards of a stage", f"{PHOTOS // SHARD:,} files of {SHARD} photos"]
    yield ["memory of listing, in a process of its own", f"{PHOTOS * c['listing_memory'] / GB:.0f} GB"]


def store_rows(c: Costs) -> Iterator[list[str]]:
    """Requests to S3, their price, and the network at 64 GPUs."""
    gets, lists, puts = READS * PHOTOS, READS * PHOTOS / 1000, 4 * PHOTOS / SHARD
    yield ["reads of photos", f"{gets:,.0f}", f"{gets / 1000 * c['get_price']:.2f} USD"]
    yield ["listings", f"{lists:,.0f}", f"{lists / 1000 * c['put_price']:.2f} USD"]
    yield ["writes of shards and rows", f"{puts:,.0f}", f"{puts / 1000 * c['put_price']:.2f} USD"]
    for stage in STAGES:
        speed = rate(stage, 64, "S3", c).per_second * c["photo_bytes"]
        yield [f"network of {stage} on 64 GPUs", f"{rate(stage, 64, 'S3', c).per_second:,.0f} photos/s",
               f"{8 * speed / GB:.1f} Gbit/s"]  # fmt: skip


def break_rows(c: Costs) -> Iterator[list[str]]:
    """What stops growing first, by numbers of photos and GPUs."""
    memory = 64 * GB / c["listing_memory"]
    yield ["memory of listing reaches 64 GB", f"{memory / 1e6:.0f} million photos"]
    of_one = 1 / rate("detect", 1, "S3", c).per_second
    yield ["detect reads more than one prefix of S3 gives", f"{c['get_limit'] * of_one:.0f} GPUs"]
    of_rows = rate("materialize", 1, "disk", c).per_second
    yield ["materialize makes rows faster than one process writes them",
           f"{c['write_rate'] / c['row_bytes'] / of_rows:.0f} machines of {c['cores']:.0f} cores"]  # fmt: skip
    serial = sum(joining_seconds(stage, PHOTOS, c) for stage in STAGES) / HOUR
    yield ["of ten million photos, what one process joins whatever the number of GPUs", f"{serial:.1f} hours"]


def measured_rows() -> Iterator[Sequence[str]]:
    """What `python -m pipelines.scale` has measured, as it is kept in measured.json."""
    for one in read_json(HERE / "measured.json"):
        lost = "" if one["lost_seconds"] is None else f"{one['lost_seconds']:.0f}"
        yield [f"{one['photos']:,}", one["stage"], f"{one['photos_per_second']:.1f}", f"{one['peak_mib']:.0f}",
               str(one["processes"]), lost]  # fmt: skip


def tables(c: Costs) -> dict[str, list[str]]:
    """The lines of every table of the page by its mark."""
    return {
        "measured": table(
            ("photos", "stage", "photos/s", "peak memory of all processes, MiB", "processes", "lost to SIGKILL, s"),
            measured_rows(),
        ),
        "rates": table(("stage", "networks, ms", "between them, ms", "worker, ms", "photos/s", "limit"), rate_rows(c)),
        "times": table(("photos on", "GPUs", *(f"{s}, hours" for s in STAGES), "all, hours", "days", "limits"),
                       time_rows(c)),
        "space": table(("what", "size"), space_rows(c)),
        "store": table(("what", "number", "price or rate"), store_rows(c)),
        "breaks": table(("what", "at"), break_rows(c)),
        "costs": table(("what", "value", "", "source"), cost_rows()),
    }  # fmt: skip


def page(text: str, c: Costs) -> str:
    """The text of the page with its tables computed anew."""
    for name, lines in tables(c).items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(start)
        text = "\n".join([before + start, *lines, "", end + rest.split(end)[1]])
    return text


def main() -> None:
    """Write the tables into the page."""
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), costs()))


if __name__ == "__main__":
    main()
