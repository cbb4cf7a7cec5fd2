"""encoder -> images -> scores"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, EVALUATION, JUDGES, ROWS, Base, Device, Offload, ParamsFile, Precision


def evaluate(
    encoder: Annotated[str, typer.Option("--encoder", help="The folder that `taming train` wrote, or mini.")] = str(
        ENCODER
    ),
    rows: Annotated[Path, typer.Option("--in", help="The folder of rows that `taming materialize` wrote.")] = ROWS,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The output folder, replaced as a whole. Default: data/evaluation; of --judge-check data/judges.",
        ),
    ] = None,
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    offload: Offload = False,
    base: Base = None,
    check_judges: Annotated[
        bool,
        typer.Option(
            "--judge-check",
            help="Draw nothing and check the judges instead: whether they tell other objects and corrupted copies of "
            "an object from its true photos.",
        ),
    ] = False,
) -> None:
    """Draw held-out objects in new scenes and styles, and score the images.

    Every score is reported beside those of two controls and of real photos, and of the baselines that the params list;
    report.html shows the images first. After a crash the same command trains and draws only what is missing.

    \b
    Example: taming eval --encoder data/encoder --in data/rows --out data/evaluation
    """
    if check_judges:
        ignored = {"--encoder": encoder != str(ENCODER), "--precision": precision != "fp32", "--offload": offload,
                   "--base": base is not None}  # fmt: skip
        _check_judges(rows, out or JUDGES, params, device, [flag for flag, given in ignored.items() if given])
        return
    out = out or EVALUATION
    import shutil

    from taming_core.fingerprints import fingerprint, folder_fingerprint
    from taming_core.locks import exclusive
    from taming_core.objects.subjects import load_finder, require_finder
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.files import folder_state
    from taming_core.tables import schema, shards
    from taming_core.tables.requirements import require_identities
    from taming_core.tables.rows import load_rows
    from taming_core.weights.mini import encoder_folder

    settings = load_params(params)
    p, d, b = settings.evaluate, settings.detect, settings.baseline
    arguments.require_evaluation_out(out, rows, arguments.folder_of(encoder))
    shards.require_runs()
    weights = encoder_folder(encoder)
    require_identities(load_rows(rows, p.split), p.split)
    arguments.require_scheduler(p.sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_trainable(p, precision, offload)
    arguments.require_models(p, d)
    require_finder(d)

    from taming_core.evaluation import drawing, independence, judge_check, judges, pair_scores, protocol
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where, trained_with = pick_device(device), independence.training_networks(weights)
    networks = judges.load_judges(p, where)
    independence.require_independent(networks, trained_with, p)
    scores = pair_scores.pair_scores(networks.objects, networks.strict)
    checked = judge_check.check(rows, p.split, p.seed, scores) if p.judge_check else None
    pipeline = load_pipeline(encoder, where, precision, offload, base)
    subjects = protocol.eval_subjects(rows, p, pipeline.object_encoder.config["background"])
    digest = folder_fingerprint(weights)
    inputs = schema.VERSION, precision, digest, folder_state(rows), fingerprint(b)
    state = shards.RUNS / f"evaluate-{fingerprint(p, *inputs, without=protocol.SCORING_ONLY)}"
    with exclusive(out, state):
        drawn = drawing.draw(pipeline, subjects, p, b, state)

        # Imported when all images are drawn.
        from taming_core.evaluation import folder, judge_check_files, scoring, strata
        from taming_core.evaluation.result import Evaluation

        text_role = independence.text_judge_role(networks, trained_with)
        scored = scoring.score_all(drawn, subjects, networks, load_finder(d, where), rows, p)
        facts = folder.facts(encoder, digest, precision, scored.known, subjects, p, b, text_role)
        result = Evaluation(
            subjects, scored.rows, scored.images, scored.summary, p, facts, drawn.costs, strata.strata(scored.rows),
            judge_check=judge_check_files.win_rates(checked) if checked else {},
        )  # fmt: skip
        folder.write(result, drawn.timings, state, out, checked)
        shutil.rmtree(state, ignore_errors=True)
    print(folder.summary(result, out))


def _check_judges(rows: Path, out: Path, params: Path | None, device: str, ignored: list[str]) -> None:
    """Check the judges and scores that the params name on the photos of the evaluated split."""
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.tables.requirements import require_identities
    from taming_core.tables.rows import load_rows

    p = load_params(params).evaluate
    arguments.require_no_effect("--judge-check", ignored)
    arguments.require_judge_check_out(out, rows)
    require_identities(load_rows(rows, p.split), p.split)
    arguments.require_device(device)
    arguments.require_models(p)

    from taming_core.evaluation import judge_check, judge_check_files, judges, pair_scores
    from taming_core.weights.device import pick_device

    networks = judges.load_judges(p, pick_device(device))
    scores = pair_scores.pair_scores(networks.objects, networks.strict)
    with exclusive(out):
        checked = judge_check.check(rows, p.split, p.seed, scores)
        judge_check_files.write_folder(checked, out)
    print(judge_check_files.text(checked, out))
