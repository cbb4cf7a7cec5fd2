"""The trainings of autoencoder, CLIP and base model run in small size, resume, and write what the library opens."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipelines.mini import (
    autoencoder,
    base,
    base_model,
    clip,
    clip_batches,
    clip_model,
    tokenizer,
    training_loop,
    world_data,
)
from pipelines.mini.stage_params import load_section
from pipelines.mini.train_state import TrainState
from taming_core.bases.load import load_base
from taming_core.evaluation.judges import load_text_judge
from taming_core.training.identity import load_identity_network
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import plans
from taming_core.world.plan import Chances

ROOT = Path(__file__).parents[2]


COMMON = {
    "seed": 0, "steps": 2, "batch_size": 4, "learning_rate": 1.0e-3, "warmup": 0, "weight_decay": 0.01, "ema": 0.9,
    "save_every": 1, "size": 32, "workers": 0, "eval_photos": 4,
}  # fmt: skip
SECTIONS: dict[str, dict[str, Any]] = {
    "autoencoder": COMMON | {
        "widths": [8, 8, 16], "latent_channels": 4, "chances": {"style": 0.5}, "reference_share": 0.25,
        "gradient_weight": 0.5, "gradient_scales": 3, "kl_weight": 5.0e-4,
    },
    "clip": COMMON | {
        "chances": {"paraphrase": 0.5}, "recoloured": 0.3, "other_design": 0.3, "object_captions": 0.3,
        "text": {"width": 16, "layers": 1, "heads": 2}, "vision": {"width": 16, "layers": 1, "heads": 2}, "patch": 8,
        "features": 8, "identity_features": 8, "max_scale": 60.0, "max_identity_scale": 30.0,
    },
    "base": COMMON | {
        "start": None, "widths": [8, 16, 16], "heads": [1, 2, 2], "chances": {"recolor": 0.1}, "text_drop": 0.5,
        "text_rate": 0.3, "compile": False, "timesteps": [100, 900], "prompts": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(MINI / "world")


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


def run(main: Any, *arguments: str | Path) -> str:
    """The output of a stage's command."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(main)
    result = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def params(folder: Path, **changed: dict[str, Any]) -> Path:
    file = folder / "params.yaml"
    YAML(typ="safe", pure=True).dump({n: s | changed.get(n, {}) for n, s in SECTIONS.items()}, file)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Pictures) -> Iterator[Path]:
    """A folder with all three models after two steps each."""
    folder = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(world_data, "load_pictures", lambda *_: pictures)
        few = params(folder)
        run(autoencoder.main, "--params", few, "--out", "autoencoder")
        run(clip.main, "--params", few, "--out", "clip")
        run(base.main, "--params", few, "--autoencoder", "autoencoder", "--clip", "clip", "--out", "base",
            "--chain", chain(folder))  # fmt: skip
        yield folder


def chain(folder: Path) -> Path:
    """Root params that draw in two steps."""
    found = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    found["generate"]["sampling"] |= {"steps": 2, "batch_size": 2}
    YAML(typ="safe", pure=True).dump(found, folder / "chain.yaml")
    return folder / "chain.yaml"


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_full_size_params_are_valid() -> None:
    for kind, name in ((autoencoder.AutoencoderParams, "autoencoder"), (clip_model.ClipParams, "clip"),
                       (base_model.BaseParams, "base")):  # fmt: skip
        load_section(kind, name)


def test_no_caption_has_an_unknown_word(world: World) -> None:
    words = tokenizer.word_tokenizer(world)
    chances = Chances(recolor=0.5, paraphrase=0.5, attributes=1)
    sample = [p for split in ("train", "unseen-concepts") for p in plans(world, 0, 0, 200, split, chances)]
    ids = words([p.caption for p in sample] + [p.object_caption for p in sample]).input_ids
    assert not any(words.unk_token_id in row for row in ids)
    assert max(map(len, ids)) <= tokenizer.LENGTH


def test_vocabulary_has_the_special_words_first_and_the_comma(world: World) -> None:
    known = tokenizer.vocabulary(world)
    assert tuple(known)[:5] == tokenizer.SPECIAL
    assert list(known)[5:] == sorted(list(known)[5:])
    assert tokenizer.word_tokenizer(world).tokenize("A <object>, on the left") == [
        "a",
        "<object>",
        ",",
        "on",
        "the",
        "left",
    ]


def test_batches_have_hard_negatives_and_depend_on_the_step_only(world: World) -> None:
    p = load_section(clip_model.ClipParams, "clip").model_copy(update={"batch_size": 200})
    batch, again = (clip_batches.ClipDataset(world, tokenizer.word_tokenizer(world), p)[7] for _ in range(2))
    assert batch.captions == again.captions
    art = [world.cutouts[q.objects[0].cutout] for q in batch.plans]
    pairs = list(pairwise(art))
    assert 0.05 < np.mean([a is b for a, b in pairs]) < 0.3
    assert 0.03 < np.mean([a is not b and a.name == b.name for a, b in pairs]) < 0.3
    assert 0.1 < np.mean(["<object>" in c for c in batch.captions]) < 0.3


