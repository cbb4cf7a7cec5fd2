"""requirements of the params on this machine"""

from typing import Annotated

import typer

from stages.options import Device, ParamsFile


def doctor(
    params: ParamsFile = None,
    device: Device = "auto",
    fit: Annotated[
        bool, typer.Option(help="Also compute whether training fits in memory: about ten seconds, then cached.")
    ] = True,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="That share the denoiser's weights, by `taming train --shard`.")
    ] = 1,
) -> None:
    """Check that this machine has what the params need: packages, models, memory.

    Nothing is downloaded and no model is loaded. The exit status is 1 if a requirement is missing.

    \b
    Example: taming doctor --params params.yaml
    """
    from taming_core.errors import TamingError
    from taming_core.params import arguments
    from taming_core.params.load import load_params

    if processes > 1 and not fit:
        raise TamingError("--processes has no effect with --no-fit. Leave one of them out.")
    p = load_params(params)
    arguments.require_device(device)

    from taming_core.projects import diagnosis
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    checks = [*diagnosis.software_checks(p), *diagnosis.machine_checks(where, p), *diagnosis.model_checks(p)]
    diagnosis.print_checks(checks)
    if fit:
        from taming_core.projects.fit import cached_memory_need

        checks.append(diagnosis.memory_check(cached_memory_need(p, processes), where))
        diagnosis.print_checks(checks[-1:])
    if missing := [c.what for c in checks if not c.ok]:
        raise TamingError(
            f"{len(missing)} requirements are missing: {', '.join(missing)}. Do what the table above says."
        )
