"""Every launcher of pipelines/cluster with two processes on the CPU; trainings that are killed, stopped and resized."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
import yaml

from taming_core.params.load import packaged_params

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "pipelines/cluster"
TRAIN = ["taming", "train", "--device", "cpu"]
ALONE = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}
STEPS = 16

Process = subprocess.Popen[str]
STARTED: list[Process] = []


def write_project(folder: Path, **values: Any) -> Path:
    """Rows, a tiny pipeline to start from, and params. Of two processes each has one micro-batch in a batch of two:
    their sum is that of one process to the last bit."""
    tiny.write_rows(folder / "data/rows")
    tiny.pipeline().save_pretrained(folder / "start")
    params = yaml.safe_load(packaged_params().read_text())
    small = {"start": "start", "steps": STEPS, "batch_size": 2, "micro_batch_size": 1, "save_every": 2, "warmup": 1}
    params["train"] |= {**small, **ALONE, **values}
    params["train"]["validation"] |= {"every": STEPS, "objects": 1}
    params["train"]["validation"]["sampling"] |= {"steps": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, trained by one process from the first step to the last."""
    folder = write_project(tmp_path_factory.mktemp("one"))
    start(TRAIN, folder).communicate()
    return folder


@pytest.fixture
def project(reference: Path, tmp_path: Path) -> Path:
    return copied(reference, tmp_path)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Whatever a test that fails leaves behind is killed."""
    yield
    while STARTED:
        if (process := STARTED.pop()).poll() is None:
            kill(process)


def copied(reference: Path, folder: Path) -> Path:
    """The same project before its training."""
    return shutil.copytree(reference, folder, ignore=shutil.ignore_patterns("runs", "encoder"), dirs_exist_ok=True)


def start(command: Sequence[str | Path], folder: Path, **environment: str) -> Process:
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    process = subprocess.Popen(
        [str(word) for word in command], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **settings, **environment},
    )  # fmt: skip
    STARTED.append(process)
    return process


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def saved_step(folder: Path) -> int:
    """The last step that is saved."""
    return max((int(p.name[-6:]) for p in folder.glob("runs/train-*/state-??????")), default=0)


def until(condition: Callable[[], bool], processes: Sequence[Process]) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), [p.communicate()[0] for p in processes]
        time.sleep(0.02)


def workers_of(launcher: Process) -> list[psutil.Process]:
    """The processes below it that train, in the order of their start."""
    found = [p for p in psutil.Process(launcher.pid).children(recursive=True) if "train" in p.cmdline()[-4:]]
    return [p for p in sorted(found, key=lambda p: p.create_time()) if "taming" in p.cmdline()[1]]


def kill(*processes: Process) -> None:
    """Kill whole trees with SIGKILL."""
    for process in processes:
        tree = psutil.Process(process.pid)
        for member in [*tree.children(recursive=True), tree]:
            member.kill()
        process.wait()


def content(folder: Path) -> dict[str, bytes]:
    out = folder / "data/encoder"
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "data/encoder/metrics.jsonl").read_text().splitlines()]


def torchrun_nodes() -> Iterator[tuple[list[str | Path], dict[str, str]]]:
    """Two agents, as on two machines."""
    head = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        yield ["bash", CLUSTER / "torchrun.sh", "--device", "cpu"], {"NODES": "2", "PROCESSES": "1", "HEAD": head}


def accelerate_nodes() -> Iterator[tuple[list[str | Path], dict[str, str]]]:
    port = str(free_port())
    for rank in range(2):
        yield [
            "accelerate", "launch", "--config_file", CLUSTER / "accelerate-nodes.yaml", "--machine_rank", str(rank),
            "--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port, "--no_python",
            *TRAIN,
        ], {}  # fmt: skip


LAUNCHERS: dict[str, Callable[[], Iterator[tuple[list[str | Path], dict[str, str]]]]] = {
    "torchrun": lambda: iter([(["bash", CLUSTER / "torchrun.sh", "--device", "cpu"], {"PROCESSES": "2"})]),
    "torchrun, two nodes": torchrun_nodes,
    "accelerate": lambda: iter([(["accelerate", "launch", "--config_file", CLUSTER / "accelerate.yaml",
                                  "--num_processes", "2", "--no_python", *TRAIN], {})]),
    "accelerate, two nodes": accelerate_nodes,
    "ray": lambda: iter([([sys.executable, CLUSTER / "ray_train.py", "--workers", "2", "--no-gpu", "--restarts", "0",
                           "--", "--device", "cpu"], {})]),
}  # fmt: skip


def launch(name: str, folder: Path) -> list[Process]:
    return [start(command, folder, **environment) for command, environment in LAUNCHERS[name]()]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_two_processes_of_every_launcher_write_the_encoder_of_one(name: str, reference: Path, project: Path) -> None:
    running = launch(name, project)
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(said)
    assert content(project) == content(reference)
    printed = sum(text.count(f"data/encoder: {STEPS} steps") for text in said)
    assert printed == 1 or name == "ray"  # whose driver may end before it has repeated what a worker printed last
    assert not [*project.glob("runs/train-*/state-*"), *project.glob("runs/.shared-*")]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 8], ids=["two rows a step", "eight rows a step"])
def test_one_process_then_two_then_one_train_as_one(rows: int, reference: Path, tmp_path: Path) -> None:
    """Both changes after SIGKILL. With two rows a step the bits are the same, else sums are rounded differently."""
    whole, changing = (copied(reference, tmp_path / name) for name in ("whole", "changing"))
    if rows == 2:
        whole = reference
    else:
        write_project(whole, batch_size=rows)
        shutil.copy(whole / "params.yaml", changing)
        start(TRAIN, whole).communicate()
    one = start(TRAIN, changing)
    until(lambda: saved_step(changing) >= 2, [one])
    kill(one)
    first = saved_step(changing)
    two = launch("torchrun", changing)
    until(lambda: saved_step(changing) >= first + 4, two)
    workers_of(two[0])[1].kill()
    assert "Another process of this training has ended" in two[0].communicate()[0]
    assert two[0].returncode
    assert first < saved_step(changing) < STEPS
    assert start(TRAIN, changing).wait() == 0
    assert content(changing).keys() == content(whole).keys()
    if rows == 2:
        assert content(changing) == content(whole)
    found, expected = losses(changing), losses(whole)
    print("largest relative difference of a loss:", max(abs(a - b) / b for a, b in zip(found, expected, strict=True)))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchrun", "torchrun, two nodes", "accelerate", "accelerate, two nodes"])
def test_when_one_process_is_killed_the_others_end_at_once(name: str, project: Path) -> None:
    running = launch(name, project)
    until(lambda: saved_step(project) >= 2, running)
    killed = time.monotonic()
    workers_of(running[-1])[-1].kill()
    said = [process.communicate(timeout=60)[0] for process in running]
    print(f"{name}: ended {time.monotonic() - killed:.1f} seconds after SIGKILL")
    assert all(process.returncode for process in running)
    assert any("Another process of this training has ended." in text for text in said), said


@pytest.mark.slow
def test_when_a_machine_is_lost_the_other_ends_at_once(project: Path) -> None:
    """All of its processes, so that no launcher says anything."""
    first, second = launch("torchrun, two nodes", project)
    until(lambda: saved_step(project) >= 2, [first, second])
    killed = time.monotonic()
    kill(second)
    said = first.communicate(timeout=60)[0]
    print(f"ended {time.monotonic() - killed:.1f} seconds after SIGKILL")
    assert first.returncode
    assert "Another process of this training has ended." in said


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "torchrun", "accelerate"], ids=["one process", "torchrun", "accelerate"])
def test_sigterm_saves_the_step_and_the_same_command_goes_on(name: str | None, reference: Path, tmp_path: Path) -> None:
    """Where nothing else is ever saved."""
    project = copied(reference, tmp_path)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"]["save_every"] = 1000
    (project / "params.yaml").write_text(yaml.safe_dump(params))

    def command() -> Process:
        return start(TRAIN, project) if name is None else launch(name, project)[0]

    running = command()
    until(lambda: any(path.stat().st_size for path in project.glob("runs/train-*/metrics.jsonl")), [running])
    running.send_signal(signal.SIGTERM)
    said = running.communicate()[0]
    assert running.returncode == (143 if name is None else 1), said
    step = saved_step(project)
    assert 0 < step < STEPS
    assert said.count(f"taming: stopped by SIGTERM; step {step} is saved. Run the same command again") == 1
    again = command()
    assert again.wait() == 0, again.communicate()[0]
    found, expected = content(project), content(reference)
    assert found.pop("training.json") != expected.pop("training.json")  # which holds save_every
    assert found == expected


SRUN = """#!/usr/bin/env bash
# A step of Slurm: its command on every machine, and signals to all of them.
trap 'kill -USR1 $(jobs -p)' USR1
shift  # --kill-on-bad-exit=1
for _ in $(seq "$SLURM_NNODES"); do "$@" & done
status=0
for job in $(jobs -p); do while kill -0 "$job" 2>/dev/null; do wait "$job" || status=$?; done; done
exit "$status"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then echo 127.0.0.1; echo 127.0.0.1; else echo "$@" >> requeued; fi
"""


def slurm_job(folder: Path, restart: int) -> Process:
    """The batch file as Slurm starts it, on two machines with a process each."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    variables = {"SLURM_JOB_ID": str(free_port() - 20000 if free_port() >= 20000 else 7), "SLURM_NNODES": "2",
                 "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "1",
                 "SLURM_RESTART_COUNT": str(restart)}  # fmt: skip
    return start(["bash", CLUSTER / "slurm.sh", "--device", "cpu"], folder, **variables)


