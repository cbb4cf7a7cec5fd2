"""Which rows a step sees, and what of them the model is told."""

import gc
import multiprocessing
from collections import Counter
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pytest
import small_rows
import tiny
import torch
from PIL import Image

from taming_core.errors import TamingError
from taming_core.language.placeholder import prompt_for
from taming_core.model.inputs import Batch, EncoderInputs, subject_pixels
from taming_core.params.train import Augmentation
from taming_core.tables.requirements import require_rows
from taming_core.tables.row_images import encoder_image, object_frame
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import data_loader
from taming_core.training.augmentation import augment, random_corners
from taming_core.training.batches import Example, batch_at, caption_for, make_example
from taming_core.training.data_loader import in_processes, prefetch
from taming_core.training.distributed import ProcessGroup
from taming_core.training.sampler import row_at

SIZE = 32
CUT_OUT, IN_PHOTO = EncoderInputs("removed", ""), EncoderInputs("kept", "")
PLAIN = {"object_drop": 0.0, "text_drop": 0.0, "cross_reference": 0.0, "regularization": 0.0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Two identities in three views each, and three regularization rows."""
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("rows")), "train")


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Three identities with one view each."""
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("lonely"), 3, views=1, regularization=0), "train")


def subjects(rows: Rows) -> dict[str, torch.Tensor]:
    return {
        r["row_id"]: subject_pixels(tiny.decoded({"bytes": r["subject"]}), SIZE)
        for r in map(rows.__getitem__, rows.objects)
    }


def in_photos(rows: Rows) -> dict[str, torch.Tensor]:
    return {r["row_id"]: subject_pixels(encoder_image(r, "kept"), SIZE) for r in map(rows.__getitem__, rows.objects)}


def examples(rows: Rows, count: int, inputs: EncoderInputs = CUT_OUT, **values: Any) -> list[Example]:
    p = tiny.train_params(**{**PLAIN, **values})
    source = replace(tiny.source(rows, p), inputs=inputs, size=SIZE)
    return [make_example(source, row_at(rows, n, p), n) for n in range(count)]


def test_every_object_row_comes_once_an_epoch_in_another_order_each_time(rows: Rows) -> None:
    p = tiny.train_params(regularization=0.0)
    seen = [row_at(rows, n, p) for n in range(5 * 6)]
    epochs = [tuple(seen[i : i + 6]) for i in range(0, 30, 6)]
    assert all(sorted(epoch) == sorted(rows.objects) for epoch in epochs)
    assert len(set(epochs)) > 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.9])
def test_general_rows_have_their_share_of_every_stretch(rows: Rows, share: float) -> None:
    p = tiny.train_params(regularization=share)
    regularization = np.cumsum([row_at(rows, n, p) in rows.regularization for n in range(200)])
    assert np.abs(regularization - share * np.arange(1, 201)).max() <= 1


def test_dropping_happens_as_often_as_the_params_say(rows: Rows) -> None:
    made = examples(rows, 400, object_drop=0.3, text_drop=0.2)
    assert abs(np.mean([not e.present for e in made]) - 0.3) < 0.07
    assert abs(np.mean([e.caption == "" for e in made]) - 0.2) < 0.06
    both = Counter((e.present, e.caption == "") for e in made)
    assert len(both) == 4  # independent: all combinations, so that two-way guidance has each of its passes


def test_without_its_embedding_a_row_speaks_plainly_and_shows_nothing(rows: Rows) -> None:
    for e in examples(rows, 6, object_drop=1.0):
        assert e.caption.startswith("a photo of a dog in view")
        assert not e.present
        assert not any(t.any() for t in (e.subject, e.view, e.mask, e.frame))
    for e in examples(rows, 6):
        assert e.caption == "a photo of a <object> on the beach"
        assert e.subject.any()
        assert e.mask.any()


