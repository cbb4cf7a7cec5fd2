"""what works on this machine, and what is missing"""

from typing import Annotated

import typer

from stages.options import Device, ParamsFile


def doctor(
    params: ParamsFile = None,
    device: Device = "auto",
    fit: Annotated[
        bool, typer.Option(help="Also compute whether the training fits: some ten seconds, once for the same params.")
    ] = True,
) -> None:
    """Tell what the params need and this machine lacks: packages, models, memory.

    Nothing is downloaded and no model is loaded. The exit status is 1 when something that is needed is missing.

    \b
    Example: taming doctor --params params.yaml
    """
    from taming_core.errors import TamingError
    from taming_core.params import arguments
    from taming_core.params.load import load_params

    p = load_params(params)
    arguments.require_device(device)

    from taming_core.projects import diagnosis
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    checks = [*diagnosis.software(p), *diagnosis.machine(where, p), *diagnosis.models(p)]
    diagnosis.show(checks)
    if fit:
        from taming_core.projects.fit import cached_memory_need

        checks.append(diagnosis.fit(cached_memory_need(p), where))
        diagnosis.show(checks[-1:])
    if missing := [c.what for c in checks if not c.ok]:
        raise TamingError(f"{len(missing)} things are missing: {', '.join(missing)}. The table above says what to do.")
