"""A vision-language model scores images by its answers; what it does not answer is counted, nothing asked twice."""

import base64
import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
from fake_api import FakeApi, Reply, serving
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation import measures, vlm_judge
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.protocol import EvalSubject
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluateParams
from taming_core.params.vlm import VlmJudgeParams
from taming_core.projects import diagnosis
from taming_core.vlm.kept_answers import KeptAnswers
from taming_core.weights.mini import MINI

KEY = "a-secret-key"
DEFAULT = load_params(packaged_params())
GREY = Image.new("RGBA", (4, 4))


def subject(identity: str, colour: str, noun: str | None = "dog") -> EvalSubject:
    return EvalSubject(identity, GREY, GREY, (), noun, training_photos=(Image.new("RGB", (20, 20), colour),))


SUBJECTS = [subject("a", "red"), subject("b", "blue", "airplane/aeroplane")]


def row(condition: str, identity: str, prompt: str | None = None, seed: int = 0, **more: Any) -> ImageScores:
    about = {"condition": condition, "identity": identity, "kind": "scene", "shown": identity, **more}
    if prompt is None:
        return {**about, "kind": "photo", "photo": seed}
    return {
        **about,
        "asked": prompt,
        "prompt": prompt,
        "seed": seed,
        "image": f"{condition}-{identity}-{prompt}-{seed}",
    }


ROWS = [
    row("ours", "a", "a <object> here"), row("ours", "b", "a <object> here"), row("ours", "a", "a <object> there", 1),
    row("no_object", "a", "a <object> here"), row("real_photos", "b", seed=0),
]  # fmt: skip
IMAGES = [Image.new("RGB", (16, 16), (n, 40, 90)) for n in range(len(ROWS))]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    yield from serving(monkeypatch, lambda prompt: "Fine.\nScore: 2" if "“a" in prompt else "Fine.\nScore: 3")


def params(api: FakeApi | None = None, **values: Any) -> EvaluateParams:
    vlm = {"model": f"{api.url}/#tiny" if api else "./nothing", **values}
    return DEFAULT.evaluate.model_copy(update={"vlm": VlmJudgeParams.model_validate(vlm)})


def scored(p: EvaluateParams, folder: Path, rows: Sequence[ImageScores] = ROWS, images: Any = IMAGES) -> Any:
    assert p.vlm is not None
    judge = vlm_judge.load_vlm_judge(p.vlm, "cpu", folder)
    return vlm_judge.add_vlm_scores(rows, images, SUBJECTS, judge, p)


def prompts(api: FakeApi) -> list[str]:
    return sorted(body["messages"][0]["content"][-1]["text"] for _, body in api.requests)


def test_rows_get_the_scores_in_parts_of_one(api: FakeApi, tmp_path: Path) -> None:
    found = scored(params(api), tmp_path)
    assert [r.get("cp") for r in found] == [0.75] * 5
    assert [r.get("pf") for r in found] == [0.5] * 4 + [None]
    assert [r.get("cp_pf") for r in found] == [0.375] * 4 + [None]
    assert [r["vlm_answered"] for r in found] == [1.0] * 5
    assert found[0]["cp_answer"] == "Fine.\nScore: 3"
    assert not [r for r in found if "vlm_reason" in r]
    assert [{k: r[k] for k in before} for r, before in zip(found, ROWS, strict=True)] == ROWS
    means = measures.metrics(measures.summary(found))
    assert means["ours"] == {"cp": 0.75, "pf": 0.5, "cp_pf": 0.375, "vlm_answered": 1.0}
    assert means["real_photos"] == {"cp": 0.75, "vlm_answered": 1.0}


def test_without_a_judge_rows_stay_as_they_are(tmp_path: Path) -> None:
    assert vlm_judge.add_vlm_scores(ROWS, IMAGES, SUBJECTS, None, DEFAULT.evaluate) == ROWS


def pixels(part: Any) -> tuple[int, ...]:
    data = part["image_url"]["url"].partition(",")[2]
    return Image.open(BytesIO(base64.b64decode(data))).convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[return-value]


