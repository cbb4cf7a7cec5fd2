"""DINO, CLIP-I and CLIP-T against the packages called directly, on tiny models of the real classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_rows import artwork, composed
from transformers import (
    AutoTokenizer,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from taming_core.errors import TamingError
from taming_core.evaluation import judges
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.similarity import ScoreNetworks, add_all_scores, facts, load_networks
from taming_core.evaluation.views import Views, object_alone
from taming_core.params.sections import EvaluationScores
from taming_core.weights.mini import MINI
from taming_core.weights.network_fingerprint import network_fingerprint

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SUBJECTS, IMAGES = 5, 50


def save_dino(folder: Path, pooler: bool = False) -> str:
    """As facebook/dino-vits16 is published; with `pooler` as a copy of it that was loaded and saved again."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=224, patch_size=32, **SHAPE), add_pooling_layer=pooler).save_pretrained(folder)
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    return str(folder)


def save_dinov2(folder: Path) -> str:
    torch.manual_seed(1)
    Dinov2Model(Dinov2Config(image_size=224, patch_size=28, **SHAPE)).save_pretrained(folder)
    crop = {"crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    BitImageProcessor(size={"shortest_edge": 256}, **crop).save_pretrained(folder)
    return str(folder)


def save_clip(folder: Path) -> str:
    torch.manual_seed(2)
    tokenizer = AutoTokenizer.from_pretrained(MINI / "clip")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**SHAPE, "intermediate_size": 48, "vocab_size": len(tokenizer), "max_position_embeddings": 24, **ids}
    vision = {**SHAPE, "intermediate_size": 48, "image_size": 224, "patch_size": 32}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 224}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> EvaluationScores:
    home = tmp_path_factory.mktemp("networks")
    return EvaluationScores(
        dino=save_dino(home / "dino"), dinov2=save_dinov2(home / "dinov2"), clip_b32=save_clip(home / "clip")
    )


@pytest.fixture(scope="module")
def networks(specs: EvaluationScores) -> ScoreNetworks:
    return load_networks(specs, "cpu")


def photo(thing: int, number: int, size: tuple[int, int] = (128, 128)) -> tuple[Image.Image, np.ndarray]:
    pixels, mask = composed(artwork(SUBJECTS)[thing], number, tilt=7 * number)
    return Image.fromarray(pixels).resize(size), np.asarray(Image.fromarray(mask).resize(size))


def with_mask(thing: int, number: int) -> Image.Image:
    image, mask = photo(thing, number)
    image.putalpha(Image.fromarray(mask).convert("L"))
    return image


@pytest.fixture(scope="module")
def views() -> Views:
    """Ten images of each of five subjects, in many sizes, and two photos of each."""
    nothing = Image.new("RGBA", (4, 4))
    subjects = [
        EvalSubject(f"thing-{i}", nothing, nothing, (), "apple", square_photos=(with_mask(i, 0), with_mask(i, 1)))
        for i in range(SUBJECTS)
    ]
    drawn = [photo(i % SUBJECTS, 2 + i, (100 + i, 160 - i)) for i in range(IMAGES)]
    return Views([image for image, _ in drawn], [[np.roll(mask, 30, 1), mask] for _, mask in drawn], subjects)


