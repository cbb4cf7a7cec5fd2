"""What stands out: real networks in ONNX, tiny ones, on photos of coloured rectangles."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_onnx
import yaml
from coloured_photos import P, put, rows_of
from onnx import TensorProto
from PIL import Image

from taming_core.errors import TamingError
from taming_core.objects import salient
from taming_core.objects.networks import load_networks
from taming_core.objects.published import SALIENT_SEGMENTER, segmenter_role
from taming_core.objects.subjects import load_finder, require_finder
from taming_core.params import arguments
from taming_core.params.load import packaged_params
from taming_core.params.sections import DetectParams
from taming_core.photos.folder import list_photos
from taming_core.photos.masks import decode_mask
from taming_core.tables import schema
from taming_core.weights.locate import find

ROOT = packaged_params().parent
PHOTOS, ISNET = os.environ.get("TAMING_PHOTOS"), os.environ.get("TAMING_ISNET")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_onnx.salient(tmp_path_factory.mktemp("models") / "isnet.onnx")


def params(model: Path, **changes: Any) -> DetectParams:
    return DetectParams(**{**P.model_dump(), "detector": "none", "segmenter": str(model), **changes})


def rows(folder: Path, p: DetectParams) -> list[schema.Row]:
    found = rows_of(folder, *load_networks(p, "cpu"), p)
    schema.table(found, schema.OBJECTS)
    return found


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> np.ndarray:
    return np.full((size[1], size[0], 3), colour, np.uint8)


def test_without_a_detector_the_object_is_what_stands_out(tmp_path: Path, model: Path) -> None:
    put(tmp_path / "toy/1.png", ball=(20, 20, 60, 60), leaf=(70, 10, 90, 40))
    put(tmp_path / "toy/2.png", leaf=(70, 10, 90, 40))
    (tmp_path / "toy/3.png").write_bytes(b"")
    ball, nothing, broken = rows(tmp_path, params(model))
    assert np.allclose(ball["box_xyxy"], [20, 20, 60, 60], atol=1)
    assert (ball["class"], ball["identity"], ball["drop_reason"]) == (None, "toy", None)
    assert decode_mask(ball["mask_png"])[25:55, 25:55].all()
    assert 0.8 < ball["score"] <= 1
    assert ball["mask_quality"] is None
    assert (nothing["object_id"], nothing["drop_reason"]) == (None, "no object")
    assert broken["drop_reason"] == "empty file"


def test_its_class_is_that_of_the_metadata(tmp_path: Path, model: Path) -> None:
    put(tmp_path / "1.png", ball=(20, 20, 60, 60))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "class": "plum"}')
    assert rows(tmp_path, params(model))[0]["class"] == "plum"


def test_specks_are_not_in_its_box(tmp_path: Path, model: Path) -> None:
    put(tmp_path / "1.png", ball=(20, 20, 60, 60))
    with Image.open(tmp_path / "1.png") as photo:
        photo.paste((255, 0, 0), (90, 70, 95, 75))
        photo.save(tmp_path / "1.png")
    assert rows(tmp_path, params(model))[0]["box_xyxy"][2] < 65
    assert rows(tmp_path, params(model, island=0.0))[0]["box_xyxy"][2] > 85


def test_with_a_detector_it_stands_out_in_the_crop_of_each_box(model: Path) -> None:
    photo = picture((90, 90, 90), (200, 100))
    photo[30:60, 20:60] = photo[30:60, 120:160] = (255, 0, 0)
    segment = salient.load_salient_segmenter(str(model), "cpu")
    boxes = np.array([[18, 28, 62, 62], [118.5, 28, 162, 62], [70, 5, 100, 25]], np.float32)
    found = segment(photo, boxes)
    truth = np.zeros((2, 100, 200), bool)
    truth[0, 30:60, 20:60] = truth[1, 30:60, 120:160] = True
    for mask, true in zip(found.masks, truth, strict=False):
        assert (mask & true).sum() / (mask | true).sum() > 0.9
    assert not found.masks[2].any()
    assert (found.quality[:2] > 0.9).all()
    assert found.quality[2] == 0
    assert segment(photo, boxes[:0]).masks.shape == (0, 100, 200)


def test_a_box_in_which_nothing_stands_out_is_a_row_with_a_reason(tmp_path: Path, model: Path) -> None:
    put(tmp_path / "1.png", leaf=(20, 20, 60, 60))
    p = params(model, detector="mini", score=0.0, score_floor=0.01)
    detect, segment = load_networks(p, "cpu")
    boxed = rows_of(tmp_path, detect, segment, p)
    assert {row["drop_reason"] for row in boxed} <= {"too small: 0.000", "no object"}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("side", [64, "side"])
@pytest.mark.parametrize("logits", [False, True])
def test_precision_size_and_logits_are_read_from_the_network(
    tmp_path: Path, kind: int, side: int | str, logits: bool
) -> None:
    file = tiny_onnx.salient(tmp_path / "u2net.onnx", side, kind=kind, logits=logits)
    photo = picture((90, 90, 90))
    photo[10:20, 10:30] = (255, 0, 0)
    share = salient.load_saliency(str(file), "cpu")(photo)
    assert share.dtype == np.float32
    assert share.shape == (30, 40)
    assert share[12:18, 12:28].min() > 0.95
    assert share[:6].max() < 0.1


def test_every_photo_is_seen_alike_whatever_its_batch(tmp_path: Path, model: Path) -> None:
    for i in range(3):
        put(tmp_path / f"{i}.png", ball=(10 + i, 20, 50 + i, 60))
    one, three = (rows(tmp_path, params(model, batch_size=n)) for n in (1, 3))
    assert one == three


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("isnet-general-use.onnx", salient.ISNET),
        ("U2NETP.onnx", salient.U2NET),
        ("silueta.onnx", salient.U2NET),
        ("BiRefNet-general-epoch_244.onnx", salient.KINDS["birefnet"]),
        ("models--someone--BiRefNet_lite-ONNX/snapshots/a/onnx/model_fp16.onnx", salient.KINDS["birefnet"]),
        ("birefnet-trials/isnet.onnx", salient.ISNET),
        ("other.onnx", salient.ISNET),
    ],
)
def test_what_a_network_expects_is_known_by_its_name(tmp_path: Path, name: str, kind: salient.Preprocessing) -> None:
    assert salient.preprocessing_of(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx"])
def test_a_preprocessor_config_says_what_it_expects(tmp_path: Path, name: str) -> None:
    config = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "size": {"width": 32, "height": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    expected = salient.Preprocessing((0.1, 0.2, 0.3), (1, 2, 3), 32)
    assert salient.preprocessing_of(tmp_path / name) == expected
    assert salient.preprocessing_of(tmp_path / "sub" / "isnet.onnx") == salient.ISNET  # of another folder


@pytest.mark.parametrize(("name", "red"), [("isnet.onnx", 1 - 0.5), ("u2net.onnx", (1 - 0.485) / 0.229)])
def test_pixels_reach_the_network_normalized(tmp_path: Path, name: str, red: float) -> None:
    file = tiny_onnx.salient(tmp_path / name, weights=(1.0, 0.0, 0.0), bias=0.0)
    share = salient.load_saliency(str(file), "cpu")(picture((255, 0, 0)))
    assert share.mean() == pytest.approx(1 / (1 + np.exp(-red)), abs=1e-4)


def test_a_file_that_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    for content in (b"", b"no model", tiny_onnx.salient(tmp_path / "whole.onnx").read_bytes()[:-40]):
        damaged.write_bytes(content)
        with pytest.raises(TamingError, match=r"onnxruntime cannot open .*damaged\.onnx\. Fetch it again"):
            salient.load_saliency(str(damaged), "cpu")
    with pytest.raises(TamingError, match=r"turns \(1, 3, 64, 64\) into \(\)\. Use one that turns a picture"):
        salient.load_saliency(str(tiny_onnx.classifier(tmp_path / "classifier.onnx")), "cpu")


@pytest.mark.parametrize("spec", ["isnet", "isnet.onnx", "u2net", "birefnet"])
def test_an_absent_network_is_named_with_what_fetches_it_and_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    p = params(Path(spec))
    with pytest.raises(
        TamingError, match=r"Download https://\S+\.onnx into one of them \(licence MIT or Apache-2\.0\)"
    ):
        require_finder(p)
    tiny_onnx.salient(tmp_path / "cache/taming/weights" / f"{spec.removesuffix('.onnx')}.onnx")
    require_finder(p)
    assert find(spec, segmenter_role(spec)).name == f"{spec.removesuffix('.onnx')}.onnx"
    assert segmenter_role(spec) is SALIENT_SEGMENTER


def test_without_onnxruntime_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda _: None)
    for check in (arguments.require_models, lambda p: load_networks(p, "cpu")):
        with pytest.raises(TamingError, match=r"needs the package onnxruntime\. Run pip install 'taming\[onnx\]'"):
            check(params(model))
    arguments.require_models(P)


def test_the_object_of_a_photo_is_found_for_generate(tmp_path: Path, model: Path) -> None:
    put(tmp_path / "1.png", ball=(20, 20, 60, 60))
    with Image.open(tmp_path / "1.png") as photo:
        (mask,) = load_finder(params(model), "cpu")(np.asarray(photo))
    assert mask[30:50, 30:50].all()
    assert mask.sum() == pytest.approx(1600, rel=0.1)


def taming(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "100"}
    command = [sys.executable, "-c", "from stages.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=home, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_chain_takes_objects_without_a_class(tmp_path: Path, model: Path) -> None:
    for n, name in enumerate(("plum", "cherry", "rose")):
        for i in range(2):
            put(tmp_path / f"raw/{name}/{i}.png", ball=(20 + 5 * i, 20 + 3 * n, 60, 60))
    values = yaml.safe_load(packaged_params().read_text())
    values["detect"] |= {"detector": "none", "segmenter": str(model), "min_side": 1}
    values["detect"] |= {"classifier": None, "class_min": 0.0}
    values["caption"]["match_min"] = 0.0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    detect = ("detect", "--in", "raw", "--device", "cpu", "--out")
    done = taming(tmp_path, *detect, "objects.parquet")
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "objects.parquet: 6 photos"
    taming(tmp_path, *detect, "again.parquet")
    assert (tmp_path / "objects.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    taming(tmp_path, "caption", "--in", "raw", "--objects", "objects.parquet", "--out", "captions.parquet",
           "--device", "cpu")  # fmt: skip
    captions = pq.read_table(tmp_path / "captions.parquet").to_pylist()
    assert {row["class"] for row in captions} == {None}
    assert {row["method"] for row in captions} <= {"head", "conditional", "template"}
    assert all("<object>" in row["object_caption"] for row in captions)
    taming(tmp_path, "materialize", "--in", "raw", "--objects", "objects.parquet", "--captions", "captions.parquet",
           "--out", "rows")  # fmt: skip
    made = [row for file in sorted((tmp_path / "rows").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(made) == 6
    taming(tmp_path, "inspect", "objects.parquet", "--raw", "raw", "--out", "sheet.png")


@pytest.mark.slow
@pytest.mark.skipif(not (PHOTOS and ISNET), reason="TAMING_PHOTOS and TAMING_ISNET name photos and the network")
def test_isnet_cuts_out_the_objects_of_real_photos() -> None:
    """Of a folder of photos of one object each, with the real network: each makes a row, and most are kept."""
    folder, p = Path(PHOTOS or ""), params(Path(ISNET or ""), min_side=256, area_min=0.02, border=0, mask_fill=0.3)
    found = rows(folder, p)
    assert {row["file_name"] for row in found} == {path.relative_to(folder).as_posix() for path in list_photos(folder)}
    assert np.mean([row["drop_reason"] is None for row in found]) > 0.9