def test_the_subject_comes_from_another_view_when_it_should(rows: Rows) -> None:
    known = subjects(rows)
    for e in examples(rows, 12, cross_reference=1.0):
        others = [known[r] for r in rows[rows.find(e.row_id)]["references"]]
        assert any(torch.equal(e.subject[0], o) for o in others)
        assert any(torch.equal(e.view, o) for o in others)
        assert not torch.equal(e.subject[0], known[e.row_id])
    for e in examples(rows, 12):
        assert torch.equal(e.subject[0], known[e.row_id])
        assert not torch.equal(e.view, known[e.row_id])  # the identity loss looks at another view all the same


def test_all_references_are_used(rows: Rows) -> None:
    known, seen = subjects(rows), Counter[str]()
    for e in examples(rows, 60, cross_reference=1.0):
        seen.update(name for name, s in known.items() if torch.equal(s, e.subject[0]))
    assert set(seen) == set(known)


def test_where_there_is_no_other_view_a_changed_one_stands_in(lonely: Rows) -> None:
    known = subjects(lonely)
    for e in examples(lonely, 6, cross_reference=1.0):
        assert not torch.allclose(e.subject[0], known[e.row_id], atol=0.05)
        assert torch.equal(e.view, known[e.row_id])


def test_several_references_are_different_views_and_none_is_the_rows_own(rows: Rows) -> None:
    known = subjects(rows)
    for e in examples(rows, 12, cross_reference=1.0, references=2):
        others = [known[r] for r in rows[rows.find(e.row_id)]["references"]]
        assert len(others) == 2
        assert all(any(torch.equal(s, o) for s in e.subject) for o in others)


def test_without_cross_reference_the_own_view_comes_first_and_others_follow(rows: Rows) -> None:
    known = subjects(rows)
    for e in examples(rows, 12, references=3):
        others = [known[r] for r in rows[rows.find(e.row_id)]["references"]]
        assert torch.equal(e.subject[0], known[e.row_id])
        assert all(any(torch.equal(s, o) for s in e.subject[1:]) for o in others)


@pytest.mark.parametrize("cross", [0.0, 1.0])
def test_changed_copies_of_the_views_stand_in_for_those_that_are_missing(rows: Rows, cross: float) -> None:
    unchanged = {"rotation": 0.0, "perspective": 0.0, "light": 0.0}
    for e in examples(rows, 6, cross_reference=cross, references=5, augmentation=unchanged):
        there = 2 if cross else 3
        assert len({s.numpy().tobytes() for s in e.subject}) == there
        assert all(torch.equal(e.subject[there + i], e.subject[i]) for i in range(5 - there))
    for e in examples(rows, 6, cross_reference=cross, references=5):
        assert len({s.numpy().tobytes() for s in e.subject}) == 5


def test_of_one_photo_all_references_are_changed_copies_that_differ(lonely: Rows) -> None:
    known = subjects(lonely)
    for e in examples(lonely, 6, cross_reference=1.0, references=3):
        assert len({s.numpy().tobytes() for s in e.subject}) == 3
        assert not any(torch.allclose(s, known[e.row_id], atol=0.05) for s in e.subject)


@pytest.mark.parametrize("cross", [0.0, 1.0])
def test_a_kept_background_is_in_the_subject_and_never_in_the_view(rows: Rows, cross: float) -> None:
    cut, kept = subjects(rows), in_photos(rows)
    for e in examples(rows, 12, IN_PHOTO, cross_reference=cross):
        assert any(torch.equal(e.subject[0], k) for k in kept.values())
        assert not any(torch.equal(e.subject[0], c) for c in cut.values())
        assert any(torch.equal(e.view, c) for c in cut.values())


def test_a_stand_in_keeps_the_background_too(lonely: Rows) -> None:
    pairs = (examples(lonely, 6, shown, cross_reference=1.0) for shown in (CUT_OUT, IN_PHOTO))
    for cut, kept in zip(*pairs, strict=True):
        filled = [e.subject[0].abs().sum(0) > 0.02 for e in (cut, kept)]
        assert filled[1].sum() > 1.1 * filled[0].sum()


