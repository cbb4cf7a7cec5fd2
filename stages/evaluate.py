"""encoder -> images -> scores"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import (
    ENCODER,
    EVALUATION,
    JUDGES,
    ROWS,
    AnyPath,
    Base,
    CacheDir,
    Device,
    Offload,
    ParamsFile,
    Precision,
    RowsFolder,
    location,
)


def evaluate(
    encoder: Annotated[
        str, typer.Option("--encoder", help="The folder that `taming train` wrote, or its URL, or mini.")
    ] = str(ENCODER),
    rows: RowsFolder = ROWS,
    out: Annotated[
        AnyPath | None,
        typer.Option(
            "--out",
            parser=location,
            metavar="<path>",
            help=f"The output folder, or its URL, replaced as a whole. Default: {EVALUATION}; of --judge-check "
            f"{JUDGES}; none with --compare.",
        ),
    ] = None,
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    offload: Offload = False,
    base: Base = None,
    protocol_file: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="A shipped protocol (dreambench, dreambench-plus, mini, two-objects) or a file. It takes the place of "
            "the params' section evaluate; --params then only gives detect, baseline and the "
            "keys of conditions that the protocol leaves out.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Two output folders of one protocol: print how the second differs from the first, and draw nothing. "
            "Goes with --out alone, for compare.json and compare.csv.",
        ),
    ] = None,
    raw: Annotated[
        AnyPath | None,
        typer.Option(
            "--raw",
            parser=location,
            metavar="<path>",
            help="The folder of photos, or its URL, whose captions are each object's prompts, for a protocol with such "
            "prompts (dreambench-plus).",
        ),
    ] = None,
    check_judges: Annotated[
        bool,
        typer.Option(
            "--judge-check",
            help="Draw nothing and check the judges instead: whether they tell other objects and corrupted copies of "
            "an object from its true photos.",
        ),
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Draw held-out objects in new scenes and styles, and score the images.

    Every score is reported beside those of two controls and of real photos, and of the baselines that the params list;
    report.html shows the images first. After a crash the same command trains and draws only what is missing.

    \b
    Example: taming eval --encoder data/encoder --in data/rows --out data/evaluation
    Example: taming eval --encoder mini --protocol mini --out out/protocol
    Example: taming eval --compare out/mini data/evaluation
    Example: taming eval --judge-check --in data/rows
    """
    given = {"--encoder": encoder != str(ENCODER), "--precision": precision != "fp32", "--offload": offload,
             "--base": base is not None, "--raw": raw is not None}  # fmt: skip
    of_scores = {"--in": rows != ROWS, "--params": params is not None, "--device": device != "auto",
                 "--protocol": protocol_file is not None}  # fmt: skip
    if compare is not None:
        of_compared = {"--judge-check": check_judges, "--cache-dir": cache_dir is not None}
        compare_results(*compare, out, given | of_scores | of_compared)
        return
    from taming_core.storage.cache import use_cache_dir

    use_cache_dir(cache_dir, rows)
    if check_judges:
        judge_the_judges(rows, out or JUDGES, params, device, protocol_file, given)
        return
    out = out or EVALUATION
    from taming_core.evaluation.caption_prompts import read_caption_prompts, with_caption_prompts
    from taming_core.files import remove
    from taming_core.fingerprints import fingerprint, folder_fingerprint
    from taming_core.locks import exclusive
    from taming_core.objects.subjects import load_finder, require_finder
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.params.protocols import load_protocol
    from taming_core.photos.files import folder_state
    from taming_core.tables import schema, shards
    from taming_core.tables.requirements import require_identities
    from taming_core.tables.rows import load_rows
    from taming_core.weights.mini import encoder_folder
    from taming_core.weights.remote import local_encoder

    settings = load_params(params)
    frozen = None if protocol_file is None else load_protocol(protocol_file, settings.evaluate)
    p = settings.evaluate if frozen is None else frozen.evaluate
    d, b = settings.detect, settings.baseline
    arguments.require_evaluation_out(out, rows, arguments.folder_of(encoder))
    shards.require_runs()
    local = local_encoder(encoder)
    weights = encoder_folder(local)
    require_identities(load_rows(rows, p.split), p.split)
    own_prompts = read_caption_prompts(p, raw)
    arguments.require_scheduler(p.sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_trainable(p, precision, offload)
    arguments.require_models(p, d)
    arguments.require_score_packages(p.scores)
    arguments.require_api_key(p.vlm and p.vlm.api_key_env, "evaluate.vlm.api_key_env")
    require_finder(d)

    from taming_core.evaluation import (
        drawing,
        independence,
        judge_check,
        judges,
        pair_scores,
        protocol,
        similarity,
        token_geometry,
        vlm_judge,
    )
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where, trained_with = pick_device(device), independence.training_networks(weights)
    networks, score_networks = judges.load_judges(p, where), similarity.load_networks(p.scores, where)
    independence.require_independent(networks, trained_with, p)
    vlm = p.vlm and vlm_judge.load_vlm_judge(p.vlm, where, shards.RUNS / "vlm-answers")
    scores = pair_scores.pair_scores(networks.objects, networks.strict, score_networks.images())
    checked = judge_check.check(rows, p.split, p.seed, scores) if p.judge_check else None
    pipeline = load_pipeline(local, where, precision, offload, base)
    subjects = protocol.eval_subjects(rows, p, pipeline.object_encoder.config["background"])
    p = with_caption_prompts(p, own_prompts, {t.identity: t.class_name for t in subjects})
    digest = folder_fingerprint(weights)
    inputs = schema.VERSION, precision, digest, folder_state(rows), fingerprint(b)
    state = shards.RUNS / f"evaluate-{fingerprint(p, *inputs, without=protocol.SCORING_ONLY)}"
    with exclusive(out, state):
        drawn = drawing.draw(pipeline, subjects, p, b, state)

        # Imported when all images are drawn.
        from taming_core.evaluation import folder, judge_check_files, protocol_record, scoring, strata
        from taming_core.evaluation.result import Evaluation

        tokens = token_geometry.measure(pipeline, [s.encoder_image for s in subjects])
        text_role = independence.text_judge_role(networks, trained_with)
        scored = scoring.score_all(drawn, subjects, networks, score_networks, load_finder(d, where), rows, p, vlm)
        evaluated = protocol_record.encoder_record(encoder, digest, base, precision)
        record = protocol_record.protocol_record(p, d, subjects, networks, score_networks, vlm, rows, evaluated, frozen)
        facts = {
            "Protocol": protocol_record.title(record),
            **folder.facts(encoder, digest, precision, scored.known, subjects, p, b, text_role),
            **similarity.facts(p.scores, score_networks, trained_with),
            **({"Tokens": str(tokens)} if tokens else {}),
        }
        result = Evaluation(
            subjects, scored.rows, scored.images, scored.summary, p, facts, drawn.costs, strata.strata(scored.rows),
            record, judge_check_files.win_rates(checked) if checked else {},
        )  # fmt: skip
        folder.write(result, drawn.timings, state, out, checked)
        remove(state)
    print(folder.summary(result, out))


def compare_results(first: Path, second: Path, out: AnyPath | None, given: dict[str, bool]) -> None:
    """Print how the second evaluation differs from the first.

    Args:
        first, second: the folders.
        out: that of compare.json and compare.csv; None for none.
        given: the options that have no effect here, and whether they were given.

    Raises:
        TamingError: one was, the evaluations are of different protocols, or `out` cannot be written.
    """
    from taming_core.params import arguments

    arguments.require_no_effect("--compare", given)
    if out is not None:
        arguments.require_comparison_out(out, first, second)

    from taming_core.evaluation import comparison

    results = comparison.read_results(first), comparison.read_results(second)
    comparison.require_same_protocol(*results)
    found = comparison.differences(*results)
    comparison.print_table(*results, found)
    if out is not None:
        comparison.write(*results, found, out)


def judge_the_judges(
    rows: AnyPath, out: AnyPath, params: Path | None, device: str, protocol_file: str | None, given: dict[str, bool]
) -> None:
    """Check the judges and scores that the params name on the photos of the evaluated split.

    Raises:
        TamingError: one of `given`, options that have no effect here, was given; or something cannot be read.
    """
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.params.protocols import load_protocol
    from taming_core.tables.requirements import require_identities
    from taming_core.tables.rows import load_rows

    arguments.require_no_effect("--judge-check", given)
    settings = load_params(params).evaluate
    p = settings if protocol_file is None else load_protocol(protocol_file, settings).evaluate
    arguments.require_judge_check_out(out, rows)
    require_identities(load_rows(rows, p.split), p.split)
    arguments.require_device(device)
    arguments.require_models(p)
    arguments.require_score_packages(p.scores)

    from taming_core.evaluation import judge_check, judge_check_files, judges, pair_scores, similarity
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    networks, others = judges.load_judges(p, where), similarity.load_networks(p.scores, where)
    scores = pair_scores.pair_scores(networks.objects, networks.strict, others.images())
    with exclusive(out):
        checked = judge_check.check(rows, p.split, p.seed, scores)
        judge_check_files.write_folder(checked, out)
    print(judge_check_files.text(checked, out))
