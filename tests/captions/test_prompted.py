"""A vision-language model is asked for `<object>`; its answers are captions like any other, and a server may fail."""

import base64
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_vlm
import yaml
from captioned_photos import rows_of
from fake_api import FakeApi, Reply, serving
from PIL import Image
from typer.testing import CliRunner

from stages.cli import app
from taming_core.captions.captioning import CaptionSource
from taming_core.captions.drafts import Models, Target
from taming_core.captions.load import load_prompted
from taming_core.captions.prompted import PromptedCaptioner, tidy_answer
from taming_core.errors import TamingError
from taming_core.params.caption import CaptionParams, VlmParams
from taming_core.params.load import load_params
from taming_core.projects.diagnosis import server_check
from taming_core.tables import schema
from taming_core.vlm.chat_server import ChatServer
from taming_core.vlm.questions import Question
from taming_core.weights.mini import MINI

ROOT = Path(__file__).parents[2]
MINI_PARAMS = load_params(ROOT / "params.yaml").caption.model_dump()
KEY = "a-secret-key"


def params(captioner: str, **values: Any) -> CaptionParams:
    known = {"captioner": captioner, "num_beams": 1, "max_new_tokens": 6, "replace": "noun", "match_min": 0.5}
    return CaptionParams.model_validate({**MINI_PARAMS, **known, **values})


def photos(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (40 + n, 60, 3), dtype=np.uint8) for n in range(count)]


@pytest.mark.parametrize(
    ("answer", "tidy"),
    [
        ('"A `<object>` on\n the beach."', "A <object> on the beach."),
        ("<think>A dog,\nI see.</think>\n\na <Object> here", "a <object> here"),
        ("a &lt;object&gt; and a **<object>**", "a <object> and a <object>"),
        ("<think>never done", ""),
        ("it's an object", "it's an object"),
    ],
)
def test_an_answer_becomes_a_caption(answer: str, tidy: str) -> None:
    assert tidy_answer(answer) == tidy


# A model on this machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.write(tmp_path_factory.mktemp("vlm"))


def test_a_model_reads_photo_and_prompt_and_no_other_photo(model: Path) -> None:
    captioner = load_prompted(params(f"vlm:{model}"), "cpu")
    together = captioner.ask(photos(3), ["dog", None, "dog"])
    alone = [captioner.ask([photo], [noun])[0] for photo, noun in zip(photos(3), ["dog", None, "dog"], strict=True)]
    assert together == alone
    assert len(set(together)) == 3
    asked = load_prompted(params(f"vlm:{model}", vlm={"prompt": "<object> {class}"}), "cpu")
    assert asked.ask(photos(1), ["dog"]) != asked.ask(photos(1), ["cat"])
    assert captioner(photos(1), "a photo of a dog") != captioner(photos(1))
    assert captioner([]) == captioner.ask([], []) == []


def test_beams_and_length_count(model: Path) -> None:
    short, long = (load_prompted(params(f"vlm:{model}", max_new_tokens=n), "cpu")(photos(1))[0] for n in (3, 9))
    assert (len(short.split()), len(long.split())) == (3, 9)
    assert load_prompted(params(f"vlm:{model}", num_beams=4), "cpu")(photos(3)) != load_prompted(
        params(f"vlm:{model}"), "cpu")(photos(3))  # fmt: skip


def test_models_that_cannot_be_asked_are_clear_errors(tmp_path: Path) -> None:
    for spec, message in (
        ("nobody/nothing", "hf download nobody/nothing"),
        (str(MINI / "clip"), "There is no image-text-to-text model"),
        (str(tiny_vlm.write(tmp_path, template=None)), "has no chat template, so it cannot be asked"),
    ):
        with pytest.raises(TamingError, match=message):
            load_prompted(params(f"vlm:{spec}"), "cpu")


# Answers as captions


@pytest.fixture
def dog(tmp_path: Path) -> CaptionSource:
    Image.new("RGB", (40, 30)).save(tmp_path / "dog.png")
    return CaptionSource(tmp_path / "dog.png", "dog.png", targets=(Target("dog-0", "dog"),))


def rows(source: CaptionSource, fits: Sequence[str], asked: str, described: str = "", continued: str = "") -> Any:
    """The rows of a captioner that answers as told, and of a matcher that likes only `fits`."""
    models = Models(
        describe=lambda images, prefix: [continued if prefix else described] * len(images),
        match=lambda _, texts: np.array([0.75 if text in fits else 0.25 for text in texts], np.float32),
        ask=lambda _, nouns: [asked.replace("{class}", noun or "?") for noun in nouns],
    )
    return rows_of([source], models, params("vlm:none"))


