"""The lines of requirements.lock, from the report of `pip install --dry-run --report -` on standard input.

`make lock` runs it. Versions are public ones (2.14.1, not 2.14.1+cpu), so that one lock holds for CPU and CUDA wheels.
"""

import json
import re
import sys

HEADER = """\
# Every package that `make demo` and `make test` install, as pip resolved it on Python 3.11. Renew it with `make lock`.
# It is read as constraints (`pip install -c requirements.lock`): what a platform does not need is not installed.
"""


def main() -> None:
    report = json.load(sys.stdin)
    found = {canonical(one["metadata"]["name"]): one["metadata"]["version"].split("+")[0] for one in report["install"]}
    found.pop("taming")
    print(HEADER + "\n".join(f"{name}=={version}" for name, version in sorted(found.items())))


def canonical(name: str) -> str:
    """A package's name as the index spells it.

    >>> canonical("ruamel.YAML")
    'ruamel-yaml'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
