"""`taming bench` in tiny sizes: that it measures what it says, not how fast this machine is."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

from stages import bench as stage
from taming_core.benchmarks import peak_memory, speed, stages, startup
from taming_core.errors import TamingError
from taming_core.model import diffusion
from taming_core.params.load import packaged_params


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load(packaged_params().read_text())
    params["train"] |= {"start": str(tmp_path / "start"), "batch_size": 2, "micro_batch_size": 1, "cache": ["latents"]}
    params["materialize"] |= {"size": tiny.SIDE, "subject_size": tiny.SIDE}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    tiny.pipeline("decoupled").save_pretrained(tmp_path / "start")
    return tmp_path


def test_training_is_measured_beside_the_plain_loop(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = project / "figures.json"
    stage.train(params=Path("params.yaml"), tune="adapter", steps=1, rounds=1, device="cpu", out=out)
    ours, plain = json.loads(out.read_text())
    assert (ours["loop"], plain["loop"]) == ("ours", "plain")
    for found in (ours, plain):
        assert found["step_ms"] == pytest.approx(2 / found["images_per_second"] * 1000)
        assert 0 < found["share_of_peak"] < 1
        assert found["memory_gib"] > 0
        assert found["step_tflop"] > 0
    assert ours["step_tflop"] < 0.9 * plain["step_tflop"]  # what is cached is not computed
    assert "plain" in capsys.readouterr().out
    assert not (project / "runs").exists()


def test_loading_is_measured(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.data(rows=None, params=Path("params.yaml"), out=project / "data.json")
    found = json.loads((project / "data.json").read_text())
    assert [one["threads"] for one in found][:2] == [1, 2]
    assert [one["processes"] for one in found if one["processes"]][:1] == [2]
    assert all(one["rows_per_second"] > 0 for one in found)


@pytest.mark.parametrize("stage_name", ["detect", "caption", "materialize"])
def test_a_stage_is_measured_beside_its_models_and_a_worker(stage_name: str, tmp_path: Path) -> None:
    out = tmp_path / "stage.json"
    stage.data(stage=stage_name, photos=40, workers=0, rounds=1, device="cpu", out=out)
    models, worker, whole = json.loads(out.read_text())
    assert whole["limit"] == min(models["photos_per_second"], worker["photos_per_second"])
    assert whole["share_of_limit"] == pytest.approx(whole["photos_per_second"] / whole["limit"])
    assert models["limit"] is None
    assert not (tmp_path / "runs").exists()


def test_flags_of_a_stage_need_it() -> None:
    with pytest.raises(TamingError, match="--photos has no effect without --stage"):
        stage.data(photos=8)
    with pytest.raises(TamingError, match="--stage train is unknown"):
        stage.data(stage="train")
    with pytest.raises(TamingError, match="--objects has no effect"):
        stage.data(stage="detect", objects=Path("objects.parquet"))
    with pytest.raises(TamingError, match="needs --captions beside --in"):
        stage.data(stage="materialize", rows=Path("raw"), objects=Path("objects.parquet"))


def test_shards_of_a_measurement_are_whole_batches() -> None:
    few = stages.Few(list(range(40)), 8)
    assert (len(few), few.shard_count(), few.shard(4)) == (40, 5, list(range(32, 40)))
    assert few_sizes(40, 8) == (40, 8)
    assert few_sizes(300, 8) == (300, 32)


def few_sizes(photos: int, batch: int) -> tuple[int, int]:
    few = stages.few_of(stages.Few(list(range(1000)), 100), photos, batch)
    return len(few), few.size


def test_drawing_is_measured_beside_the_stock_pipeline() -> None:
    pipeline = tiny.pipeline("decoupled")
    p = tiny.PARAMS.generate.sampling.model_copy(update={"steps": 1})
    subject = speed.Image.new("RGBA", (tiny.SIDE, tiny.SIDE), "red")
    ours, stock = speed.generation_speed(pipeline, subject, "a photo of a <object>", 2, p, 1)
    assert (ours.loop, stock.loop) == ("with an object", "stock diffusers")
    assert ours.images_per_second > 0
    assert stock.images_per_second > 0


@pytest.mark.parametrize(("tune", "rate"), [("adapter", 0.0), ("lora", 1.0), ("whole", 1.0)])
def test_a_variant_is_checked_like_params(tune: str, rate: float) -> None:
    p = speed.comparison_params(tiny.train_params(), 8, tune)
    assert (p.tune, p.denoiser_rate, p.batch_size, p.micro_batch_size) == (tune, rate, 8, 8)


def test_random_weights_are_drawn_on_the_device_and_the_schedule_is_not() -> None:
    made = speed.random_model(tiny.PARAMS, torch.device("meta"))
    assert {w.device.type for part in made.networks.values() for w in part.parameters()} == {"meta"}
    assert diffusion.alpha_bar(made.schedule, torch.tensor([500])).device.type == "cpu"


def test_a_variant_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(TamingError, match="--tune"):
        speed.comparison_params(tiny.train_params(), None, "everything")


def test_the_peak_of_a_cpu_is_measured() -> None:
    found: Any = speed.peak_of(torch.device("cpu"), "fp32")
    assert found > 1e9


@pytest.mark.slow
def test_starts_are_measured_beside_the_bare_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.start(rounds=1, out=tmp_path / "start.json")
    found = {one["command"]: one for one in json.loads((tmp_path / "start.json").read_text())}
    assert list(found) == ["import", *startup.NAMES]
    assert found["import"]["of_import"] == 1
    assert all(one["seconds"] > 0 for one in found.values())
    assert "first batch" in capsys.readouterr().out


def test_processes_are_timed_in_turns_and_the_first_round_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def seconds(code: str, words: Sequence[str], folder: Path) -> float:
        asked.append(words[0] if words else "import")
        (folder / "raw" / "robot").mkdir(parents=True, exist_ok=True)
        (folder / "raw" / "robot" / "0.jpg").touch()
        return float(len(asked))

    monkeypatch.setattr(startup, "run_seconds", seconds)
    found = startup.measure(tmp_path, 2, ["detect"])
    assert asked == ["world", "world", "materialize", *["import", "detect"] * 3]
    assert [(one.command, one.seconds, one.slowest) for one in found] == [("import", 7, 8), ("detect", 8, 9)]
    assert [one.of_import for one in found] == pytest.approx([1, 8 / 7])


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    assert startup.run_seconds("pass", (), tmp_path) > 0
    with pytest.raises(TamingError, match="taming detect failed: taming: absent is not a folder"):
        startup.run_seconds(startup.TO_FIRST_BATCH, ("detect", "--in", "absent"), tmp_path)


def test_only_commands_that_there_are_can_be_measured() -> None:
    with pytest.raises(TamingError, match="--only paint"):
        stage.start(only=["paint"])


def test_the_peak_of_a_process_is_its_own(tmp_path: Path) -> None:
    """What a process of 300 MB more takes is measured as that, and not as the largest of all children."""
    code = f"""
from pathlib import Path
from taming_core.benchmarks import peak_memory
peak_memory.WHOLE = "import sys; data = bytearray(int(sys.argv[1])); data[::4096] = b'x' * len(data[::4096])"
print(*(peak_memory.peak_of((size,), Path({str(tmp_path)!r})) for size in ("300000000", "1")))
"""
    large, small = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert int(large) - int(small) == pytest.approx(286, abs=30)


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"^taming detect failed: .* Run it by itself"):
        peak_memory.peak_of(("detect", "--in", "nowhere"), tmp_path)


def test_a_mosaic_shows_its_tiles(tmp_path: Path) -> None:
    for name, colour in (("0.jpg", (200, 0, 0)), ("1.jpg", (0, 0, 200))):
        speed.Image.new("RGB", (32, 32), colour).save(tmp_path / name)
    photo = peak_memory.mosaic(sorted(tmp_path.glob("*.jpg")), (300, 200))
    assert photo.size == (300, 200)
    assert [photo.getpixel((50 + 100 * i, 50))[0] > 100 for i in range(3)] == [True, False, True]
