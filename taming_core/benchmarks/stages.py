"""The speed of a data stage beside its limits: the models alone, and the processes that decode alone."""

import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from taming_core.captions import captioning
from taming_core.captions.load import load_captioning
from taming_core.curation import curate
from taming_core.engine import local
from taming_core.engine.manifest import Listing, Manifest
from taming_core.engine.run import automatic_workers, cores
from taming_core.engine.work import ShardWork, Sources
from taming_core.objects import detection
from taming_core.objects import sources as photo_sources
from taming_core.params.engine import EngineOptions
from taming_core.params.load import Params
from taming_core.rows.making import RowMaker
from taming_core.rows.sources import BATCH, MaterializeInputs, list_sources
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema

S = TypeVar("S")
SHARDS = 8  # that the photos of a measurement are divided into; the first of them are not measured


@dataclass(frozen=True)
class StageSpeed:
    """What was measured; the limit is that of the slower of models and workers."""

    measured: str
    photos_per_second: float  # the median of the rounds
    limit: float | None = None  # photos per second
    share_of_limit: float | None = None


@dataclass(frozen=True)
class Few(Generic[S]):
    """`Sources` in memory."""

    items: Sequence[S]
    size: int  # sources per shard

    def __len__(self) -> int:
        """The number of sources."""
        return len(self.items)

    def shard_count(self) -> int:
        """The number of shards."""
        return -(-len(self.items) // self.size)

    def count(self, number: int) -> int:
        """The number of sources of one shard."""
        return len(self.shard(number))

    def shard(self, number: int) -> list[S]:
        """The sources of one shard."""
        return list(self.items[number * self.size : (number + 1) * self.size])


def work_of(
    stage: str, raw: AnyPath, tables: Mapping[str, AnyPath | None], device: str, params: Params
) -> AbstractContextManager[ShardWork[Any, Any]]:
    """What a stage does with a folder of photos and the tables `objects` and `captions`, in a temporary folder."""
    objects, captions = tables["objects"], tables["captions"]
    if stage == "materialize" and objects and captions:
        return materialize_work(raw, objects, captions, params)
    return detect_work(raw, device, params) if stage == "detect" else caption_work(raw, objects, device, params)


@contextmanager
def detect_work(raw: AnyPath, device: str, params: Params) -> Generator[ShardWork[Any, Any]]:
    """What `taming detect` does with a folder of photos."""
    p = params.detect
    with TemporaryDirectory() as folder:
        listing = photo_sources.list_folder(raw, Path(folder) / "manifest.parquet", p)
        photos = manifest_of(listing, p.shard_size, partial(photo_sources.source_of, raw=raw))
        prepare, load = partial(detection.prepare, p=p), partial(curate.load_detection, device, p)
        yield ShardWork(photos, Path(folder) / "shards", stamped(schema.OBJECTS), prepare, load, p.batch_size)


@contextmanager
def caption_work(raw: AnyPath, objects: AnyPath | None, device: str, params: Params) -> Generator[ShardWork[Any, Any]]:
    """What `taming caption` does with a folder of photos, and a table of their objects."""
    p = params.caption
    with TemporaryDirectory() as folder:
        listing = captioning.list_folder(raw, objects, Path(folder) / "manifest.parquet", p)
        photos = manifest_of(listing, p.shard_size, partial(captioning.source_of, raw=raw))
        load, shards = partial(load_captioning, objects, device, p), Path(folder) / "shards"
        yield ShardWork(photos, shards, stamped(schema.CAPTIONS), captioning.prepare, load, p.batch_size)


@contextmanager
def materialize_work(
    raw: AnyPath, objects: AnyPath, captions: AnyPath, params: Params
) -> Generator[ShardWork[Any, Any]]:
    """What `taming materialize` does with a folder of photos and its tables; there are no models."""
    p, inputs = params.materialize, MaterializeInputs(raw.resolve(), objects.resolve(), captions.resolve(), None)
    with TemporaryDirectory() as folder, chdir(folder):  # where its index is
        found = list_sources(Path("bench"), inputs, p, EngineOptions())
        maker = RowMaker(inputs.raw, None, found.index, p)
        yield ShardWork(found, Path(folder) / "shards", stamped(schema.ROWS), maker.prepare, maker.load, BATCH)


def manifest_of(listing: Listing, size: int, source: Callable[[schema.Row], S]) -> Manifest[S]:
    """The sources that were listed."""
    return Manifest(listing.rows, size, source)


def stamped(expected: Any) -> Any:
    """The schema of a table that is thrown away."""
    return schema.add_fingerprint(expected, "bench")


def usual_workers(stage: str) -> int:
    """The workers that a stage takes for many photos: a core is left for the models, where it has some."""
    return cores() if stage == "materialize" else automatic_workers(10**9)


def measure(work: ShardWork[Any, Any], photos: int, workers: int, rounds: int) -> list[StageSpeed]:
    """Measure models, decoding and stage on some of the photos, in turns, so that other load affects all three.

    Args:
        work: of the stage.
        photos: how many of its sources are used; they are held decoded.
        workers: processes that decode; 0 for threads.
        rounds: of measurements; medians are returned.
    """
    few = few_of(work.sources, photos, work.batch_size)
    work = replace(work, sources=few)
    compute = work.load()
    prepared = [(source, work.prepare(source)) for source in few.items]
    batches = [prepared[i : i + work.batch_size] for i in range(0, len(prepared), work.batch_size)]
    compute(batches[0])  # the first batch takes longer
    seconds: dict[str, list[float]] = {"models": [], "worker": [], "stage": []}
    for _ in range(rounds):
        seconds["models"].append(time_of(lambda: [compute(batch) for batch in batches]) / len(few))
        seconds["worker"].append(time_of(lambda: [work.prepare(source) for source in few.items]) / len(few))
        seconds["stage"].append(stage_seconds(replace(work, load=lambda: compute), workers))
    return speeds({name: 1 / statistics.median(times) for name, times in seconds.items()}, workers)


def few_of(sources: Sources[S], photos: int, batch_size: int) -> Few[S]:
    """The first of some sources, in shards of whole batches."""
    found: list[S] = []
    for number in range(sources.shard_count()):
        found += sources.shard(number)
        if len(found) >= photos:
            break
    batches = -(-min(photos, len(found)) // batch_size)
    return Few(found[:photos], batch_size * max(1, batches // SHARDS))


def stage_seconds(work: ShardWork[Any, Any], workers: int) -> float:
    """Seconds per photo of the stage, from its first shard to its last: without its start."""
    with TemporaryDirectory() as folder:
        start, left = time.perf_counter(), len(work.sources)
        for number, _ in enumerate(local.run(replace(work, folder=Path(folder)), workers)):
            if number == 0 and work.sources.shard_count() > 2:  # then the second is computed too
                start, left = time.perf_counter(), left - 2 * len(work.sources.shard(0))
        return (time.perf_counter() - start) / left


def time_of(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def speeds(per_second: Mapping[str, float], workers: int) -> list[StageSpeed]:
    """The lines of the result, from the photos per second of models, one worker, and stage.

    >>> speeds({"models": 50.0, "worker": 20.0, "stage": 36.0}, 2)[2]
    StageSpeed(measured='stage with 2 workers', photos_per_second=36.0, limit=40.0, share_of_limit=0.9)
    """
    limit = min(per_second["models"], max(workers, 1) * per_second["worker"])
    return [
        StageSpeed("models on decoded photos", per_second["models"]),
        StageSpeed("one worker decodes", per_second["worker"]),
        StageSpeed(f"stage with {workers} workers", per_second["stage"], limit, per_second["stage"] / limit),
    ]
