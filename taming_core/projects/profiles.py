"""The profiles of new projects: params for a base model, with presets for the memory of a GPU.

Every base has two: `sd15` trains by the paper's method, `sd15-ip-adapter` an IP-Adapter for other programs.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from taming_core.errors import TamingError
from taming_core.params.load import packaged_params

MINI = "mini"
BASES = ("sd15", "sdxl", "sd3", "flux")
IP_ADAPTERS = tuple(f"{base}-ip-adapter" for base in BASES)
PROFILES = (MINI, *BASES, *IP_ADAPTERS)

Changes = dict[str, dict[str, Any]]  # by section and key


def folder(name: str) -> Path:
    """A folder of `pipelines`: in the wheel inside the package, in a checkout at its top."""
    package = Path(__file__).parent.parent
    installed = package / "pipelines" / name
    return installed if installed.is_dir() else package.parent / "pipelines" / name


def profile_file(profile: str) -> Path:
    """The params file of a profile."""
    return packaged_params() if profile == MINI else folder(profile) / "params.yaml"


def memory_presets(profile: str) -> dict[int, Changes]:
    """The changes of a profile for a GPU, by its GB; `mini` has none."""
    if profile == MINI:
        return {}
    return cast(Any, YAML(typ="safe", pure=True)).load((folder(profile) / "memory.yaml").read_text(encoding="utf-8"))


def params_text(profile: str, memory: int | None) -> str:
    """The params.yaml of a profile, for a GPU of `memory` GB; None leaves the profile unchanged.

    Raises:
        TamingError: the profile has no preset for this size.
    """
    text = profile_file(profile).read_text(encoding="utf-8")
    if profile == MINI:
        if memory is not None:
            raise TamingError("The profile mini needs no GPU. Leave --memory out.")
        return with_values(text, {"train": {"regularization": 0.0}})  # a new project has no regularization pairs
    if memory is None:
        return text
    presets = memory_presets(profile)
    if memory not in presets:
        too_small = min(presets) > memory
        raise TamingError(f"The profile {profile} has no preset of {memory} GB. "
                          + (f"The smallest is {min(presets)} GB: use --memory {min(presets)}, or another --profile."
                             if too_small else f"Use --memory {' or '.join(map(str, presets))}."))  # fmt: skip
    return with_values(text, presets[memory])


def with_values(text: str, changes: Changes) -> str:
    """A params file with other values, its comments and lines unchanged.

    >>> with_values("a:\\n  b: 1  # why\\n  c: 2\\n", {"a": {"b": [True, "x"]}})
    'a:\\n  b: [true, x]  # why\\n  c: 2\\n'
    """
    for section, values in changes.items():
        for key, value in values.items():
            line = re.compile(rf"(^{section}:.*\n(?:[ #].*\n|\n)*?  {key}: )(.*?)(?=  #|\n)", re.MULTILINE)
            text, count = line.subn(lambda m, v=value: m[1] + as_yaml(v), text, count=1)
            if not count:
                raise ValueError(f"no key {section}.{key} to change")
    return text


def as_yaml(value: Any) -> str:
    """A value as YAML on one line.

    >>> as_yaml(None), as_yaml([512, "a"]), as_yaml({"rank": 16})
    ('null', '[512, a]', '{rank: 16}')
    """
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_yaml(v)}' for key, v in cast(dict[str, Any], value).items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, cast(list[Any], value)))}]"
    return value if isinstance(value, str) else json.dumps(value)
