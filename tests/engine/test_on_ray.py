import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import small_shards
from filelock import FileLock
from ray_processes import wait_for_processes_of

from taming_core.drop_reasons import KILLS_WORKER
from taming_core.engine import local, nodes, ray_cluster
from taming_core.engine.run import run
from taming_core.engine.work import ShardWork
from taming_core.errors import TamingError
from taming_core.params import engine
from taming_core.params.engine import EngineOptions, for_device
from taming_core.tables.parquet import read_table

TESTS = Path(__file__).parents[1]
TWO = EngineOptions("ray", actors=2)


@pytest.fixture(scope="module", autouse=True)
def _own_ray() -> Iterator[None]:
    """Clusters of other people are not found, and processes of ours find the sources."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path]))
        yield


@pytest.fixture(scope="module")
def ray(_own_ray: None) -> Iterator[None]:
    with ray_cluster.connected("local"):
        yield


def shards(work: ShardWork[int, int]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(work.folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = small_shards.work(tmp_path_factory.mktemp("local") / "shards")
    assert len(list(local.run(work, 0))) == 7
    return shards(work)


def loaded(work: ShardWork[int, int]) -> int:
    return len(list(work.folder.parent.glob("loaded-*")))


def test_actors_make_the_bytes_of_the_local_engine_and_print_nothing(
    ray: None, tmp_path: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    work = small_shards.work(tmp_path / "shards")
    done = list(run(work, TWO))
    assert shards(work) == expected
    assert sorted(d.number for d in done) == list(range(7))
    assert sum((d.reasons for d in done), Counter[str]()) == {"kept": 16, "too small": 4}
    assert loaded(work) in (1, 2), "an actor loads its models once"
    assert capfd.readouterr() == ("", "")


def test_a_killed_actor_is_replaced_and_makes_its_shard_again(
    ray: None, tmp_path: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    work = small_shards.work(tmp_path / "shards")
    work = replace(work, load=partial(small_shards.load_killed_once, work.folder, 10))
    assert Counter(done.number for done in run(work, TWO)) == Counter(range(7))
    assert shards(work) == expected
    assert (tmp_path / "killed").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_shard_that_always_kills_its_actor_is_an_error(ray: None, tmp_path: Path) -> None:
    work = replace(small_shards.work(tmp_path / "shards"), load=small_shards.load_killing)
    with pytest.raises(TamingError, match=r"has killed its actor 3 times, .* Give each actor more"):
        list(run(work, replace(TWO, actors=1)))


@pytest.mark.slow
def test_a_photo_that_kills_its_worker_is_set_aside_and_the_actor_lives(ray: None, tmp_path: Path) -> None:
    work = small_shards.work(tmp_path / "shards", partial(small_shards.kill_worker_at, chosen=7))
    done = list(run(work, replace(TWO, actors=1)))
    assert sum(d.reasons[KILLS_WORKER] for d in done) == 1
    table = read_table(work.folder / "000002.parquet")
    assert table.column("drop_reason").to_pylist() == [None, KILLS_WORKER, None]
    assert loaded(work) == 1


def test_an_error_of_the_models_is_the_command_s(ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    work = replace(small_shards.work(tmp_path / "shards"), load=small_shards.load_nothing)
    with pytest.raises(TamingError, match=r"There is no model here\. Train one\."):
        list(run(work, TWO))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(ray: None, tmp_path: Path) -> None:
    work = replace(small_shards.work(tmp_path / "shards"), load=small_shards.load_wrongly)
    with pytest.raises(ZeroDivisionError) as caught:
        list(run(work, TWO))
    assert "load_wrongly" in "".join(caught.value.__notes__)


def test_finished_shards_are_final(ray: None, tmp_path: Path, expected: dict[str, bytes]) -> None:
    work = small_shards.work(tmp_path / "shards")
    list(local.run(work, 0))
    before = (work.folder / "000003.parquet").stat().st_mtime_ns
    (work.folder / "000004.parquet").unlink()
    done = list(run(work, TWO))
    assert [d.number for d in done] == [0, 1, 2, 3, 5, 6, 4]
    assert shards(work) == expected
    assert (work.folder / "000003.parquet").stat().st_mtime_ns == before


def test_finished_tables_need_no_cluster(tmp_path: Path) -> None:
    work = small_shards.work(tmp_path / "shards")
    list(local.run(work, 0))
    assert len(list(run(work, replace(TWO, ray_address="127.0.0.1:9")))) == 7


def test_a_node_must_see_the_files_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos" / "dog"
    photos.mkdir(parents=True)
    (photos / "1.png").write_bytes(b"four")
    work = replace(small_shards.work(Path("shards")), inputs=(Path("photos"),))
    checks = nodes.checks_of(work)
    assert checks.witnesses == [(Path("photos/dog/1.png"), 4)]
    nodes.require_same_node(work, checks)
    with pytest.raises(TamingError, match=r"Node .* does not see .*/shards\. With --engine ray on several machines"):
        nodes.require_same_node(work, replace(checks, token="another"))
    with pytest.raises(TamingError, match=r"Node .* has no folder /nowhere\. With"):
        nodes.require_same_node(work, replace(checks, directory=Path("/nowhere")))
    with pytest.raises(TamingError, match=r"Node .* has torch .*, and the machine of this command 1\.0\. Install"):
        nodes.require_same_node(work, replace(checks, packages=checks.packages | {"torch": "1.0"}))
    (photos / "1.png").unlink()
    with pytest.raises(TamingError, match=r"Node .* does not see .*/photos/dog/1\.png\. With"):
        nodes.require_same_node(work, checks)


@pytest.mark.parametrize(("gpus", "cpus", "words"), [(1, None, "has 1 GPUs and"), (0, 64, "has 0 GPUs and 64 CPUs")])
def test_an_actor_for_which_no_node_has_room_is_an_error(gpus: float, cpus: float | None, words: str) -> None:
    with pytest.raises(TamingError, match=rf"No node of the cluster {words}.* Correct --gpus and --cpus"):
        ray_cluster.pool_of(EngineOptions("ray", gpus=gpus, cpus=cpus), 10, [(4.0, 0.0), (8.0, 0.0)])


def test_there_are_no_more_actors_than_shards() -> None:
    pool = ray_cluster.pool_of(EngineOptions("ray", actors=8), 3, [(16.0, 0.0)])
    assert (pool.at_once, pool.actors) == (3, 3)


def test_more_actors_than_there_is_room_for_wait_for_nodes() -> None:
    pool = ray_cluster.pool_of(EngineOptions("ray", actors=4, cpus=2), 100, [(4.0, 0.0)])
    assert (pool.at_once, pool.actors) == (2, 4)


def test_an_address_without_ray_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    for given in (address, f"ray://{address}"):
        with pytest.raises(TamingError, match=rf"There is no Ray at {address}: .*\. Start it by `ray start --head`"):
            ray_cluster.require_answer(given)
    with pytest.raises(TamingError, match=r"RAY_ADDRESS is here, which is not host:port"):
        ray_cluster.require_answer("here")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(TamingError, match=r"There is no Ray on this machine for --ray-address auto\. Start it"):
        ray_cluster.require_answer("auto")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "spark"}, "There is no engine spark. Use --engine local or ray."),
        ({"actors": 2}, "--actors has no effect on --engine local. Leave it out, or use --engine ray."),
        ({"engine": "ray", "ray_address": "here"}, "--ray-address here is neither auto nor local nor host:port"),
        ({"engine": "ray", "gpus": 1.5}, "--gpus is 1.5, and Ray gives whole ones, or a part of one. Use --gpus 1."),
    ],
)
def test_options_without_meaning_are_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TamingError) as caught:
        EngineOptions(**options)
    assert str(caught.value).startswith(words)


def test_the_device_says_whether_actors_have_a_gpu() -> None:
    assert for_device(TWO, "auto").gpus is None
    assert (for_device(TWO, "cpu").gpus, for_device(TWO, "cuda").gpus) == (0, 1)
    assert for_device(replace(TWO, gpus=0.5), "cuda").gpus == 0.5
    for gpus, device in ((1, "cpu"), (0, "cuda")):
        with pytest.raises(TamingError, match=rf"--gpus {gpus} does not go with --device {device}\."):
            for_device(replace(TWO, gpus=gpus), device)
    with pytest.raises(TamingError, match=r"Ray chooses the device of each actor, and --device is cuda:1\. Use"):
        for_device(TWO, "cuda:1")


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", {}.get)
    with pytest.raises(TamingError, match=r"needs the package ray\. Run pip install 'taming\[ray\]', or use"):
        EngineOptions("ray")


DRIVER = """
import sys
from functools import partial
from pathlib import Path
import small_shards
from taming_core.engine import on_ray
from taming_core.params.engine import EngineOptions

