"""A score is found in an answer however it is worded, and none where there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taming_core.evaluation.vlm_answers import parse_score

ANSWERS = [
    ("Score: 3", 3),
    ("The handle is missing.\nScore: 3", 3),
    ("score:0", 0),
    ("**Score:** 4", 4),
    ("**Score: 4**", 4),
    ("### Score\n3", 3),
    ("Score: 3/4", 3),
    ("Score: 3 / 4.", 3),
    ("Score: 3 out of 4", 3),
    ("Score: Good (3)", 3),
    ("Score - 2", 2),
    ("Score = 2.0", 2),
    ("My score is 1.", 1),
    ("I would rate it. Rating: 2", 2),
    ("Score (0-4): 3", 3),
    ("On a scale from 0 to 4, the score is 2", 2),
    ('{"score": 3}', 3),
    ('{"reason": "The 2 ears differ", "score": "2"}', 2),
    ('```json\n{"Score": 1, "reason": "another mug"}\n```', 1),
    ("<think>Score: 0? No.</think>Score: 3", 3),
    ("Shape score: 2. Color score: 4. Final score: 3", 3),
    ("It has 3 legs, not 4.\nScore: 2", 2),
    (r"Score: \boxed{3}", 3),
    ("3", 3),
    (" **2** ", 2),
    ("(4)", 4),
    ("4/4", 4),
    ("Score: 3\n", 3),
    ("Score: NUMBER 3", 3),
    ("Score：３／４", 3),
]
NO_ANSWERS = [
    "",
    "   ",
    "I'm sorry, but I can't help with comparing people.",
    "It has 3 legs, not 4.",
    "Score:",
    "Score: NUMBER",
    "Score: high",
    "Score: 5",
    "Score: -1",
    "Score: 10",
    "Score: 2.5",
    "Score: 3/5",
    "Score: 3 out of 10",
    "Score: 4%",
    "Score: 75 %",
    "Score: 3\nNo, I take that back. Score: 8",
    "<think>Score: 3 would be",
    "<think>Score: 3</think>",
    '{"score": null}',
    '{"score": ',
    "0 to 4",
    "7",
    "Score (0-4):",
    "\x00\ufffd",
]


@pytest.mark.parametrize(("answer", "score"), ANSWERS)
def test_a_score_is_found_however_it_is_worded(answer: str, score: int) -> None:
    assert parse_score(answer) == score


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_no_score_is_made_up(answer: str) -> None:
    assert parse_score(answer) is None


@given(st.text(max_size=300))
def test_any_text_is_an_answer(answer: str) -> None:
    assert parse_score(answer) in (None, 0, 1, 2, 3, 4)
    if "score" not in answer.lower():
        assert parse_score(f"{answer}\nScore: 2") == 2
