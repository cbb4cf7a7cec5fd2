"""rows -> encoder"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, ROWS, Device, ParamsFile


def train(
    rows: Annotated[Path, typer.Option("--in", help="The folder of rows that `taming materialize` wrote.")] = ROWS,
    out: Annotated[Path, typer.Option("--out", help="The encoder folder to write; replaced as a whole.")] = ENCODER,
    params: ParamsFile = None,
    device: Device = "auto",
) -> None:
    """Teach a text-to-image model to draw the very thing that a photo shows.

    After a crash the same command goes on where it last saved, and ends with the same weights. Metrics, TensorBoard
    events and validation pictures appear below runs/ meanwhile; the pictures show the validation split's objects, or
    training objects where it has none.

    \b
    Example: taming train --in data/rows --out data/encoder
    """
    from functools import partial

    from taming_core import batches, checkpoint, config, encoder_folder, logbook, prior, shards, training, validation
    from taming_core.average import averaged
    from taming_core.conditions import Shown
    from taming_core.fresh import starting_pipeline
    from taming_core.noise import ending_in_noise
    from taming_core.pretrained.device import pick_device
    from taming_core.pretrained.identity import load_identity
    from taming_core.progress import track, track_to
    from taming_core.rows import joined, load_rows
    from taming_core.subject_model import require_side, subject_model

    p = config.load_params(params).train
    encoder_folder.check_out(out)
    seen, unseen = load_rows(rows, "train"), load_rows(rows, "validation")
    batches.require_rows(seen, p)
    accelerator = training.accelerator_for(pick_device(device), p.precision)
    pipeline = starting_pipeline(p).to(accelerator.device)
    start = subject_model(pipeline.components)
    require_side(start, batches.side(seen))
    identity = load_identity(p.identity_network, accelerator.device) if p.identity_network else None
    made_of = [checkpoint.fingerprint(p, rows, start)]
    if p.prior is not None:
        drawn = shards.RUNS / f"prior-{prior.fingerprint(p, rows, start, pipeline)}"
        with accelerator.autocast():
            track_to(prior.make_prior(pipeline, seen, p, drawn), "prior", p.prior)
        seen, made_of = joined(seen, load_rows(drawn, "train")), [*made_of, drawn.name]

    if p.zero_terminal_snr:  # after the prior, which the base draws as it is
        pipeline.register_modules(scheduler=ending_in_noise(pipeline.scheduler))
    run = training.begin(subject_model(pipeline.components), identity, accelerator, p)
    state = shards.RUNS / "-".join(["train", *made_of])
    checkpoint.load(run, state)
    subject_side, shown = pipeline.object_encoder.image_size, Shown.of(pipeline.object_encoder.config)
    words = pipeline.family.token_ids
    batch_at = partial(batches.batch_at, rows=seen, token_ids=words, size=subject_side, p=p, shown=shown)
    reports = training.train(run, p, batches.ahead(batch_at, p.steps, batches.depth(accelerator.device)))
    subjects = validation.grid_subjects(validation.shown_rows(unseen, seen), p, shown.background)

    with logbook.logbook(state, run.step) as log:
        for report, seconds in track(training.timed(reports), "train", p.steps - run.step):
            log(logbook.figures(report, seconds, p))
            if training.due(report.step, p.validation.every, p.steps):
                with accelerator.autocast(), averaged(run.average, run.weights):
                    grid = validation.draw_grid(pipeline, subjects, p.validation, p.seed, f"After {report.step} steps")
                grid.save(state / logbook.grid_name(report.step))
            if training.due(report.step, p.save_every, p.steps):  # last: what was saved is never done again
                checkpoint.save(run, state)
    account = encoder_folder.account(run, seen, unseen, checkpoint.rows_state(rows), state)
    with averaged(run.average, run.weights):
        encoder_folder.write_encoder(pipeline, account, p, state, out)
    checkpoint.forget(state)
    print(encoder_folder.summary(account, out))
