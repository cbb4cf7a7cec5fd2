"""Cached features of frozen modules, computed before the first step and stored below runs/ (docs/how-to/caches.md).

The key of an entry is a digest of the module's input, and the folder name has one of its weights: any change gives a
new name, so that stale features are never read.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.fingerprints import digest, versions
from taming_core.model.inputs import subject_pixels
from taming_core.model.subject_model import SubjectModel, latent_posterior
from taming_core.params.train import Cache, TrainParams
from taming_core.progress import track_to
from taming_core.tables import shards
from taming_core.tables.row_images import encoder_image
from taming_core.tables.rows import Rows
from taming_core.tables.schema import Row
from taming_core.training.agreement import await_files
from taming_core.training.batches import (
    ExampleSource,
    FeatureCaches,
    caption_for,
    companion,
    decode_image,
    image_key,
    subject_key,
    text_key,
)
from taming_core.training.checkpoint import network_digest, weight_bytes
from taming_core.training.distributed import ProcessGroup
from taming_core.training.feature_store import (
    Entry,
    FeatureStore,
    find,
    holds,
    is_full,
    open_store,
    shard_files,
    write_shard,
)
from taming_core.training.loop import Run, autocast
from taming_core.weights.device import DTYPES, fast_kernels

ENCODER_KEYS = ("projector", "mean", "std", "size")  # keys of the encoder's config that affect tower features

WITHOUT = dict.fromkeys(("_name_or_path", "dtype", "torch_dtype"))  # keys of a config that do not count

KeyedInput = tuple[str, Callable[[], Tensor]]  # a key, and a function that makes the input


@dataclass(frozen=True)
class FeatureKind:
    """One kind of features: latents, prompt embeddings or tower features."""

    store: FeatureStore
    inputs: Callable[[Row], Iterable[KeyedInput]]  # all inputs of the frozen module that a row can need
    compute: Callable[[Tensor], Sequence[Entry]]  # a batch of inputs to their entries


def feature_kinds(model: SubjectModel, source: ExampleSource) -> dict[Cache, FeatureKind]:
    """The kinds of features that `train.cache` names, with their stores on disk."""
    p, dtype = source.params, DTYPES[source.params.precision]
    functions: dict[Cache, tuple[Any, Any]] = {
        "latents": (image_inputs, partial(compute_latents, model)),
        "text": (partial(text_inputs, source=source), partial(compute_text, model, dtype)),
        "tower": (partial(tower_inputs, source=source), partial(compute_tower_features, model, dtype)),
    }
    folder = shards.RUNS / "cache"
    return {kind: FeatureKind(open_store(folder / folder_name(kind, model, p)), *functions[kind]) for kind in p.cache}


def prepare(run: Run, source: ExampleSource) -> tuple[ExampleSource, dict[str, nn.Module]]:
    """Compute the features that `train.cache` names and that are not on disk, each process its share of the rows.

    Returns the source with its caches, and the networks that were moved to CPU memory because no step needs them.

    Raises:
        TamingError: `train.offload` has no effect.
    """
    p, device, processes = source.params, run.accelerator.device, run.processes
    offloaded = offloaded_networks(run.model, p, fewest_views(source.rows)) if p.offload else {}
    kinds, numbers, counts = feature_kinds(run.model, source), row_share(source, processes), Counter[str]()
    for name, kind in kinds.items():
        with fast_kernels(p.precision), autocast(run.accelerator):
            done = fill(kind, map(source.rows.__getitem__, numbers), p.micro_batch_size, device, counts)
            track_to(done, f"cache {name}", len(numbers))
    for kind in kinds.values():
        await_files(shard_files(kind.store.folder), processes)
    if counts["damaged"]:
        print(f"{counts['damaged']} cached entries or shards were damaged, and are computed again.", file=sys.stderr)
    offload(offloaded)
    return replace(source, caches=open_caches(kinds)), offloaded


def open_caches(kinds: Mapping[Cache, FeatureKind]) -> FeatureCaches:
    """Open the stores again, to read what has been written since."""
    return FeatureCaches(**{name: open_store(kind.store.folder) for name, kind in kinds.items()})


def folder_name(kind: Cache, model: SubjectModel, p: TrainParams) -> str:
    """The folder of a kind, which changes with weights, config and versions of the networks that compute it."""
    parts = [json.dumps([p.precision, versions()]).encode()]
    for weights, config in networks_of(kind, model):
        # The precision of loading is that of training, which is a part already.
        parts.append(json.dumps({**config, **WITHOUT}, sort_keys=True, default=str).encode())
        parts.append(weights.encode())
    return f"{kind}-{digest(parts)}"


def networks_of(kind: Cache, model: SubjectModel) -> list[tuple[str, dict[str, Any]]]:
    """Digests of the networks that compute a kind of features, with all settings that their output depends on."""
    family, encoder = model.family, model.object_encoder
    if kind == "latents":
        return [(network_digest(model, "vae"), dict(family.vae.config))]
    if kind == "text":
        ids: Any = family.token_ids([""])
        empty_prompt = {"empty_prompt": ids.tolist()}  # which SDXL encodes as zeros
        return [(network_digest(model, n), m.config.to_dict() | empty_prompt) for n, m in family.text_encoders.items()]
    settings = {key: encoder.config[key] for key in ENCODER_KEYS}
    return [(digest(weight_bytes(encoder.vision)), encoder.vision.config.to_dict() | settings)]


def row_share(source: ExampleSource, processes: ProcessGroup) -> list[int]:
    """The rows whose features this process computes, neighbours on disk; rows that no batch can hold are left out."""
    rows, p = source.rows, source.params
    views = sorted({*rows.objects, *rows.excluded})
    numbers = [int(n) for n in (*views, *(rows.regularization if p.regularization > 0 else ()))]
    first, last = (len(numbers) * rank // processes.world_size for rank in (processes.rank, processes.rank + 1))
    return numbers[first:last]


def image_inputs(row: Row) -> Iterator[KeyedInput]:
    """The row's target image."""
    yield image_key(row["image"]), partial(decode_image, row["image"])


