"""encoder -> images -> scores"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, EVALUATION, ROWS, Base, Device, Offload, ParamsFile, Precision


def evaluate(
    encoder: Annotated[str, typer.Option("--encoder", help="The folder that `taming train` wrote, or mini.")] = str(
        ENCODER
    ),
    rows: Annotated[Path, typer.Option("--in", help="The folder of rows that `taming materialize` wrote.")] = ROWS,
    out: Annotated[
        Path, typer.Option("--out", help="The output folder; an earlier evaluation is replaced.")
    ] = EVALUATION,
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    offload: Offload = False,
    base: Base = None,
) -> None:
    """Draw held-out objects in new scenes and styles, and score the images.

    Every score is reported beside those of two controls and of real photos, and of the baselines that the params list;
    report.html shows the images first. After a crash the same command trains and draws only what is missing.

    \b
    Example: taming eval --encoder data/encoder --in data/rows --out data/evaluation
    """
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

    from taming_core.evaluation import drawing, independence, judges, protocol
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where, trained_with = pick_device(device), independence.training_networks(weights)
    networks = judges.load_judges(p, where)
    independence.require_independent(networks, trained_with, p)
    pipeline = load_pipeline(encoder, where, precision, offload, base)
    subjects = protocol.eval_subjects(rows, p, pipeline.object_encoder.config["background"])
    digest = folder_fingerprint(weights)
    inputs = schema.VERSION, precision, digest, folder_state(rows), fingerprint(b)
    state = shards.RUNS / f"evaluate-{fingerprint(p, *inputs, without=protocol.SCORING_ONLY)}"
    with exclusive(out, state):
        drawn = drawing.draw(pipeline, subjects, p, b, state)

        from taming_core.evaluation import folder, scoring  # imported when all images are drawn
        from taming_core.evaluation.result import Evaluation

        text_role = independence.text_judge_role(networks, trained_with)
        scored = scoring.score_all(drawn, subjects, networks, load_finder(d, where), rows, p)
        facts = folder.facts(encoder, digest, precision, scored.known, subjects, p, b, text_role)
        result = Evaluation(subjects, scored.rows, scored.images, scored.summary, p, facts, drawn.costs)
        folder.write(result, drawn.timings, state, out)
        shutil.rmtree(state, ignore_errors=True)
    print(folder.summary(result, out))
