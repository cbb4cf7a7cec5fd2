"""What commands are told is checked at once: before torch is imported, and long before a model is loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import small_rows
import yaml
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from taming_core.errors import TamingError
from taming_core.params import arguments
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluationScores
from taming_core.tables import schema
from taming_core.weights.device import DTYPES

ROOT = Path(__file__).parents[2]
PHOTO = str(ROOT / "data/raw/robot-fluent3d/0.jpg")
PROMPT = ["--prompt", "a photo of a <object>"]
MISTAKES = {
    "no object in the prompt": (["generate", "--object", PHOTO, "--prompt", "a photo"], "<object>"),
    "no such photo": (["generate", "--object", "absent.jpg", *PROMPT], "absent.jpg"),
    "no such mask": (["generate", "--object", PHOTO, "--mask", "absent.png", *PROMPT], "absent.png"),
    "a mask too many": (["generate", "--object", PHOTO, "--mask", PHOTO, "--mask", PHOTO, *PROMPT], "2 masks"),
    "no photos in the folder": (["generate", "--object", "empty", *PROMPT], "no photos"),
    "no such encoder": (["generate", "--object", PHOTO, *PROMPT, "--encoder", "absent"], "absent holds no encoder"),
    "no such scheduler": (["generate", "--object", PHOTO, *PROMPT, "--scheduler", "Nothing"], "Nothing"),
    "no such precision": (["generate", "--object", PHOTO, *PROMPT, "--precision", "fp8"], "fp8"),
    "no such device": (["generate", "--object", PHOTO, *PROMPT, "--device", "abacus"], "abacus"),
    "one side without the other": (["generate", "--object", PHOTO, *PROMPT, "--width", "128"], "--height"),
    "no such params": (["generate", "--object", PHOTO, *PROMPT, "--params", "absent.yaml"], "absent.yaml"),
    "detect: no folder": (["detect", "--in", "absent"], "absent is not a folder"),
    "detect: no device": (["detect", "--in", "empty", "--device", "abacus"], "abacus"),
    "detect: no such model": (["detect", "--in", "empty", "--params", "wrong.yaml"], "detect.detector"),
    "caption: no folder": (["caption", "--in", "absent"], "absent is not a folder"),
    "caption: no table": (["caption", "--in", str(ROOT / "data/raw"), "--objects", "absent"], "taming detect"),
    "caption: no such model": (["caption", "--in", "empty", "--params", "wrong.yaml"], "caption.captioner"),
    "materialize: no tables": (["materialize", "--in", "empty"], "taming detect"),
    "train: no rows": (["train", "--in", "absent"], "absent holds no rows"),
    "train: another folder": (["train", "--in", "rows", "--out", "full"], "full holds something"),
    "train: a model of others": (["train", "--in", "rows", "--out", "downloaded"], "downloaded holds something"),
    "train: a file put into it": (["train", "--in", "rows", "--out", "encoder"], "encoder holds something"),
    "generate: a tilde": (["generate", "--object", PHOTO, *PROMPT, "--out", "~/out"], "begins with ~"),
    "train: no such model": (["train", "--in", "rows", "--params", "wrong.yaml"], "train.identity_network"),
    "train: no such start": (["train", "--in", "rows", "--params", "start.yaml"], "empty holds no encoder"),
    "train: no scheduler": (["train", "--in", "rows", "--params", "scheduler.yaml"], "Nothing"),
    "eval: no encoder": (["eval", "--encoder", "absent"], "absent holds no encoder"),
    "eval: no rows": (["eval", "--encoder", "mini", "--in", "absent"], "absent holds no rows"),
    "eval: another folder": (["eval", "--encoder", "mini", "--in", "rows", "--out", "full"], "full holds something"),
    "eval: no such model": (["eval", "--encoder", "mini", "--in", "rows", "--params", "wrong.yaml"], "evaluate.judge"),
    "eval: no protocol": (["eval", "--encoder", "mini", "--in", "rows", "--protocol", "bench"], "no protocol bench"),
    "eval: prompts in no folder": (
        ["eval", "--encoder", "mini", "--in", "rows", "--protocol", "dreambench-plus"], "read with --raw"
    ),
    "eval: captions that no prompt is of": (
        ["eval", "--encoder", "mini", "--in", "rows", "--raw", "raw"], "--raw would be ignored"
    ),
    "eval: nothing to compare": (["eval", "--compare", "empty", "full"], "empty holds no evaluation"),
    "eval: a flag beside --compare": (["eval", "--compare", "a", "b", "--in", "rows"], "--in has no effect"),
    "eval: no detector": (["eval", "--encoder", "mini", "--in", "rows", "--params", "fetch.yaml"], "yolo11n-seg"),
    "eval: no scheduler": (["eval", "--encoder", "mini", "--in", "rows", "--params", "scheduler.yaml"], "Nothing"),
    "export: no encoder": (["export", "--to", "lora", "--out", "o", "--encoder", "absent"], "absent holds no encoder"),
    "export: unknown": (["export", "--to", "paper", "--out", "o", "--encoder", "mini"], "paper"),
    "detect: a photo": (["detect", "--in", "raw", "--out", "raw/thing/0.jpg"], "is in raw, which"),
    "detect: in the photos": (["detect", "--in", "raw", "--out", "raw/o.parquet"], "is in raw, which"),
    "detect: a folder": (["detect", "--in", "raw", "--out", "full"], "full is a folder"),
    "detect: in a file": (["detect", "--in", "raw", "--out", "full/thesis.txt/o.parquet"], "thesis.txt is a file"),
    "detect: a file of the user": (["detect", "--in", "raw", "--out", "full/thesis.txt"], "another file than a table"),
    "detect: another table": (["detect", "--in", "raw", "--out", "c.parquet"], "another file than a table"),
    "caption: its input": (
        ["caption", "--in", "raw", "--objects", "o.parquet", "--out", "o.parquet"], "o.parquet is o.parquet, which"
    ),
    "caption: the objects": (["caption", "--in", "raw", "--out", "o.parquet"], "another file than a table of captions"),
    "materialize: the photos": (["materialize", "--in", "raw", "--out", "raw"], "raw is raw, which the command reads"),
    "materialize: around": (["materialize", "--in", "raw/thing", "--out", "raw"], "raw holds raw/thing, which"),
    "materialize: a table": (
        ["materialize", "--in", "raw", "--objects", "o.parquet", "--out", "o.parquet"], "o.parquet is o.parquet, which"
    ),
    "train: the rows": (["train", "--in", "rows", "--out", "rows"], "rows is rows, which the command reads"),
    "train: in a file": (["train", "--in", "rows", "--out", "full/thesis.txt/e"], "thesis.txt is a file"),
    "eval: in the rows": (["eval", "--encoder", "mini", "--in", "rows", "--out", "rows/e"], "is in rows, which"),
    "export: the encoder": (["export", "--to", "lora", "--encoder", "full", "--out", "full"], "full is full, which"),
    "export: a file": (["export", "--to", "lora", "--encoder", "mini", "--out", "o.parquet"], "o.parquet holds"),
    "inspect: a photo": (["inspect", "o.parquet", "--out", "photo.png", "--raw", "raw"], "than a contact sheet"),
    "inspect: in the photos": (["inspect", "o.parquet", "--out", "raw/sheet.png", "--raw", "raw"], "is in raw, which"),
    "world: a file": (["world", "--out", "o.parquet"], "o.parquet is not an empty folder"),
    "world: a file of the user": (["world", "--out", "new", "--truth", "full"], "another file than a table"),
    "init: a file": (["init", "o.parquet"], "o.parquet is a file"),
    "init: in a file": (["init", "full/thesis.txt/project"], "thesis.txt is a file"),
    "inspect: no table": (["inspect", "absent.parquet"], "absent.parquet"),
    "world: a full folder": (["world", "--out", "full"], "full is not an empty folder"),
    "doctor: no device": (["doctor", "--device", "abacus"], "abacus"),
    "bench: no encoder": (["bench", "generate", "--encoder", "absent"], "absent holds no encoder"),
    "bench: no rows": (["bench", "train", "--in", "absent"], "absent holds no rows"),
}  # fmt: skip
RUN = """
import json, sys
from stages.cli import app
from taming_core.errors import TamingError
said = {}
for name, words in json.load(sys.stdin).items():
    try:
        app(words, standalone_mode=False)
    except TamingError as error:
        said[name] = [str(error), sorted({"torch", "transformers", "diffusers"} & sys.modules.keys())]
    else:
        said[name] = ["nothing was wrong", []]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each mistake is answered, and which large packages had been imported by then."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("years of work")
    (folder / "full" / "objects.parquet").write_text("years of work")
    (folder / "raw" / "thing").mkdir(parents=True)
    shutil.copy(PHOTO, folder / "raw" / "thing")
    for name, component in (("downloaded", "unet"), ("encoder", "object_encoder")):
        (folder / name).mkdir()
        (folder / name / "model_index.json").write_text(json.dumps({component: []}))
    (folder / "encoder" / "notes.txt").touch()
    (folder / "photo.png").write_bytes(b"\x89PNG of the user")
    for name, expected in (("o", schema.OBJECTS), ("c", schema.CAPTIONS)):
        schema.write([schema.table([], expected)], expected, folder / f"{name}.parquet")
    small_rows.write_rows(folder / "rows", held_out=2, seen=1)
    own = yaml.safe_load(packaged_params().read_text())
    no_models = {"detect": "detector", "caption": "captioner", "train": "identity_network", "evaluate": "judge"}
    changes = {
        "wrong": {section: {key: "./absent"} for section, key in no_models.items()},
        "fetch": {"detect": {"detector": "yolo11n-seg"}},
        "start": {"train": {"start": "./empty"}},
        "scheduler": {
            s: {**nested, "sampling": {**p["sampling"], "scheduler": "Nothing"}}
            for s, p, nested in (("evaluate", own["evaluate"], {}),)
        },
    }
    changes["scheduler"]["train"] = {
        "validation": {
            **own["train"]["validation"],
            "sampling": {**own["train"]["validation"]["sampling"], "scheduler": "Nothing"},
        }
    }
    for name, of in changes.items():
        params = {section: {**values, **of.get(section, {})} for section, values in own.items()}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(params))
    words = json.dumps({name: command for name, (command, _) in MISTAKES.items()})
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=words, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, check=True
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_before_anything_large_is_imported(mistake: str, said: dict[str, list[str]]) -> None:
    answer, imported = said[mistake]
    assert MISTAKES[mistake][1] in answer
    assert imported == []


