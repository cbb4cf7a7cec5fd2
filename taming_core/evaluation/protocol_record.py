"""protocol.json: what an evaluation measured, and its fingerprint. Results are compared only where it is the same.

Encoder, base and conditions are what is compared: they stand beside it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from taming_core.evaluation.judges import Judges, preprocessing_record
from taming_core.evaluation.protocol import EvalSubject, prompts_of, rows_of_identities
from taming_core.evaluation.similarity import ScoreNetworks
from taming_core.fingerprints import digest
from taming_core.objects.networks_digest import networks_digest
from taming_core.params.protocols import CONDITIONS, Protocol
from taming_core.params.sections import DetectParams, EvaluateParams, EvaluationScores
from taming_core.params.vlm import CONNECTION, VlmJudgeParams
from taming_core.storage.paths import AnyPath
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import SPLITS
from taming_core.vlm.kept_answers import KeptAnswers
from taming_core.weights.network_fingerprint import state_digest

SCORING = 1  # raised whenever scores are computed in another way
# Keys of `evaluate` that are resolved here.
RESOLVED = {
    "objects", "subjects", "scenes", "styles", "prompts", "judge", "strict_judge", "text_judge", "scores", "vlm",
    "sampling",
}  # fmt: skip
# Keys of a detector's params that change what it finds in an image.
DETECTION = {"classes", "image_size", "score_floor", "max_found", "score", "island"}
# Keys of a model's config that change no feature, or say where it lies.
UNUSED = {"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", "id2label", "label2id"}


def protocol_record(
    p: EvaluateParams, d: DetectParams, subjects: Sequence[EvalSubject], judges: Judges,
    score_networks: ScoreNetworks, vlm: KeptAnswers | None, rows: AnyPath, encoder: Mapping[str, str | None],
    protocol: Protocol | None,
) -> dict[str, Any]:  # fmt: skip
    """The content of protocol.json.

    Args:
        p: the params of the evaluation.
        d: those of detector and segmenter.
        subjects: the evaluated ones.
        judges: the scoring networks.
        score_networks: those of the scores that papers report.
        vlm: the vision-language model, if the params name one.
        rows: the folder of rows, whose identities are the gallery.
        encoder: the evaluated one, see `encoder_record`.
        protocol: the file that the params are from; None where they are from params.yaml.
    """
    measured = {
        "scoring": SCORING,
        **p.model_dump(mode="json", exclude=RESOLVED | CONDITIONS),
        "subjects": [{"identity": s.identity, "class": s.class_name, "rows": list(s.row_ids)} for s in subjects],
        "gallery": gallery_record(rows, p.split),
        "prompts": [{"kind": q.kind, "text": q.text, "group": q.group, "subject": q.subject} for q in prompts_of(p)],
        "sampling": p.sampling.model_dump(mode="json", exclude={"batch_size"}),
        "judges": judge_records(judges, p),
        "scores": score_records(score_networks, p.scores),
        "vlm": None if p.vlm is None or vlm is None else vlm_record(p.vlm, vlm),
        "detection": {**networks_digest(d), **d.model_dump(mode="json", include=DETECTION)},
    }
    name, version = (None, None) if protocol is None else (protocol.name, protocol.version)
    return {
        "name": name,
        "version": version,
        "fingerprint": _digest(measured),
        "measured": json.loads(json.dumps(measured, default=str)),  # as it is read again
        "encoder": dict(encoder),
        "conditions": p.model_dump(mode="json", include=CONDITIONS),
    }


def encoder_record(spec: str, fingerprint: str, base: str | None, precision: str) -> dict[str, str | None]:
    """What is evaluated: the encoder, the base that was named instead of its own, and the precision of drawing."""
    named = None if base is None else short_name(base)
    return {"name": short_name(spec), "fingerprint": fingerprint, "base": named, "precision": precision}


def short_name(spec: str) -> str:
    """A model's name as it was given; of a path its last part, for the others are this machine's."""
    path = Path(spec).expanduser()
    return path.resolve().name if path.exists() else spec


def title(record: Mapping[str, Any]) -> str:
    """A protocol in words: its name and version, and its fingerprint.

    >>> title({"name": "mini", "version": 2, "fingerprint": "0123456789abcdef"})
    'mini 2, fingerprint 0123456789abcdef'
    """
    named = " ".join(str(record[key]) for key in ("name", "version") if record[key] is not None)
    return f"{named or 'of the params'}, fingerprint {record['fingerprint']}"


def judge_records(judges: Judges, p: EvaluateParams) -> dict[str, Any]:
    """Weights and preprocessing of every judge."""
    strict = None if judges.strict is None else judge_record(judges.strict.model, str(p.strict_judge))
    text = {**judge_record(judges.texts.model, p.text_judge), "tokenizer": _digest(judges.texts.tokenizer.get_vocab())}
    return {"judge": judge_record(judges.objects.model, p.judge), "strict_judge": strict, "text_judge": text}


def score_records(networks: ScoreNetworks, p: EvaluationScores) -> dict[str, Any]:
    """Weights and preprocessing of the networks of `evaluate.scores`, and the names of those that packages load."""
    named = p.model_dump()
    records = {key: judge_record(model, str(named[key])) for key, model in networks.models().items()}
    vocabularies = {f"{key}_tokenizer": _digest(clip.tokenizer.get_vocab()) for key, clip in networks.clips.items()}
    return {**records, **vocabularies, **{key: named[key] for key in ("dreamsim", "lpips", "quality") if named[key]}}


def vlm_record(p: VlmJudgeParams, vlm: KeptAnswers) -> dict[str, Any]:
    """The model and its questions, without how it is reached."""
    return {
        **p.model_dump(mode="json", exclude={"model", "at_once", *CONNECTION}),
        "model": p.server[1] if p.server else vlm.fingerprint,
    }


def judge_record(model: Any, spec: str) -> dict[str, Any]:
    """A network by its class, all its weights and what else changes its features; not by its name or place."""
    return {
        "network": type(model).__name__,
        "weights": state_digest(model),
        "config": _digest(_without_unused(model.config.to_diff_dict())),
        "preprocessing": preprocessing_record(spec),
    }


def gallery_record(folder: AnyPath, split: str) -> dict[str, Any]:
    """The identities that the judges choose among: how many, and a digest of their photos."""
    views = {name: list(_views(load_rows(folder, name), name == split)) for name in SPLITS}
    return {
        "held_out": len(views[split]),
        "others": sum(len(of) for name, of in views.items() if name != split),
        "photos": _digest([views[split], *(of for name, of in views.items() if name != split)]),
    }


def _views(rows: Rows, with_others: bool) -> list[Any]:
    """The seen photo of every identity, and its other photos if images are compared with them."""
    row_ids, references = rows.column("row_id"), rows.column("references")
    seen = {identity: numbers[0] for identity, numbers in rows_of_identities(rows).items()}
    return [[identity, row_ids[i], sorted(references[i]) if with_others else []] for identity, i in seen.items()]


def _without_unused(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config, and those in it, without `UNUSED`."""
    return {
        key: _without_unused(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in UNUSED
    }


def _digest(value: Any) -> str:
    return digest([json.dumps(value, sort_keys=True, default=str).encode()])
