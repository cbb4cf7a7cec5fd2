"""What a command sets for its process: it changes no result, and what the user has set stays."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from taming_core.objects.subjects import load_finder
from taming_core.params.load import load_params, packaged_params

ROOT = Path(__file__).parents[2]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**inherited, "PYTHONPATH": str(ROOT), **env}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip


def test_nobody_imports_bitsandbytes_in_passing_and_who_uses_it_gets_it() -> None:
    done = python("""
import sys
from stages.process import prepare
prepare()
import torch
import taming_core.images.families, peft
print(sys.modules["bitsandbytes"])
from taming_core.training.optimizers import load_adamw_8bit
print(load_adamw_8bit(torch.device("cpu")).__module__.split(".")[0])
""")
    assert done.stdout.split() == ["None", "bitsandbytes"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
    ids=["nothing", "spins", "policy"],
)
def test_how_threads_wait_is_set_where_the_user_has_not(given: dict[str, str], spins: str) -> None:
    code = "import os; from stages.process import prepare; prepare(); print(os.environ.get('GOMP_SPINCOUNT'))"
    assert python(code, **given).stdout.strip() == spins


def test_finding_objects_leaves_torch_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        find = load_finder(load_params(packaged_params()).detect, "cpu")
        find(np.zeros((64, 64, 3), np.uint8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_importing_the_detector_sets_no_limit_on_threads() -> None:
    code = "import os; os.environ.pop('OMP_NUM_THREADS', None); import torch\n"
    code += "from taming_core.objects.ultralytics_offline import import_ultralytics; import_ultralytics()\n"
    assert python(code + "print(os.environ.get('OMP_NUM_THREADS'))").stdout.strip() == "None"
