"""The output folder of an evaluation: metrics for `dvc`, an HTML report, plots, and the generated images."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from taming_core.evaluation import judge_check_files, measures, plots, strata
from taming_core.evaluation.added_conditions import condition_of, trained
from taming_core.evaluation.conditions import ANOTHER, NAMES, NO_OBJECT, OURS, REAL, in_order, name_of
from taming_core.evaluation.gallery import Known
from taming_core.evaluation.judge_check import JudgeCheck
from taming_core.evaluation.measures import MEASURES
from taming_core.evaluation.protocol import REFERENCES, EvalSubject
from taming_core.evaluation.protocol_record import title
from taming_core.evaluation.report.page import html
from taming_core.evaluation.report.sheet import sheet
from taming_core.evaluation.result import Evaluation
from taming_core.evaluation.scoring import MAX_OBJECTS
from taming_core.figures import image_grid
from taming_core.files import replacing_folder, write_json
from taming_core.fingerprints import versions
from taming_core.params.baseline import BaselineParams
from taming_core.params.sections import EvaluateParams
from taming_core.params.vlm import VlmJudgeParams
from taming_core.storage.paths import AnyPath

PRINTED = (
    "judge_top1", "strict_top1", "strict_pass", "judge_cosine", "judge_cosine_seen", "shape", "scene_accuracy",
    "style_accuracy", "cp", "pf", "cp_pf", "vlm_answered",
)  # fmt: skip


COMPARED = ("strict_pass", "judge_cosine", "shape", "scene_accuracy")  # of the conditions that params add
CONTROLS = (ANOTHER, NO_OBJECT, REAL)
TITLES = {m.key: m for m in MEASURES}


def write(
    e: Evaluation, timings: Mapping[str, float], images: Path, out: AnyPath, checked: JudgeCheck | None = None
) -> None:
    """Write the whole output folder; `images` is the folder of the generated images, `checked` the check of the judges.

    Timings have a separate file: they differ from run to run, and metrics.json does not. Hidden files are kept.
    """
    with replacing_folder(out) as part:
        _fill(part, e, timings, images, checked)
        if isinstance(out, Path):
            _keep_hidden(out, part)


def _fill(part: Path, e: Evaluation, timings: Mapping[str, float], images: Path, checked: JudgeCheck | None) -> None:
    """Write all files of the evaluation into the folder `part`."""
    shutil.copytree(images, part / "images")
    plots.write(part / "plots", e)
    plots.write_csv(part / "plots" / "strata.csv", ("stratum", "value", *strata.COMPARED), strata.table(e.strata))
    lines = (json.dumps(row, ensure_ascii=False) for row in e.rows)
    (part / "scores.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (part / "report.html").write_text(html(e), encoding="utf-8")
    image_grid.save(sheet(e), part / "sheet.png")
    write_json(part / "timings.json", timings)
    write_json(part / "protocol.json", e.protocol)
    write_json(part / "intervals.json", measures.intervals(e.summary))
    write_json(part / "strata.json", strata.content(e.strata))
    write_json(part / "metrics.json", measures.metrics(e.summary))
    if checked is not None:
        judge_check_files.write(checked, part)


def _keep_hidden(out: Path, part: Path) -> None:
    """Copy the hidden files of the folder `out`, which are those of `dvc`."""
    for path in out.glob(".*"):
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, part / path.name)


def facts(
    encoder: str, weights: str, precision: str, known: Known, subjects: Sequence[EvalSubject], p: EvaluateParams,
    b: BaselineParams, text_judge_role: str | None,
) -> dict[str, str]:  # fmt: skip
    """How the scores were measured, by heading, for the report.

    Args:
        encoder: as the user named it.
        weights: its fingerprint.
        precision: of the drawing.
        known: the identities that the object judge chooses among.
        subjects: the evaluated ones.
        p: the params.
        b: those of the baselines.
        text_judge_role: of the text judge in the encoder's training, if it had one.
    """
    s, count = p.sampling, len(known.held_out.indices)
    return {
        "Encoder": f"{encoder}, fingerprint {weights}, in {precision}; one forward pass per object, no fine-tuning",
        "Sampling": f"{s.scheduler}, {s.steps} steps, object guidance {s.guidance_object:g} and "
        f"text guidance {s.guidance_text:g}; seed {p.seed}, from which every image has its own",
        "Object judge": f"“{p.judge}”, unused in training; it chooses among {count} held-out objects, "
        f"or {count + len(known.others)} of all splits",
        "Strict judge": _strict_judge_fact(p.strict_judge),
        "Text judge": f"“{p.text_judge}”; it chooses among {len(p.scene_choices)} scenes and {len(p.style_choices)} "
        f"styles{_role_clause(text_judge_role)}",
        "Vision-language model": _vlm_fact(p.vlm),
        "Compared with": _references_fact(subjects),
        "Shape": f"the {MAX_OBJECTS} most confident detections, cut out by the segmenter and aligned with the cut-out "
        "of one other photo by the best shift, scale, rotation of up to 39 degrees and mirroring. The object that "
        "agrees best counts; an image without a detection counts as 0",
        "Subjects": "the first photo of each identity in the order of content hashes; its others, without "
        "near-duplicates of the first, are the real photos",
        "Controls": f"{p.control_objects} objects, with the same starting noise as the images they are compared with",
        **({"Baselines": _baselines_fact(p, b)} if p.baselines else {}),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }  # fmt: skip


def _baselines_fact(p: EvaluateParams, b: BaselineParams) -> str:
    """What the baselines were trained on."""
    steps = [f"{NAMES[condition_of(method)]} in {b.of(method).steps} steps" for method in trained(p)]
    if not steps:
        return "the class noun in the place of the object, without training; prompts and seeds are those of the encoder"
    photos = "the encoder's photo" if p.baseline_photos == 1 else f"{p.baseline_photos} photos, the encoder's first"
    return (
        f"{', '.join(steps)}, on {photos}; base, prompts, seeds and sampler are those of the encoder, without its "
        "tokens. Images of a class, drawn once for all its objects, are not in the seconds"
    )


def _role_clause(text_judge_role: str | None) -> str:
    if text_judge_role is None:
        return ""
    return f". It was the {text_judge_role} of this encoder's training, which teaches neither scene nor style"


def _references_fact(subjects: Sequence[EvalSubject]) -> str:
    """What the images are compared with."""
    measured = sum(bool(s.others) for s in subjects)
    text = (
        f"up to {REFERENCES} other photos of the object, which the encoder did not see, at {measured} of "
        f"{len(subjects)} objects; a real photo with those that it is not. Scores of the “seen picture” are against "
        "the encoder's input"
    )
    if measured == len(subjects):
        return text
    return f"{text}. The other {len(subjects) - measured} have one photo: there a copy of it passes for the object"


def _strict_judge_fact(judge: str | None) -> str:
    if judge is None:
        return "none"
    return (
        f"“{judge}”, which no training used. It compares the {MAX_OBJECTS} most confident detections, cut out and "
        "enlarged, with the other photos in the best rotation of up to 30 degrees and mirroring. The most similar "
        "object counts; an image without a detection counts as 0"
    )


def _vlm_fact(p: VlmJudgeParams | None) -> str:
    if p is None:
        return "none"
    images = "all images" if p.images is None else f"at most {p.images} images of each condition"
    return (
        f"“{p.model}” on {images}: from 0 to 4, divided by 4, how alike the object is to that of the photo that the "
        "encoder saw, and how well the image fits the prompt with the object's class in it; without sampling. A "
        "question without a score in its answer is asked once more; the answers are in scores.jsonl"
    )


def summary(e: Evaluation, out: AnyPath) -> str:
    """The main scores as text, which the command prints at its end."""
    drawn = len({row["image"] for row in e.rows if row["condition"] != REAL})
    lines = [f"{out}: {drawn} images of {len(e.subjects)} held-out objects"]
    for m in (TITLES[key] for key in PRINTED if key in e.summary[OURS]):
        controls = [
            f"{NAMES[c]} {m.format(of[m.key].mean)}" for c, of in e.summary.items() if c in CONTROLS and m.key in of
        ]
        lines.append(
            f"  {m.format(e.summary[OURS][m.key].mean):>6}  {m.title.lower():28}  {', '.join(controls)}".rstrip()
        )
    lines += [_condition_line(c, e) for c in in_order(e.summary) if c not in (OURS, *CONTROLS)]
    lines += strata.sentences(e.strata)
    if "Tokens" in e.facts:
        lines.append(f"tokens: {e.facts['Tokens']}")
    lines.append(f"protocol {title(e.protocol)}")
    cost = e.costs[OURS]
    lines.append(f"{cost.seconds:.2f} seconds and {cost.bytes / 1024:.0f} KB per object")
    return "\n".join([*lines, f"{out / 'report.html'} and {out / 'sheet.png'} show them"])


def _condition_line(condition: str, e: Evaluation) -> str:
    """Fidelity, prompt following and, of a baseline, the cost of one condition."""
    found, cost = e.summary[condition], e.costs.get(condition)
    words = [f"{TITLES[key].title.lower()} {TITLES[key].format(found[key].mean)}" for key in COMPARED if key in found]
    if cost is not None:
        words += [f"{cost.seconds:.1f} seconds and {cost.bytes / 1024:.0f} KB per object"]
    return f"  {name_of(condition)}: {', '.join(words)}"
