"""rows -> encoder"""

from typing import Annotated

import typer

from stages.options import ENCODER, ROWS, AnyPath, Base, CacheDir, Device, ParamsFile, RowsFolder, location


def train(
    rows: RowsFolder = ROWS,
    out: Annotated[
        AnyPath,
        typer.Option(
            "--out",
            parser=location,
            metavar="<path>",
            help="The encoder folder to write, or its URL; replaced as a whole.",
        ),
    ] = ENCODER,
    params: ParamsFile = None,
    device: Device = "auto",
    shard: Annotated[
        bool, typer.Option("--shard", help="Shard the denoiser's weights over the processes (FSDP).")
    ] = False,
    standalone: Annotated[
        bool,
        typer.Option("--standalone", help="Write the components of the base too, not only what was trained."),
    ] = False,
    base: Base = None,
    cache_dir: CacheDir = None,
) -> None:
    """Train an object encoder on the rows, alone or together with the text-to-image model.

    After a crash the same command resumes from the last saved state and ends with the same weights. SIGTERM or SIGUSR1
    save the state after the current step, and the exit status is 143 or 138. A file `sample-now` or `save-now` in the
    folder of the run asks for a validation grid or a saved state, and training goes on. Metrics, with the loss of
    held-out objects, and images of these are written below runs/ during training, and TensorBoard events if tensorboard
    is installed. Several processes, on several machines too, together take the same batches as one
    (docs/explanation/training.md):

    \b
    `torchrun --nproc-per-node 2 --no-python taming train`

    \b
    Example: taming train --in data/rows --out data/encoder
    """
    import sys
    from functools import partial

    from taming_core.errors import TamingError
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track
    from taming_core.storage.cache import use_cache_dir
    from taming_core.tables.requirements import require_rows
    from taming_core.tables.rows import load_rows
    from taming_core.tables.shards import require_runs
    from taming_core.weights.mini import encoder_folder

    p = load_params(params).train
    arguments.require_encoder_out(out, rows, *map(arguments.folder_of, (p.start, p.base)))
    require_runs()
    use_cache_dir(cache_dir, rows)
    arguments.require_device(device)
    arguments.require_models(p)
    arguments.require_scheduler(p.validation.sampling.scheduler)
    if p.start is not None:
        encoder_folder(p.start)
    elif base is not None:
        raise TamingError("--base has no effect without train.start. Set train.base in the params.")
    require_rows(load_rows(rows, "train"), p)
    held_out = load_rows(rows, "validation")

    from taming_core.training import (
        checkpoint,
        data_loader,
        feature_cache,
        loop,
        metrics_log,
        preemption,
        requests,
        run_settings,
        start,
        validation,
    )
    from taming_core.training import encoder_folder as trained
    from taming_core.training.batches import ExampleSource
    from taming_core.weights.device import pick_device

    training = start.prepare(p, rows, pick_device(device), shard, base)
    run, state, processes = training.run, training.state, training.run.processes
    is_main = processes.is_main
    with exclusive(*((out, state) if is_main else ())):
        checkpoint.load(run, state)
        message = run_settings.finished(training, out, standalone) if is_main else None
        if processes.max(int(message is not None)):  # only the main process need see `out`
            if is_main:
                checkpoint.remove_states(state)  # which a crash left after the encoder was written
                print(message)
            return processes.shutdown()
        if is_main and (note := run_settings.announce(training, p, out)):
            print(note, file=sys.stderr)
        if is_main and training.truncated:
            print(training.truncated)
        checkpoint.require_space(run, p, state)
        source, offloaded = feature_cache.prepare(run, ExampleSource.of(run.model, training.rows, p))
        unseen = validation.held_out_source(source, held_out)
        subjects = validation.grid_subjects(validation.grid_rows(held_out, training.rows), p, source.inputs.background)
        batches = data_loader.prefetched_batches(source, processes, run.accelerator.device)

        with metrics_log.open_metrics_log(state, run.step, enabled=is_main) as log, preemption.stop_requests() as stop:
            asked = requests.Asked(state)
            reports = loop.train(
                run, p, batches, is_stopping=partial(stop.is_agreed, processes),
                is_pausing=partial(asked.is_agreed, processes),
            )  # fmt: skip
            steps = loop.measure_seconds(reports)
            for report, seconds in track(steps, "train", p.steps - run.step):
                due, loss = asked.agreed if report.step == run.step else (), None
                if loop.is_due(report.step, p.validation.every, p.steps) or "sample" in due:
                    with feature_cache.on_device(offloaded, run.accelerator.device):
                        loss = validation.held_out_loss(run, unseen)
                        picture = state / metrics_log.grid_name(report.step)
                        validation.save_grid(training.pipeline, run, subjects, p, picture)
                log(metrics_log.step_metrics(report, seconds, p, loss))
                # Last: what was saved is never done again.
                if loop.is_due(report.step, p.save_every, p.steps) or "save" in due:
                    checkpoint.save(run, state)
            if stop.agreed and run.step < p.steps:
                if not (loop.is_due(run.step, p.save_every, p.steps) or "save" in asked.agreed):
                    checkpoint.save(run, state)
                if is_main:
                    print(stop.message(run.step), file=sys.stderr)
                processes.shutdown()
                raise typer.Exit(stop.exit_status)
        if summary := trained.write(training, held_out, rows, p, out, standalone):
            print(summary)
    return processes.shutdown()
