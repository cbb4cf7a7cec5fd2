"""params.yaml is read strictly, and every error names the key and what it may be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from taming_core.errors import TamingError
from taming_core.fingerprints import fingerprint
from taming_core.params.load import load_params, packaged_params

DEFAULT = yaml.safe_load(packaged_params().read_text())


def changed(tmp_path: Path, section: str, **values: Any) -> Path:
    """A params file that differs from the default in some keys of one section."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**DEFAULT, section: {**DEFAULT[section], **values}}))
    return path


def test_the_default_is_valid() -> None:
    assert load_params(packaged_params()).detect.detector == "mini"


def test_sections_are_frozen() -> None:
    params = load_params(packaged_params())
    with pytest.raises(ValueError, match="frozen"):
        params.detect.score = 0.5


def attributes(vocabulary: dict[str, list[str]]) -> dict[str, Any]:
    return {"model": "mini", "vocabulary": vocabulary, "min_margin": 0.5}


FRESH = {"start": None, "base": "mini", "injection": "concat", "background": "removed"}
ENCODER = {"tower": "mini", "projector": "full", "tokens": 256, "tower_blocks": 0}
LORA = {"rank": 4, "alpha": 4.0}
RED = {"kind": "attribute", "text": "a red <object>"}
WRONG = [
    ("detect", {"scoer": 0.2}, "detect.scoer is not a known key; known here: area_max"),
    ("detect", {"score": "high"}, "detect.score is 'high'"),
    ("detect", {"score": 1.5}, "less than or equal to 1"),
    ("detect", {"area_min": 0.95}, "detect.area_min must be below detect.area_max, which is 0.9"),
    ("detect", {"detector": "none"}, "detect.segmenter must be isnet or another salient-object segmenter (.onnx)"),
    ("detect", {"detector": "none", "segmenter": "detector"}, "detector needs a detector's boxes"),
    (
        "detect",
        {"detector": "none", "segmenter": "isnet", "classes": ["dog"]},
        "detect.classes must be null where detect.detector is none",
    ),
    ("detect", {"identity": "name"}, "'folder', 'top_folder', 'metadata' or 'photo'"),
    ("caption", {"template": "a photo"}, "caption.template must contain <object> exactly once"),
    ("caption", {"replace": "all"}, "'noun' or 'phrase'"),
    ("caption", {"attributes": attributes({"pose": ["wet"], "state": ["wet"]})}, "must not list a word twice"),
    ("caption", {"attributes": attributes({"state": ["wet, dry"]})}, "words or phrases, which 'wet, dry' is not"),
    ("caption", {"attributes": attributes({"state": []})}, "caption.attributes.vocabulary.state"),
    ("caption", {"attributes": attributes({})}, "caption.attributes.vocabulary"),
    ("caption", {"attributes": {**attributes({"state": ["wet"]}), "margin": 1}}, "known here: min_margin, model, voc"),
    ("caption", {"given": "drop"}, "'keep', 'append' or 'replace'"),
    ("caption", {"vlm": {}}, "caption.vlm must be null unless caption.captioner begins with vlm:"),
    ("caption", {"captioner": "vlm:mini"}, "after vlm:, and mini has none"),
    ("caption", {"captioner": "vlm:"}, "must name a folder, a model or URL#MODEL after vlm:"),
    ("caption", {"captioner": "vlm:./x", "vlm": {"timeout": 9.0}}, "caption.vlm.timeout must be left out unless"),
    ("caption", {"captioner": "vlm:./x", "vlm": {"prompt": "?"}}, "caption.vlm.prompt must ask for <object>"),
    (
        "caption",
        {"captioner": "vlm:./x", "vlm": {"key": "?"}},
        "known here: api_key_env, max_side, photo_prompt, prompt",
    ),
    ("caption", {"captioner": "vlm:http://host/v1", "num_beams": 1}, "must name the server's model"),
    ("caption", {"captioner": "vlm:http://host/v1#x", "num_beams": 3}, "caption.num_beams must be 1"),
    ("materialize", {"test": 0.9}, "must leave a share for training"),
    ("train", {"steps": 1.5}, "train.steps is 1.5"),
    ("train", {"general": 0.25}, "train.general is called train.regularization since version 0.1.0"),
    ("train", {"stand_in": {"rotation": 9.0}}, "train.stand_in is called train.augmentation since version 0.1.0"),
    ("train", {"captions": "plain"}, "train.captions plain is called class_noun since version 0.1.0"),
    ("train", {"base": "mini"}, "train.base must be null where train.start is set"),
    ("train", FRESH, "train.encoder must be set where train.start is null"),
    ("train", {**FRESH, "background": None, "encoder": ENCODER}, "train.background must be set"),
    ("train", {**FRESH, "injection": "reference", "encoder": ENCODER}, "but null where train.injection is reference"),
    ("train", {"layers": ["mid_block"]}, "train.layers must be null where train.start is set"),
    (
        "train",
        {**FRESH, "injection": "substitute", "encoder": ENCODER, "layers": ["mid_block"]},
        "train.layers must be null where train.injection is substitute",
    ),
    (
        "train",
        {**FRESH, "injection": "substitute", "encoder": ENCODER, "captions": "class_noun"},
        "must not be class_noun",
    ),
    (
        "train",
        {**FRESH, "injection": "gated", "encoder": ENCODER, "localization_weight": 0.1},
        "train.localization_weight must be 0 where train.injection is gated",
    ),
    ("train", {"captions": "class_token", "attributes": False}, "train.attributes must be true"),
    ("train", {"lora": LORA}, "train.lora must be set where train.tune is 'lora', else null"),
    ("train", {"tune": "lora"}, "train.lora must be set where train.tune is 'lora', else null"),
    ("train", {"tune": "lora", "lora": LORA, "denoiser_rate": 0.0}, "above 0 where train.tune is 'lora'"),
    ("train", {"regularization": 0.0, "prior": 4}, "train.prior must be null where train.regularization is 0"),
    ("train", {"identity_network": None}, "train.identity_network and train.identity_max_timestep must be set"),
    ("train", {"identity_weight": 0.0, "identity_network": None}, "must be set where train.identity_weight is above 0"),
    ("train", {"guidance": [5.0, 1.0]}, "train.guidance must name the lower end of the range first"),
    ("train", {"tune": "adapter"}, "must be 0 where train.tune is 'adapter'"),
    ("train", {"denoiser_rate": 0.0}, "train.denoiser_rate must be above 0"),
    ("train", {"micro_batch_size": 3}, "train.batch_size must be a multiple of train.micro_batch_size"),
    ("evaluate", {"scenes": ["on the moon"]}, "evaluate.scene_choices must hold"),
    ("evaluate", {"scenes": ["on the beach"], "scene_choices": ["on the beach"]}, "must hold two candidates or more"),
    ("evaluate", {"scenes": [], "styles": []}, "evaluate.scenes, styles or prompts must hold something to draw"),
    ("evaluate", {"prompts": [{"kind": "scene", "text": "a dog"}]}, "must hold <object> once or twice each"),
    ("evaluate", {"prompts": [{"kind": "mood", "text": "a sad <object>"}]}, "evaluate.prompts.0.kind is 'mood'"),
    ("evaluate", {"prompts": [RED, RED]}, "must not hold 'a red <object>' twice"),
    ("evaluate", {"prompts": [{**RED, "group": "live"}, RED]}, "must not hold 'a red <object>' twice"),
    ("evaluate", {"subjects": ["a", "a"]}, "evaluate.subjects must not name an identity twice"),
    ("evaluate", {"subjects": ["a", "b"]}, "evaluate.objects must be 2 where evaluate.subjects names so many"),
]