LADDER = [
    ("A <object> in the snow.", ["A dog in the snow."], "", ("captioner", "A <object> in the snow.")),
    ("A puppy in the snow.", ["A puppy in the snow."], "", ("noun", "A <object> in the snow.")),
    ("A wall in the snow.", ["a photo of a dog here"], "a photo of a dog here",
     ("conditional", "a photo of a <object> here")),
    ("A wall in the snow.", ["A wall in the snow.", "a photo of a dog in the snow"], "",
     ("template", "a photo of a <object> in the snow")),
    ("", ["a photo of a dog"], "", ("template", "a photo of a <object>")),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "fits", "continued", "expected"), LADDER)
def test_an_answer_goes_through_the_rules_of_any_caption(
    dog: CaptionSource, asked: str, fits: list[str], continued: str, expected: tuple[str, str]
) -> None:
    (row,) = rows(dog, fits, asked, continued=continued)
    assert (row["method"], row["object_caption"], row["drop_reason"]) == (*expected, None)
    schema.table([row], schema.CAPTIONS)


def test_an_answer_that_does_not_match_is_dropped(dog: CaptionSource) -> None:
    (row,) = rows(dog, [], "A <object> in the snow.")
    assert row["drop_reason"] == "caption does not match: 0.250"


def test_each_object_is_asked_for_and_a_photo_without_one_described(dog: CaptionSource) -> None:
    both = CaptionSource(dog.path, "dog.png", targets=(Target("0", "dog"), Target("1", "cat")))
    found = rows(both, ["a dog, not the dog", "a cat, not the cat"], "a <object>, not the {class}")
    assert [row["object_caption"] for row in found] == ["a <object>, not the dog", "a <object>, not the cat"]
    (general,) = rows(CaptionSource(dog.path, "dog.png"), ["a wall"], "", described="a wall")
    assert (general["caption"], general["method"], general["drop_reason"]) == ("a wall", None, None)


# A server


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    yield from serving(monkeypatch, lambda prompt: f"A <object>. {prompt[-3:]}")


def served(api: FakeApi, **values: Any) -> PromptedCaptioner:
    return load_prompted(params(f"vlm:{api.url}/#tiny", vlm=values or None), "cpu")


