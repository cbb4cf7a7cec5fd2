"""Rows of one photo that holds two objects: an example shows both, each at its own `<object>`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_runs
import torch
from PIL import Image, ImageDraw

from taming_core.errors import TamingError
from taming_core.model.inputs import subject_pixels
from taming_core.model.subject_model import subject_model
from taming_core.photos.masks import mask_box
from taming_core.rows import triplets
from taming_core.tables import schema
from taming_core.tables.row_images import open_mask
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import checkpoint, feature_cache
from taming_core.training.batches import Example, batch_at, companion, make_example
from taming_core.training.distributed import require_divisible
from taming_core.training.objective import compute_sample_weights
from taming_core.training.start import continued_pipeline

CAPTION = "a photo of a dog and a cat on the beach"
ALWAYS: dict[str, Any] = {
    "two_objects": 1.0, "object_drop": 0.0, "text_drop": 0.0, "cross_reference": 0.0, "regularization": 0.0,
}  # fmt: skip


def pair(number: int) -> list[dict[str, Any]]:
    """Both rows of a photo with a red thing on the left and a blue one on the right."""
    side, p = 2 * tiny.SIDE, tiny.PARAMS.materialize.model_copy(update={"size": tiny.SIDE, "subject_size": tiny.SIDE})
    photo = Image.new("RGB", (side, side), (100 + number, 160, 100))
    rows: list[dict[str, Any]] = []
    boxes = {"red": (4, 20, 28, 44), "blue": (36, 16, 60, 48)}
    for colour, box in boxes.items():
        ImageDraw.Draw(photo).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour)
    for i, (colour, box) in enumerate(boxes.items()):
        mask = np.zeros((side, side), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        words = ["a <object> and a cat", "a dog and a <object>"][i]
        known = {
            "row_id": f"photo{number}-{i}", "photo_id": f"photo{number}", "file_name": f"{number}.png",
            "identity": f"{colour}-{number}", "split": "train", "regularization": False, "references": [],
            "caption": CAPTION, "object_caption": f"a photo of {words} on the beach",
        }  # fmt: skip
        images = triplets.target(np.asarray(photo), p) | triplets.subject(np.asarray(photo), mask, p, mask_box(mask))
        rows.append(dict.fromkeys(schema.ROWS.names) | known | images)
    return rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Two photos of two objects each, and two of one."""
    folder = tmp_path_factory.mktemp("two")
    made = [*pair(0), *pair(1), tiny.row(0, 0, 2, "train"), tiny.row(0, 1, 2, "train")]
    schema.write(
        [schema.table(made, schema.ROWS)], schema.add_fingerprint(schema.ROWS, "test"), folder / "train-00000.parquet"
    )
    return load_rows(folder, "train")


def example(rows: Rows, number: int, **values: Any) -> Example:
    return make_example(tiny.source(rows, tiny.train_params(**{**ALWAYS, **values})), number, number)


def test_rows_of_one_photo_are_companions(rows: Rows) -> None:
    assert rows.companions == {0: [1], 1: [0], 2: [3], 3: [2]}


@pytest.mark.parametrize("number", [0, 1])
def test_an_example_shows_both_in_the_order_of_the_caption(rows: Rows, number: int) -> None:
    made = example(rows, number)
    assert made.caption == "a photo of a <object> and a <object> on the beach"
    assert made.object_count == 2
    red, blue = (subject_pixels(tiny.decoded({"bytes": rows[i]["subject"]}), tiny.SIDE) for i in (0, 1))
    assert torch.equal(made.subject, torch.stack([red, blue]))
    assert np.array_equal(made.mask[0].bool().numpy(), open_mask(rows[0]) | open_mask(rows[1]))
    left, _, right, _ = made.frame.tolist()  # that of the row's own object, for the identity loss
    assert (left + right) / 2 == pytest.approx([8, 24][number], abs=1)


def test_a_row_without_companion_shows_its_object_alone(rows: Rows) -> None:
    made = example(rows, 4)
    assert (made.object_count, len(made.subject), made.caption) == (1, 1, rows[4]["object_caption"])


def test_it_happens_as_often_as_the_params_say(rows: Rows) -> None:
    source = tiny.source(rows, tiny.train_params(**{**ALWAYS, "two_objects": 0.3}))
    shown = [make_example(source, n % 4, n).object_count for n in range(300)]
    assert abs(shown.count(2) / 300 - 0.3) < 0.07
    assert example(rows, 0, two_objects=0.0).object_count == 1
    assert example(rows, 0, object_drop=1.0).object_count == 0
    assert example(rows, 0, text_drop=1.0).caption == ""


