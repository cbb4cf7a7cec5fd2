"""One fork server and one tiny project for all faults of a test process."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from faults.commands import ForkServer, fork_server
from faults.projects import COMMANDS, DATA_STAGES, copy_project, make_project
from faults.stage_runs import StageRun, undisturbed


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """The server, with all imports done."""
    with fork_server(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.fixture(scope="session")
def run_of(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StageRun]:
    """The undisturbed run of a stage, after those that make its inputs."""
    folder = tmp_path_factory.mktemp("projects")
    make_project(folder / "project")

    @cache
    def made(stage: str) -> StageRun:
        before = DATA_STAGES.index(stage) if stage in DATA_STAGES else 0
        project = made(DATA_STAGES[before - 1]).after if before else folder / "project"
        return undisturbed(stage, server, copy_project(project, folder / stage), folder / "home")

    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `stage` runs for each of the five."""
    if "stage" in metafunc.fixturenames:
        metafunc.parametrize("stage", COMMANDS)