def test_what_is_asked_holds_the_seen_photo_first_and_the_class_in_the_prompt(api: FakeApi, tmp_path: Path) -> None:
    scored(params(api, cp_prompt="{class}?", pf_prompt="“{prompt}”?"), tmp_path)
    assert prompts(api) == ["airplane?"] * 2 + ["dog?"] * 3 + [
        "“a dog here”?", "“a dog here”?", "“a dog there”?", "“an airplane here”?"
    ]  # fmt: skip
    for _, body in api.requests:
        *pictures, text = body["messages"][0]["content"]
        if text["text"].startswith("“"):
            assert len(pictures) == 1
        else:
            first, second = map(pixels, pictures)
            assert abs(first["airplane" in text["text"] and 2] - 254) < 3
            assert abs(second[1] - 40) < 5
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 256)


def test_an_object_without_a_class_is_asked_about_too(api: FakeApi, tmp_path: Path) -> None:
    bare = subject("a", "red", None)
    p = params(api, cp_prompt="{class}?", pf_prompt="“{prompt}”?")
    assert p.vlm is not None
    judge = vlm_judge.load_vlm_judge(p.vlm, "cpu", tmp_path)
    vlm_judge.add_vlm_scores(ROWS[:1], IMAGES[:1], [bare], judge, p)
    assert prompts(api) == ["object?", "“an object here”?"]


def test_an_image_of_two_objects_is_asked_about_each_and_once_about_its_prompt(api: FakeApi, tmp_path: Path) -> None:
    text = "a <object> and a <object>"
    both = [row("ours", "a", text, beside="b"), row("ours", "b", text, beside="a")]
    both[1]["image"] = both[0]["image"]
    p = params(api, cp_prompt="{class}?", pf_prompt="“{prompt}”?")
    found = scored(p, tmp_path, both, [IMAGES[0], IMAGES[0]])
    assert prompts(api) == ["airplane?", "dog?", "“a dog and an airplane”?"]
    assert [r["cp_pf"] for r in found] == [0.375, 0.375]


def test_some_images_of_each_condition_are_the_same_prompts_in_all(api: FakeApi, tmp_path: Path) -> None:
    rows = [row(c, i, f"{w} <object>", s) for c in ("ours", "class_noun") for i in "ab" for w in "xyz" for s in (1, 2)]
    rows += [row("real_photos", "a", seed=n) for n in range(2)]
    numbers = vlm_judge.chosen(rows, 5, 0)
    of = {c: [(rows[n]["identity"], rows[n]["asked"], rows[n]["seed"]) for n in numbers if rows[n]["condition"] == c]
          for c in ("ours", "class_noun")}  # fmt: skip
    assert of["ours"] == of["class_noun"]
    assert (len(of["ours"]), len(numbers)) == (5, 12)
    assert len({asked for _, asked, _ in of["ours"]}) > 1
    assert vlm_judge.chosen(rows, 5, 1) != numbers
    assert vlm_judge.chosen(rows, None, 0) == list(range(len(rows)))
    found = scored(params(api, images=1), tmp_path, ROWS)
    assert sum("vlm_answered" in r for r in found) == 3


def test_what_holds_no_score_is_asked_once_more_and_then_counted(api: FakeApi, tmp_path: Path) -> None:
    def answer(prompt: str) -> Any:
        if "“a" not in prompt:
            return "Score: 4"
        if "there" in prompt:
            return None
        if "airplane" in prompt:
            return "Score: 1" if prompt.endswith(vlm_judge.REMINDER) else "I cannot say."
        return "I will  not\nsay."

    api.answer = answer
    found = scored(params(api), tmp_path)
    assert [r.get("pf") for r in found] == [None, 0.25, None, None, None]
    assert [r.get("cp") for r in found] == [1.0] * 5
    assert [r["vlm_answered"] for r in found] == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert [r.get("vlm_reason") for r in found] == [
        "pf: no score in “I will not say.”", None, "pf: no words", "pf: no score in “I will not say.”", None,
    ]  # fmt: skip
    assert len(api.requests) == 5 + 4 + 4
    assert measures.metrics(measures.summary(found))["ours"] == {
        "cp": 1.0, "pf": 0.25, "cp_pf": 0.25, "vlm_answered": 0.3333,
    }  # fmt: skip
    again = scored(params(api), tmp_path)
    assert again == found
    assert len(api.requests) == 13


