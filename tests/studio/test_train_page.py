"""The tab Train in Chromium: curves, grids, and a training that goes on without the page."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import yaml
from PIL import Image
from studio.browsing import WIDTHS, in_browser, visiting
from studios import studio

from taming_core.params.load import packaged_params
from taming_core.studio import child, runs

pytestmark = in_browser
STEPS = 100_000  # more than any test waits for


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with rows, a tiny pipeline to start from, and a finished run with two grids."""
    folder = tmp_path_factory.mktemp("train") / "project"
    folder.mkdir()
    tiny.write_rows(folder / "data/rows")
    tiny.pipeline().save_pretrained(folder / "start")
    params = yaml.safe_load(packaged_params().read_text())
    small = {"start": str(folder / "start"), "steps": STEPS, "batch_size": 2, "micro_batch_size": 1, "warmup": 1}
    params["train"] |= {**small, "save_every": STEPS, "identity_network": tiny.clip(folder / "clip")}
    params["train"]["validation"] |= {"every": 0, "objects": 1, "prompts": ["a <object> in the snow"]}
    params["train"]["validation"]["sampling"] |= {"steps": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (run := folder / "runs/train-old").mkdir(parents=True)
    lines = [{"step": n, "loss": 1 / n, "denoising": 1 / n, "learning_rate": 1e-4} for n in range(1, 9)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, colour in ((4, "teal"), (8, "navy")):
        Image.new("RGB", (320, 160), colour).save(run / f"grid-{step:06d}.png")
    return folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    with studio(project, project.parent / "log") as address:
        yield address
    assert len((project.parent / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_curves_and_grids_of_a_run(address: str, screenshots: Path, width: int) -> None:
    with visiting(address, width) as visit:
        page = visit.page
        visit.open_tab("Train")
        page.get_by_role("img", name="Loss").wait_for()
        assert page.locator("#curves figure").count() == 2  # of the metrics that the run has
        assert page.locator("#curves figcaption span").all_inner_texts() == ["loss", "denoising"]
        page.get_by_text("Validation grid after 8 steps").wait_for()
        page.locator("#at input[type=range]").focus()
        page.keyboard.press("ArrowLeft")
        page.get_by_text("Validation grid after 4 steps").wait_for()
        page.screenshot(path=screenshots / f"train-{width}.png", full_page=True)
        assert visit.is_within_width()
        assert visit.outside(address) == []
        assert visit.complaints == []


def test_a_training_goes_on_without_the_page_samples_on_request_and_stops(address: str, project: Path) -> None:
    with visiting(address) as visit:
        visit.open_tab("Train")
        visit.page.get_by_role("button", name="Start", exact=True).click()
        visit.page.get_by_text("taming train is running").wait_for()
    with visiting(address) as visit:  # another page, later
        page = visit.page
        visit.open_tab("Train")
        page.wait_for_function("/training now/.test(document.querySelector('#run-state').innerText)")
        page.get_by_role("button", name="Sample now").click()
        page.wait_for_selector("#grid img")
        page.get_by_role("button", name="Stop", exact=True).click()
        page.wait_for_function("/exit status 143/.test(document.querySelector('#log textarea').value)")
    (run,) = (run for run in runs.runs(project) if run.name != "train-old")
    assert len(runs.grids(run)) == 1
    assert list(run.folder.glob("state-*"))
    assert child.running_command(project) is None
    shutil.rmtree(run.folder)
