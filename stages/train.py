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

    from taming_core import batches, checkpoint, config, encoder_folder, logbook, shards, training, validation
    from taming_core.fresh import starting_pipeline
    from taming_core.pretrained.device import pick_device
    from taming_core.pretrained.identity import load_identity
    from taming_core.progress import track
    from taming_core.rows import load_rows
    from taming_core.subject_model import require_side, subject_model

    p = config.load_params(params).train
    encoder_folder.check_out(out)
    seen, unseen = load_rows(rows, "train"), load_rows(rows, "validation")
    batches.require_rows(seen, p)
    accelerator = training.accelerator_for(pick_device(device), p.precision)
    pipeline = starting_pipeline(p).to(accelerator.device)
    model = subject_model(pipeline.components)
    require_side(model, batches.side(seen))
    identity = load_identity(p.identity_network, accelerator.device) if p.identity_network else None

    run = training.begin(model, identity, accelerator, p)
    state = shards.RUNS / f"train-{checkpoint.fingerprint(p, rows, model)}"
    checkpoint.load(run, state)
    subject_side = pipeline.object_encoder.image_size
    batch_at = partial(batches.batch_at, rows=seen, tokenizer=pipeline.tokenizer, size=subject_side, p=p)
    reports = training.train(run, p, batches.ahead(batch_at, p.steps, batches.depth(accelerator.device)))
    subjects = validation.grid_subjects(validation.shown_rows(unseen, seen), p.validation.objects)

    with logbook.logbook(state, run.step) as log:
        for report, seconds in track(training.timed(reports), "train", p.steps - run.step):
            log(logbook.figures(report, seconds, p))
            if training.due(report.step, p.validation.every, p.steps):
                with accelerator.autocast():
                    grid = validation.draw_grid(pipeline, subjects, p.validation, p.seed, f"After {report.step} steps")
                grid.save(state / logbook.grid_name(report.step))
            if training.due(report.step, p.save_every, p.steps):  # last: what was saved is never done again
                checkpoint.save(run, state)
    account = encoder_folder.account(seen, unseen, checkpoint.rows_state(rows), state)
    encoder_folder.write_encoder(pipeline, account, p, state, out)
    checkpoint.forget(state)
    print(encoder_folder.summary(account, out))
