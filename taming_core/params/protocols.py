"""Protocols: evaluations that are set down once, so that their results can be compared."""

from pathlib import Path

from taming_core.errors import TamingError
from taming_core.params.load import parse, read_yaml
from taming_core.params.sections import EvaluateParams, Section

PROTOCOLS = Path(__file__).parents[1] / "evaluation" / "protocols"  # the shipped ones, by name


# Keys that add conditions and change no score of another one: where a protocol leaves them out, they are the params'.
CONDITIONS = {"control_objects", "baselines", "baseline_photos", "guidance", "pasted", "judge_check"}


class Protocol(Section):
    """A file that takes the place of the params' `evaluate`: its keys, with a name before them."""

    name: str
    version: int | None = None  # of its content
    description: str | None = None
    evaluate: EvaluateParams


def shipped() -> list[str]:
    """The names of the shipped protocols."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


def load_protocol(spec: str, params: EvaluateParams) -> Protocol:
    """The protocol of a shipped name or of a file.

    Args:
        spec: the name or the file.
        params: what `CONDITIONS` are where the protocol leaves them out.

    Raises:
        TamingError: there is none, the file is not YAML, or a key is wrong; the message names it and the valid values.
    """
    path = PROTOCOLS / f"{spec}.yaml" if spec in shipped() else Path(spec).expanduser()
    if not path.is_file():
        raise TamingError(f"There is no protocol {spec}. Use --protocol with {', '.join(shipped())}, or with a file.")
    values = read_yaml(path, PROTOCOLS / "mini.yaml")
    own = {key: values[key] for key in ("name", "version", "description") if key in values}
    measured = {key: value for key, value in values.items() if key not in own}
    return parse(Protocol, {**own, "evaluate": {**params.model_dump(include=CONDITIONS), **measured}}, path)
