"""One wrong argument of `taming generate` is answered at once: no model is loaded, and nothing is written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed

from taming_core.images.checks import LENGTH
from taming_core.weights.mini import PIPELINE

RUN = """
import json, sys, time
from stages.cli import app
from taming_core.errors import TamingError
answers = {}
for name, arguments in json.load(sys.stdin).items():
    start, answer = time.process_time(), "drawn"
    try:
        app(["generate", *arguments], standalone_mode=False)
    except TamingError as error:
        answer = str(error)
    except Exception as error:  # of typer
        answer = f"{type(error).__name__}: {error}"
    answers[name] = answer, time.process_time() - start, "torch" in sys.modules, "transformers" in sys.modules
print(json.dumps(answers))
"""
BEACH = "a photo of a <object> on the beach"
WRONG: dict[str, tuple[str, str]] = {  # what is put in place of right arguments, and what the answer says
    "photo absent": ("--object absent.png", "There is no absent.png"),
    "photo is text": ("--object notes.png", "notes.png is not a readable image"),
    "photo is cut off": ("--object half.png", "half.png is not a readable image"),
    "photo is empty": ("--object empty.png", "empty.png is not a readable image"),
    "folder without photos": ("--object nothing", "nothing holds no photos"),
    "prompt without object": ("--prompt cat", "does not say where the object goes"),
    "prompt of two": ("--prompt <object>+<object>", "--together"),
    "prompt of another": ("--prompt <object:2>", "number 2"),
    "prompt too long": (f"--prompt {'very+' * 40}<object>", "loses"),
    "prompts absent": ("--prompts absent.txt", "absent.txt cannot be read"),
    "prompts are a folder": ("--prompts nothing", "nothing cannot be read"),
    "prompts are none": ("--prompts empty.png", "empty.png holds no prompt"),
    "prompts are a photo": ("--prompts photo.png", "photo.png is no text in UTF-8"),
    "prompts without object": ("--prompts notes.png", "'not a picture' does not say"),
    "together, one place": ("--object photo.png --together", "no <object> for photo.png"),
    "together, unequal": ("--object two --together --prompt <object>+<object>", "1 and 2 photos"),
    "negative with object": ("--negative-prompt <object>", "holds <object>"),
    "negative without guidance": (
        "--negative-prompt ugly --guidance-object 1 --guidance-text 1", "negative prompt has no effect",
    ),
    "mask absent": ("--mask absent.png", "There is no absent.png"),
    "mask of another size": ("--mask small.png", "small.png is 8x8, the photo is 128x128"),
    "mask is text": ("--mask notes.png", "notes.png is not a readable image"),
    "mask is black": ("--mask black.png", "black.png cannot be used: given mask is black all over"),
    "masks too many": ("--mask photo.png --mask photo.png", "2 masks for 1 photos"),
    "out is a file": ("--out photo.png", "photo.png is a file"),
    "out is below a file": ("--out photo.png/out", "photo.png is a file"),
    "out holds a foreign sheet": ("--out foreign", "sheet.png is of something else"),
    "out holds a foreign record": ("--out recorded", "is no record of images"),
    "encoder absent": ("--encoder absent", "absent holds no encoder"),
    "encoder is a photo": ("--encoder photo.png", "photo.png holds no encoder"),
    "encoder is damaged": ("--encoder damaged", "model_index.json is not JSON"),
    "base without effect": ("--base nothing", "--base has no effect"),
    "object scale without effect": ("--object-scale 0.5", "object_scale has no effect on concat"),
    "embedded guidance without effect": ("--guidance-embedded 3", "guidance_embedded has no effect"),
    "width alone": ("--width 128", "--width and --height go together"),
    "size between multiples": ("--width 130 --height 128", "Set height and width to multiples of"),
    "scheduler unknown": ("--scheduler Euler", "no scheduler 'Euler'"),
    "scheduler of flow matching": ("--scheduler FlowMatchEulerDiscreteScheduler", "for flow-matching models"),
    "device unknown": ("--device gpu", "There is no device gpu"),
    "precision unknown": ("--precision fp8", "There is no precision fp8"),
    "precision of no use": ("--precision fp16", "--precision fp16 has no effect on the CPU"),
    "offload of no use": ("--offload", "--offload has no effect on the CPU"),
    "params absent": ("--params absent.yaml", "absent.yaml"),
    "seed below zero": ("--seed -1", "BadParameter"),
    "seed too large": (f"--seed {2**63}", "BadParameter"),
    "no images": ("--images 0", "BadParameter"),
    "no steps": ("--steps 0", "BadParameter"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and what is none."""
    home = tmp_path_factory.mktemp("arguments")
    image, mask = composed(artwork(1)[0], 0)
    cut = Image.fromarray(np.dstack([image, mask * np.uint8(255)]))
    for name in ("nothing", "two", "foreign", "recorded", "damaged"):
        (home / name).mkdir()
    for name in ("photo.png", "two/a.png", "two/b.png"):
        cut.save(home / name)
    (home / "notes.png").write_text("not a picture")
    (home / "empty.png").write_text("")
    (home / "half.png").write_bytes((home / "photo.png").read_bytes()[:2000])
    Image.new("L", (8, 8), 255).save(home / "small.png")
    Image.new("L", (128, 128), 0).save(home / "black.png")
    cut.save(home / "foreign" / "sheet.png")
    (home / "recorded" / "generation.json").write_text("[]")
    (home / "damaged" / "model_index.json").write_text("{")
    return home


def arguments_of(wrong: str) -> list[str]:
    """Right arguments, in which the wrong ones take the place of their like."""
    given = [word.replace("+", " ") for word in wrong.split()]
    right = {"--object": "photo.png", "--prompt": BEACH, "--out": "out", "--encoder": "mini", "--device": "cpu"}
    if "--prompts" in given:
        right.pop("--prompt")
    if "--together" not in given:
        right = {name: value for name, value in right.items() if name not in given}
    elif "--prompt" in given:
        right.pop("--prompt")
    return [*(word for pair in right.items() for word in pair), *given]


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[str, float, bool, bool]]:
    """For each wrong argument the answer, the seconds of the CPU, and whether torch and transformers are imported."""
    asked = {name: arguments_of(wrong) for name, (wrong, _) in WRONG.items()}
    last = "prompt too long"  # its tokens are counted by transformers
    asked[last] = asked.pop(last)
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(asked), cwd=folder, text=True,
                          capture_output=True, check=True)  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_before_a_model_is_loaded(
    answers: dict[str, tuple[str, float, bool, bool]], folder: Path, name: str
) -> None:
    answer, seconds, torch, transformers = answers[name]
    assert WRONG[name][1] in answer
    assert not torch
    assert transformers == (name == "prompt too long")
    assert seconds < (4 if transformers else 1.5)
    assert "\n" not in answer
    assert not (folder / "out").exists()


def test_mini_reads_as_many_tokens_as_its_folder_says() -> None:
    assert json.loads((PIPELINE / "tokenizer" / "tokenizer_config.json").read_text())[LENGTH] == 32
