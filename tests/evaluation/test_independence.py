"""A judge that is a network of the encoder's training is refused by its weights, whatever it is called."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from transformers import (
    AutoModel,
    CLIPImageProcessor,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
)

from taming_core.errors import TamingError
from taming_core.evaluation.independence import require_independent, text_judge_role, training_networks
from taming_core.evaluation.judges import Judges, load_judge, load_judges, load_text_judge
from taming_core.model.towers import load_tower
from taming_core.params.load import load_params, packaged_params
from taming_core.training.networks import network_fingerprints
from taming_core.weights.mini import MINI, PIPELINE
from taming_core.weights.network_fingerprint import network_fingerprint

ROOT = Path(__file__).parents[2]
P = load_params(packaged_params()).evaluate


def vision_folder(model: Any, folder: Path) -> str:
    """A folder that `load_judge` opens."""
    model.save_pretrained(folder)
    size = model.config.image_size
    CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(folder)
    return str(folder)


def judging(**judges: str) -> tuple[Judges, Any]:
    """These judges of the object, mini's for the rest, and their params."""
    p = P.model_copy(update=judges)
    return load_judges(p, "cpu"), p


def test_a_network_is_known_in_every_class_and_precision(tmp_path: Path) -> None:
    folder = tiny.clip(tmp_path / "clip")
    kinds = (AutoModel, CLIPVisionModel, CLIPVisionModelWithProjection)
    found = {network_fingerprint(kind.from_pretrained(folder)) for kind in kinds}
    half = AutoModel.from_pretrained(folder, dtype=torch.float16)
    assert {*found, network_fingerprint(half)} == {network_fingerprint(load_tower(folder)[0])}


def test_a_network_is_known_with_another_head_and_a_tuned_end_but_not_with_other_weights() -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(**sizes))
    known = network_fingerprint(model)
    classifier = Dinov2ForImageClassification(Dinov2Config(**sizes))
    assert network_fingerprint(classifier) != known
    classifier.dinov2.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in classifier.dinov2.encoder.layer[-1].parameters():
            weight.add_(0.1)
    assert network_fingerprint(classifier) == known


def test_a_training_writes_down_its_networks_and_those_of_the_training_before(tmp_path: Path) -> None:
    first, second = tiny.clip(tmp_path / "first"), str(MINI / "clip")
    pipeline = tiny.pipeline()
    begun = network_fingerprints(pipeline, tiny.train_params(identity_network=first))
    assert begun["tower"] != begun["identity_network"] == [network_fingerprint(AutoModel.from_pretrained(first))]
    pipeline.save_pretrained(tmp_path / "start")
    (tmp_path / "start/training.json").write_text(json.dumps({"version": 3, "networks": begun}))
    with torch.no_grad():
        for weight in pipeline.object_encoder.parameters():
            weight.add_(0.1)
    p = tiny.train_params(start=str(tmp_path / "start"), identity_network=second)
    continued = network_fingerprints(pipeline, p)
    assert set(begun["tower"]) < set(continued["tower"])
    assert set(begun["identity_network"]) < set(continued["identity_network"])
    assert len(continued["tower"]) == len(continued["identity_network"]) == 2


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A folder with the tower and the identity network of its training, as `taming train` writes it."""
    pipeline, identity = tiny.pipeline(), tiny.clip(tmp_path / "identity")
    folder = tmp_path / "encoder"
    pipeline.save_pretrained(folder)
    prints = network_fingerprints(pipeline, tiny.train_params(identity_network=identity))
    (folder / "training.json").write_text(json.dumps({"version": 3, "networks": prints}))
    return folder


def tower_of(encoder: Path, folder: Path) -> str:
    """The tower of an encoder, saved under another name."""
    return vision_folder(load_tower(str(encoder / "object_encoder"))[0], folder / "excellent-judge")


@pytest.mark.parametrize("key", ["judge", "strict_judge"])
def test_the_tower_is_no_judge_under_any_name(key: str, encoder: Path, tmp_path: Path) -> None:
    judges, p = judging(**{key: tower_of(encoder, tmp_path)})
    with pytest.raises(TamingError, match=rf"evaluate\.{key} is .*excellent-judge, which has .*'s tower") as error:
        require_independent(judges, training_networks(encoder), p)
    assert str(error.value).endswith(f"Set evaluate.{key} to another network, such as facebook/dino-vits16.")


def test_the_identity_network_is_no_judge_under_any_name(encoder: Path, tmp_path: Path) -> None:
    copy = vision_folder(CLIPVisionModel.from_pretrained(tmp_path / "identity"), tmp_path / "copy")
    judges, p = judging(judge=copy)
    with pytest.raises(TamingError, match="this encoder's identity network"):
        require_independent(judges, training_networks(encoder), p)


@pytest.mark.parametrize("record", [None, {"version": 2, "params": {}}])
def test_the_tower_of_an_older_encoder_is_found_in_its_weights(record: Any, encoder: Path, tmp_path: Path) -> None:
    (encoder / "training.json").unlink()
    if record:
        (encoder / "training.json").write_text(json.dumps(record))
    assert set(training_networks(encoder).values()) == {"tower"}
    judges, p = judging(judge=tower_of(encoder, tmp_path))
    with pytest.raises(TamingError, match="'s tower"):
        require_independent(judges, training_networks(encoder), p)


def test_an_encoder_without_a_tower_refuses_none(tmp_path: Path) -> None:
    tiny.pipeline("reference").save_pretrained(tmp_path / "encoder")
    assert training_networks(tmp_path / "encoder") == {}
    require_independent(judging()[0], {}, P)


def test_minis_judges_are_networks_of_their_own() -> None:
    judges, p = judging()
    trained = network_fingerprints(tiny.pipeline(), tiny.train_params(identity_network="mini"))
    known = training_networks(PIPELINE) | dict.fromkeys(trained["identity_network"], "identity network")
    require_independent(judges, known, p)
    assert text_judge_role(judges, training_networks(PIPELINE)) is None
    assert text_judge_role(judges, known) == "identity network"


def test_a_judge_of_the_object_may_judge_texts_too(encoder: Path, tmp_path: Path) -> None:
    """Scene and style are not what a tower or an identity network teaches: it is said, and not refused."""
    mini = load_text_judge("mini", "cpu")
    judges = Judges(load_judge("mini", "cpu"), mini, None)
    require_independent(judges, {network_fingerprint(mini.model): "tower"}, P)


@pytest.mark.parametrize("profile", sorted(p.parent.name for p in (ROOT / "pipelines").glob("*/params.yaml")))
def test_no_profile_is_judged_by_a_network_of_its_training(profile: str) -> None:
    params = yaml.safe_load((ROOT / "pipelines" / profile / "params.yaml").read_text())
    if "train" not in params or "evaluate" not in params:
        return
    train, evaluate = params["train"], params["evaluate"]
    used = {train["identity_network"], (train["encoder"] or {}).get("tower")} - {None, "mini"}
    assert not used & {evaluate["judge"], evaluate["strict_judge"]}
