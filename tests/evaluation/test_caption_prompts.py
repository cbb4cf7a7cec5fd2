"""Prompts of DreamBench++: each subject's own, from the captions of the folder."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation import protocol
from taming_core.evaluation.caption_prompts import read_caption_prompts, with_caption_prompts
from taming_core.params.load import load_params, packaged_params
from taming_core.params.protocols import load_protocol
from taming_core.params.sections import EvaluateParams

NINE = ["A photo of a poke ball on grass", "A poke ball in a city", "A poke ball, wet", "Two cats with a poke ball",
        "Ink sketch of a Poke Ball", "A poke ball in pixel art", "An oil painting of the poke ball",
        "A poke ball as a planet with rings", "A ball that holds a sleeping dragon"]  # fmt: skip
OWN = load_params(packaged_params()).evaluate
PLUS = load_protocol("dreambench-plus", OWN).evaluate


def params(**changes: Any) -> EvaluateParams:
    return EvaluateParams.model_validate({**PLUS.model_dump(), **changes})


def folder_of(tmp_path: Path, lines: list[str]) -> Path:
    for name in ("images/object/00.png", "images/live_subject/animal/00.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(tmp_path / name)
    (tmp_path / "captions/object").mkdir(parents=True)
    (tmp_path / "captions/object/00.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def subject(identity: str, noun: str) -> protocol.EvalSubject:
    nothing = Image.new("RGBA", (4, 4))
    return protocol.EvalSubject(identity, nothing, nothing, (), noun)


def test_every_subject_is_drawn_in_its_own_prompts_with_their_kinds(tmp_path: Path) -> None:
    found = read_caption_prompts(PLUS, folder_of(tmp_path, ["Poke ball", *NINE]))
    prompts = {**found, "a_cat": ["A cat asleep"]}
    p = with_caption_prompts(PLUS, prompts, {"object_00_poke_ball": "Poke ball", "a_cat": "cat"})
    things = [subject("object_00_poke_ball", "Poke ball"), subject("a_cat", "cat")]
    ours = [i for i in protocol.plan_images(things, p, "object_token") if i.condition == "ours"]
    assert [(i.subject, i.kind, i.asked, i.request.prompt) for i in ours] == [
        (0, "photorealistic", "photorealistic 1", "A photo of a <object> on grass"),
        (0, "photorealistic", "photorealistic 2", "A <object> in a city"),
        (0, "photorealistic", "photorealistic 3", "A <object>, wet"),
        (0, "photorealistic", "photorealistic 4", "Two cats with a <object>"),
        (0, "style", "style 1", "Ink sketch of a <object>"),
        (0, "style", "style 2", "A <object> in pixel art"),
        (0, "style", "style 3", "An oil painting of the <object>"),
        (0, "imaginative", "imaginative 1", "A <object> as a planet with rings"),
        (0, "imaginative", "imaginative 2", "A <object> that holds a sleeping dragon"),
        (1, "photorealistic", "photorealistic 1", "A <object> asleep"),
    ]


def test_params_without_captions_stay_as_they_are() -> None:
    mini = load_protocol("mini", OWN).evaluate
    assert with_caption_prompts(mini, read_caption_prompts(mini, None), {"a": "cat"}) == mini


def test_captions_with_more_lines_than_nine_go_on_as_imaginative_ones() -> None:
    p = with_caption_prompts(PLUS, {"a": [*NINE, "A poke ball in a dream"]}, {"a": "poke ball"})
    assert [q.name for q in p.prompts][-3:] == ["imaginative 1", "imaginative 2", "imaginative 3"]
    EvaluateParams.model_validate(p.model_dump())


def test_one_text_may_be_the_prompt_of_two_subjects() -> None:
    same = {"kind": "style", "text": "a <object>", "name": "style 1"}
    params(prompts=[{**same, "subject": "a"}, {**same, "subject": "b"}])
    with pytest.raises(ValueError, match="twice for one object"):
        params(prompts=[{**same, "subject": "a"}, {**same, "text": "the <object>", "subject": "a"}])


def test_mistakes_name_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"caption_prompts is true.*Name the folder .* with --raw"):
        read_caption_prompts(PLUS, None)
    with pytest.raises(TamingError, match=r"--raw would be ignored.* Leave it out"):
        read_caption_prompts(params(caption_prompts=False, scenes=["here"], scene_choices=["here", "there"]), tmp_path)
    with pytest.raises(TamingError, match=r"has no captions that are prompts\. Name a folder in the layout"):
        read_caption_prompts(PLUS, folder_of(tmp_path, ["Poke ball"]))
    with pytest.raises(TamingError, match=r"animal_00 has no prompts in the captions of --raw\. Name"):
        with_caption_prompts(PLUS, {"live_subject_animal_00": ()} | {"b": ["a b"]}, {"live_subject_animal_00": None})
