"""`taming train` as it is run: a folder that opens, the same after a crash, and errors that help."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from stages.train import train
from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.evaluation.independence import training_networks
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.model import lora
from taming_core.params.load import packaged_params
from taming_core.tables import schema
from taming_core.training import checkpoint, encoder_folder, metrics_log, requests
from taming_core.training.start import starting_pipeline

ROOT = Path(__file__).parents[2]
PROMPT = "a photo of a <object> on the beach"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, a tiny pipeline to start from, and params."""
    monkeypatch.chdir(tmp_path)
    tiny.write_rows(tmp_path / "data/rows")
    tiny.pipeline().save_pretrained(tmp_path / "start")
    write_params(tmp_path)
    return tmp_path


def write_params(folder: Path, **values: Any) -> None:
    """The default's params, with a training of four tiny steps."""
    params = yaml.safe_load(packaged_params().read_text())
    small = {"start": str(folder / "start"), "steps": 4, "batch_size": 2, "micro_batch_size": 1, "save_every": 2}
    params["train"] |= {**small, "identity_network": tiny.clip(folder / "clip"), "warmup": 1, **values}
    params["train"]["validation"] |= {"every": 2, "objects": 2, "prompts": [PROMPT, "a <object> in the snow"]}
    params["train"]["validation"]["sampling"] |= {"steps": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run() -> None:
    train(Path("data/rows"), Path("data/encoder"), Path("params.yaml"), "cpu")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def drawn(pipeline: TamingPipeline) -> torch.Tensor:
    subject = Image.new("RGBA", (32, 32), (200, 30, 30, 255))
    seed = torch.Generator().manual_seed(0)
    return pipeline(PROMPT, subject=subject, num_inference_steps=2, generator=seed, output_type="pt").images[0]


def test_the_folder_opens_as_a_pipeline_and_names_no_place_on_this_machine(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    assert capsys.readouterr().out.splitlines()[1:] == ["     6 rows with an object", "     3 regularization rows"]
    out = project / "data/encoder"
    assert drawn(TamingPipeline.from_pretrained(out)).shape == (3, 32, 32)
    texts = [p for p in out.rglob("*") if p.suffix in (".json", ".jsonl", ".md")]
    assert not [p for p in texts if str(project) in p.read_text() or "_name_or_path" in p.read_text()]
    assert json.loads((out / "training.json").read_text())["params"]["start"] == "start"
    assert sorted(p.name for p in (out / "validation").iterdir()) == ["grid-000002.png", "grid-000004.png"]
    assert {p.parent.name for p in out.rglob("*.safetensors")} == {"vae", "unet", "text_encoder", "object_encoder"}
    made = json.loads((out / "training.json").read_text())
    assert made["run"] == next((project / "runs").glob("train-*")).name
    assert made["trained"].keys() == {"object_encoder", "denoiser"}
    assert {role: len(prints) for role, prints in made["networks"].items()} == {"tower": 1, "identity_network": 1}
    assert set(training_networks(out).values()) == {"tower", "identity network"}
    assert made["trained"]["denoiser"] == sum(w.numel() for w in tiny.unet().parameters())
    with Image.open(out / "losses.png") as picture:
        assert picture.width > picture.height > 500
    assert not list((project / "runs").glob("*/state-*"))
    assert list((project / "runs").glob("*/events.out.tfevents.*"))


def test_what_is_not_trained_is_kept_and_what_is_differs() -> None:
    before = TamingPipeline.from_pretrained("start")
    run()
    after = TamingPipeline.from_pretrained("data/encoder")
    for part, changes in {"vae": False, "text_encoder": False, "unet": True, "object_encoder": True}.items():
        pairs = zip(getattr(before, part).parameters(), getattr(after, part).parameters(), strict=True)
        assert any(not torch.equal(a.half(), b) for a, b in pairs) == changes
    assert after.scheduler.config["_class_name"] == "DDIMScheduler"
    assert after.scheduler.config["prediction_type"] == "v_prediction"
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()


def test_a_decoupled_adapter_opens_and_draws_what_it_drew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.pipeline("decoupled").save_pretrained(project / "start")
    write_params(project, tune="adapter", denoiser_rate=0.0, learning_rate=0.05)
    images = []
    write_folder = encoder_folder.write_folder

    def drawing(pipeline: TamingPipeline, *rest: Any) -> None:
        write_folder(pipeline, *rest)
        images.append(drawn(pipeline.to(torch.float32)))

    monkeypatch.setattr(encoder_folder, "write_folder", drawing)
    run()
    again = load_pipeline("data/encoder")
    torch.testing.assert_close(drawn(again), images[0], atol=1e-5, rtol=1e-5)
    for layer in again.object_encoder.denoiser_layers().values():
        assert layer.to_v.weight.any()


def test_a_folder_written_before_0_1_0_opens_with_current_names(project: Path) -> None:
    run()
    pipeline, current = load_pipeline("data/encoder"), encoder_folder.read_training(Path("data/encoder"))

    def rewrite(name: str, **values: Any) -> dict[str, Any]:
        path = project / "data/encoder" / name
        content = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps(content))
        return content

    rewrite("model_index.json", object_encoder=["taming_core.object_encoder", "ObjectEncoder"])
    rewrite("object_encoder/config.json", captions="plain")
    old = rewrite("training.json")
    del old["version"]
    old["general_rows"] = old.pop("regularization_rows")
    params = old["params"]
    params |= {"general": params.pop("regularization"), "stand_in": params.pop("augmentation"), "captions": "plain"}
    (project / "data/encoder/training.json").write_text(json.dumps(old))

    again = load_pipeline("data/encoder")
    assert again.object_encoder.captions == "class_noun"
    assert torch.equal(drawn(again), drawn(pipeline))
    record = encoder_folder.read_training(Path("data/encoder"))
    expected = {**current["params"], "captions": "class_noun"}
    assert record == {**{k: v for k, v in current.items() if k != "version"}, "params": expected}


def test_a_lora_is_in_the_weights_and_beside_them(project: Path) -> None:
    write_params(project, tune="lora", lora={"rank": 2, "alpha": 2.0}, learning_rate=0.05)
    run()
    before, after = (TamingPipeline.from_pretrained(folder).unet.state_dict() for folder in ("start", "data/encoder"))
    assert after.keys() == before.keys()
    changed = {n for n, v in after.items() if not torch.equal(v, before[n].half().float())}
    assert changed
    assert all(n.endswith(tuple(f"{layer}.weight" for layer in lora.LAYERS)) for n in changed)
    assert (project / "data/encoder/lora/pytorch_lora_weights.safetensors").is_file()
    layers = [w for n, w in before.items() if n.endswith(tuple(f"{layer}.weight" for layer in lora.LAYERS))]
    made = json.loads((project / "data/encoder/training.json").read_text())
    assert made["trained"]["denoiser"] == sum(2 * sum(w.shape) for w in layers)


def test_the_folder_and_the_pictures_hold_the_average_of_a_training_that_it_does_not_touch(project: Path) -> None:
    found = []
    for decay in (0.0, 0.9):
        write_params(project, ema=decay, learning_rate=0.05)
        run()
        content = project / "data/encoder"
        weights = TamingPipeline.from_pretrained(content).unet.conv_out.weight
        picture = (content / "validation/grid-000004.png").read_bytes()
        steps = [json.loads(line) for line in (content / "metrics.jsonl").read_text().splitlines()]
        found.append((steps, [step.pop("held_out", None) for step in steps], weights, picture))
    (last_steps, last_held_out, last, last_picture), (steps, held_out, average, picture) = found
    assert steps == last_steps
    assert held_out[3] != last_held_out[3]
    assert not torch.equal(average, last)
    assert picture != last_picture


def test_a_base_of_a_usual_schedule_can_learn_to_start_from_noise_alone(project: Path) -> None:
    start = tiny.pipeline()
    usual = {"rescale_betas_zero_snr": False, "timestep_spacing": "leading"}
    start.scheduler = type(start.scheduler).from_config(start.scheduler.config, **usual)
    start.save_pretrained(project / "start")
    write_params(project, zero_terminal_snr=True, steps=1)
    run()
    scheduler = TamingPipeline.from_pretrained("data/encoder").scheduler
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.config["timestep_spacing"] == "trailing"


def test_a_schedule_that_ends_in_noise_is_not_changed_again(project: Path) -> None:
    write_params(project, zero_terminal_snr=True)
    with pytest.raises(TamingError, match=r"ends in pure noise already. Set train.zero_terminal_snr to false"):
        run()


def test_metrics_hold_every_step_once(project: Path) -> None:
    run()
    state = next((project / "runs").glob("train-*"))
    lines = [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    names = {"step", "loss", "denoising", "identity", "localization", "learning_rate", "grad_norm", "images_per_second"}
    assert all(line.keys() == names | ({"held_out"} if line["step"] in (2, 4) else set()) for line in lines)
    shipped = [json.loads(line) for line in (project / "data/encoder/metrics.jsonl").read_text().splitlines()]
    assert shipped == [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def test_without_tensorboard_all_else_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_log, "find_spec", lambda _: None)
    write_params(project, steps=2)
    run()
    assert not list((project / "runs").rglob("events.out.tfevents.*"))
    assert len((project / "data/encoder/metrics.jsonl").read_text().splitlines()) == 2


def test_killed_and_started_again_it_ends_with_the_same_bytes(project: Path) -> None:
    command = [sys.executable, "-c", "from stages.cli import main; main()", "train", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    victim = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 300
    while not list((project / "runs").glob("*/state-000002")):
        assert victim.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (project / "data/encoder").exists()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    resumed = content(project / "data/encoder")
    subprocess.run(["rm", "-r", "runs", "data/encoder"], check=True)
    run()
    assert content(project / "data/encoder") == resumed


def test_a_training_in_bf16_draws_and_writes_as_well(project: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate allows one precision in a process
    write_params(project, precision="bf16", steps=2)
    run()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert sorted(p.name for p in (project / "data/encoder/validation").iterdir()) == ["grid-000002.png"]
    assert {p.dtype for p in TamingPipeline.from_pretrained("data/encoder").unet.parameters()} == {torch.float32}


def test_without_validation_objects_training_objects_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "data/rows/validation-00000.parquet").unlink()
    run()
    assert "The validation grids show training objects" in capsys.readouterr().out
    with Image.open(project / "data/encoder/validation/grid-000004.png") as grid:
        assert grid.width > 3 * 160
        assert grid.height > 2 * 160


def test_a_folder_that_holds_something_else_is_left_alone(project: Path) -> None:
    (project / "data/encoder").mkdir()
    (project / "data/encoder/thesis.txt").write_text("years of work")
    with pytest.raises(TamingError, match="holds something else than an encoder"):
        run()
    assert (project / "data/encoder/thesis.txt").exists()


def test_a_finished_encoder_is_replaced(project: Path) -> None:
    run()
    (project / "data/encoder/validation/old.txt").write_text("old")
    write_params(project, steps=1)
    run()
    assert not (project / "data/encoder/validation/old.txt").exists()
    assert json.loads((project / "data/encoder/training.json").read_text())["last"]["step"] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"start": "nowhere"}, "nowhere holds no encoder"),
        (
            {"start": None, "base": "nowhere", "injection": "concat", "background": "removed"},
            "There is no text-to-image model nowhere",
        ),
        ({"identity_network": "nowhere"}, "There is no identity network nowhere"),
    ],
)
def test_models_that_are_not_there_are_clear_errors(
    project: Path, values: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = {"tower": "mini", "projector": "linear", "tokens": 4, "tower_blocks": 1}
    write_params(project, **values, **({"encoder": encoder} if "base" in values else {}))
    with pytest.raises(TamingError, match=words):
        run()


def fresh(base: str, injection: str, **encoder: Any) -> TamingPipeline:
    design = {"base": base, "injection": injection, "background": "removed", "encoder": encoder}
    return starting_pipeline(tiny.train_params(start=None, **design))


def test_a_fresh_start_on_the_plain_base_of_mini() -> None:
    pipeline = fresh("mini", "decoupled", tower="mini", projector="resampler", tokens=4, tower_blocks=1)
    text = pipeline.encode_text([PROMPT]).states
    latents, t = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    objects = pipeline.encode_objects([Image.new("RGBA", (128, 128), "red")])
    with torch.no_grad():
        tamed = pipeline.unet(latents, t, torch.cat([text, objects], 1))[0]
        plain = load_base("mini")["unet"](latents, t, text)[0]
    assert torch.equal(tamed, plain)


def test_a_base_that_never_heard_of_the_placeholder_learns_it(project: Path) -> None:
    base = tiny.pipeline()
    without = json.loads((ROOT / "taming_core/mini/encoder/tokenizer/tokenizer.json").read_text())
    from tokenizers import Tokenizer

    without["added_tokens"] = [t for t in without["added_tokens"] if t["content"] != "<object>"]
    without["model"]["vocab"].pop("<object>")
    without["model"]["vocab"]["object"] = 4
    base.tokenizer = type(base.tokenizer)(tokenizer_object=Tokenizer.from_str(json.dumps(without)), unk_token="<unk>")
    base.save_pretrained(project / "base")
    tower = {"tower": str(project / "clip"), "projector": "full", "tokens": 4, "tower_blocks": 2}
    pipeline = fresh(str(project / "base"), "concat", **tower)
    number = pipeline.tokenizer.convert_tokens_to_ids("<object>")
    weights = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(weights[number], weights[4])
    assert number == len(pipeline.tokenizer) - 1 < len(weights)


def test_a_finished_run_that_is_started_again_says_so_and_does_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    before, printed = content(project / "data/encoder"), capsys.readouterr().out
    run()
    again = capsys.readouterr()
    assert "4 steps, loss" in printed
    assert again.out.startswith("data/encoder is finished: this training has done all its 4 steps.")
    assert content(project / "data/encoder") == before
    (project / "data/encoder/training.json").unlink()  # as a folder that another run has written
    run()
    assert content(project / "data/encoder") == before


def test_a_run_that_begins_anew_says_what_is_different(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    first = next((project / "runs").glob("train-*")).relative_to(project)
    assert capsys.readouterr().err == ""
    write_params(project, steps=2, batch_size=4, micro_batch_size=2)
    run()
    assert capsys.readouterr().err == (
        f"data/encoder: a new run, from step 1. It is not {first}, the last with this output: train.batch_size is 4 "
        "and was 2, train.micro_batch_size is 2 and was 1, train.steps is 2 and was 4.\n"
    )
    tiny.write_rows(project / "data/rows", identities=3)
    run()
    assert capsys.readouterr().err.endswith("the rows have changed.\n")


def test_words_that_the_text_encoder_does_not_read_are_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "data/rows/train-00000.parquet"
    first, *others = pq.read_table(path).to_pylist()
    buried = {**first, "object_caption": "a dog and " * 12 + "a <object> on the beach"}
    schema.write([schema.table([buried, *others], schema.ROWS)], schema.add_fingerprint(schema.ROWS, "test"), path)
    run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 9 captions are longer than the 32 tokens that the base reads")
    assert lines[2:] == ["     5 rows with an object", "     3 regularization rows"]


def test_a_grid_and_a_saved_state_are_made_on_request_and_change_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    as_planned = content(project / "data/encoder")
    (folder,) = (project / "runs").glob("train-*")
    for path in (project / "data/encoder", folder):
        shutil.rmtree(path)
    folder.mkdir()
    requests.ask(folder, "sample")
    requests.ask(folder, "save")
    saved, save = list[int](), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda run, state: (saved.append(run.step), save(run, state)))
    run()
    assert saved == [1, 2, 4]
    asked = content(project / "data/encoder")
    assert asked.pop("validation/grid-000001.png")
    speeds = ("metrics.jsonl", "losses.png")
    assert {k: v for k, v in asked.items() if k not in speeds} == {
        k: v for k, v in as_planned.items() if k not in speeds
    }
