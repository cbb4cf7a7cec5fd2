"""The model card, shipping, and the comparison of two evaluations."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipelines.mini.card import Target, card, figure
from pipelines.mini.compare_runs import table
from pipelines.mini.ship import require_small, round_files, rounded
from pipelines.mini.stage_params import HERE
from taming_core.errors import TamingError
from taming_core.evaluation.comparison import read_results, require_same_protocol
from taming_core.weights.mini import BASE, MINI

FACTS = HERE / "card.yaml"


def test_the_shipped_card_is_current() -> None:
    assert (MINI / "README.md").read_text() == card(FACTS, MINI, BASE)


def test_every_metric_of_the_card_was_measured() -> None:
    assert "not measured" not in (MINI / "README.md").read_text()


def test_a_metric_is_compared_with_its_target() -> None:
    aimed = Target(label="IoU", folder="", key="iou", aim=0.9)
    assert [figure(aimed, {"iou": v}).reached for v in (0.89, 0.9, 0.91)] == [False, True, True]
    assert figure(aimed, {}).reached is False
    assert figure(aimed.model_copy(update={"better": "lower"}), {"iou": 0.89}).reached is True
    assert figure(aimed.model_copy(update={"aim": None}), {"iou": 0.1}).reached is None


@given(st.floats(min_value=-60000, max_value=60000, width=16))
def test_rounding_keeps_eight_bits_and_changes_little(value: float) -> None:
    weight = torch.tensor([value], dtype=torch.float16)
    after = rounded(weight)
    assert after.isfinite().all()
    assert (after.view(torch.int16) & 3).item() == 0
    assert abs(after.item() - weight.item()) <= max(abs(weight.item()) * 2**-9, 2**-23)
    assert torch.equal(rounded(after), after)


def test_rounding_files_leaves_other_types_alone(tmp_path: Path) -> None:
    kept = {"half": torch.full((3,), 1.0009765625, dtype=torch.float16), "count": torch.tensor([1027])}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    round_files(tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    assert after["half"].tolist() == [1.0, 1.0, 1.0]
    assert after["count"].item() == 1027


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(20_000_001))
    with pytest.raises(TamingError, match="shards"):
        require_small(tmp_path)


def evaluated(folder: Path, value: float, seed: int) -> Path:
    """The parts of an evaluation's folder that the comparison reads, with one image of two objects each."""
    folder.mkdir(parents=True)
    rows = [{"condition": "ours", "identity": identity, "kind": "scene", "asked": "in a room", "seed": seed,
             "shape": value, "image": f"{identity}.png"} for identity in ("cup", "dog")]  # fmt: skip
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metrics.json").write_text(json.dumps({"ours": {"shape": value}}))
    (folder / "protocol.json").write_text(json.dumps({"fingerprint": str(seed), "measured": {"seed": seed}}))
    (folder / "timings.json").write_text(json.dumps({"seconds_per_object": 0.1, "bytes_per_object": 4}))
    return folder


def test_two_evaluations_stand_side_by_side(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path / name, value, 3) for name, value in (("first", 0.5), ("second", 0.75))]
    found = table(*map(read_results, folders), ["first", "second"])
    assert "| Shape | 0.50 | 0.75 | +0.250 | +0.250 to +0.250 | second |\n" in found


def test_evaluations_of_other_seeds_are_not_compared(tmp_path: Path) -> None:
    one, other = (read_results(evaluated(tmp_path / str(seed), 0.5, seed)) for seed in (3, 4))
    with pytest.raises(TamingError, match="seed is 3 and 4"):
        require_same_protocol(one, other)