def text_inputs(row: Row, source: ExampleSource) -> Iterator[KeyedInput]:
    """The token ids of every caption that an example of the row can have."""
    p = source.params
    states = {present for present in (True, False) if is_possible(present, row, p)}
    captions = {caption_for(row, present, p) for present in states} | companion_captions(row, source)
    if p.text_drop > 0:
        counts = {0: False in states, 1: True in states, 2: p.two_objects > 0}
        captions |= {source.inputs.empty_prompt_for(n) for n, possible in counts.items() if possible}
    for ids in source.tokenize(sorted(captions)):
        yield text_key(ids), partial(torch.clone, ids)


def companion_captions(row: Row, source: ExampleSource) -> set[str]:
    """The captions of the row with `<object>` for its own object and another one."""
    if source.params.two_objects == 0 or row["regularization"]:
        return set()
    number = source.rows.find(row["row_id"])
    found = (companion(source, number, other) for other in source.rows.companions.get(number, []))
    return {c.caption for c in found if c is not None}


def is_possible(present: bool, row: Row, p: TrainParams) -> bool:
    """Whether an example of the row can have (`present`), or can lack, the object embedding."""
    return not row["regularization"] and p.object_drop < 1 if present else row["regularization"] or p.object_drop > 0


def tower_inputs(row: Row, source: ExampleSource) -> Iterator[KeyedInput]:
    """The row's subject without augmentation; augmented copies differ each time."""
    if not row["regularization"]:
        subject = subject_pixels(encoder_image(row, source.inputs.background), source.size)
        yield subject_key(subject), partial(torch.clone, subject)


def compute_latents(model: SubjectModel, images: Tensor) -> Sequence[Entry]:
    """The autoencoder's posterior of each image, from which each step draws a sample."""
    return [{"mean": mean, "std": std} for mean, std in zip(*latent_posterior(model, images), strict=True)]


def compute_text(model: SubjectModel, dtype: torch.dtype, ids: Tensor) -> Sequence[Entry]:
    """The prompt embeddings of each prompt."""
    text = {name: v.to(dtype) for name, v in model.family.text(ids)._asdict().items() if v is not None}
    return [{name: value[i] for name, value in text.items()} for i in range(len(ids))]


def compute_tower_features(model: SubjectModel, dtype: torch.dtype, subjects: Tensor) -> Sequence[Entry]:
    """The tower features of each subject, as the projector reads them."""
    return [{"features": states} for states in model.object_encoder.tower_features(subjects).to(dtype)]


