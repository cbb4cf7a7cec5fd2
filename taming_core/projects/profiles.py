"""The profiles that a project starts from: params for a base model, changed for the memory of a GPU."""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from taming_core.errors import TamingError
from taming_core.params.load import packaged_params

MINI = "mini"
BASES = ("sd15", "sdxl", "sd3", "flux")
PROFILES = (MINI, *BASES)

Changes = dict[str, dict[str, Any]]  # by section and key


def folder(name: str) -> Path:
    """A folder of `pipelines`: in the wheel inside the package, in a checkout at its top."""
    package = Path(__file__).parent.parent
    installed = package / "pipelines" / name
    return installed if installed.is_dir() else package.parent / "pipelines" / name


def profile_file(profile: str) -> Path:
    """The params of a profile."""
    return packaged_params() if profile == MINI else folder(profile) / "params.yaml"


def sizes(profile: str) -> dict[int, Changes]:
    """What a profile changes for a GPU, by its GB; `mini` needs none."""
    if profile == MINI:
        return {}
    return YAML(typ="safe", pure=True).load((folder(profile) / "memory.yaml").read_text())


def params_text(profile: str, memory: int | None) -> str:
    """The params.yaml of a profile, for a GPU of so many GB; None leaves the profile as it stands.

    Raises:
        TamingError: the profile has nothing for this size.
    """
    text = profile_file(profile).read_text(encoding="utf-8")
    if profile == MINI:
        if memory is not None:
            raise TamingError("The profile mini needs no GPU. Leave --memory out.")
        return with_values(text, {"train": {"regularization": 0.0}})  # a new project has no regularization pairs
    if memory is None:
        return text
    fitting = sizes(profile)
    if memory not in fitting:
        less = min(fitting) > memory
        raise TamingError(f"The profile {profile} has no preset of {memory} GB. "
                          + (f"The smallest that it fits is {min(fitting)} GB: use --memory {min(fitting)}, or another "
                             "--profile." if less else f"Use --memory {' or '.join(map(str, fitting))}."))  # fmt: skip
    return with_values(text, fitting[memory])


def with_values(text: str, changes: Changes) -> str:
    """A params file with other values, every comment and line where it was.

    >>> with_values("a:\\n  b: 1  # why\\n  c: 2\\n", {"a": {"b": [True, "x"]}})
    'a:\\n  b: [true, x]  # why\\n  c: 2\\n'
    """
    for section, values in changes.items():
        for key, value in values.items():
            line = re.compile(rf"(^{section}:.*\n(?:[ #].*\n|\n)*?  {key}: )(.*?)(?=  #|\n)", re.MULTILINE)
            text, found = line.subn(lambda m, v=value: m[1] + as_yaml(v), text, count=1)
            if not found:
                raise ValueError(f"no key {section}.{key} to change")
    return text


def as_yaml(value: Any) -> str:
    """A value as YAML on one line.

    >>> as_yaml(None), as_yaml([512, "a"])
    ('null', '[512, a]')
    """
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
