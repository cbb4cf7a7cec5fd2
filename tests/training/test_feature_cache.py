"""Caches: training from them equals training without, nothing stale is ever read, and damage is repaired."""

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_bases
import torch
import yaml
from torch import Tensor

from stages.train import train
from taming_core.bases.families import family_of
from taming_core.errors import TamingError
from taming_core.images.families import load_pipeline
from taming_core.model.diffusion import noise_schedule_of
from taming_core.model.subject_model import SubjectModel, subject_model
from taming_core.params.load import packaged_params
from taming_core.params.train import TrainParams
from taming_core.tables import schema
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import feature_cache, feature_store, loop
from taming_core.training.batches import FeatureCaches, batch_at, image_key
from taming_core.training.distributed import ProcessGroup
from taming_core.training.feature_cache import FeatureKind, fewest_views
from taming_core.training.feature_store import FeatureStore, find, key_of, open_store, write_shard
from taming_core.training.start import collage_size, weight_digests

CPU = torch.device("cpu")
BOTH = {"cache": ["latents", "text"]}
FRESH = {"start": None, "base": "mini", "background": "removed", "tune": "adapter", "denoiser_rate": 0.0}


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Two identities in two views each, and three regularization rows."""
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("rows"), views=2), "train")


def fresh(injection: str, projector: str = "full", **values: Any) -> TrainParams:
    """A training of a projector above a frozen tower."""
    encoder = {"tower": "mini", "projector": projector, "tokens": tiny.TOKENS, "tower_blocks": 0}
    return tiny.train_params(**FRESH, injection=injection, encoder=encoder, **values)


def begun(p: TrainParams, injection: str, projector: str = "full") -> loop.Run:
    model = subject_model(tiny.pipeline(injection, projector=projector).components)
    return loop.start_run(model, None, loop.accelerator_for("cpu", "fp32"), p)


def kinds(model: SubjectModel, rows: Rows, p: TrainParams, injection: str = "concat") -> dict[Any, FeatureKind]:
    return feature_cache.feature_kinds(model, tiny.source(rows, p, injection))


def filling(kind: FeatureKind, rows: Rows, p: TrainParams, counts: Counter[str] | None = None) -> Iterator[int]:
    shares = map(rows.__getitem__, feature_cache.row_share(tiny.source(rows, p), ProcessGroup()))
    return feature_cache.fill(kind, shares, p.micro_batch_size, CPU, Counter() if counts is None else counts)


def filled(
    model: SubjectModel, rows: Rows, p: TrainParams, injection: str = "concat"
) -> tuple[FeatureCaches, Counter[str]]:
    """All that `train.cache` names, and how many entries were damaged."""
    found, counts = kinds(model, rows, p, injection), Counter[str]()
    for kind in found.values():
        list(filling(kind, rows, p, counts))
    return feature_cache.open_caches(found), counts


def trained(
    rows: Rows, p: TrainParams, injection: str, projector: str = "full"
) -> tuple[list[loop.Losses], Sequence[Tensor]]:
    """Losses and final weights."""
    run = begun(p, injection, projector)
    caches, _ = filled(run.model, rows, p, injection)
    make = partial(batch_at, source=tiny.source(rows, p, injection, caches=caches))
    batch = make(0)
    assert (batch.target is None, batch.text_states is None) == ("latents" in p.cache, "text" not in p.cache)
    return [r.losses for r in loop.train(run, p, make)], run.weights


@pytest.mark.parametrize("injection", ["concat", "decoupled"])
def test_training_from_cached_latents_and_texts_is_training_without_to_the_bit(rows: Rows, injection: str) -> None:
    values = {"steps": 4, "text_drop": 0.4, "object_drop": 0.3}
    losses, weights = trained(rows, tiny.train_params(**values), injection)
    again, same = trained(rows, tiny.train_params(**values, **BOTH), injection)
    assert again == losses
    assert all(map(torch.equal, same, weights))


def test_training_from_a_cached_tower_is_training_without(rows: Rows) -> None:
    # Of three photos one at least is a changed copy, which the tower looks at in each step.
    values = {"steps": 4, "references": 3, "cross_reference": 0.5, "object_drop": 0.2}
    losses, weights = trained(rows, fresh("decoupled", "linear", **values), "decoupled", "linear")
    p = fresh("decoupled", "linear", **values, cache=["tower"])
    again, same = trained(rows, p, "decoupled", "linear")
    for found, wanted in zip(again, losses, strict=True):
        assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    torch.testing.assert_close(same, weights, atol=1e-6, rtol=1e-5)


def test_changed_copies_are_looked_at_and_the_others_are_not(rows: Rows) -> None:
    p = fresh("concat", references=3, cross_reference=0.0, object_drop=0.5, cache=["tower"])
    run = begun(p, "concat")
    caches, _ = filled(run.model, rows, p)
    batch = batch_at(0, tiny.source(rows, p, caches=caches))
    assert batch.cached is not None
    assert batch.cached[batch.present].tolist() == [[[True, True, False]]] * int(batch.present.sum())
    assert not batch.cached[~batch.present].any()
    looked = []
    run.model.object_encoder.vision.register_forward_hook(lambda _, __, out: looked.append(len(out[0])))
    drawn = loop.noise_for_batch(run, batch, 0, p)
    loop.forward_backward(run, batch, drawn, p)
    assert sum(looked) == batch.present.sum()


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_texts_of_every_family_are_kept_as_its_encoders_say_them(rows: Rows, family: str) -> None:
    parts = tiny_bases.parts(family)
    model = SubjectModel(family_of(parts), tiny.pipeline().object_encoder, noise_schedule_of(parts["scheduler"]))
    p = tiny.train_params(cache=["text"], text_drop=0.1, object_drop=0.0)
    found = feature_cache.feature_kinds(model, tiny.source(rows, p, tokenize=model.family.token_ids))["text"]
    list(filling(found, rows, p))
    store = open_store(found.store.folder)
    assert len(store.keys) == 3  # with an object, silence, regularization
    ids = model.family.token_ids(["a photo of a <object> on the beach"])
    entry = find(store, key_of(ids[0].numpy().tobytes()))
    assert entry is not None
    with torch.no_grad():
        said = model.family.text(ids)
    torch.testing.assert_close(entry["states"], said.states[0])
    assert ("pooled" in entry) == (said.pooled is not None) == (family != "sd15")
    if said.pooled is not None:
        torch.testing.assert_close(entry["pooled"], said.pooled[0])


def test_texts_are_kept_in_the_precision_of_the_training(rows: Rows) -> None:
    p = tiny.train_params(cache=["text"], precision="bf16")
    caches, _ = filled(subject_model(tiny.pipeline().components), rows, p)
    assert caches.text is not None
    entry = find(caches.text, caches.text.keys[0].decode())
    assert entry is not None
    assert entry["states"].dtype == torch.bfloat16


class Counting:
    """A kind that counts what it computes."""

    def __init__(self, kind: FeatureKind) -> None:
        self.inputs = 0
        self.kind = replace(kind, compute=lambda batch: self._said(kind, batch))

    def _said(self, kind: FeatureKind, batch: Tensor) -> Any:
        self.inputs += len(batch)
        return kind.compute(batch)


ONE = {"micro_batch_size": 1}


def computed(model: SubjectModel, rows: Rows, p: TrainParams, name: Any = "latents") -> tuple[int, int]:
    """How many inputs filling computes, and how many entries were damaged."""
    counting, counts = Counting(kinds(model, rows, p)[name]), Counter[str]()
    list(filling(counting.kind, rows, p, counts))
    return counting.inputs, counts["damaged"]


def another(rows: Rows, folder: Path, change: Callable[[dict[str, Any]], None]) -> Rows:
    """The rows with a change in the first."""
    pictures = ("image", "mask", "subject")
    made = [dict(rows[i]) for i in range(len(rows))]
    change(made[0])
    made = [m | {n: m[n] and {"bytes": m[n], "path": None} for n in pictures} for m in made]
    schema.write([schema.table(made, schema.ROWS)], schema.ROWS, folder / "train-00000.parquet")
    return load_rows(folder, "train")


def test_a_changed_image_autoencoder_or_caption_is_computed_anew_and_nothing_else(rows: Rows, tmp_path: Path) -> None:
    model = subject_model(tiny.pipeline().components)
    p = tiny.train_params(cache=["latents", "text"], object_drop=0.0, text_drop=0.0, **ONE)
    assert computed(model, rows, p) == (7, 0)
    assert computed(model, rows, p) == (0, 0)
    assert computed(model, rows, p, "text") == (2, 0)

    def other_byte(row: dict[str, Any]) -> None:
        row["image"] += b"\0"  # after its end: the very picture

    def other_caption(row: dict[str, Any]) -> None:
        row["object_caption"] = "a <object> in a box"

    assert computed(model, another(rows, tmp_path / "byte", other_byte), p) == (1, 0)
    said = another(rows, tmp_path / "caption", other_caption)
    assert computed(model, said, p) == (0, 0)
    assert computed(model, said, p, "text") == (1, 0)
    with torch.no_grad():
        model.family.vae.quant_conv.bias[0] += 1e-3
        model.family.text_encoders["text_encoder"].get_input_embeddings().weight[5] += 1e-3
    assert computed(model, rows, p) == (7, 0)
    assert computed(model, rows, p, "text") == (2, 0)
    model.family.vae.register_to_config(force_upcast=False)
    assert computed(model, rows, p) == (7, 0)


def shard_of(store: FeatureStore) -> Path:
    return next(store.folder.glob("*.safetensors"))


def test_a_damaged_entry_is_computed_again_and_counted(rows: Rows) -> None:
    model, p = subject_model(tiny.pipeline().components), tiny.train_params(cache=["latents"], **ONE)
    computed(model, rows, p)
    path = shard_of(kinds(model, rows, p)["latents"].store)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert computed(model, rows, p) == (1, 1)
    assert computed(model, rows, p) == (0, 0)  # the sound entry of the newer shard counts


@pytest.mark.parametrize(("left", "lost"), [(3, "whole"), (200, "whole"), (-3000, "some")])
def test_a_shard_that_was_cut_off_is_computed_again(rows: Rows, left: int, lost: str) -> None:
    model, p = subject_model(tiny.pipeline().components), tiny.train_params(cache=["latents"], **ONE)
    computed(model, rows, p)
    path = shard_of(kinds(model, rows, p)["latents"].store)
    path.write_bytes(path.read_bytes()[:left])
    inputs, damaged = computed(model, rows, p)
    assert (inputs == 7, damaged == 1) == (lost == "whole",) * 2 or (0 < inputs < 7 and damaged == inputs)
    assert computed(model, rows, p) == (0, 1 if lost == "whole" else 0)


def test_after_a_crash_only_what_is_missing_is_computed(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "ENTRIES", 2)
    model, p = subject_model(tiny.pipeline().components), tiny.train_params(cache=["latents"], **ONE)
    work = filling(kinds(model, rows, p)["latents"], rows, p)
    assert [next(work) for _ in range(5)] == [1, 2, 3, 4, 5]
    del work
    assert computed(model, rows, p) == (3, 0)
    assert not list(Path("runs").rglob("*.part"))


def test_processes_share_the_rows_and_may_fill_the_same_folder_at_once(rows: Rows) -> None:
    model, p = subject_model(tiny.pipeline().components), tiny.train_params(cache=["latents"], **ONE)
    shares = [feature_cache.row_share(tiny.source(rows, p), ProcessGroup(rank, 3)) for rank in range(3)]
    assert sorted(n for share in shares for n in share) == list(range(7))
    only_objects = p.model_copy(update={"regularization": 0.0})
    assert len(feature_cache.row_share(tiny.source(rows, only_objects), ProcessGroup())) == 4
    first, second = (filling(kinds(model, rows, p)["latents"], rows, p) for _ in range(2))
    assert list(zip(first, second, strict=True)) == [(n, n) for n in range(1, 8)]
    store = open_store(kinds(model, rows, p)["latents"].store.folder)
    assert len(store.keys) == 2 * len(set(store.keys)) == 14
    assert computed(model, rows, p) == (0, 0)


def written(number: int) -> None:
    for n in range(20):
        write_shard(Path("store"), {key_of(bytes([n, number])): {"x": torch.full((3,), float(n))}})


def test_shards_of_two_processes_stand_side_by_side() -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=written, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store = open_store(Path("store"))
    assert len(store.keys) == 40
    for number in range(2):
        entry = find(store, key_of(bytes([7, number])))
        assert entry is not None
        assert entry["x"].tolist() == [7.0] * 3


def test_an_entry_that_vanishes_in_training_names_the_way_out(rows: Rows) -> None:
    p = tiny.train_params(cache=["latents"])
    caches, _ = filled(subject_model(tiny.pipeline().components), rows, p)
    assert caches.latents is not None
    shard_of(caches.latents).write_bytes(b"")
    feature_store._cached_header.cache_clear()
    with pytest.raises(TamingError, match="Run the same command again"):
        batch_at(0, tiny.source(rows, p, caches=caches))


def test_a_key_depends_on_where_its_parts_end() -> None:
    assert key_of(b"ab", b"c") != key_of(b"a", b"bc")
    assert find(open_store(Path("nowhere")), image_key(b"")) is None


def parked(rows: Rows, injection: str = "concat", **values: Any) -> set[str]:
    p = (fresh if "tower" in values.get("cache", []) else tiny.train_params)(
        **({"injection": injection} if "tower" in values["cache"] else {}), offload=True, **values
    )
    return set(
        feature_cache.offloaded_networks(subject_model(tiny.pipeline(injection).components), p, fewest_views(rows))
    )


NO_IDENTITY = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}


def test_parts_wait_only_where_no_step_needs_them(rows: Rows) -> None:
    assert parked(rows, cache=["latents", "text"], **NO_IDENTITY) == {"vae", "text_encoder"}
    assert parked(rows, cache=["latents", "text"]) == {"text_encoder"}  # the identity loss decodes
    assert parked(rows, cache=["tower"]) == {"tower"}
    assert parked(rows, cache=["tower", "text"], references=2) == {"text_encoder"}  # copies stand in
    assert parked(rows, cache=["tower"], references=2, cross_reference=0.0) == {"tower"}
    with pytest.raises(TamingError, match=r"train.offload has no effect"):
        parked(rows, "reference", cache=["latents", "text"], **NO_IDENTITY)
    lays, p = tiny.pipeline(), tiny.train_params(offload=True, cache=["latents", "text"], **NO_IDENTITY)
    lays.object_encoder.add_collage(collage_size(lays.family))
    parts = feature_cache.offloaded_networks(subject_model(lays.components), p, fewest_views(rows))
    assert set(parts) == {"text_encoder"}  # a collage encodes subjects
    p = tiny.train_params(cache=["text"])
    assert feature_cache.offloaded_networks(subject_model(tiny.pipeline().components), p, fewest_views(rows)) == {}


def staged(folder: Path, **values: Any) -> dict[str, bytes]:
    """The encoder that `taming train` leaves."""
    params = yaml.safe_load(packaged_params().read_text())
    small = {"start": str(folder / "start"), "steps": 2, "batch_size": 2, "micro_batch_size": 1, "warmup": 1}
    params["train"] |= {**small, **NO_IDENTITY, **values}
    params["train"]["validation"] |= {"every": 2, "objects": 1, "prompts": ["a <object> in the snow"]}
    params["train"]["validation"]["sampling"] |= {"steps": 2}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    train(Path("rows"), Path("encoder"), Path("params.yaml"), "cpu")
    return {str(f): f.read_bytes() for f in sorted(Path("encoder").rglob("*")) if f.suffix in (".safetensors", ".png")}


def test_the_stage_fills_caches_sends_parts_away_and_leaves_the_same_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_rows(Path("rows"), views=2)
    tiny.pipeline().save_pretrained(tmp_path / "start")
    plain = staged(tmp_path)
    assert "damaged" not in capsys.readouterr().err
    start = load_pipeline(str(tmp_path / "start"))
    model = subject_model(start.components, weight_digests(start))
    folder = Path("runs/cache") / feature_cache.folder_name("latents", model, tiny.train_params())
    folder.mkdir(parents=True)
    (folder / "0.safetensors").write_bytes(b"cut off")
    shutil.rmtree("encoder")  # a finished training is not done again
    assert staged(tmp_path, **BOTH, offload=True) == plain
    assert "1 cached entries or shards were damaged" in capsys.readouterr().err
    assert sorted(f.name.split("-")[0] for f in Path("runs/cache").iterdir() if f.is_dir()) == ["latents", "text"]
    assert len(list(folder.iterdir())) == 2


class Traveller(torch.nn.Linear):
    """Writes down where it is sent, for there is no other device here."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.places = list[str]()

    def to(self, *where: Any, **more: Any) -> Any:
        self.places.append(str(where[0]))
        return super().to("cpu", **more)


def test_parts_come_back_for_a_picture_and_leave_again_whatever_happens() -> None:
    part = Traveller()
    feature_cache.offload({"vae": part})
    with suppress(KeyboardInterrupt), feature_cache.on_device({"vae": part}, torch.device("cuda")):
        assert part.places == ["cpu", "cuda"]
        raise KeyboardInterrupt
    assert part.places == ["cpu", "cuda", "cpu"]
