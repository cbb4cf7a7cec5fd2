"""The model card of an export, in the format of the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.repocard_data import EvalResult

from taming_core.errors import TamingError
from taming_core.evaluation.conditions import OURS
from taming_core.files import read_json

TAGS = ["subject-driven-generation", "personalization", "taming-encoder"]
LICENCE = ("license", "license_name", "license_link")
NO_LICENCE = (
    "The base model's folder names no licence. Look it up where the base was published, since this model inherits it."
)
METRICS = "metrics.json"  # of an evaluation
METHOD = """Method: Jia et al., "Taming Encoder for Zero Fine-tuning Image Customization with Text-to-Image Diffusion
Models", arXiv 2304.02642."""


@dataclass(frozen=True)
class Facts:
    """The content of a model card."""

    name: str  # folder or repository, as in the example code
    title: str
    tags: Sequence[str]
    base: str | None  # without local paths
    licence: Mapping[str, str]  # see `licence_of`
    training: Mapping[str, Any]  # training.json
    scores: Mapping[str, float]
    code: str
    notes: Sequence[str]  # for users


def card(f: Facts) -> str:
    """The card: metadata, how to load, notes, training, scores, licence."""
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
        "Generates images of an object from one photo of it, in the scene of a prompt, for objects that were not in "
        "the training data. No fine-tuning per object.",
        f"## How to load\n\n{f.code}",
        "\n".join(f"- {note}" for note in f.notes),
        f"## How it was made\n\n{_table(_training_facts(f))}",
        _scores(f.scores),
        f"## Licence\n\n{_licence_words(f)}",
        METHOD,
    ]
    text = "\n\n".join(part for part in parts if part)
    return f"---\n{cast(Any, data).to_yaml()}\n---\n\n{text}\n"


def licence_of(base: str | None) -> dict[str, str]:
    """Licence, its name and its link from the base model's card; empty if it has none."""
    path = _card_of(base)
    if path is None:
        return {}
    data = ModelCard.load(path).data.to_dict()
    return {key: data[key] for key in LICENCE if data.get(key)}


def _card_of(base: str | None) -> Path | None:
    if base is None:
        return None
    if is_repository(base):
        cached = try_to_load_from_cache(base, "README.md")
        return Path(cached) if isinstance(cached, str) else None
    path = Path(base) / "README.md"
    return path if path.is_file() else None


def is_repository(base: str | None) -> bool:
    """Whether the base is a repository name, and not a folder or `mini`."""
    return base is not None and base.count("/") == 1 and base[0] not in "./~" and not Path(base).exists()


def read_scores(folder: Path) -> dict[str, float]:
    """The mean scores of an evaluation for images with the object's tokens.

    Raises:
        TamingError: the folder holds no evaluation.
    """
    path = folder / METRICS
    if not path.is_file():
        raise TamingError(f"{folder} holds no {METRICS}. Run `taming eval` first, or leave out --scores.")
    scores: Mapping[str, object] | None = read_json(path).get(OURS)
    if scores is None:
        raise TamingError(f"{path} holds no scores of '{OURS}'. Run `taming eval` again.")
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def _results(scores: Mapping[str, float]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-to-image", dataset_type="taming", dataset_name="held-out objects",
            metric_type=name, metric_value=round(value, 4),
        )
        for name, value in scores.items()
    ]  # fmt: skip


def _scores(scores: Mapping[str, float]) -> str:
    """The scores as a table; empty without scores."""
    if not scores:
        return ""
    heading = "Of images of held-out objects, by `taming eval`:"
    return f"## Scores\n\n{heading}\n\n{_table({name: f'{value:.4g}' for name, value in scores.items()})}"


def _training_facts(f: Facts) -> dict[str, str]:
    """How the encoder was trained; only the base is known without a training.json."""
    facts = {"base": f.base or "unknown"}
    if (p := f.training.get("params")) is not None:
        start = p["start"]
        facts |= {"starts from": start} if start else {}
        facts |= {"tuned": p["tune"], "steps x rows": f"{p['steps']} x {p['batch_size']}"}
        facts["data fingerprint"] = f.training["rows"]
        facts["rows"] = (
            f"{f.training['object_rows']} with an object, {f.training['regularization_rows']} regularization"
        )
    return facts


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _licence_words(f: Facts) -> str:
    photos = "The training photos may have further terms."
    if not f.licence:
        return f"{NO_LICENCE} {photos}"
    return f"{f.licence.get('license_name') or f.licence['license']}, inherited from the base model {f.base}. {photos}"
