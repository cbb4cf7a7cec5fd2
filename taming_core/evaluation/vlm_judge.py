"""A vision-language model as judge: concept preservation (CP) and prompt following (PF).

The two scores and their scale from 0 to 4 are those of Peng et al., "DreamBench++: A Human-Aligned Benchmark for
Personalized Image Generation", arXiv 2406.16855, section 3; the questions are our own. Scores are divided by 4, as in
their tables.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.vlm_answers import LARGEST, parse_score
from taming_core.language.class_words import first_name
from taming_core.language.placeholder import fill_placeholder
from taming_core.params.sections import EvaluateParams
from taming_core.params.vlm import VlmJudgeParams
from taming_core.seeds import seed_for
from taming_core.vlm.chat_model import ChatModel, load_chat_model
from taming_core.vlm.chat_server import ChatServer, require_running
from taming_core.vlm.kept_answers import KeptAnswers
from taming_core.vlm.questions import Question

KEY = "evaluate.vlm.model"
CP, PF = "cp", "pf"
UNNAMED = "object"  # the class of an object without one
# What follows a question whose answer held no score.
REMINDER = "\nThe last line must be “Score: ” and one whole number from 0 to 4, whatever the pictures show."
SHOWN = 160  # letters of an answer without a score


class Asked(NamedTuple):
    """A question about an image."""

    row: int  # of the image
    score: str  # CP or PF
    question: Question


def load_vlm_judge(p: VlmJudgeParams, device: str, folder: Path) -> KeptAnswers:
    """The model that the params name, and the answers that are kept in a folder.

    Raises:
        TamingError: there is no such model, it cannot be asked, or its server does not answer.
    """
    chat = _load_chat(p, device)
    return KeptAnswers(chat, chat.fingerprint(), folder)


def _load_chat(p: VlmJudgeParams, device: str) -> ChatModel | ChatServer:
    if p.server is None:
        return load_chat_model(p.model, device, KEY, num_beams=1, max_new_tokens=p.max_new_tokens)
    require_running(p.server[0], p.api_key_env, KEY)
    return ChatServer(*p.server, p, p.max_new_tokens, "evaluate.vlm", "what it answered", p.at_once)


def add_vlm_scores(
    rows: Sequence[ImageScores], images: Sequence[Image.Image], subjects: Sequence[EvalSubject],
    judge: KeptAnswers | None, p: EvaluateParams,
) -> list[ImageScores]:  # fmt: skip
    """The rows with CP, PF and their product, in [0, 1], of the images that `evaluate.vlm` asks about.

    A question whose answer holds no score is asked once more. `vlm_answered` is 0 where one has none even then, and
    `vlm_reason` says which, and what the answer was.
    """
    if judge is None or p.vlm is None:
        return list(rows)
    asked = questions_of(rows, images, subjects, p)
    _announce(judge, [a.question for a in asked], p.vlm)
    answers = _answers_of(judge, [a.question for a in asked])
    of_rows: dict[int, dict[str, str]] = {}
    for a, answer in zip(asked, answers, strict=True):
        of_rows.setdefault(a.row, {})[a.score] = answer
    return [{**row, **scores_of(of_rows[i])} if i in of_rows else row for i, row in enumerate(rows)]


def _announce(judge: KeptAnswers, questions: Sequence[Question], p: VlmJudgeParams) -> None:
    """Say how many questions a server gets, which may cost money, before it gets the first."""
    if p.server is not None and (missing := judge.missing(questions)):
        known = len({judge.key(question) for question in questions}) - missing
        print(f"evaluate.vlm asks {p.model} {missing} questions; {known} are answered already", file=sys.stderr)


def questions_of(
    rows: Sequence[ImageScores], images: Sequence[Image.Image], subjects: Sequence[EvalSubject], p: EvaluateParams
) -> list[Asked]:
    """CP of every chosen image, and PF of those with a prompt."""
    assert p.vlm is not None
    of_identity = {t.identity: t for t in subjects}
    first = {row["image"]: row for row in reversed(rows) if "prompt" in row}  # of an image of two objects, one has two
    asked: list[Asked] = []
    for i in chosen(rows, p.vlm.images, p.seed):
        asked.append(Asked(i, CP, cp_question(of_identity[rows[i]["identity"]], images[i], p.vlm)))
        if "prompt" in rows[i]:
            row = first[rows[i]["image"]]
            nouns = [of_identity[row[key]].class_name for key in ("identity", "beside") if key in row]
            asked.append(Asked(i, PF, pf_question(row["prompt"], nouns, images[i], p.vlm)))
    return asked


def chosen(rows: Sequence[ImageScores], count: int | None, seed: int) -> list[int]:
    """The numbers of the rows that are asked about: of each condition at most `count`, the same prompts in all."""
    of_condition: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        of_condition.setdefault(row["condition"], []).append(i)

    def rank(i: int) -> int:
        row = rows[i]
        number = row.get("seed", row.get("photo"))
        return seed_for(seed, f"vlm {row['identity']} {row.get('asked')} {number}", 0)

    return sorted(i for numbers in of_condition.values() for i in sorted(numbers, key=rank)[:count])


def cp_question(subject: EvalSubject, image: Image.Image, p: VlmJudgeParams) -> Question:
    """Whether the image shows the object of the photo that the encoder saw."""
    prompt = p.cp_prompt.replace("{class}", _noun(subject.class_name))
    return Question((subject.training_photos[0], image), prompt, p.max_side)


def pf_question(prompt: str, classes: Sequence[str | None], image: Image.Image, p: VlmJudgeParams) -> Question:
    """Whether the image follows the prompt, in which the classes stand for `<object>`, in its order."""
    words = reduce(fill_placeholder, map(_noun, classes), prompt)
    return Question((image,), p.pf_prompt.replace("{prompt}", words), p.max_side)


def _noun(class_name: str | None) -> str:
    return UNNAMED if class_name is None else first_name(class_name)


def _answers_of(judge: KeptAnswers, questions: Sequence[Question]) -> list[str]:
    """The answers; those of questions whose first answer holds no score are the second ones."""
    answers = judge.ask(questions, "ask")
    again = [n for n, answer in enumerate(answers) if parse_score(answer) is None]
    second = [replace(questions[n], prompt=questions[n].prompt + REMINDER) for n in again]
    for n, answer in zip(again, judge.ask(second, "ask again"), strict=True):
        answers[n] = answer
    return answers


def scores_of(answers: Mapping[str, str]) -> ImageScores:
    """The scores of an image from its answers by score, with the answers.

    >>> scores_of({"cp": "Score: 3", "pf": "Score: 2"})["cp_pf"]
    0.375
    >>> scores_of({"cp": "", "pf": "Score: 2"})["vlm_reason"]
    'cp: no words'
    """
    parsed = {score: parse_score(answer) for score, answer in answers.items()}
    scores: ImageScores = {score: value / LARGEST for score, value in parsed.items() if value is not None}
    if CP in scores and PF in scores:
        scores["cp_pf"] = scores[CP] * scores[PF]
    scores |= {"vlm_answered": float(None not in parsed.values())}
    scores |= {f"{score}_answer": answer for score, answer in answers.items()}
    reasons = [_reason(score, answers[score]) for score, value in parsed.items() if value is None]
    return {**scores, "vlm_reason": "; ".join(reasons)} if reasons else scores


def _reason(score: str, answer: str) -> str:
    words = " ".join(answer.split())
    return f"{score}: no score in “{words[:SHOWN]}”" if words else f"{score}: no words"