def test_the_schedulers_that_are_read_from_files_are_diffusers_own() -> None:
    assert {
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
    } <= arguments.schedulers().keys()
    exported = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    assert {n for n, kind in exported.items() if issubclass(kind, SchedulerMixin)} <= arguments.schedulers().keys()


def test_precisions_have_dtypes() -> None:
    assert set(DTYPES) == set(arguments.PRECISIONS)
    assert all(str(dtype).startswith("torch.") for dtype in DTYPES.values())


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:3"])
def test_devices_that_may_exist_pass(name: str) -> None:
    arguments.require_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda3", "cuda:", "cpu:0", ""])
def test_devices_that_cannot_exist_are_refused(name: str) -> None:
    with pytest.raises(TamingError, match="--device auto"):
        arguments.require_device(name)


@pytest.mark.parametrize(("key", "value"), [("dreamsim", "ensemble"), ("lpips", "alex")])
def test_a_score_whose_package_is_absent_names_the_extra(key: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", {}.get)
    arguments.require_score_packages(EvaluationScores())
    with pytest.raises(TamingError, match=rf"scores\.{key} is {value}, .* Run pip install 'taming\[eval\]'"):
        arguments.require_score_packages(EvaluationScores.model_validate({key: value}))


def test_quality_needs_a_clip() -> None:
    with pytest.raises(ValueError, match=r"evaluate\.scores\.clip_l14 must name a CLIP"):
        EvaluationScores(quality="cmmd", clip_b32="mini")
    assert EvaluationScores(quality="kid", clip_l14="mini").quality == "kid"


@pytest.mark.parametrize("key", ["dino", "dinov2", "clip_b32", "clip_l14"])
def test_a_network_of_a_score_by_a_path_must_be_there(key: str) -> None:
    p = load_params(packaged_params()).evaluate
    scores = EvaluationScores.model_validate({key: "./absent"})
    with pytest.raises(TamingError, match=rf"evaluate\.scores\.{key} is \./absent"):
        arguments.require_models(p.model_copy(update={"scores": scores}))


@pytest.mark.parametrize("where", ["/models/absent", "./absent", "~/absent", "absent/"])
def test_a_model_by_a_path_must_be_there(where: str) -> None:
    p = load_params(packaged_params()).evaluate
    with pytest.raises(TamingError, match=r"evaluate\.text_judge"):
        arguments.require_models(p.model_copy(update={"text_judge": where}))
    for name in ("mini", "owner/name", "openai/clip-vit-base-patch32", str(ROOT)):
        arguments.require_models(p.model_copy(update={"text_judge": name}))