def test_companions_need_one_image_and_words_of_their_own(rows: Rows) -> None:
    source = tiny.source(rows, tiny.train_params(**ALWAYS))
    assert companion(source, 0, 1) is not None
    assert companion(source, 0, 2) is None  # another photo
    assert companion(source, 0, 0) is None  # the same words


def test_batches_mix_one_and_two(rows: Rows) -> None:
    p = tiny.train_params(**{**ALWAYS, "references": 2, "batch_size": 6, "micro_batch_size": 3})
    batch = batch_at(0, tiny.source(rows, p))
    assert sorted(batch.object_counts) == [1, 1, 2, 2, 2, 2]
    assert batch.subject.shape == (6, 2, 2, 3, tiny.SIDE, tiny.SIDE)
    for count, subject in zip(batch.object_counts, batch.subject, strict=True):
        assert [bool(o.any()) for o in subject] == [True, count == 2]


def test_the_identity_loss_counts_samples_with_one_object() -> None:
    model, p = subject_model(tiny.pipeline("concat").components), tiny.train_params(identity_max_timestep=900)
    times = torch.full((3,), 100)
    weights = compute_sample_weights(model, lambda x: x, torch.tensor([0, 1, 2]), times, p)
    assert (weights.identity > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("design", ["concat", "decoupled", "reference"])
def test_training_learns_from_both_and_resumes_to_the_bit(rows: Rows, design: str, tmp_path: Path) -> None:
    p = tiny.train_params(**{**ALWAYS, "steps": 4, "batch_size": 4, "identity_weight": 0.0, "identity_network": None,
                             "identity_max_timestep": None, "localization_weight": 0.0})  # fmt: skip
    folder, runs = rows.files[0].parent, [tiny_runs.begun(p, design) for _ in range(3)]
    tiny_runs.steps(runs[0], p, folder, 4)
    tiny_runs.steps(runs[1], p, folder, 2)
    checkpoint.save(runs[1], tmp_path)
    checkpoint.load(runs[2], tmp_path)
    tiny_runs.steps(runs[2], p, folder, 4)
    first, resumed = tiny_runs.state(runs[0]), tiny_runs.state(runs[2])
    assert all(torch.equal(value, resumed[name]) for name, value in first.items())


def test_cached_text_holds_the_captions_of_both(rows: Rows) -> None:
    p = tiny.train_params(**{**ALWAYS, "text_drop": 0.5})
    source = tiny.source(rows, p)
    keys = {key for key, _ in feature_cache.text_inputs(rows[0], source)}
    for n in range(30):
        tokens = source.tokenize([make_example(source, 0, n).caption])[0]
        assert feature_cache.text_key(tokens) in keys


def test_a_start_gets_or_keeps_its_binding() -> None:
    p = tiny.train_params(binding=True)
    made = continued_pipeline(tiny.pipeline("concat"), p)
    assert made.object_encoder.config["binding"] == 16
    assert "bindings.tokens.linear.weight" in dict(made.object_encoder.named_parameters())
    with pytest.raises(TamingError, match=r"train\.binding must be true"):
        continued_pipeline(made, tiny.train_params(binding=False))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"two_objects": 0.5, "captions": "class_noun"}, "two_objects must be 0 unless train.captions"),
        ({"two_objects": 0.5, "attributes": False}, "two_objects must be 0 where train.attributes"),
        ({"two_objects": 0.5, "localization_weight": 0.1}, "two_objects must be 0 where train.localization_weight"),
        ({"binding": True, "captions": "class_noun"}, "binding must be false where train.captions"),
    ],
)
def test_params_that_would_be_ignored_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        tiny.train_params(**values)


def test_two_objects_are_not_sharded() -> None:
    p = tiny.train_params(**{**ALWAYS, "precision": "bf16", "batch_size": 4, "micro_batch_size": 2})
    with pytest.raises(TamingError, match=r"train\.two_objects"):
        require_divisible(2, p, shard=True, injection="decoupled")


def test_saved_encoders_keep_their_binding(tmp_path: Path) -> None:
    made: Any = continued_pipeline(tiny.pipeline("concat"), tiny.train_params(binding=True))
    torch.nn.init.normal_(made.object_encoder.bindings["tokens"].linear.weight)
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    ours, theirs = (m.object_encoder.state_dict() for m in (made, again))
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["bindings.tokens.linear.weight"], theirs["bindings.tokens.linear.weight"])