@pytest.mark.slow
def test_a_job_of_slurm_is_requeued_before_its_time_limit_and_goes_on(reference: Path, project: Path) -> None:
    job = slurm_job(project, 0)
    until(lambda: saved_step(project) >= 2, [job])
    job.send_signal(signal.SIGUSR1)
    said = job.communicate()[0]
    assert job.returncode
    assert (project / "requeued").read_text().startswith("requeue ")
    assert f"stopped by SIGUSR1; step {saved_step(project)} is saved" in said
    again = slurm_job(project, 1)
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert len((project / "requeued").read_text().splitlines()) == 1
    assert content(project) == content(reference)


@pytest.mark.slow
def test_a_job_of_slurm_that_fails_is_not_requeued(project: Path) -> None:
    (project / "params.yaml").unlink()
    shutil.rmtree(project / "data")
    job = slurm_job(project, 0)
    assert "holds no rows" in job.communicate()[0]
    assert job.returncode
    assert not (project / "requeued").exists()


@pytest.mark.parametrize("file", ["slurm.sh", "torchrun.sh"])
def test_scripts_are_bash(file: str) -> None:
    subprocess.run(["bash", "-n", CLUSTER / file], check=True)


def test_slurm_warns_before_it_kills_and_waits_for_the_state() -> None:
    text = (CLUSTER / "slurm.sh").read_text()
    options = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--ntasks-per-node=1", "--signal=B:USR1@300"} <= set(options)
    assert text.index("#SBATCH") < text.index("set -euo")  # Slurm reads no option after the first command
    words = text.split()
    assert int(words[words.index("--shutdown-timeout") + 1]) < 300


@pytest.mark.parametrize("file", ["accelerate.yaml", "accelerate-nodes.yaml"])
def test_accelerate_reads_the_configurations(file: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CLUSTER / file))
    assert config.num_processes == 8 * config.num_machines


def test_the_readme_names_every_file() -> None:
    text = (CLUSTER / "README.md").read_text()
    assert [p.name for p in CLUSTER.iterdir() if p.is_file() and p.name != "README.md" and p.name not in text] == []
