"""YOLO detectors of every kind, with random weights: what they load from, what they look for, what they refuse."""

import os
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import PARAMS, tokenizer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from stages.detect import detect as detect_stage
from taming_core.errors import TamingError
from taming_core.objects.detector import load_detector, open_yolo
from taming_core.objects.open_vocabulary import (
    builtin_classes,
    clip_features,
    clip_tokens,
    script_features,
    set_classes,
)
from taming_core.objects.subjects import load_finder
from taming_core.objects.ultralytics_offline import import_ultralytics
from taming_core.weights import locate

PHOTO = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Detectors, and beside them the text networks: a CLIP and a TorchScript whose features are its own."""
    folder = tmp_path_factory.mktemp("detectors")
    torch.manual_seed(0)
    for name in ("yolo11n", "yolo11n-seg", "yolo12n", "yolo12n-seg", "yoloe-11n-seg", "yolov8n-worldv2"):
        import_ultralytics().YOLO(f"{name}.yaml").save(folder / f"{name}.pt")
    text = CLIPTextConfig(
        vocab_size=880, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=512, bos_token_id=1, eos_token_id=3,
    )  # fmt: skip
    CLIPTextModelWithProjection(text).save_pretrained(folder / "clip-vit-base-patch32")
    tokenizer().save_pretrained(folder / "clip-vit-base-patch32")
    spoken: Any = torch.jit.trace(Spoken(), torch.zeros(1, 77, dtype=torch.long))
    spoken.save(folder / "mobileclip_blt.ts")
    return folder


class Spoken(torch.nn.Module):
    """Reads (n, 77) tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(880, 512)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.table(tokens).sum(1), dim=1)


def look(folder: Path, name: str, **settings: Any) -> Any:
    return next(iter(load_detector(str(folder / f"{name}.pt"), "cpu", 64, 0.0, 3, **settings)([PHOTO])))


@pytest.mark.parametrize("name", ["yolo11n", "yolo12n", "yolo11n-seg", "yolo12n-seg"])
def test_closed_detectors_load_without_unpickling_code(folder: Path, name: str) -> None:
    found = look(folder, name, with_masks=name.endswith("-seg"))
    assert found.masks.shape == (len(found.scores), *PHOTO.shape[:2])
    assert found.boxes_xyxy.shape == (len(found.scores), 4)


@pytest.mark.parametrize("name", ["yolo11n", "yolov8n-worldv2"])
def test_a_detector_of_boxes_cannot_be_the_segmenter(folder: Path, name: str) -> None:
    with pytest.raises(TamingError, match=r"predicts no masks. Set detect\.segmenter"):
        look(folder, name, with_masks=True)


def test_a_closed_vocabulary_takes_no_classes(folder: Path) -> None:
    for spec in (str(folder / "yolo11n-seg.pt"), "mini"):
        with pytest.raises(TamingError, match=r"closed vocabulary, so detect\.classes has no effect"):
            load_detector(spec, "cpu", 64, 0.0, 3, classes=["dog"])


def test_the_params_reach_the_detector(tmp_path: Path) -> None:
    looking = PARAMS.detect.model_copy(update={"classes": ["dog"]})
    with pytest.raises(TamingError, match="closed vocabulary"):
        load_finder(looking, "cpu")
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.model_copy(update={"detect": looking}).model_dump_json())
    (tmp_path / "raw").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "raw" / "one.png")
    with pytest.raises(TamingError, match="closed vocabulary"):
        detect_stage(tmp_path / "raw", tmp_path / "objects.parquet", file, "cpu")


def test_boxes_alone_will_do_where_a_sam_cuts_out(folder: Path) -> None:
    boxes = {"detector": str(folder / "yolo11n.pt"), "score": 0.0, "score_floor": 0.0, "max_found": 2, "image_size": 64}
    masks = load_finder(PARAMS.detect.model_copy(update=boxes), "cpu")(PHOTO)
    assert len(masks) > 0
    with pytest.raises(TamingError, match="predicts no masks"):
        load_finder(PARAMS.detect.model_copy(update={**boxes, "segmenter": "detector"}), "cpu")