def test_a_true_caption_is_no_negative() -> None:
    photo_facts = [
        ("a photo of", "apple", "on dots"),
        ("a photo of", "apple", "on lava"),
        ("a photo of", "pear", "on lava"),
    ]
    caption_facts = [("a photo of", "apple", ""), ("a photo of", "", "on lava"), ("a photo of", "pear", "on lava")]
    photos, captions = map(torch.from_numpy, clip_batches.as_numbers(photo_facts, caption_facts))
    true = clip_batches.caption_matches(photos, captions)
    assert true.tolist() == [[True, False, False], [True, True, False], [False, True, True]]
    same = torch.ones(3, 3, dtype=torch.bool)
    features, wrong, scale = torch.eye(3), torch.eye(3).roll(1, 0), torch.tensor(9.0)
    assert float(clip.contrastive_loss(features, wrong, scale, same)) == 0  # no negatives are left
    assert float(clip.contrastive_loss(features, wrong, scale, ~same)) > 9


def test_recoloured_objects_are_other_identities_and_grey_ones_are_not() -> None:
    identities = torch.tensor([[3, 0.9, 0.1, 0.1], [3, 0.1, 0.9, 0.1], [3, 0.85, 0.15, 0.1], [4, 0.9, 0.1, 0.1]])
    assert clip_batches.same_identity(identities).int().tolist() == [
        [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]
    ]  # fmt: skip


def test_captions_may_leave_out_scene_and_object(world: World) -> None:
    for p in plans(world, 3, 0, 200, chances=Chances(silent=0.5, paraphrase=0.5)):
        style, objects, scene = clip_batches.facts_of(p)
        assert clip_batches.facts_in(p, p.caption)[:2] == (style, objects)
        silent = clip_batches.facts_in(p, p.caption)[2] == ""
        assert silent == (p.caption.split(",")[0].endswith(p.objects[-1].words))
        assert (clip_batches.facts_in(p, p.object_caption)[1] == "") == (len(p.objects) == 1)
        assert scene == p.scene


def test_autoencoder_figures_and_scale(trained: Path) -> None:
    found = metrics(trained / "autoencoder")
    assert found["psnr_low"] <= found["psnr"] <= found["psnr_high"]
    stored = json.loads((trained / "autoencoder" / "config.json").read_text())
    assert stored["scaling_factor"] != 0.18215  # diffusers' own


def test_clip_opens_as_text_judge_and_identity_network(trained: Path) -> None:
    judge = load_text_judge(str(trained / "clip"), "cpu")
    assert judge.texts(["a photo of a <object> on the beach"]).shape == (1, 8)
    identity = load_identity_network(str(trained / "clip"), "cpu")
    loaded = clip_model.load_clip(trained / "clip", "cpu")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(identity(images), loaded.head(clip_model.pooled(loaded, images)))


def test_base_opens_and_starts_from_the_text_tower(trained: Path) -> None:
    parts = load_base(str(trained / "base"))
    assert parts["tokenizer"].get_vocab() == load_text_judge(str(trained / "clip"), "cpu").tokenizer.get_vocab()
    found = metrics(trained / "base")
    assert found["loss"] == pytest.approx((found["loss/100"] + found["loss/900"]) / 2, abs=1e-3)
    assert {"drawn/class", "drawn/scene_low", "real/class_high"} <= set(found)


def test_full_size_models_are_the_shipped_architectures(world: World) -> None:
    shipped = load_base("mini")
    vae = autoencoder.new_autoencoder(load_section(autoencoder.AutoencoderParams, "autoencoder"))
    assert shapes(vae) == shapes(shipped["vae"])
    p = load_section(base_model.BaseParams, "base")
    assert p.widths
    assert p.heads
    assert shapes(base_model.new_denoiser(p.widths, p.heads, 4, 32, 256)) == shapes(shipped["unet"])
    assert settings(base_model.new_scheduler()) == settings(shipped["scheduler"])
    ours = clip_model.new_clip(load_section(clip_model.ClipParams, "clip"), tokenizer.word_tokenizer(world))
    theirs = clip_model.load_clip(ROOT / "taming_core/mini/clip", "cpu")
    table = "text_model.embeddings.token_embedding.weight"  # the vocabulary differs
    assert {k: v for k, v in shapes(ours.model).items() if k != table} == {
        k: v for k, v in shapes(theirs.model).items() if k != table
    }
    assert shapes(ours.head) == shapes(theirs.head)


class Killed(Exception):
    """Raised to stop a training."""


def settings(scheduler: Any) -> dict[str, Any]:
    return {k: v for k, v in scheduler.config.items() if not k.startswith("_")}


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("name", ["autoencoder", "clip", "base"])
def test_a_killed_training_resumes_to_the_same_weights(
    name: str, trained: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = {"autoencoder": autoencoder, "clip": clip, "base": base}[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(world_data, "load_pictures", lambda *_: pictures)
    inputs = ["--autoencoder", trained / "autoencoder", "--clip", trained / "clip", "--chain", trained / "chain.yaml"]
    command = ["--params", trained / "params.yaml", "--out", "again", *(inputs if name == "base" else [])]
    update = training_loop._update

    def killed(state: TrainState, *rest: Any) -> Any:
        if state.step == 1:
            raise Killed
        return update(state, *rest)

    monkeypatch.setattr(training_loop, "_update", killed)
    with pytest.raises(Killed):
        run(script.main, *command)
    monkeypatch.setattr(training_loop, "_update", update)
    run(script.main, *command)
    for file in sorted((trained / name).rglob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(trained / name)).read_bytes()