def test_the_photo_shows_the_object_where_the_cut_out_has_it() -> None:
    for number, thing in enumerate(small_rows.artwork(4)):
        made = small_rows.row(thing, "a", number % 2, "train")
        row = made | {name: made[name]["bytes"] for name in ("image", "mask", "subject")}
        cut, kept = (np.asarray(encoder_image(row, background), np.float32) for background in ("removed", "kept"))
        inside, ground = cut[..., 3] == 255, cut[..., 3] == 0
        moved = {(y, x): np.roll(kept, (y, x), (0, 1)) for y in (-3, 0, 3) for x in (-3, 0, 3)}
        off = {shift: np.abs(cut - picture)[inside].mean() for shift, picture in moved.items()}
        assert min(off, key=lambda shift: off[shift]) == (0, 0)
        assert off[0, 0] < 5
        assert (kept[..., 3] == 255).mean() > 0.95
        assert kept[ground][:, :3].std() > 10  # a scene


def test_beyond_the_edge_of_the_photo_there_is_nothing(rows: Rows) -> None:
    row = dict(rows[int(rows.objects[0])])
    whole = np.full((tiny.SIDE, tiny.SIDE), 255, np.uint8)
    row["mask"] = small_rows.png(whole)["bytes"]
    alpha = np.asarray(encoder_image(row, "kept"))[..., 3]
    assert not alpha[0].any()
    assert alpha[SIZE // 2, SIZE // 2] == 255


SAID = {
    "caption": "a photo of an old apple on ice, on the left", "regularization": False,
    "object_caption": "a photo of an old <object> on ice, on the left",
}  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "attributes", "present", "said"),
    [
        ("object_token", True, True, SAID["object_caption"]),
        ("object_token", True, False, SAID["caption"]),
        ("object_token", False, True, "a photo of a <object> on ice"),
        ("object_token", False, False, "a photo of an apple on ice"),
        ("class_token", True, True, "a photo of a <object>"),
        ("class_token", True, False, SAID["caption"]),
        ("class_noun", True, True, SAID["caption"]),
        ("class_noun", True, False, SAID["caption"]),
        ("class_noun", False, True, "a photo of an apple on ice"),
        ("class_noun", False, False, "a photo of an apple on ice"),
    ],
)
def test_what_the_text_says_under_each_scheme(captions: str, attributes: bool, present: bool, said: str) -> None:
    p = tiny.train_params(captions=captions, attributes=attributes)
    assert caption_for(SAID, present, p) == said


def test_general_rows_keep_every_word() -> None:
    p = tiny.train_params(attributes=False)
    assert caption_for({**SAID, "regularization": True, "object_caption": None}, False, p) == SAID["caption"]


def test_where_the_object_takes_the_place_of_its_word_the_word_outlives_a_dropped_caption(rows: Rows) -> None:
    silent = EncoderInputs.of({"background": "removed", "injection": "substitute"})
    made = examples(rows, 30, silent, text_drop=1.0, object_drop=0.5)
    assert {(e.present, e.caption) for e in made} == {(True, "<object>"), (False, "")}
    other = EncoderInputs.of({"background": "kept", "injection": "concat"})
    assert other == IN_PHOTO
    assert {e.caption for e in examples(rows, 6, other, text_drop=1.0)} == {""}


def test_a_prompt_says_what_training_said() -> None:
    assert prompt_for("a photo of a <object>", "object_token", None) == "a photo of a <object>"
    assert prompt_for("a photo of a <object>", "class_noun", "apple") == "a photo of an apple"
    with pytest.raises(TamingError, match="Name it in a column class"):
        prompt_for("a photo of a <object>", "class_noun", None)