@pytest.mark.parametrize("name", ["yoloe-11n-seg", "yolov8n-worldv2"])
def test_an_open_detector_finds_what_it_is_asked_for(folder: Path, name: str) -> None:
    found = look(folder, name, classes=["a red cup", "dog"])
    assert len(found.scores) > 0
    assert set(found.classes) <= {"a red cup", "dog"}
    assert found.masks.shape == (len(found.scores), *PHOTO.shape[:2])


@pytest.mark.parametrize("name", ["yoloe-11n-seg", "yolov8n-worldv2"])
def test_words_that_a_checkpoint_knows_need_no_text_network(folder: Path, name: str, tmp_path: Path) -> None:
    yolo = open_yolo(folder / f"{name}.pt")
    set_classes(yolo, ["cup", "dog", "hat"], folder)
    yolo.save(tmp_path / f"{name}.pt")  # as a user would, to need no text network elsewhere
    again = open_yolo(tmp_path / f"{name}.pt")
    assert builtin_classes(again.model) == ["cup", "dog", "hat"]
    before = embeddings(again).clone()
    set_classes(again, None, tmp_path)
    assert torch.equal(embeddings(again), before)
    set_classes(again, ["hat", "cup"], tmp_path)
    assert torch.equal(embeddings(again), before[:, [2, 0]])
    assert set(look(tmp_path, name, classes=["dog"]).classes) <= {"dog"}
    assert set(look(tmp_path, name).classes) <= {"cup", "dog", "hat"}


def embeddings(yolo: Any) -> torch.Tensor:
    return yolo.model.pe if hasattr(yolo.model, "pe") else yolo.model.txt_feats


def test_the_embeddings_are_those_of_the_text_network(folder: Path) -> None:
    words = ["a photo", "dog"]
    yolo = open_yolo(folder / "yoloe-11n-seg.pt")
    set_classes(yolo, words, folder)
    tokens = clip_tokens(words, folder, 77)
    spoken = torch.jit.load(folder / "mobileclip_blt.ts")(tokens)
    torch.testing.assert_close(yolo.model.pe, yolo.model.model[-1].get_tpe(spoken[None]))
    clip: Any = CLIPTextModelWithProjection.from_pretrained(folder / "clip-vit-base-patch32").eval()
    alone = [clip(**tokenizer()(word, return_tensors="pt")).text_embeds[0] for word in words]  # without any padding
    torch.testing.assert_close(clip_features(words, folder), F.normalize(torch.stack(alone), dim=-1))


def test_texts_are_opened_closed_cut_and_filled_with_zeros(folder: Path) -> None:
    short, long = clip_tokens(["dog", "dog " * 99], folder, 77).tolist()
    inner = tokenizer()("dog").input_ids
    assert short == inner + [0] * (77 - len(inner))
    assert (long[0], long[-1]) == (inner[0], inner[-1])


def test_a_detector_that_knows_no_classes_asks_for_some(folder: Path) -> None:
    with pytest.raises(TamingError, match=r"no built-in vocabulary. Set detect\.classes"):
        look(folder, "yoloe-11n-seg")


@pytest.mark.parametrize("classes", [[], ["dog", "dog "], [" "]])
def test_classes_are_words_each_once(folder: Path, classes: list[str]) -> None:
    with pytest.raises(TamingError, match=r"detect\.classes needs class names"):
        look(folder, "yolov8n-worldv2", classes=classes)


