"""Where commands run: without a home, in other encodings, on a full disk, with files of another program."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_rows
import tiny
import yaml
from PIL import Image

from taming_core.params.load import packaged_params
from taming_core.tables import schema

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "data/raw/robot-fluent3d/0.jpg"
MAIN = "from stages.cli import main; main()"
FULL = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); {MAIN}"
OTHER_ENCODING = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def taming(home: Path, *words: str, code: str = MAIN, without: Sequence[str] = (), **env: str) -> tuple[str, str]:
    """The output and the errors of a command in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if k not in without}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=home, text=True, capture_output=True, encoding="utf-8", check=False,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env},
    )  # fmt: skip
    return done.stdout, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "raw/thing").mkdir(parents=True)
    shutil.copy(PHOTO, tmp_path / "raw/thing")
    return tmp_path


def one_line(problems: str) -> bool:
    return problems.startswith("taming: ") and problems.count("\n") == 1


def test_without_a_home_caches_go_elsewhere_and_are_removed(home: Path) -> None:
    (home / "tmp").mkdir()
    nowhere = {"HOME": str(home / "raw/thing/0.jpg/home"), "TMPDIR": str(home / "tmp")}  # below a file
    shown, problems = taming(
        home, "detect", "--in", "raw", "--out", "o.parquet", without=("XDG_CACHE_HOME",), **nowhere
    )
    assert shown.startswith("o.parquet: 1 photos"), problems
    assert sorted(p.name for p in home.iterdir()) == ["o.parquet", "raw", "runs", "tmp"]
    assert list((home / "tmp").iterdir()) == []


def test_a_user_whom_no_list_names_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os; from pathlib import Path; from stages.process import ensure_home\n"
        "def unknown(): raise RuntimeError('Could not determine home directory.')\n"
        "before = Path.home; Path.home = unknown; ensure_home(); Path.home = before\n"
        "print(Path.home().is_dir() and os.access(Path.home(), os.W_OK), Path.home())"
    )
    monkeypatch.delenv("HOME", raising=False)
    answer, place = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split()
    assert answer == "True"
    assert not Path(place).exists()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_params_of_another_encoding_are_one_line(home: Path, encoding: str) -> None:
    text = packaged_params().read_text(encoding="utf-8").replace("detect:", "# für Fotos\ndetect:", 1)
    (home / "params.yaml").write_bytes(text.encode(encoding))
    problems = taming(home, "detect", "--in", "raw", "--out", "o.parquet")[1]
    assert one_line(problems)
    assert "params.yaml is not text in UTF-8" in problems


def test_a_working_folder_that_cannot_be_written_is_one_line(home: Path) -> None:
    (home / "runs").write_text("where states would be")
    problems = taming(home, "detect", "--in", "raw", "--out", "o.parquet")[1]
    assert one_line(problems)
    assert str(home / "runs") in problems


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(home: Path) -> None:
    command = ("detect", "--in", "raw", "--out", "o.parquet")
    taming(home, *command)  # what is cached is cached
    (home / "o.parquet").unlink()
    problems = taming(home, *command, code=FULL)[1]
    assert one_line(problems), problems
    assert "File too large" in problems
    assert ".parquet: " in problems
    assert not list(home.rglob("*.part"))
    assert taming(home, *command)[0].startswith("o.parquet: 1 photos")


@pytest.mark.parametrize("command", ["detect --in raw", "caption --in raw", "train --in rows", "eval --in rows"])
def test_where_state_cannot_be_written_nothing_starts(home: Path, command: str) -> None:
    (home / "runs").touch()
    problems = taming(home, *command.split(), "--out", "new")[1]
    assert one_line(problems), problems
    assert "runs allows no new files, and resumable state goes to runs there. Run the command in a folder" in problems


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_command_that_is_interrupted_says_how_to_go_on(home: Path) -> None:
    stop = "signal.raise_signal(signal.SIGINT)"
    # As in a terminal: processes in the background of a shell ignore the signal.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import signal, stages.cli as c; {heed}; c.app.command('wait')(lambda: {stop}); {MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", code, "wait"], cwd=home, text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 130
    assert one_line(done.stderr), done.stderr
    assert "interrupted. Run the same command again" in done.stderr