def test_a_stand_in_is_turned_and_relit_but_never_mirrored_or_recoloured() -> None:
    subject = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    subject.paste((100, 0, 0, 255), (4, 4, 30, 60))  # red on the left, blue on the right
    subject.paste((0, 0, 100, 255), (30, 4, 60, 60))
    p = Augmentation(rotation=20.0, perspective=0.1, light=0.3)
    for seed in range(20):
        rgba = np.asarray(augment(subject, p, np.random.default_rng(seed)), np.float64)
        red, blue = (np.average(np.arange(64), weights=(rgba[..., c] * (rgba[..., 3] > 128)).sum(0)) for c in (0, 2))
        assert red < blue
        assert rgba[..., 1].max() == 0  # neither red nor blue has green in it
        opaque = rgba[rgba[..., 3] == 255][:, [0, 2]].max(1)
        assert np.quantile(opaque, 0.02) >= 70  # by less than a quantile it rings at the edges
        assert np.quantile(opaque, 0.98) <= 130
        assert np.abs(random_corners(p, np.random.default_rng(seed))).max() <= 1  # nothing is cut off
    assert augment(subject, Augmentation(rotation=0.0, perspective=0.0, light=0.0), np.random.default_rng(0)) == subject


def test_the_frame_leaves_the_room_that_the_view_leaves() -> None:
    mask, shown = np.zeros((100, 100), bool), np.zeros((50, 50), bool)
    mask[10:50, 20:40] = True
    shown[5:45, 10:30] = True  # the longer side fills 0.8
    assert object_frame(mask, shown).tolist() == [5.0, 5.0, 55.0, 55.0]
    assert object_frame(np.zeros((4, 6), bool), np.ones((5, 5), bool)).tolist() == [0.0, -1.0, 6.0, 5.0]


def test_targets_are_the_rows_images(rows: Rows) -> None:
    made = examples(rows, 1)[0]
    image = np.asarray(tiny.decoded({"bytes": rows[rows.find(made.row_id)]["image"]}), np.float32)
    torch.testing.assert_close((made.target.permute(1, 2, 0) + 1) * 127.5, torch.from_numpy(image))


def same(first: Batch, second: Batch) -> bool:
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(Batch))
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_a_batch_depends_on_its_step_alone(rows: Rows) -> None:
    make = partial(batch_at, source=tiny.source(rows, tiny.train_params()))
    batches = [make(step) for step in range(5)]
    assert not same(batches[0], batches[1])
    threaded = prefetch(make, 5, 2)
    assert all(same(threaded(step), batches[step]) for step in (0, 1, 2, 4))
    assert same(prefetch(make, 5, 2)(3), batches[3])


def test_processes_make_the_same_batches_and_end_with_the_loader(rows: Rows) -> None:
    make = partial(batch_at, source=tiny.source(rows, tiny.train_params()))
    batches, made_ahead = [make(step) for step in range(6)], in_processes(make, 6, 2)
    assert same(made_ahead(0), batches[0])
    assert len(multiprocessing.active_children()) == 2
    assert all(same(made_ahead(step), batches[step]) for step in (1, 2, 4, 5, 3))  # with two jumps
    del made_ahead
    gc.collect()
    assert not multiprocessing.active_children()


def test_without_shared_memory_there_are_no_processes(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_loader, "shared_memory", lambda: 2**16)
    make = partial(batch_at, source=tiny.source(rows, tiny.train_params()))
    made_ahead = in_processes(make, 6, 2)
    assert all(same(made_ahead(step), make(step)) for step in range(6))
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_reads_as_in_this_one(rows: Rows) -> None:
    def make(step: int) -> Batch:
        if step == 1:
            raise TamingError("The row is damaged. Remove it.")
        return batch_at(step, tiny.source(rows, tiny.train_params()))

    made_ahead = in_processes(make, 6, 2)
    made_ahead(0)
    with pytest.raises(TamingError, match=r"^The row is damaged. Remove it.$"):
        made_ahead(1)