work = small_shards.work(Path(sys.argv[1]), small_shards.square_slowly)
for done in on_ray.run(work, EngineOptions("ray", actors=2)):
    print(done.number, flush=True)
"""


@pytest.mark.slow
def test_the_same_command_goes_on_after_its_driver_was_killed(
    tmp_path: Path, ray_folder: Path, expected: dict[str, bytes]
) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "shards")]
    environment = os.environ | {"RAY_TMPDIR": str(ray_folder)}
    work = small_shards.work(tmp_path / "shards")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        driver.send_signal(signal.SIGKILL)
    (left,) = ray_folder.glob("taming-ray-*")
    wait_for_processes_of(left)
    before = shards(work)
    assert 0 < len(before) < 7, "it was killed in the middle"
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (len(again.stdout.split()), again.stderr) == (7, "")
    assert shards(work) == expected
    assert list(ray_folder.iterdir()) == [], "what the killed one left is removed, too"


def test_what_a_killed_one_still_writes_is_found_by_a_later_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, running = tmp_path / "taming-ray-ended", tmp_path / "taming-ray-running"
    for folder in (ended, running):
        (folder / "session" / "logs").mkdir(parents=True)
        (folder / "lock").touch()

    def while_another_writes(path: Path, ignore_errors: bool) -> None:
        shutil.rmtree(path, ignore_errors=ignore_errors)
        (path / "logs").mkdir(parents=True)

    with FileLock(running / "lock"):
        with monkeypatch.context() as patch:
            patch.setattr(ray_cluster, "rmtree", while_another_writes)
            ray_cluster.remove_ended(tmp_path)
        assert (ended / "lock").exists()
        ray_cluster.remove_ended(tmp_path)
        assert list(tmp_path.iterdir()) == [running]
    ray_cluster.remove_ended(tmp_path)
    assert list(tmp_path.iterdir()) == []
