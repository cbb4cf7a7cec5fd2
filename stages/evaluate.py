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

    from taming_core import fingerprints
    from taming_core.fingerprints import fingerprint
    from taming_core.objects.subjects import load_finder, require_finder
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.files import folder_state
    from taming_core.progress import track, track_to
    from taming_core.tables import schema, shards
    from taming_core.tables.rows import load_rows
    from taming_core.weights.mini import encoder_folder

    settings = load_params(params)
    p, d = settings.evaluate, settings.detect
    arguments.require_evaluation_out(out)
    folder = encoder_folder(encoder)
    load_rows(rows, p.split)
    arguments.require_scheduler(p.sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_models(p, d)
    require_finder(d)

    from taming_core.evaluation import judges, measures, protocol
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    pipeline = load_pipeline(encoder, where, precision, offload)
    made_for = pipeline.object_encoder.config
    things = protocol.eval_subjects(rows, p, made_for["background"])
    judge, reader = judges.load_judge(p.judge, where), judges.load_text_judge(p.text_judge, where)
    strict = None if p.strict_judge is None else judges.load_judge(p.strict_judge, where, "strict_judge")
    weights = fingerprints.folder_fingerprint(folder)
    made = fingerprint(p, schema.VERSION, precision, weights, folder_state(rows), without=protocol.SCORING_ONLY)
    state = shards.RUNS / f"evaluate-{made}"
    embeds, encoding = protocol.encode_subjects(pipeline, [t.encoder_image for t in things])
    wants = protocol.plan_images(things, p, pipeline.object_encoder.captions)
    paths = [state / want.file(things) for want in wants]
    missing, start = sum(not path.exists() for path in paths), perf_counter()
    track_to(protocol.draw_missing(pipeline, wants, paths, embeds, p.sampling), "draw", len(wants))
    timings = protocol.cost(embeds, encoding, perf_counter() - start, missing)

    from taming_core.evaluation import (
        folder as folder_module,  # what is needed once all is drawn is imported and loaded then
    )
    from taming_core.evaluation.report import Evaluation

    find = load_finder(d, where)
    images, found = measures.load_images(paths, things), measures.image_rows(wants, things)
    known, read = measures.gallery(rows, p.split, judge), reader.images(images)
    found = measures.add_text_scores(measures.add_judge_scores(found, judge(images), known), read, reader.texts, p)
    objects = list(track(measures.find_objects(found, images, find), "find", len(found)))
    found = list(track(measures.add_shape_scores(found, images, things, objects), "shape", len(found)))
    if strict is not None:
        subjects = measures.posed_gallery(rows, p.split, strict)
        found = measures.add_strict_scores(found, images, objects, strict, subjects, strict.acceptance_threshold)
    summary = measures.summary([*found, *measures.diversity(found, read)], p.seed)
    facts = folder_module.facts(encoder, weights, precision, known, p)
    result = Evaluation(things, found, images, summary, p, facts)
    folder_module.write(result, timings, state, out)
    shutil.rmtree(state)
    print(folder_module.summary(result, timings, out))
