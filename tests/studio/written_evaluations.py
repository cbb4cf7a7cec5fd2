"""Evaluation folders of invented scores, as `taming eval` leaves them, with pictures."""

import json
from pathlib import Path

from evaluations import evaluation, picture

from taming_core.evaluation import measures

ENCODER = {"name": "mini", "base": None, "precision": "fp32"}


def write(folder: Path, shift: float = 0.0, protocol: str = "f", hostile: bool = False) -> None:
    """Write scores, metrics, protocol and pictures of six objects; `shift` is added to what is a likeness."""
    e = evaluation(6, hostile=hostile)
    rows = [{**r, "image": f"{n}.png"} if "prompt" in r else r for n, r in enumerate(map(dict, e.rows))]
    for row in rows:
        if row["condition"] == "ours":
            row |= {key: row[key] + shift for key in ("judge_cosine", "strict_cosine") if key in row}
    (folder / "images").mkdir(parents=True)
    for n, row in enumerate(rows):
        if "prompt" in row:
            picture(n).save(folder / "images" / row["image"])
    named = {"name": "mini", "version": 1, "fingerprint": protocol, "measured": {"seed": protocol}}
    (folder / "protocol.json").write_text(
        json.dumps({**named, "encoder": {**ENCODER, "fingerprint": f"{shift:016.3f}"}})
    )
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metrics.json").write_text(json.dumps(measures.metrics(measures.summary(rows))))
