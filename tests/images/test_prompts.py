"""Prompts as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taming_core.errors import TamingError
from taming_core.images.prompts import place_objects, read_prompts

BEACH = "a photo of a <object> on the beach"
BOTH = ["cat.jpg", "dog.jpg"]


def prompts_in(folder: Path, content: bytes) -> list[str]:
    (folder / "prompts.txt").write_bytes(content)
    return read_prompts(folder / "prompts.txt")


def test_each_line_is_a_prompt(tmp_path: Path) -> None:
    text = f"\ufeff# on holiday\r\n{BEACH}\r\n\r\n  a <object>, #1 of\u2028many \n"
    assert prompts_in(tmp_path, text.encode()) == [BEACH, "a <object>, #1 of\u2028many"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no prompt"), (b"# none\n\n", "holds no prompt"), (BEACH.encode("utf-16"), "no text in UTF-8"),
     ("a <object> caf\xe9".encode("latin-1"), "no text in UTF-8")],
)  # fmt: skip
def test_a_file_without_prompts_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(TamingError, match=rf"prompts.txt.*{words}"):
        prompts_in(tmp_path, content)


@pytest.mark.parametrize("name", ["absent.txt", "."])
def test_what_is_no_file_of_prompts_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TamingError, match="cannot be read"):
        read_prompts(tmp_path / name)


def test_objects_stand_in_their_order_or_by_their_numbers() -> None:
    assert place_objects("a <object> on a <object>", BOTH) == ("a <object> on a <object>", (0, 1))
    assert place_objects("a <object:2> on a <object:1>", BOTH) == ("a <object> on a <object>", (1, 0))
    assert place_objects("a <object:1>", BOTH[:1]) == ("a <object>", (0,))


@given(st.permutations(range(4)))
def test_numbers_place_any_order(order: list[int]) -> None:
    prompt = " and ".join(f"a <object:{i + 1}>" for i in order)
    placed, places = place_objects(prompt, list("abcd"))
    assert places == tuple(order)
    assert placed == " and ".join(["a <object>"] * 4)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat", "does not say where the object goes"),
        ("a <Object>", "does not say where the object goes"),
        (BEACH, r"where each of the 2 objects goes: it has no <object> for dog.jpg\. Write <object> 2 times"),
        ("a <object:2>", "it has no <object> for cat.jpg"),
        ("a <object> a <object> a <object>", "holds <object> number 3, and its image shows 2 objects"),
        ("a <object:1> a <object:0>", "holds <object> number 0"),
        ("a <object:1> a <object:2> a <object:2>", "holds object 2 more than once"),
        ("a <object:2> a <object>", "numbers 1 of its 2 <object>"),
    ],
)
def test_what_has_no_place_is_named(prompt: str, words: str) -> None:
    with pytest.raises(TamingError, match=words):
        place_objects(prompt, BOTH)


def test_two_places_for_one_object_ask_for_together() -> None:
    with pytest.raises(TamingError, match=r"number 2, and its image shows 1 object\. .*--together"):
        place_objects("a <object> and a <object>", BOTH[:1])
