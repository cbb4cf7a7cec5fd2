"""Models by path, by published name and by hub name; what is not there is named with what fetches it."""

import json
from pathlib import Path

import pytest

from taming_core.errors import TamingError
from taming_core.objects.published import DETECTOR, PUBLISHED, SALIENT_SEGMENTER, SEGMENTER
from taming_core.weights.locate import (
    find,
    find_on_disk,
    is_hub_name,
    not_found_message,
    source_of,
    weights_file,
    weights_folder,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, an empty cache of ours and an empty one of the hub, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def in_hub_cache(home: Path, repo: str, *names: str) -> Path:
    """What `hf download` leaves behind."""
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    touch(folder / "refs" / "main", "a" * 40)
    for name in names:
        touch(folder / "snapshots" / ("a" * 40) / name)
    return folder / "snapshots" / ("a" * 40)


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("yolo11n-seg", "yolo11n-seg.pt"),
        ("yolo11n-seg.pt", "yolo11n-seg.pt"),
        ("yoloe-11s-seg-pf", "yoloe-11s-seg-pf.pt"),
        ("sam_vit_h", "sam_vit_h_4b8939.pth"),
        ("sam_vit_l_0b3195.pth", "sam_vit_l_0b3195.pth"),
        ("isnet", "isnet-general-use.onnx"),
        ("birefnet", "BiRefNet-general-epoch_244.onnx"),
    ],
)
def test_published_names_are_looked_up_here_and_in_the_cache(home: Path, spec: str, file: str) -> None:
    role = SEGMENTER if spec.startswith("sam") else SALIENT_SEGMENTER if "net" in spec else DETECTOR
    with pytest.raises(TamingError, match=rf"Download https://\S+/{file} into one of them \(licence \S+") as error:
        find(spec, role)
    assert str(home / "cache" / "taming" / "weights") in str(error.value)
    stored = touch(weights_folder() / file)
    assert find(spec, role) == stored
    touch(Path(file))
    assert find(spec, role) == Path(file)  # the nearer one


@pytest.mark.parametrize("here", [True, False])
def test_a_published_file_may_have_its_common_name(home: Path, here: bool) -> None:
    stored = touch(Path("isnet.onnx") if here else weights_folder() / "isnet.onnx")
    assert find("isnet", SALIENT_SEGMENTER) == find("isnet.onnx", SALIENT_SEGMENTER) == stored
    with pytest.raises(TamingError, match="There is no salient-object segmenter u2net"):
        find("u2net", SALIENT_SEGMENTER)


def test_every_published_name_has_one_address() -> None:
    assert len(set(PUBLISHED)) == len(PUBLISHED)
    assert {"yolo11n-seg", "yolo12x", "yoloe-11l-seg-pf", "yolov8s-worldv2"} <= set(PUBLISHED)
    assert len(set(SEGMENTER.published.values())) == 3


@pytest.mark.usefixtures("home")
def test_a_name_that_nobody_published_says_what_can_be_named() -> None:
    with pytest.raises(TamingError, match=r"no detector mine\.pt\. .* set detect\.detector to mini, .*yolo11n-seg"):
        find("mine.pt", DETECTOR)
    with pytest.raises(TamingError, match=r"no detector folder/mine\.pt\. "):
        find("folder/mine.pt", DETECTOR)


def test_a_folder_gives_its_only_file_or_the_usual_one(home: Path) -> None:
    with pytest.raises(TamingError, match=r"holds no \.pt file"):
        weights_file(home, DETECTOR)
    touch(home / "epoch3.pt")
    assert weights_file(find(str(home), DETECTOR), DETECTOR) == home / "epoch3.pt"
    touch(home / "last.pt")
    with pytest.raises(TamingError, match=r"holds 2 detectors. Set detect.detector to one of them, such as .*epoch3"):
        weights_file(home, DETECTOR)
    touch(home / "best.pt")
    assert weights_file(home, DETECTOR) == home / "best.pt"


def test_hub_names_are_found_in_the_hubs_cache(home: Path) -> None:
    cached = in_hub_cache(home, "someone/many", "one.pt", "two.pt", "more/three.pt")
    assert find("someone/many/two.pt", DETECTOR) == cached / "two.pt"
    assert find("someone/many/more/three.pt", DETECTOR) == cached / "more" / "three.pt"
    with pytest.raises(TamingError, match=r"someone/many holds 2 detectors.* such as someone/many/one\.pt"):
        find("someone/many", DETECTOR)
    cached = in_hub_cache(home, "someone/sam", "config.json", "model.safetensors", "README.md")
    assert find("someone/sam", SEGMENTER) == cached  # whose config.json may say how to look
    cached = in_hub_cache(home, "someone/plain", "best.pt")
    assert find("someone/plain", DETECTOR) == cached / "best.pt"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("spec", "command"),
    [("someone/yolo", "hf download someone/yolo`"), ("someone/yolo/a/b.pt", "hf download someone/yolo a/b.pt`")],
)
def test_an_absent_hub_file_says_how_to_fetch_it(spec: str, command: str) -> None:
    with pytest.raises(TamingError) as error:
        find(spec, DETECTOR)
    assert command in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_are_told_from_hub_names() -> None:
    assert is_hub_name("Salesforce/blip-image-captioning-large")
    assert is_hub_name("owner/repo/file.pt", (".pt",))
    assert not any(
        is_hub_name(name, (".pt",)) for name in ("mini", "./a/b", "/a/b", "~/a", "../a", "runs/best.pt", "a")
    )


def test_a_network_of_transformers_is_named_by_its_folder_or_any_file_of_it(home: Path) -> None:
    file = touch(home / "model" / "model.safetensors")
    assert source_of(str(file), Path("m")) == source_of(str(home / "model"), Path("m")) == str(home / "model")
    assert source_of("owner/repo", Path("m")) == "owner/repo"
    assert source_of("mini", home) == str(home)
    assert "hf download owner/repo`" in not_found_message("owner/repo", "judge", "evaluate.judge")
    assert "hf download" not in not_found_message(str(home), "judge", "evaluate.judge")


def test_home_is_written_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home / "me"))
    touch(home / "me" / "my.pt", json.dumps({}))
    assert find_on_disk("~/my.pt") == home / "me" / "my.pt"
