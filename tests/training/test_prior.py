"""Images of the start's own as regularization rows: drawn once, resumed after a crash, joined with the others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image

from stages.train import train
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline
from taming_core.model.subject_model import subject_model
from taming_core.params.load import packaged_params
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows, concatenate, load_rows
from taming_core.training import prior, validation
from taming_core.training.checkpoint import model_state
from taming_core.training.sampler import row_at

COUNT = 5


def params(**values: Any) -> TrainParams:
    p = tiny.train_params(prior=COUNT, **values)
    sampling = p.validation.sampling.model_copy(update={"steps": 2, "batch_size": 2})
    return p.model_copy(update={"validation": p.validation.model_copy(update={"sampling": sampling})})


@pytest.fixture(scope="module")
def pipeline() -> TamingPipeline:
    return tiny.pipeline()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two identities in three views each, and nothing else."""
    return tiny.write_rows(tmp_path_factory.mktemp("rows"), regularization=0)


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    return load_rows(folder, "train")


@pytest.fixture(scope="module")
def drawn(pipeline: TamingPipeline, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prior-0123")
    assert list(prior.make_prior(pipeline, rows, params(), out)) == [2, 4, 5]
    return out


def test_the_images_are_general_rows_of_the_size_of_the_others(drawn: Path, rows: Rows) -> None:
    assert [p.name for p in drawn.iterdir()] == ["train-00000.parquet"]
    made = load_rows(drawn, "train")
    assert len(made.regularization) == len(made) == COUNT
    assert len({made[i]["image"] for i in range(COUNT)}) == COUNT
    for i in range(COUNT):
        image = tiny.decoded({"bytes": made[i]["image"]})
        assert (image.mode, image.size) == ("RGB", (tiny.SIDE, tiny.SIDE))
        assert made[i]["subject"] is None
        assert made[i]["caption"] in rows.column("caption")


def test_prompts_are_plain_captions_and_the_seed_draws_them(rows: Rows) -> None:
    said = prior.prompts(rows, params().model_copy(update={"prior": 12}))
    assert sorted(said[:6]) == sorted(said[6:]) == sorted(rows.column("caption"))
    assert not any("<object>" in s for s in said)
    assert prior.prompts(rows, params(seed=1)) != prior.prompts(rows, params(seed=2))


def test_after_a_crash_only_what_is_missing_is_drawn_and_the_bytes_are_the_same(
    pipeline: TamingPipeline, rows: Rows, drawn: Path, tmp_path: Path
) -> None:
    out = tmp_path / drawn.name
    half = prior.make_prior(pipeline, rows, params(), out)
    assert next(half) == 2
    del half
    left = {p: p.stat().st_mtime_ns for p in out.glob("pictures/*.png")}
    assert len(left) == 2
    made = prior.make_prior(pipeline, rows, params(), out)
    assert [next(made), {p: p.stat().st_mtime_ns for p in left}, *made] == [2, left, 4, 5]
    assert (out / "train-00000.parquet").read_bytes() == (drawn / "train-00000.parquet").read_bytes()
    assert list(prior.make_prior(pipeline, rows, params(), out)) == []


def test_an_image_of_another_size_is_brought_to_that_of_the_rows(tmp_path: Path) -> None:
    Image.new("RGB", (48, 48), "red").save(tmp_path / "000003.png")
    made = prior.row(3, "a cat", tmp_path / "000003.png", 32)
    assert tiny.decoded(made["image"]).size == (32, 32)
    assert (made["row_id"], made["regularization"], made["references"]) == ("prior-000003", True, [])


def test_another_start_other_rows_or_another_way_to_draw_is_another_set(
    pipeline: TamingPipeline, folder: Path, tmp_path: Path
) -> None:
    p, model = params(), subject_model(pipeline.components)
    other_model = tiny.pipeline(seed=1)
    other_noise = tiny.pipeline(prediction="epsilon")
    assert model_state(subject_model(other_noise.components)) == model_state(model)
    names = [
        prior.fingerprint(p, folder, model, pipeline),
        prior.fingerprint(params(seed=7), folder, model, pipeline),
        prior.fingerprint(p.model_copy(update={"prior": 6}), folder, model, pipeline),
        prior.fingerprint(p, tiny.write_rows(tmp_path, identities=1), model, pipeline),
        prior.fingerprint(p, folder, subject_model(other_model.components), other_model),
        prior.fingerprint(p, folder, model, other_noise),
        prior.fingerprint(tiny.train_params(prior=COUNT), folder, model, pipeline),
    ]
    assert len(set(names)) == len(names)
    assert prior.fingerprint(params(learning_rate=0.5), folder, model, pipeline) == names[0]


def test_joined_rows_are_the_rows_of_both(rows: Rows, drawn: Path) -> None:
    made = load_rows(drawn, "train")
    both = concatenate(rows, made)
    assert len(both) == 6 + COUNT
    assert [both[i] for i in range(6)] == [rows[i] for i in range(6)]
    assert [both[6 + i] for i in range(COUNT)] == [made[i] for i in range(COUNT)]
    assert both.objects.tolist() == list(range(6))
    assert both.regularization.tolist() == list(range(6, 6 + COUNT))
    assert both.find("prior-000004") == 6 + 4
    assert concatenate(made, rows)[COUNT]["row_id"] == rows[0]["row_id"]
    regularization = np.array([row_at(both, n, params(regularization=0.5)) >= 6 for n in range(40)])
    assert regularization.mean() == 0.5


def test_the_grid_asks_in_the_words_and_shows_the_pictures_that_training_knows(rows: Rows) -> None:
    cut = validation.grid_subjects(rows, params(), "removed")
    assert len(cut) == 2
    assert all(s.prompts == tuple(params().validation.prompts) for s in cut)
    with pytest.raises(TamingError, match="needs each object's class"):  # these rows have none
        validation.grid_subjects(rows, params(captions="class_noun"), "removed")
    kept = validation.grid_subjects(rows, params(), "kept")
    opaque = [[np.asarray(s.image)[..., 3].mean() for s in found] for found in (cut, kept)]
    assert all(k > c for c, k in zip(*opaque, strict=True))
    assert validation.draw_grid(tiny.pipeline(), cut, params().validation, 0, "x").width > 3 * validation.SIDE


def test_a_training_without_general_photos_draws_them_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.pipeline().save_pretrained("start")
    settings = yaml.safe_load(packaged_params().read_text())
    settings["train"] = params(
        start="start", steps=2, save_every=2, identity_weight=0.0, identity_network=None, identity_max_timestep=None
    ).model_dump()
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    train(folder, Path("encoder"), Path("params.yaml"), "cpu")
    assert capsys.readouterr().out.splitlines()[-1].split() == [str(COUNT), "regularization", "rows"]
    runs = {path.name.split("-")[0]: path.name for path in Path("runs").iterdir()}
    assert runs["train"].endswith(runs["prior"])  # other images, another training
    assert json.loads(Path("encoder/training.json").read_text())["regularization_rows"] == COUNT