def test_classes_that_are_part_of_the_weights_stay(folder: Path) -> None:
    yolo = open_yolo(folder / "yoloe-11n-seg.pt")
    set_classes(yolo, ["cup", "dog"], folder)
    yolo.model.eval().model[-1].fuse(yolo.model.pe)
    set_classes(yolo, ["cup", "dog"], folder)
    with pytest.raises(TamingError, match=r"2 classes are part of its weights. Set detect\.classes to null"):
        set_classes(yolo, ["dog"], folder)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is on this machine, and there is no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_a_missing_text_network_says_which_file_goes_where(folder: Path, elsewhere: Path) -> None:
    world, yoloe = (open_yolo(folder / f"{name}.pt") for name in ("yolov8n-worldv2", "yoloe-11n-seg"))
    with pytest.raises(TamingError, match=r"hf download openai/clip-vit-base-patch32`.* clip-vit-base-patch32 beside"):
        set_classes(world, ["dog"], elsewhere)
    with pytest.raises(TamingError, match=r"Download https://\S+/mobileclip_blt\.ts into one of them"):
        set_classes(yoloe, ["dog"], elsewhere)
    locate.weights_folder().mkdir(parents=True)
    (locate.weights_folder() / "mobileclip_blt.ts").symlink_to(folder / "mobileclip_blt.ts")
    with pytest.raises(TamingError, match=r"hf download openai/clip-vit-base-patch32 config\.json tokenizer\.json"):
        set_classes(yoloe, ["dog"], elsewhere)
    (locate.weights_folder() / "clip-vit-base-patch32").symlink_to(folder / "clip-vit-base-patch32")
    set_classes(yoloe, ["dog"], elsewhere)
    assert builtin_classes(yoloe.model) == ["dog"]


