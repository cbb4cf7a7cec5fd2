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
    shard: Annotated[
        bool, typer.Option("--shard", help="Several processes hold a part of the denoiser's weights each.")
    ] = False,
) -> None:
    """Teach a text-to-image model to draw the very thing that a photo shows.

    After a crash the same command goes on where it last saved, and ends with the same weights. Metrics and validation
    pictures appear below runs/ meanwhile, and TensorBoard's events where that is installed; the pictures show the
    validation split's objects, or training objects where it has none. For two GPUs start it as
    `torchrun --nproc-per-node 2 --no-python taming train`; the batches stay as they are.

    \b
    Example: taming train --in data/rows --out data/encoder
    """
    from collections import Counter
    from contextlib import nullcontext
    from functools import partial

    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track, track_to
    from taming_core.tables import shards
    from taming_core.tables.rows import concatenate, load_rows
    from taming_core.weights.mini import encoder_folder

    p = load_params(params).train
    arguments.require_encoder_out(out)
    arguments.require_device(device)
    arguments.require_models(p)
    arguments.require_scheduler(p.validation.sampling.scheduler)
    if p.start is not None:
        encoder_folder(p.start)
    seen, unseen = load_rows(rows, "train"), load_rows(rows, "validation")

    from taming_core.model.diffusion import with_zero_terminal_snr
    from taming_core.model.inputs import EncoderInputs
    from taming_core.model.subject_model import require_size, subject_model
    from taming_core.training import batches, checkpoint, encoder_folder, feature_cache, loop, metrics_log, prior
    from taming_core.training.distributed import join_process_group
    from taming_core.training.ema import ema_weights
    from taming_core.training.identity import load_identity_network
    from taming_core.training.start import starting_pipeline
    from taming_core.training.validation import draw_grid, grid_rows, grid_subjects
    from taming_core.weights.device import pick_device

    batches.require_rows(seen, p)
    accelerator = loop.accelerator_for(pick_device(device), p.precision)
    crew = join_process_group(accelerator.process_index, accelerator.num_processes)
    pipeline = starting_pipeline(p)
    start = subject_model(pipeline.components)
    for side in batches.image_sides(seen):
        require_size(start, side)
    identity = load_identity_network(p.identity_network, accelerator.device) if p.identity_network else None
    made_of = [checkpoint.fingerprint(p, rows, start)]
    loop.move_to_device(start, accelerator.device, p)  # after that, for frozen weights may turn to half precision
    if p.prior is not None:
        drawn = shards.RUNS / f"prior-{prior.fingerprint(p, rows, start, pipeline)}"
        if crew.is_main:
            with accelerator.autocast():
                track_to(prior.make_prior(pipeline, seen, p, drawn), "prior", p.prior)
        crew.barrier()
        seen, made_of = concatenate(seen, load_rows(drawn, "train")), [*made_of, drawn.name]

    if p.zero_terminal_snr:  # after the prior, which the base draws as it is
        pipeline.register_modules(scheduler=with_zero_terminal_snr(pipeline.scheduler))
    run = loop.start_run(subject_model(pipeline.components), identity, accelerator, p, crew, shard)
    state = shards.RUNS / "-".join(["train", *made_of])
    checkpoint.load(run, state)
    subject_side, shown = pipeline.object_encoder.image_size, EncoderInputs.of(pipeline.object_encoder.config)
    words = pipeline.family.token_ids
    parked, kinds = (
        feature_cache.offloaded_networks(run.model, p, seen),
        feature_cache.feature_kinds(run.model, p, words, shown, subject_side),
    )
    mine, damaged = feature_cache.row_share(seen, p, crew.rank, crew.world_size), Counter[str]()
    for name, kind in kinds.items():
        with accelerator.autocast():
            done = feature_cache.fill(
                kind, map(seen.__getitem__, mine), p.micro_batch_size, accelerator.device, damaged
            )
            track_to(done, f"cache {name}", len(mine))
    crew.barrier()
    if damaged.total():
        typer.echo(f"{damaged.total()} cached entries or shards were damaged, and are computed again.", err=True)
    feature_cache.offload(parked)
    batch_at = loop.pin_batches(accelerator.device, partial(
        batches.batch_at, rows=seen, tokenize=words, size=subject_side, p=p, inputs=shown,
        share=crew.share(p.batch_size), caches=feature_cache.open_caches(kinds),
    ))  # fmt: skip
    reports = loop.train(run, p, batches.prefetch(batch_at, p.steps, batches.prefetch_depth(accelerator.device)))
    subjects = grid_subjects(grid_rows(unseen, seen), p, shown.background)

    with metrics_log.open_metrics_log(state, run.step) if crew.is_main else nullcontext(lambda _: None) as log:
        for report, seconds in track(loop.with_seconds(reports), "train", p.steps - run.step):
            log(metrics_log.step_metrics(report, seconds, p))
            if loop.due(report.step, p.validation.every, p.steps):
                drawing = feature_cache.on_device(parked, accelerator.device)
                with accelerator.autocast(), ema_weights(run.ema, run.weights), drawing:
                    grid = draw_grid(pipeline, subjects, p.validation, p.seed, f"After {report.step} steps")
                if crew.is_main:
                    grid.save(state / metrics_log.grid_name(report.step))
            if loop.due(report.step, p.save_every, p.steps):  # last: what was saved is never done again
                checkpoint.save(run, state)
    with ema_weights(run.ema, run.weights):
        results = loop.trained_weights(run)
    if crew.is_main:
        finished = starting_pipeline(p)
        finished.register_modules(scheduler=pipeline.scheduler)
        loop.load_results(results, subject_model(finished.components), p)
        account = encoder_folder.describe_run(run, seen, unseen, checkpoint.rows_state(rows), state)
        encoder_folder.write(finished, account, p, state, out)
        checkpoint.remove_states(state)
        print(encoder_folder.summary(account, out))
    crew.shutdown()
