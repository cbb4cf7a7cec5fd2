"""The folder that an evaluation leaves: numbers for `dvc`, pictures for people, and the images themselves."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from taming_core.evaluation import measures, plots, report
from taming_core.evaluation.measures import MAX_OBJECTS, MEASURES, Gallery
from taming_core.evaluation.plots import NAMES
from taming_core.evaluation.protocol import OURS, REAL
from taming_core.evaluation.report import Evaluation
from taming_core.figures import image_grid
from taming_core.fingerprints import versions
from taming_core.params.arguments import EVALUATION_FILES
from taming_core.params.sections import EvaluateParams

PRINTED = ("judge_top1", "strict_top1", "strict_pass", "judge_cosine", "shape", "scene_accuracy", "style_accuracy")


def write(e: Evaluation, timings: Mapping[str, float], images: Path, out: Path) -> None:
    """Write everything, each file and folder whole or not at all; `images` is the folder of the drawn ones.

    The measured seconds have a file of their own: they differ from run to run, and metrics.json does not.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copytree(images, part / "images")
    plots.write(part / "plots", e.summary, e.rows)
    lines = (json.dumps(row, ensure_ascii=False) for row in e.rows)
    (part / "scores.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (part / "report.html").write_text(report.html(e, part / "plots"), encoding="utf-8")
    shown = report.pictures(e)
    heading = f"Objects that no model in the chain has seen ({len(e.subjects)} of the {e.params.split} split)"
    image_grid.save(image_grid.grid(heading, shown.columns, shown.rows, _side(e.images)), part / "sheet.png")
    _json(part / "timings.json", timings)
    _json(part / "intervals.json", measures.intervals(e.summary))
    _json(part / "metrics.json", measures.metrics(e.summary))
    _replace(part, out)


def _replace(part: Path, out: Path) -> None:
    """Move what is in `part` to `out`, the metrics last; what `dvc` hides in there stays."""
    out.mkdir(parents=True, exist_ok=True)
    for name in EVALUATION_FILES:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        (part / name).replace(out / name)
    part.rmdir()


def facts(encoder: str, weights: str, precision: str, known: Gallery, p: EvaluateParams) -> dict[str, str]:
    """How it was measured, for the report."""
    s = p.sampling
    return {
        "Encoder": f"{encoder}, fingerprint {weights}, in {precision}; one pass for each object, nothing is tuned",
        "Sampling": f"{s.scheduler}, {s.steps} steps, guidance {s.guidance_object:g} to the object and "
        f"{s.guidance_text:g} to the text; seed {p.seed}, and every image a seed of its own",
        "Recognising": f"judge “{p.judge}”, which no training used; {known.held_out.sum()} held-out things to choose "
        f"among, {len(known.held_out)} in all",
        "Recognising strictly": _strictly(p.strict_judge),
        "Reading": f"text judge “{p.text_judge}”; {len(p.scene_choices)} scenes and {len(p.style_choices)} styles to "
        "choose among",
        "Shape": f"the {MAX_OBJECTS} most confident detections, cut out by the segmenter and laid over the "
        "subject's cut-out: moved, scaled, turned by up to 39 degrees and mirrored as suits best. The object that "
        "agrees best counts; nothing found counts as 0",
        "Subjects": "of each identity the first photo in the order of content hashes; real photos are its others",
        "Controls": f"{p.control_objects} things, with the noise of the images they stand beside",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }  # fmt: skip


def _strictly(judge: str | None) -> str:
    if judge is None:
        return "no strict judge was asked"
    return (
        f"judge “{judge}”, which no training used, sees the {MAX_OBJECTS} surest objects alone, cut out and enlarged, "
        "beside the subject turned by up to 30 degrees and mirrored as suits best. The object that is most alike "
        "counts; nothing found counts as 0"
    )


def summary(e: Evaluation, timings: Mapping[str, float], out: Path) -> str:
    """What the command prints at its end."""
    drawn = sum(row["condition"] != REAL for row in e.rows)
    lines = [f"{out}: {drawn} images of {len(e.subjects)} held-out things"]
    titles = {m.key: m for m in MEASURES}
    for m in (titles[key] for key in PRINTED if key in e.summary[OURS]):
        beside = [f"{NAMES[c]} {m.format(of[m.key].mean)}" for c, of in e.summary.items() if c != OURS and m.key in of]
        lines.append(
            f"  {m.format(e.summary[OURS][m.key].mean):>6}  {m.title.lower():28}  {', '.join(beside)}".rstrip()
        )
    seconds, size = timings["seconds_per_object"], timings["bytes_per_object"]
    lines.append(f"{seconds:.2f} seconds and {size / 1024:.0f} KB for each object")
    return "\n".join([*lines, f"{out / 'report.html'} and {out / 'sheet.png'} show them"])


def _side(images: Sequence[Image.Image]) -> int:
    """Pixels of a picture on the sheet: its own, within reason."""
    return min(max((i.width for i in images), default=128), 192)


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