class Writes(torch.nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + torch.from_file(self.target, True, 4)  # which makes the file


def test_a_script_that_would_touch_files_is_not_run(folder: Path, elsewhere: Path) -> None:
    (elsewhere / "clip-vit-base-patch32").symlink_to(folder / "clip-vit-base-patch32")
    torch.jit.script(Writes(str(elsewhere / "sprung"))).save(elsewhere / "mobileclip_blt.ts")
    with pytest.raises(TamingError, match=r"is not run, for its code holds `\.from_file`"):
        script_features("mobileclip_blt.ts", ["dog"], elsewhere)
    assert not (elsewhere / "sprung").exists()
    (elsewhere / "mobileclip_blt.ts").write_bytes(b"noise")
    with pytest.raises(TamingError, match="no TorchScript file"):
        script_features("mobileclip_blt.ts", ["dog"], elsewhere)


class Adds(torch.nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float() + 1


def entries_of(module: torch.nn.Module, path: Path) -> list[tuple[str, bytes]]:
    """Names and contents of a TorchScript file."""
    torch.jit.script(module).save(path)
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write_entries(path: Path, entries: list[tuple[str, bytes]]) -> bytes:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of two entries of one name
        for name, data in entries:
            archive.writestr(name, data)
    return path.read_bytes()


def is_code(name: str) -> bool:
    return name.endswith(".py")


END = b"PK\x05\x06"  # starts the end of an archive, which says where its table of contents is


def twice(writes: list[tuple[str, bytes]], path: Path) -> None:
    """Unsafe code, and under the same names safe code, which Python reads."""
    write_entries(path, [*writes, *((name, b"") for name, _ in writes if is_code(name))])


def shouted(writes: list[tuple[str, bytes]], path: Path) -> None:
    """Unsafe code in files whose names end otherwise."""
    write_entries(path, [(name.replace(".py", ".PY") if is_code(name) else name, data) for name, data in writes])


def two_tables(writes: list[tuple[str, bytes]], path: Path) -> None:
    """Unsafe code in the table of contents that the archive names, safe code in the table before its end."""
    unsafe = write_entries(path, writes)
    safe = write_entries(path, [(name, data) for name, data in writes if not is_code(name)])
    table, safe_table = unsafe.rindex(END), safe.rindex(END)
    size, start = struct.unpack("<II", unsafe[table + 12 : table + 20])
    safe_size, safe_start = struct.unpack("<II", safe[safe_table + 12 : safe_table + 20])
    # Both tables have one size and one place in their archive: the last entry of the safe one gets a long comment.
    entries = bytearray(safe[safe_start:safe_table])
    last = entries.rindex(b"PK\x01\x02")
    entries[last + 32 : last + 34] = struct.pack("<H", size - safe_size)
    hidden = safe[:safe_start] + bytes(start - safe_start) + bytes(entries) + bytes(size - safe_size)
    path.write_bytes(unsafe[:table] + hidden + unsafe[table:])


@pytest.mark.parametrize("hide", [twice, shouted, two_tables])
def test_unsafe_code_cannot_hide_in_an_archive(
    folder: Path, elsewhere: Path, hide: Callable[[list[tuple[str, bytes]], Path], None]
) -> None:
    (elsewhere / "clip-vit-base-patch32").symlink_to(folder / "clip-vit-base-patch32")
    path = elsewhere / "mobileclip_blt.ts"
    hide(entries_of(Writes(str(elsewhere / "sprung")), path), path)
    with pytest.raises(TamingError, match=r"mobileclip_blt\.ts is (not run|no TorchScript file)"):
        script_features("mobileclip_blt.ts", ["dog"], elsewhere)
    assert not (elsewhere / "sprung").exists()


def test_a_script_that_is_safe_runs(folder: Path, elsewhere: Path) -> None:
    (elsewhere / "clip-vit-base-patch32").symlink_to(folder / "clip-vit-base-patch32")
    torch.jit.script(Adds()).save(elsewhere / "mobileclip_blt.ts")
    tokens = clip_tokens(["dog"], elsewhere, 77)
    assert torch.equal(script_features("mobileclip_blt.ts", ["dog"], elsewhere), tokens + 1)


GUARD = """
import os, sys
inside = tuple(sys.argv[1:3])
def guard(event, values):
    asks_for_ipv6 = event == "socket.bind" and values[1] == ("::1", 0)  # urllib3 does when it is imported
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname") and not asks_for_ipv6:
        os.write(2, f"network: {event} {values}".encode()); os._exit(3)
    if event == "open" and isinstance(values[0], (str, bytes)) and values[2] & (os.O_WRONLY | os.O_RDWR):
        path = os.path.abspath(os.fsdecode(values[0]))
        if not path.startswith((*inside, "/dev/")):
            os.write(2, f"writes {path}".encode()); os._exit(4)
    if event in ("os.mkdir", "os.rename", "os.remove", "shutil.copyfile"):
        path = os.path.abspath(os.fsdecode(values[1] if event == "shutil.copyfile" else values[0]))
        if not path.startswith(inside):
            os.write(2, f"{event} {values}".encode()); os._exit(5)
    if event == "subprocess.Popen" and "ldconfig" not in str(values[0]):  # which looks for a library
        os.write(2, f"{event} {values}".encode()); os._exit(6)
sys.addaudithook(guard)
import numpy as np
from taming_core.objects.detector import load_detector
for spec, classes in (("mini", None), (f"{sys.argv[3]}/yolov8n-worldv2.pt", ["dog"])):
    list(load_detector(spec, "cpu", 64, 0.0, 3, classes=classes)([np.zeros((64, 64, 3), np.uint8)]))
print("seen")
"""


def test_load_and_predict_touch_no_network_and_write_into_the_cache_alone(folder: Path, tmp_path: Path) -> None:
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    allowed = [str(tmp_path / "home" / ".cache" / "taming"), str(tmp_path / "tmp")]
    (tmp_path / "home" / ".cache").mkdir()
    command = [sys.executable, "-c", GUARD, *allowed, str(folder)]
    done = subprocess.run(command, cwd=tmp_path / "work", env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
    assert not list((tmp_path / "work").iterdir())
    assert [p.name for p in (tmp_path / "home").iterdir()] == [".cache"]
    assert [p.name for p in (tmp_path / "home" / ".cache").iterdir()] == ["taming"]