def test_a_bug_has_a_plain_traceback(home: Path) -> None:
    code = f"import stages.cli as c; c.app.command('bug')(lambda: 1 / 0); {MAIN}"
    problems = taming(home, "bug", code=code)[1]
    assert problems.startswith("Traceback (most recent call last):\n")
    assert problems.endswith("ZeroDivisionError: division by zero\n")
    assert "╭" not in problems


def test_an_encoder_whose_tokenizer_has_other_letters_is_written_in_any_locale(home: Path) -> None:
    """Its JSON holds letters that no ASCII has, as those of most published tokenizers."""
    tiny.write_rows(home / "rows")
    tiny.pipeline().save_pretrained(home / "start")
    file = home / "start/tokenizer/tokenizer.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    known["model"]["vocab"]["größe"] = known["model"]["vocab"].pop("skull")
    file.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
    params = yaml.safe_load(packaged_params().read_text(encoding="utf-8"))
    small = {"start": str(home / "start"), "steps": 1, "batch_size": 2, "micro_batch_size": 1, "warmup": 1}
    params["train"] |= {**small, "identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}
    params["train"]["validation"]["sampling"]["steps"] = 1
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    shown, problems = taming(home, "train", "--in", "rows", "--out", "größe", "--device", "cpu", **OTHER_ENCODING)
    assert shown.startswith("größe: 1 steps"), problems
    assert "größe" in (home / "größe/tokenizer/tokenizer.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("given", [(), ("-X", "utf8=0"), ("-I",)])
def test_other_encodings_start_python_again_in_utf_8_once(given: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from stages.process import use_utf8\n"
        "print('starts', flush=True); use_utf8(); print(sys.flags.utf8_mode, *sys.argv[1:])"
    )
    command = [sys.executable, *given, "-c", code, "a b", "größe"]
    env = {**os.environ, **OTHER_ENCODING}
    shown = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=True).stdout
    assert shown in ("starts\nstarts\n1 a b größe\n", "starts\n1 a b größe\n")
    same = subprocess.run(
        command[:-2], env={**env, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}, capture_output=True, text=True
    )
    assert same.stdout.count("starts") == 1


def test_a_damaged_image_of_a_row_is_a_tile_with_its_reason(tmp_path: Path) -> None:
    good = small_rows.row(small_rows.artwork(1)[0], "thing", 0, "train")
    broken = [
        {**good, "row_id": key, key: {"bytes": b"no image", "path": None}} for key in ("image", "mask", "subject")
    ]
    (tmp_path / "rows").mkdir()
    schema.write([schema.table([good, *broken], schema.ROWS)], schema.ROWS, tmp_path / "rows/train-00000.parquet")
    shown, problems = taming(tmp_path, "inspect", "rows", "--out", "sheet.html")
    assert "sheet.html shows 4 of them" in shown, problems
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert [page.count(f"{key} is damaged") for key in ("image", "mask", "subject")] == [1, 1, 1]


@pytest.mark.parametrize("place", [200, -200])
def test_a_damaged_table_is_one_line(tmp_path: Path, place: int) -> None:
    rows = [small_rows.row(small_rows.artwork(1)[0], "thing", view, "train") for view in (0, 1)]
    file = tmp_path / "rows/train-00000.parquet"
    schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, file)
    data = bytearray(file.read_bytes())
    data[place : place + 100] = bytes(100)
    file.write_bytes(data)
    problems = taming(tmp_path, "inspect", "rows", "--out", "sheet.png")[1]
    assert one_line(problems), problems
    assert "rows" in problems
    assert not (tmp_path / "sheet.png").exists()


def test_a_sheet_is_replaced_and_a_picture_is_not(tmp_path: Path) -> None:
    row = {**dict.fromkeys(schema.OBJECTS.names), "photo_id": "a", "file_name": "a.jpg", "drop_reason": "empty file"}
    schema.write([schema.table([row], schema.OBJECTS)], schema.OBJECTS, tmp_path / "o.parquet")
    for name in ("sheet.png", "sheet.html"):
        for _ in range(2):
            assert f"{name} shows 1" in taming(tmp_path, "inspect", "o.parquet", "--out", name)[0]
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    assert "another file than a contact sheet" in taming(tmp_path, "inspect", "o.parquet", "--out", "mine.png")[1]