FILTERED = json.dumps({"error": {"message": "The prompt was filtered. " * 20, "code": "content_filter"}}).encode()


def test_a_picture_that_the_servers_filter_withholds_is_counted(api: FakeApi, tmp_path: Path) -> None:
    api.replies = [(400, FILTERED)]
    (found,) = scored(params(api, at_once=1), tmp_path, ROWS[-1:], IMAGES[-1:])
    assert found["cp"] == 0.75  # the second question is another one
    api.replies = [(400, FILTERED), 0.0, (400, FILTERED)]
    (found,) = scored(params(api, at_once=1), tmp_path, ROWS[:1], IMAGES[:1])
    assert (found["vlm_answered"], found["vlm_reason"], found["pf"]) == (0.0, "cp: no words", 0.5)
    assert not {"cp", "cp_pf"} & set(found)


REFUSED = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
UNSUPPORTED = "Unsupported value: 'temperature' does not support 0 with this model."


def test_what_a_server_does_not_take_is_left_out_of_a_request(api: FakeApi, tmp_path: Path) -> None:
    api.replies = [(400, json.dumps({"error": {"message": text}}).encode()) for text in (REFUSED, UNSUPPORTED)]
    (found,) = scored(params(api, at_once=1), tmp_path, ROWS[-1:], IMAGES[-1:])
    assert found["cp"] == 0.75
    assert [set(body) - {"model", "messages"} for _, body in api.requests] == [
        {"max_tokens", "temperature", "seed"}, {"max_completion_tokens", "temperature", "seed"},
        {"max_completion_tokens", "seed"},
    ]  # fmt: skip
    api.replies = [(400, UNSUPPORTED.encode())] * 2
    with pytest.raises(TamingError, match="refuses the model tiny: 400 Unsupported value"):
        scored(params(api, at_once=1), tmp_path, ROWS[-1:], IMAGES[:1])


@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_scores_depend_on_neither_order_nor_concurrency_nor_failures(
    api: FakeApi, tmp_path: Path, at_once: int
) -> None:
    api.answer = lambda prompt: f"Score: {len(prompt) % 5}"
    expected = scored(params(api), tmp_path / "calm")
    replies: list[Reply] = [0.05, (503, b"busy"), None, 0.0, (429, b"slow down"), (200, b"<html>"), 0.02, (200, b"{}")]
    api.replies = replies
    backwards = scored(params(api, at_once=at_once), tmp_path / "rough", ROWS[::-1], IMAGES[::-1])
    assert backwards[::-1] == expected


def test_after_a_server_that_failed_only_the_rest_is_asked(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    api.open_until = 4
    with pytest.raises(TamingError, match=r"gave no answer in 1 tries: 503 overloaded.*; what it answered is kept\."):
        scored(params(api, retries=0, at_once=1, api_key_env="MY_KEY"), tmp_path)
    assert f"evaluate.vlm asks {api.url}/#tiny 9 questions; 0 are answered already" in capsys.readouterr().err
    assert len(api.requests) == 5
    api.open_until = 99
    scored(params(api, api_key_env="MY_KEY"), tmp_path)
    assert "5 questions; 4 are answered already" in capsys.readouterr().err
    assert len(api.requests) == 5 + 5
    assert {headers["Authorization"] for headers, _ in api.requests} == {f"Bearer {KEY}"}
    scored(params(api), tmp_path)
    assert capsys.readouterr().err == ""
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text(encoding="utf-8")]