@torch.no_grad()
def fill(
    kind: FeatureKind, rows: Iterable[Row], batch_size: int, device: torch.device, counts: Counter[str]
) -> Iterator[int]:  # fmt: skip
    """Compute entries that are missing or damaged, and yield how many rows are done.

    Two processes may compute the same entry, which does no harm.

    Args:
        kind: the kind of features.
        rows: those of this process.
        batch_size: that of the micro-batches of training, for results that are equal to the last bit.
        device: of the model.
        counts: its key `damaged` is increased by the number of damaged entries and shards.
    """
    entries, seen_keys = dict[str, Entry](), set[str]()
    groups: defaultdict[torch.Size, dict[str, Tensor]] = defaultdict(dict)  # inputs of one size form batches
    counts["damaged"] += kind.store.unreadable
    for done, row in enumerate(rows, 1):
        for key, make in kind.inputs(row):
            if key in seen_keys or (seen_keys.add(key), find(kind.store, key))[1] is not None:
                continue
            counts["damaged"] += holds(kind.store, key)
            input_tensor = make()
            group = groups[input_tensor.shape]
            group[key] = input_tensor
            if len(group) == batch_size:
                entries |= compute_entries(kind, group, batch_size, device)
                group.clear()
        if is_full(entries):
            write_shard(kind.store.folder, entries)
            entries = {}
        yield done
    for group in filter(None, groups.values()):
        entries |= compute_entries(kind, group, batch_size, device)
    if entries:
        write_shard(kind.store.folder, entries)


def compute_entries(
    kind: FeatureKind, group: Mapping[str, Tensor], batch_size: int, device: torch.device
) -> dict[str, Entry]:
    """The entries of these inputs, computed in one batch that is padded with copies of the last one."""
    inputs = list(group.values())
    batch = torch.stack([*inputs, *inputs[-1:] * (batch_size - len(inputs))]).to(device)
    entries = kind.compute(batch)[: len(inputs)]
    return {
        key: {name: value.cpu() for name, value in entry.items()} for key, entry in zip(group, entries, strict=True)
    }  # fmt: skip


def offloaded_networks(model: SubjectModel, p: TrainParams, fewest_views: int) -> dict[str, nn.Module]:
    """The networks that no step needs, since their output is always cached; they can be offloaded to the CPU.

    `reference` needs the autoencoder for subjects and the text encoders for the empty prompt; a collage needs the
    autoencoder for subjects; the identity loss needs the decoder.

    Args:
        model: the model.
        p: the params.
        fewest_views: see `fewest_views`.

    Raises:
        TamingError: there is no such network.
    """
    if not p.offload:
        return {}
    networks: dict[str, nn.Module] = {}
    if model.object_encoder.config["injection"] != "reference":
        encodes_subjects = model.object_encoder.config["collage"] is not None
        spare = "latents" in p.cache and p.identity_weight == 0 and not encodes_subjects
        networks |= {"vae": model.family.vae} if spare else {}
        networks |= model.family.text_encoders if "text" in p.cache else {}
    if "tower" in p.cache and not needs_augmentation(fewest_views, p):
        networks["tower"] = model.object_encoder.vision
    if not networks:
        raise TamingError("train.offload has no effect: each network whose output is cached is needed for something "
                          "else (docs/how-to/caches.md). Set it to false.")  # fmt: skip
    return networks


def needs_augmentation(fewest_views: int, p: TrainParams) -> bool:
    """Whether some row lacks views, so that augmented copies, which are never cached, replace them."""
    return fewest_views < (p.references if p.cross_reference > 0 else p.references - 1)


def fewest_views(rows: Rows) -> int:
    """The number of other views of the identity, for the row with an object that has the fewest."""
    views = rows.column("references")
    return min((len(views[n]) for n in rows.objects), default=0)


def offload(networks: Mapping[str, nn.Module]) -> None:
    """Move networks to the CPU."""
    for network in networks.values():
        network.to("cpu")


@contextmanager
def on_device(networks: Mapping[str, nn.Module], device: torch.device) -> Generator[None, None, None]:
    """Move offloaded networks to the device inside the block."""
    for network in networks.values():
        network.to(device)
    try:
        yield
    finally:
        offload(networks)