def rows_of(count: int = IMAGES) -> list[dict[str, Any]]:
    return [
        {"condition": "ours", "identity": f"thing-{i % SUBJECTS}", "kind": "scene",
         "prompt": f"a photo of a <object> on a {('red', 'blue')[i % 2]} background"}
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored(views: Views, networks: ScoreNetworks) -> list[dict[str, Any]]:
    return add_all_scores(rows_of(), views, networks)[0]


@torch.no_grad()
def direct(key: str, folder: str, images: list[Image.Image]) -> torch.Tensor:
    """Features by transformers alone, image by image."""
    if key == "clip_b32":
        clip, processor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessor.from_pretrained(folder)
        found = [clip.get_image_features(**processor(i, return_tensors="pt")).pooler_output for i in images]
    else:
        kinds = {"dino": (ViTModel, ViTImageProcessor), "dinov2": (Dinov2Model, BitImageProcessor)}
        model, processor = (kind.from_pretrained(folder) for kind in kinds[key])
        found = [model.eval()(**processor(i, return_tensors="pt")).last_hidden_state[:, 0] for i in images]
    return torch.cat(found)


@pytest.mark.parametrize(("key", "measure"), [("dino", "dino"), ("dinov2", "dinov2"), ("clip_b32", "clip_i_b32")])
def test_similarities_equal_transformers_called_directly(
    key: str, measure: str, specs: EvaluationScores, views: Views, scored: list[dict[str, Any]]
) -> None:
    folder = getattr(specs, key)
    images = direct(key, folder, list(views.images))
    seen, other = (
        direct(key, folder, [s.square_photos[n].convert("RGB") for s in views.subjects]).repeat(IMAGES // SUBJECTS, 1)
        for n in (0, 1)
    )
    for ending, photos in (("", other), ("_seen", seen)):
        expected = F.cosine_similarity(images, photos)
        assert expected.std() > 1e-3
        np.testing.assert_allclose([r[measure + ending] for r in scored], expected, atol=1e-4)


def test_the_masked_score_is_of_the_most_similar_detection(
    specs: EvaluationScores, views: Views, scored: list[dict[str, Any]]
) -> None:
    def alone(image: Image.Image, mask: np.ndarray) -> Image.Image:
        return Image.fromarray(np.where(mask[..., None], np.asarray(image), np.uint8(128)))

    folder = specs.dino or ""
    photos = [s.square_photos[1] for s in views.subjects]
    reference = direct("dino", folder, [alone(p.convert("RGB"), np.asarray(p)[..., 3] > 0) for p in photos])
    detections = [direct("dino", folder, [alone(i, m) for m in masks]) for i, masks in zip(*views[:2], strict=True)]
    expected = [F.cosine_similarity(d, reference[i % SUBJECTS]).max() for i, d in enumerate(detections)]
    np.testing.assert_allclose([r["dino_masked"] for r in scored], expected, atol=1e-4)


def test_prompt_following_is_the_cosine_with_the_class_noun(
    specs: EvaluationScores, views: Views, scored: list[dict[str, Any]]
) -> None:
    folder = specs.clip_b32 or ""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompts = [row["prompt"].replace("a <object>", "an apple") for row in rows_of()]
    with torch.no_grad():
        texts = model.get_text_features(**tokenizer(prompts, return_tensors="pt", padding=True)).pooler_output
    expected = F.cosine_similarity(direct("clip_b32", folder, list(views.images)), texts)
    np.testing.assert_allclose([r["clip_t_b32"] for r in scored], expected, atol=1e-4)


class PlainClip(CLIPModel):
    """Its features are tensors, as torchmetrics expects of transformers 4."""

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_text_features(*args, **kwargs).pooler_output


def test_prompt_following_is_a_hundredth_of_clip_score(
    specs: EvaluationScores, views: Views, scored: list[dict[str, Any]]
) -> None:
    functional = pytest.importorskip("torchmetrics.functional.multimodal")
    folder = specs.clip_b32 or ""
    image_processor, tokenizer = CLIPImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    parts = PlainClip.from_pretrained(folder).eval(), CLIPProcessor(image_processor, tokenizer)
    for row, image in zip(scored, views.images, strict=True):
        pixels = torch.as_tensor(np.array(image)).permute(2, 0, 1)
        score = functional.clip_score(pixels, row["prompt"].replace("a <object>", "an apple"), lambda: parts)
        assert max(row["clip_t_b32"], 0) == pytest.approx(score.item() / 100, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_scores_depend_neither_on_batch_size_nor_on_order(
    batch_size: int, views: Views, networks: ScoreNetworks, scored: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(judges, "BATCH_SIZE", batch_size)
    backwards = Views(views.images[::-1], views.masks[::-1], views.subjects[::-1])
    again = add_all_scores(rows_of()[::-1], backwards, networks)[0][::-1]
    for before, after in zip(scored, again, strict=True):
        assert before == pytest.approx(after, abs=1e-5)


def test_a_random_pooler_in_a_file_does_not_count(tmp_path: Path, specs: EvaluationScores, views: Views) -> None:
    saved = load_networks(EvaluationScores(dino=save_dino(tmp_path, pooler=True)), "cpu")
    found = saved.vision["dino"](views.images[:4])
    expected = F.normalize(direct("dino", str(tmp_path), list(views.images[:4])), dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_without_a_detection_has_no_likeness_and_one_in_a_style_no_masked_score(
    views: Views, networks: ScoreNetworks
) -> None:
    few = Views(views.images[:2], [[], []], views.subjects)
    lost, style = add_all_scores([rows_of()[0], {**rows_of()[1], "kind": "style"}], few, networks)[0]
    assert {value for key, value in lost.items() if key.endswith("_masked")} == {0.0}
    assert "clip_t_b32_masked" in lost
    assert not [key for key in style if key.endswith("_masked")]
    assert {"dino", "dino_seen", "clip_t_b32"} <= set(style)


def test_a_real_photo_is_compared_with_the_photos_that_it_is_not(views: Views, networks: ScoreNetworks) -> None:
    (subject,) = [replace(views.subjects[0], square_photos=tuple(with_mask(0, n) for n in range(3)))]
    photos = [p.convert("RGB") for p in subject.square_photos]
    rows = [{"condition": "real_photos", "identity": "thing-0", "kind": "photo", "photo": n} for n in (0, 1)]
    first, second = add_all_scores(rows, Views(photos[1:], [[], []], [subject]), networks)[0]
    assert first["dino"] == pytest.approx(second["dino"], abs=1e-5)
    assert first["dino"] < 0.9999
    assert "clip_t_b32" not in first


def test_an_object_without_a_class_is_called_object(views: Views, networks: ScoreNetworks) -> None:
    unnamed = Views(views.images[:1], views.masks[:1], [replace(s, class_name=None) for s in views.subjects])
    clip, row = networks.clips["clip_b32"], rows_of()[0]
    text = clip.texts([row["prompt"]])[0]
    found = add_all_scores([row], unnamed, networks)[0][0]
    assert found["clip_t_b32"] == pytest.approx(float(clip.images(views.images[:1])[0] @ text), abs=1e-5)


def test_the_report_names_a_network_of_the_training(networks: ScoreNetworks, specs: EvaluationScores) -> None:
    known = {network_fingerprint(networks.vision["dinov2"].model): "identity network"}
    said = facts(specs, networks, known)["Reported scores"].split("; ")
    assert ["training" in clause for clause in said] == [False, True, False]
    assert facts(EvaluationScores(), ScoreNetworks({}, {}), known) == {}


@pytest.mark.parametrize("key", ["dino", "dinov2", "clip_b32", "clip_l14"])
def test_an_absent_network_is_named_by_its_key(key: str) -> None:
    with pytest.raises(TamingError, match=rf"evaluate\.scores\.{key}"):
        load_networks(EvaluationScores.model_validate({key: "./nowhere"}), "cpu")


def test_only_the_object_is_left_in_colour() -> None:
    image, mask = photo(0, 0)
    alone = np.asarray(object_alone(image, mask))
    assert (alone[~mask] == 128).all()
    np.testing.assert_array_equal(alone[mask], np.asarray(image)[mask])