def test_another_model_or_question_is_asked_anew(api: FakeApi, tmp_path: Path) -> None:
    for values in ({}, {"max_new_tokens": 9}, {"max_side": 9}, {"cp_prompt": "?"}, {"model": f"{api.url}#other"}):
        scored(params(api, **values), tmp_path, ROWS[-1:], IMAGES[-1:])
    assert len(api.requests) == 5


def test_a_server_that_does_not_run_is_said_at_once() -> None:
    p = params(model="http://127.0.0.1:9/v1#tiny").vlm
    assert p is not None
    with pytest.raises(TamingError, match=r"does not answer: .*refused.* Start the server, or correct evaluate\.vlm"):
        vlm_judge.load_vlm_judge(p, "cpu", Path())


def test_doctor_asks_the_server_of_the_judge(api: FakeApi) -> None:
    def check(p: EvaluateParams) -> diagnosis.Check:
        found = diagnosis.model_checks(DEFAULT.model_copy(update={"evaluate": p}))
        return next(c for c in found if c.what == "evaluate.vlm.model")

    assert check(params(api)).ok
    gone = check(params(model="http://127.0.0.1:9/v1#tiny", api_key_env="MY_KEY"))
    assert (gone.ok, gone.remedy) == (False, "Start the server, set MY_KEY to its API key, or correct the URL.")
    assert "hf download nobody/nothing" in check(params(model="nobody/nothing")).remedy
    assert "evaluate.vlm.model" not in {c.what for c in diagnosis.model_checks(DEFAULT)}


def test_a_model_on_this_machine_judges_without_a_word_on_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_vlm.write(tmp_path / "vlm")
    p = params(model=str(folder), max_new_tokens=6)
    capsys.readouterr()
    found = scored(p, tmp_path / "kept")
    assert {r["vlm_answered"] for r in found} <= {0.0, 1.0}
    assert all(r["cp_answer"] for r in found)
    answers = [r["cp_answer"] for r in found]
    assert len(set(answers)) > 1
    assert scored(p, tmp_path / "kept") == found == scored(p, tmp_path / "other")
    assert capsys.readouterr().err == ""
    assert p.vlm is not None
    judge = vlm_judge.load_vlm_judge(p.vlm, "cpu", tmp_path / "kept")
    assert isinstance(judge, KeptAnswers)
    asked = [a.question for a in vlm_judge.questions_of(ROWS, IMAGES, SUBJECTS, p)]
    assert judge.missing(asked) == 0


def test_a_model_that_is_not_there_is_not_replaced_by_mini(tmp_path: Path) -> None:
    for spec in ("nobody/nothing", str(MINI / "clip"), str(tiny_vlm.write(tmp_path, template=None))):
        p = params(model=spec).vlm
        assert p is not None
        with pytest.raises(TamingError, match=r"evaluate\.vlm\.model") as raised:
            vlm_judge.load_vlm_judge(p, "cpu", tmp_path)
        assert " mini" not in str(raised.value)


WRONG = [
    ({"model": "mini"}, "without vlm:; mini has none"),
    ({"model": "vlm:./x"}, "without vlm:"),
    ({"model": "http://host/v1"}, "must name the server's model"),
    ({"model": "./x", "timeout": 9.0}, "evaluate.vlm.timeout must be left out unless evaluate.vlm.model is URL#MODEL"),
    ({"model": "./x", "at_once": 2}, "evaluate.vlm.at_once must be left out"),
    ({"model": "./x", "pf_prompt": "?"}, "evaluate.vlm.pf_prompt must contain {prompt}"),
    ({"model": "./x", "images": 0}, "greater than 0"),
    ({"images": 3}, "model"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_what_would_be_ignored_or_cannot_be_is_an_error(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    import yaml

    everything = yaml.safe_load(packaged_params().read_text(encoding="utf-8"))
    everything["evaluate"]["vlm"] = values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(everything), encoding="utf-8")
    with pytest.raises(TamingError) as raised:
        load_params(tmp_path / "params.yaml")
    assert message in str(raised.value)
