"""encoder -> images -> scores"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, EVALUATION, ROWS, Device, Offload, ParamsFile, Precision


def evaluate(
    encoder: Annotated[str, typer.Option("--encoder", help="The folder that `taming train` wrote, or mini.")] = str(
        ENCODER
    ),
    rows: Annotated[Path, typer.Option("--in", help="The folder of rows that `taming materialize` wrote.")] = ROWS,
    out: Annotated[
        Path, typer.Option("--out", help="The folder to write; what an earlier run left is replaced.")
    ] = EVALUATION,
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    offload: Offload = False,
) -> None:
    """Draw held-out objects in new scenes and styles, and score what came out.

    Controls and real photos stand beside every score; report.html shows the pictures first. After a crash the same
    command draws only what is missing.

    \b
    Example: taming eval --encoder data/encoder --in data/rows --out data/evaluation
    """
    import shutil
    from time import perf_counter

    from taming_core import arguments, config, photo, provenance, schema, shards
    from taming_core.progress import track, track_to
    from taming_core.rows import load_rows
    from taming_core.subjects import load_finder, require_finder

    settings = config.load_params(params)
    p, d = settings.evaluate, settings.detect
    arguments.require_evaluation_out(out)
    folder = arguments.encoder_folder(encoder)
    load_rows(rows, p.split)
    arguments.require_scheduler(p.sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_models(p, d)
    require_finder(d)

    from taming_core import evaluation, verdicts
    from taming_core.customize import load_pipeline
    from taming_core.pretrained import judges
    from taming_core.pretrained.device import pick_device

    where = pick_device(device)
    pipeline = load_pipeline(encoder, where, precision, offload)
    made_for = pipeline.object_encoder.config
    things = evaluation.things(rows, p, made_for["background"])
    judge, reader = judges.load_judge(p.judge, where), judges.load_text_judge(p.text_judge, where)
    strict = None if p.strict_judge is None else judges.load_judge(p.strict_judge, where, "strict_judge")
    weights = provenance.folder_fingerprint(folder)
    made = config.fingerprint(
        p, schema.VERSION, precision, weights, photo.folder_state(rows), without=evaluation.UNDRAWN
    )
    state = shards.RUNS / f"evaluate-{made}"
    embeds, encoding = evaluation.encode(pipeline, [t.shown for t in things])
    wants = evaluation.plan(things, p, made_for["captions"])
    paths = [state / want.file(things) for want in wants]
    missing, start = sum(not path.exists() for path in paths), perf_counter()
    track_to(evaluation.draw_missing(pipeline, wants, paths, embeds, p.sampling), "draw", len(wants))
    timings = evaluation.cost(embeds, encoding, perf_counter() - start, missing)

    from taming_core import evaluation_folder  # what is needed once all is drawn is imported and loaded then
    from taming_core.report import Evaluated

    find = load_finder(d, where)
    images, found = verdicts.images_of(paths, things), verdicts.rows_of(wants, things)
    known, read = verdicts.gallery(rows, p.split, judge), reader.images(images)
    found = verdicts.read(verdicts.judged(found, judge(images), known), read, reader.texts, p)
    objects = list(track(verdicts.found_in(found, images, find), "find", len(found)))
    found = list(track(verdicts.shaped(found, images, things, objects), "shape", len(found)))
    if strict is not None:
        subjects = verdicts.posed_gallery(rows, p.split, strict)
        found = verdicts.strictly(found, images, objects, strict, subjects, strict.accepted_from)
    summary = verdicts.summary([*found, *verdicts.diversity(found, read)], p.seed)
    facts = evaluation_folder.facts(encoder, weights, precision, known, p)
    result = Evaluated(things, found, images, summary, p, facts)
    evaluation_folder.write(result, timings, state, out)
    shutil.rmtree(state)
    print(evaluation_folder.said(result, timings, out))