def test_when_the_processes_are_ended_this_one_goes_on(rows: Rows) -> None:
    make = partial(batch_at, source=tiny.source(rows, tiny.train_params()))
    made_ahead = in_processes(make, 40, 2)
    made_ahead(0)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    assert all(same(made_ahead(step), make(step)) for step in range(1, 40))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_have_the_batches_of_one_to_the_last_bit(rows: Rows, count: int) -> None:
    """Rows, seeds and all that is drawn with them, so that their number can change at any step."""
    source = tiny.source(rows, tiny.train_params(batch_size=8))
    shares = [ProcessGroup(rank, count).share(8) for rank in range(count)]
    for step in range(4):
        whole, parts = batch_at(step, source), [batch_at(step, source, share) for share in shares]
        assert [n for part in parts for n in part.row_ids] == list(whole.row_ids)
        assert [n for part in parts for n in part.object_counts] == list(whole.object_counts)
        for name in ("target", "tokens", "subject", "mask", "sizes", "view", "frame"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_process_reads_the_rows_of_its_share_and_their_other_views(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reading = Counter[str](), Rows.read

    def counted(self: Rows, i: SupportsIndex, columns: tuple[str, ...]) -> dict[str, Any]:
        found = reading(self, i, columns)
        read["rows" if "image" in columns else "views"] += 1
        return found

    monkeypatch.setattr(Rows, "read", counted)
    source = tiny.source(rows, tiny.train_params(batch_size=8, references=1, cross_reference=1.0))
    counts = list[Counter[str]]()
    for share in (slice(None), *(ProcessGroup(rank, 4).share(8) for rank in range(4))):
        read.clear()
        for step in range(4):
            batch_at(step, source, share)
        counts.append(read.copy())
    whole, *parts = counts
    assert [part["rows"] for part in parts] == [4 * 2] * 4
    assert sum(parts, Counter[str]()) == whole


NO_IDENTITY = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}


def test_what_no_loss_reads_is_not_made(rows: Rows) -> None:
    every, denoising, unmasked = (
        batch_at(0, tiny.source(rows, tiny.train_params(**values, **PLAIN)))
        for values in ({}, NO_IDENTITY, {**NO_IDENTITY, "mask_weight": 0.0})
    )
    assert every.view is not None
    assert every.frame is not None
    assert every.mask.any()
    assert same(denoising, replace(every, view=None, frame=None))
    assert same(unmasked, replace(denoising, mask=torch.zeros_like(every.mask)))


def test_only_the_columns_that_are_asked_for_are_read(rows: Rows) -> None:
    whole = rows[0]
    assert rows.read(0, ("row_id", "subject")) == {name: whole[name] for name in ("row_id", "subject")}
    with pytest.raises(IndexError):
        rows.read(len(rows), ("row_id",))


def test_batches_have_the_shapes_they_promise(rows: Rows) -> None:
    p = tiny.train_params(regularization=0.5, references=2)
    batch = batch_at(0, replace(tiny.source(rows, p), size=SIZE))
    assert batch.subject.shape == (4, 1, 2, 3, SIZE, SIZE)
    assert batch.view.shape == (4, 3, SIZE, SIZE)
    assert batch.target.shape == (4, 3, 32, 32)
    assert batch.tokens.shape == (4, 32)
    assert batch.present.tolist().count(True) <= 2
    assert batch.target.abs().max() <= 1


def test_rows_that_cannot_be_trained_on_are_refused(rows: Rows, lonely: Rows, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"train.prior is 5, but the rows hold 3 text-image pairs. Set it to null"):
        require_rows(rows, tiny.train_params(prior=5))
    with pytest.raises(
        TamingError, match=r"train.regularization is 0.25.* Set it to 0, run `taming materialize --regularization"
    ):
        require_rows(lonely, tiny.train_params())
    with pytest.raises(TamingError, match=r"or have train.prior images drawn"):
        require_rows(lonely, tiny.train_params())
    require_rows(lonely, tiny.train_params(regularization=0.0))
    require_rows(lonely, tiny.train_params(prior=5))
    none = load_rows(tiny.write_rows(tmp_path, 0, regularization=2), "train")
    with pytest.raises(TamingError, match="No training row holds an object"):
        require_rows(none, tiny.train_params())