@pytest.mark.parametrize(("section", "values", "message"), WRONG, ids=[f"{i} {m}" for i, (_, _, m) in enumerate(WRONG)])
def test_an_error_names_the_key(tmp_path: Path, section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(TamingError) as caught:
        load_params(changed(tmp_path, section, **values))
    assert message in str(caught.value)


def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    path = changed(tmp_path, "train", learning_rate=0.25)
    path.write_text(path.read_text().replace("learning_rate: 0.25", "learning_rate: 1e-05"))
    assert load_params(path).train.learning_rate == 1.0e-5


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**DEFAULT, "detect": {k: v for k, v in DEFAULT["detect"].items() if k != "score"}}))
    with pytest.raises(TamingError, match=r"detect\.score is missing"):
        load_params(path)


def test_a_nested_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"generate\.sampling\.stepz is not a known key; known here: batch_size"):
        load_params(changed(tmp_path, "generate", sampling={**DEFAULT["generate"]["sampling"], "stepz": 1}))


def test_an_absent_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"does not exist\. Copy "):
        load_params(tmp_path / "none.yaml")


def test_broken_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("detect: [")
    with pytest.raises(TamingError, match="is not YAML") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# later", "- detect", "detect", "42"])
def test_a_file_without_sections_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(TamingError, match=r"params\.yaml (is empty|has no sections of keys)\. Copy "):
        load_params(tmp_path / "params.yaml")


def test_the_fingerprint_follows_values_and_inputs_but_not_the_keys_left_out() -> None:
    train = load_params(packaged_params()).train
    same = train.model_copy(update={"save_every": 7})
    out = frozenset({"save_every"})
    assert fingerprint(train, "a", without=out) == fingerprint(same, "a", without=out)
    assert fingerprint(train, "a") != fingerprint(same, "a")
    assert fingerprint(train, "a") != fingerprint(train, "b")
