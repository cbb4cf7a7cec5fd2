"""The model card of an export, in the format of the Hugging Face hub."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.repocard_data import EvalResult

from taming_core.errors import TamingError
from taming_core.evaluation.protocol import OURS

TAGS = ["subject-driven-generation", "personalization", "taming-encoder"]
LICENCE = ("license", "license_name", "license_link")
NO_LICENCE = (
    "The base model's folder names no licence; look it up where the base comes from, for this model inherits it."
)
METRICS = "metrics.json"  # of an evaluation
METHOD = """Method: Jia et al., "Taming Encoder for Zero Fine-tuning Image Customization with Text-to-Image Diffusion
Models", arXiv 2304.02642."""


@dataclass(frozen=True)
class Facts:
    """What a card tells."""

    name: str  # folder or repository, as the code below names it
    title: str
    tags: Sequence[str]
    base: str | None  # as it may be told to others
    licence: Mapping[str, str]  # see `licence_of`
    training: Mapping[str, Any]  # training.json
    scores: Mapping[str, float]
    code: str
    notes: Sequence[str]  # what a user must know


def card(f: Facts) -> str:
    """The card: metadata, how to load, what to know, how it was made, scores, licence."""
    licence: dict[str, Any] = dict(f.licence) or {"license": "other"}
    data = ModelCardData(
        base_model=f.base if is_repository(f.base) else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, *f.tags],
        model_name=f.name,
        eval_results=_results(f.scores) or None,
        **licence,
    )
    parts = [
        f"# {f.title}",
        "Draws a thing that it never saw before, from one photo of it, in the scene that a prompt asks for. "
        "Nothing is tuned per thing.",
        f"## How to load\n\n{f.code}",
        "\n".join(f"- {note}" for note in f.notes),
        f"## How it was made\n\n{_table(_made(f))}",
        _scores(f.scores),
        f"## Licence\n\n{_licence_words(f)}",
        METHOD,
    ]
    text = "\n\n".join(part for part in parts if part)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def licence_of(base: str | None) -> dict[str, str]:
    """Licence, its name and its link, as the base model's own card has them; empty where it has none."""
    path = _card_of(base)
    if path is None:
        return {}
    data = ModelCard.load(path).data.to_dict()
    return {key: data[key] for key in LICENCE if data.get(key)}


def _card_of(base: str | None) -> Path | None:
    if base is None:
        return None
    if is_repository(base):
        found = try_to_load_from_cache(base, "README.md")
        return Path(found) if isinstance(found, str) else None
    path = Path(base) / "README.md"
    return path if path.is_file() else None


def is_repository(base: str | None) -> bool:
    """Whether the base is the name of a repository, and not a folder or `mini`."""
    return base is not None and base.count("/") == 1 and base[0] not in "./~" and not Path(base).exists()


def read_scores(folder: Path) -> dict[str, float]:
    """What an evaluation measured of the encoder's own images.

    Raises:
        TamingError: the folder holds no evaluation.
    """
    path = folder / METRICS
    if not path.is_file():
        raise TamingError(f"{folder} holds no {METRICS}. Run `taming eval` first, or leave out --scores.")
    found = json.loads(path.read_text(encoding="utf-8")).get(OURS)
    if not isinstance(found, dict):
        raise TamingError(f"{path} holds no scores of '{OURS}'. Run `taming eval` again.")
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _results(scores: Mapping[str, float]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-to-image", dataset_type="taming", dataset_name="held-out objects",
            metric_type=name, metric_value=round(value, 4),
        )
        for name, value in scores.items()
    ]  # fmt: skip


def _scores(scores: Mapping[str, float]) -> str:
    """A table, or nothing where nothing was measured."""
    if not scores:
        return ""
    said = "Of images of held-out objects, by `taming eval`:"
    return f"## Scores\n\n{said}\n\n{_table({name: f'{value:.4g}' for name, value in scores.items()})}"


def _made(f: Facts) -> dict[str, str]:
    """Where it comes from; what an encoder without a training.json does not tell is left out."""
    found = {"base": f.base or "unknown"}
    if (p := f.training.get("params")) is not None:
        start = p["start"]
        found |= {"starts from": start} if start else {}
        found |= {"tuned": p["tune"], "steps x rows": f"{p['steps']} x {p['batch_size']}"}
        found["data fingerprint"] = f.training["rows"]
        found["rows"] = (
            f"{f.training['object_rows']} with an object, {f.training['regularization_rows']} regularization"
        )
    return found


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _licence_words(f: Facts) -> str:
    photos = "The photos that it was trained on may ask for more."
    if not f.licence:
        return f"{NO_LICENCE} {photos}"
    return f"{f.licence.get('license_name') or f.licence['license']}, inherited from the base model {f.base}. {photos}"
