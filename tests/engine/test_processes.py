"""No process is left behind, however the command ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COMMAND = """
import signal
import sys
from pathlib import Path
from small_work import work
from taming_core.engine import local
from taming_core.progress import track_shards

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    names = [f"slow{n:04d}" for n in range(1000)]
    print(track_shards(local.run(work(Path(sys.argv[1]), names), 2), "test", 1000))
"""


def processes_of(folder: Path) -> list[int]:
    """The processes that know the folder by an argument or their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # of another user, or just ended
            continue
    return found


def wait_until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # pyright: ignore
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_no_process_is_left_when_the_command_is_ended(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "PLACE": str(tmp_path)}
    started = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: len(list((tmp_path / "state").glob("*.parquet"))) > 1)
    assert len(processes_of(tmp_path)) >= 4  # it, two workers, and the server that they are forked from
    os.killpg(started.pid, how) if how == signal.SIGINT else started.kill()
    _, problems = started.communicate(timeout=60)
    wait_until(lambda: not processes_of(tmp_path), 10)
    assert problems.count("Traceback") == (how == signal.SIGINT)  # of the command alone
    assert len(list((tmp_path / "state").glob("*.parquet"))) < 500
