"""Which rows a step sees, and what of them the model is told."""

from collections import Counter
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from taming_core.batches import Batch, Example, ahead, batch_at, example, frame, require_rows, row_at
from taming_core.conditions import subject_pixels
from taming_core.config import StandIn
from taming_core.errors import TamingError
from taming_core.rows import Rows, load_rows
from taming_core.stand_in import changed, corners

SIZE = 32
PLAIN = {"object_drop": 0.0, "text_drop": 0.0, "cross_reference": 0.0, "general": 0.0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Two identities in three views each, and three general rows."""
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("rows")), "train")


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Three identities with one view each."""
    return load_rows(tiny.write_rows(tmp_path_factory.mktemp("lonely"), 3, views=1, general=0), "train")


def subjects(rows: Rows) -> dict[str, torch.Tensor]:
    return {
        r["row_id"]: subject_pixels(tiny.decoded({"bytes": r["subject"]}), SIZE)
        for r in map(rows.__getitem__, rows.objects)
    }


def examples(rows: Rows, count: int, **values: float) -> list[Example]:
    p = tiny.train_params(**{**PLAIN, **values})
    return [example(rows, row_at(rows, n, p), n, SIZE, p) for n in range(count)]


def test_every_object_row_comes_once_an_epoch_in_another_order_each_time(rows: Rows) -> None:
    p = tiny.train_params(general=0.0)
    seen = [row_at(rows, n, p) for n in range(5 * 6)]
    epochs = [tuple(seen[i : i + 6]) for i in range(0, 30, 6)]
    assert all(sorted(epoch) == sorted(rows.objects) for epoch in epochs)
    assert len(set(epochs)) > 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.9])
def test_general_rows_have_their_share_of_every_stretch(rows: Rows, share: float) -> None:
    p = tiny.train_params(general=share)
    general = np.cumsum([row_at(rows, n, p) in rows.general for n in range(200)])
    assert np.abs(general - share * np.arange(1, 201)).max() <= 1


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
        assert any(torch.equal(e.subject, o) for o in others)
        assert any(torch.equal(e.view, o) for o in others)
        assert not torch.equal(e.subject, known[e.row_id])
    for e in examples(rows, 12):
        assert torch.equal(e.subject, known[e.row_id])
        assert not torch.equal(e.view, known[e.row_id])  # the identity loss looks at another view all the same


def test_all_references_are_used(rows: Rows) -> None:
    known, seen = subjects(rows), Counter[str]()
    for e in examples(rows, 60, cross_reference=1.0):
        seen.update(name for name, s in known.items() if torch.equal(s, e.subject))
    assert set(seen) == set(known)


def test_where_there_is_no_other_view_a_changed_one_stands_in(lonely: Rows) -> None:
    known = subjects(lonely)
    for e in examples(lonely, 6, cross_reference=1.0):
        assert not torch.allclose(e.subject, known[e.row_id], atol=0.05)
        assert torch.equal(e.view, known[e.row_id])


def test_a_stand_in_is_turned_and_relit_but_never_mirrored_or_recoloured() -> None:
    subject = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    subject.paste((100, 0, 0, 255), (4, 4, 30, 60))  # red on the left, blue on the right
    subject.paste((0, 0, 100, 255), (30, 4, 60, 60))
    p = StandIn(rotation=20.0, perspective=0.1, light=0.3)
    for seed in range(20):
        rgba = np.asarray(changed(subject, p, np.random.default_rng(seed)), np.float64)
        red, blue = (np.average(np.arange(64), weights=(rgba[..., c] * (rgba[..., 3] > 128)).sum(0)) for c in (0, 2))
        assert red < blue
        assert rgba[..., 1].max() == 0  # neither red nor blue has green in it
        opaque = rgba[rgba[..., 3] == 255][:, [0, 2]].max(1)
        assert np.quantile(opaque, 0.02) >= 70  # by less than a quantile it rings at the edges
        assert np.quantile(opaque, 0.98) <= 130
        assert np.abs(corners(p, np.random.default_rng(seed))).max() <= 1  # nothing is cut off
    assert changed(subject, StandIn(rotation=0.0, perspective=0.0, light=0.0), np.random.default_rng(0)) == subject


def test_the_frame_leaves_the_room_that_the_view_leaves() -> None:
    mask, shown = np.zeros((100, 100), bool), np.zeros((50, 50), bool)
    mask[10:50, 20:40] = True
    shown[5:45, 10:30] = True  # the longer side fills 0.8
    assert frame(mask, shown).tolist() == [5.0, 5.0, 55.0, 55.0]
    assert frame(np.zeros((4, 6), bool), np.ones((5, 5), bool)).tolist() == [0.0, -1.0, 6.0, 5.0]


def test_targets_are_the_rows_images(rows: Rows) -> None:
    made = examples(rows, 1)[0]
    image = np.asarray(tiny.decoded({"bytes": rows[rows.find(made.row_id)]["image"]}), np.float32)
    torch.testing.assert_close((made.target.permute(1, 2, 0) + 1) * 127.5, torch.from_numpy(image))


def same(first: Batch, second: Batch) -> bool:
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(Batch))
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_a_batch_depends_on_its_step_alone(rows: Rows) -> None:
    make = partial(batch_at, rows=rows, tokenizer=tiny.tokenizer(), size=SIZE, p=tiny.train_params())
    batches = [make(step) for step in range(5)]
    assert not same(batches[0], batches[1])
    threaded = ahead(make, 5, 2)
    assert all(same(threaded(step), batches[step]) for step in (0, 1, 2, 4))
    assert same(ahead(make, 5, 2)(3), batches[3])


def test_batches_have_the_shapes_they_promise(rows: Rows) -> None:
    batch = batch_at(0, rows, tiny.tokenizer(), SIZE, tiny.train_params(general=0.5))
    assert batch.target.shape == (4, 3, 32, 32)
    assert batch.tokens.shape == (4, 32)
    assert batch.present.tolist().count(True) <= 2
    assert batch.target.abs().max() <= 1


def test_rows_that_cannot_be_trained_on_are_refused(lonely: Rows, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"train.general is 0.25.* Set it to 0, or run `taming materialize --general"):
        require_rows(lonely, tiny.train_params())
    require_rows(lonely, tiny.train_params(general=0.0))
    none = load_rows(tiny.write_rows(tmp_path, 0, general=2), "train")
    with pytest.raises(TamingError, match="No training row holds an object"):
        require_rows(none, tiny.train_params())