def test_a_request_holds_the_photo_at_a_bounded_size_and_the_prompt(api: FakeApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", KEY)
    captioner = served(api, prompt="Not the {class}: <object>", max_side=30, api_key_env="MY_KEY")
    assert captioner.ask(photos(1), ["dog"]) == ["A <object>. ct>"]
    ((headers, body),) = api.requests
    assert (headers["Authorization"], headers["Content-Type"]) == (f"Bearer {KEY}", "application/json")
    image, text = body.pop("messages")[0]["content"]
    assert body == {"model": "tiny", "max_tokens": 6, "temperature": 0, "seed": 0}
    assert text == {"type": "text", "text": "Not the dog: <object>"}
    head, _, data = image["image_url"]["url"].partition(",")
    picture = Image.open(BytesIO(base64.b64decode(data)))
    assert (head, picture.format, picture.size) == ("data:image/jpeg;base64", "JPEG", (30, 20))
    served(api)(photos(1))
    assert "Authorization" not in api.requests[-1][0]


def test_answers_are_in_the_order_of_the_photos(api: FakeApi) -> None:
    api.replies, nouns = [0.2, 0.0, 0.1, 0.0], ["dog", "cat", "car", "cup"]
    assert served(api, prompt="<object> {class}").ask(photos(4), nouns) == [f"A <object>. {noun}" for noun in nouns]


FAILURES: list[Reply] = [(503, b"busy"), (429, b"slow down"), (200, b"<html>"), (200, b'{"choices": []}'), (200, b"[]"),
                         (200, b"\xff\xfe"), None, (500, b"\xff")]  # fmt: skip


@pytest.mark.parametrize("reply", FAILURES)
def test_a_request_that_fails_is_sent_again(api: FakeApi, reply: Reply) -> None:
    api.replies = [reply, reply]
    assert served(api, retries=2)(photos(1)) == ["A <object>. on."]
    assert len(api.requests) == 3
    assert api.requests[0][1] == api.requests[2][1]


@pytest.mark.parametrize("reply", [*FAILURES, 1.0])
def test_in_the_end_the_error_says_what_is_wrong_in_one_line(api: FakeApi, reply: Reply) -> None:
    api.replies = [reply, reply]
    with pytest.raises(TamingError, match="gave no answer in 2 tries: ") as raised:
        served(api, retries=1, timeout=0.3)(photos(1))
    assert "\n" not in str(raised.value)
    assert len(api.requests) == 2


def test_without_a_server_there_is_no_answer(api: FakeApi) -> None:
    nobody = ChatServer("http://127.0.0.1:9/v1", "tiny", VlmParams(retries=0), 6, "caption.vlm", "what is captioned")
    with pytest.raises(TamingError, match=r"gave no answer in 1 tries: .*refused"):
        nobody(Question((Image.new("RGB", (8, 8)),), "?", 8))


def test_a_refused_request_is_not_sent_again_and_the_key_not_shown(api: FakeApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", KEY)
    api.replies = [(401, f"wrong key\n{KEY}".encode())]
    with pytest.raises(TamingError, match=r"refuses the model tiny: 401 wrong key \*\*\*\. Correct") as raised:
        served(api, api_key_env="MY_KEY")(photos(1))
    assert KEY not in str(raised.value)
    assert len(api.requests) == 1


@pytest.mark.parametrize("content", [None, "", [{"type": "text"}], 7])
def test_a_reply_without_words_is_an_empty_caption(api: FakeApi, content: Any) -> None:
    api.answer = lambda _: content
    assert served(api)(photos(1)) == [""]


def test_doctor_asks_the_server(api: FakeApi) -> None:
    assert server_check("caption.captioner", api.url, "tiny", None).ok
    other = server_check("caption.captioner", api.url, "huge", None)
    assert (other.ok, other.found) == (False, f"{api.url} has tiny")
    assert other.remedy == "Name one of these after #, not huge."
    gone = server_check("caption.captioner", "http://127.0.0.1:9/v1", "tiny", "MY_KEY")
    assert not gone.ok
    assert gone.remedy == "Start the server, set MY_KEY to its API key, or correct the URL."


# The command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    for n, photo in enumerate(photos(5)):
        Image.fromarray(photo).save(tmp_path / f"raw/{n}.png")
    return tmp_path


def caption(captioner: str, **values: Any) -> tuple[int, str]:
    changed = yaml.safe_load((ROOT / "params.yaml").read_text())
    changed["caption"] |= {"captioner": captioner, "num_beams": 1, "batch_size": 1, "shard_size": 1, "match_min": 0.0}
    changed["caption"] |= values
    Path("params.yaml").write_text(yaml.safe_dump(changed))
    result = CliRunner().invoke(app, ["caption", "--in", "raw", "--out", "captions.parquet", "--device", "cpu"])
    return result.exit_code, str(result.exception or result.output)


def captions() -> list[dict[str, Any]]:
    return pq.read_table("captions.parquet").to_pylist()


def test_after_a_server_that_failed_the_same_command_asks_for_the_rest(
    project: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    api.open_until, spec = 3, f"vlm:{api.url}#tiny"
    code, message = caption(spec, vlm={"retries": 1, "api_key_env": "MY_KEY"})
    assert code == 1
    assert "gave no answer in 2 tries: 503 overloaded" in message
    assert not (project / "captions.parquet").exists()
    api.open_until = 10**6
    assert caption(spec, vlm={"retries": 4, "timeout": 9})[0] == 0  # keys of the connection start nothing again
    assert len(api.requests) == 3 + 2 + 2
    resumed = (project / "captions.parquet").read_bytes()
    assert [row["method"] for row in captions()] == ["captioner"] * 5
    everything = [p.read_bytes() for p in project.rglob("*") if p.is_file()]
    assert not [data for data in everything if KEY.encode() in data]
    for path in (project / "runs").rglob("*.parquet"):
        path.unlink()
    assert caption(spec)[0] == 0
    assert (project / "captions.parquet").read_bytes() == resumed


def test_another_prompt_or_model_starts_again(project: Path, api: FakeApi) -> None:
    api.open_until = 3
    assert caption(f"vlm:{api.url}#tiny", vlm={"retries": 0})[0] == 1
    api.open_until = 10**6
    assert caption(f"vlm:{api.url}#tiny", vlm={"prompt": "Leave <object>."})[0] == 0
    assert len(api.requests) == 4 + 5
    assert caption(f"vlm:{api.url}#other")[0] == 0
    assert len(api.requests) == 4 + 5 + 5


def test_the_command_with_a_model_on_this_machine(project: Path, model: Path) -> None:
    code, message = caption(f"vlm:{model}", max_new_tokens=6)
    assert code == 0, message
    first = (project / "captions.parquet").read_bytes()
    assert len(captions()) == 5
    assert all(row["object_caption"].count("<object>") == 1 for row in captions())
    (project / "captions.parquet").unlink()
    assert caption(f"vlm:{model}", max_new_tokens=6)[0] == 0
    assert (project / "captions.parquet").read_bytes() == first


def test_a_missing_key_or_folder_is_said_before_a_model_is_loaded(project: Path, api: FakeApi) -> None:
    assert "caption.vlm.api_key_env is NO_SUCH" in caption(f"vlm:{api.url}#tiny", vlm={"api_key_env": "NO_SUCH"})[1]
    assert "caption.captioner is vlm:./nothing" in caption("vlm:./nothing")[1]
    assert not api.requests
