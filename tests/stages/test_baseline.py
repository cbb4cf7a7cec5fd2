"""`taming baseline` from a photo to files, on a tiny base."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_bases
import yaml
from PIL import Image

from stages.baseline import baseline
from taming_core.baselines.base import load_tunable
from taming_core.errors import TamingError
from taming_core.params.load import load_params

PARAMS = load_params(tiny.ROOT / "params.yaml")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a base, a photo, and params of a few steps."""
    monkeypatch.chdir(tmp_path)
    tiny_bases.saved("sd15", Path("base"))
    Image.fromarray(tiny.picture(0, 0)[0]).save("photo.png")
    write_params(steps=2)


def write_params(steps: int) -> None:
    values = PARAMS.model_dump()
    prior = {**values["baseline"]["prior"], "images": 2, "steps": 2, "scheduler": "DDIMScheduler"}
    values["baseline"] |= {"size": tiny.SIDE, "prior": prior}
    for method in ("textual_inversion", "dreambooth", "dreambooth_lora"):
        values["baseline"][method] |= {"steps": steps}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def run(method: str = "textual-inversion", photo: str = "photo.png", out: str = "out", base: str = "base") -> None:
    baseline(method, Path(photo), Path(out), "dog", base, Path("params.yaml"), "cpu", "fp32")


def record() -> dict[str, object]:
    return json.loads(Path("out/baseline.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("method", "files", "words"),
    [
        ("textual-inversion", {"learned_embeds.safetensors"},
         'load_textual_inversion("out"), then "a photo of a <subject>"'),
        ("dreambooth-lora", {"pytorch_lora_weights.safetensors"},
         'load_lora_weights("out"), then "a photo of a sks dog"'),
        ("dreambooth", {"model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"},
         'from_pretrained("out"), then "a photo of a sks dog"'),
    ],
)  # fmt: skip
def test_one_line_says_what_it_cost_and_how_to_draw(
    method: str, files: set[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(method)
    assert {path.name for path in Path("out").iterdir()} == {"baseline.json", *files}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("out: 2 steps, ")
    assert words in line
    first = record()
    run(method)  # the same again, once more with the first one's seconds
    assert capsys.readouterr().out.splitlines() == [line]
    assert record() == first


def test_other_params_train_again_into_the_same_folder() -> None:
    run()
    write_params(steps=3)
    run()
    assert record()["steps"] == 3


def test_another_object_or_method_needs_a_folder_of_its_own() -> None:
    run()
    Image.fromarray(tiny.picture(1, 0)[0]).save("other.png")
    before = record()
    with pytest.raises(TamingError, match="out holds a baseline of another object"):
        run(photo="other.png")
    with pytest.raises(TamingError, match="out holds a baseline by textual-inversion"):
        run("dreambooth-lora")
    assert record() == before


def test_a_folder_of_something_else_is_not_replaced() -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TamingError, match="out holds something else than a baseline"):
        run()
    run(out="fresh")
    Path("fresh/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TamingError, match="fresh holds something else"):
        run(out="fresh")


def test_mistakes_are_named_before_anything_is_loaded() -> None:
    with pytest.raises(TamingError, match=r"no method lora\. Use one of textual-inversion"):
        run("lora")
    with pytest.raises(TamingError, match=r"There is no absent\.png"):
        run(photo="absent.png")
    with pytest.raises(TamingError, match="cannot be trained in fp16"):
        baseline("dreambooth", Path("photo.png"), Path("out"), None, "base", Path("params.yaml"), "cpu", "fp16")
    Path("text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(TamingError, match=r"text\.png is not a readable image"):
        run(photo="text.png")


def test_a_base_draws_without_an_object_as_diffusers_does() -> None:
    pipeline = load_tunable("base", "cpu", "fp32")
    given = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    ours = pipeline("a dog", guidance_text=4.0, generator=tiny.torch.Generator().manual_seed(0), **given).images
    parts = {**tiny_bases.parts("sd15"), "scheduler": pipeline.scheduler}
    stock = tiny_bases.stock("sd15", parts)
    theirs = stock("a dog", guidance_scale=4.0, generator=tiny.torch.Generator().manual_seed(0), **given).images
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"textual_inversion": {"checkpoints": [9]}}, r"checkpoints must be below its steps, 2"),
        ({"augment": {"views": 1, "crop": 0.1, "flip": False}}, r"crop must be 0 and flip false where views is 1"),
        ({"augment": {"views": 4, "crop": 0.0, "flip": False}}, r"views must be 1 where crop is 0"),
    ],
)
def test_values_that_do_not_go_together_are_named(change: dict[str, dict[str, object]], words: str) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for key, part in change.items():
        values["baseline"][key] |= part
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(TamingError, match=words):
        run()
