"""The artwork of the mini world: how it is drawn, and that the shipped tables match its sources."""

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Features
from PIL import Image, ImageDraw

from pipelines.mini import artwork, cutouts, notice, scenery, sources, wallpapers
from taming_core.errors import TamingError

ROOT = Path(__file__).parents[2]
MINI = ROOT / "pipelines" / "mini"
WORLD = ROOT / "taming_core" / "mini" / "world"


def rows(table: str) -> list[dict]:
    """The rows of a table that ships, without the pictures."""
    names = [name for name in pq.read_schema(WORLD / table).names if name != "image"]
    return pq.read_table(WORLD / table, columns=names).to_pylist()


@pytest.mark.parametrize("scene", list(scenery.PAINTERS))
def test_a_painted_scene_is_a_function_of_its_numbers(scene: str) -> None:
    first, again, other = scenery.paint(scene, 0, 1), scenery.paint(scene, 0, 1), scenery.paint(scene, 0, 2)
    assert first.shape == (176, 176, 3)
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_shipped_painted_scenes_are_what_the_painters_paint() -> None:
    table = pq.read_table(WORLD / "scenes.parquet", columns=["scene", "image"]).to_pylist()
    for scene in ("on the beach", "on hot lava"):
        shipped = next(row["image"]["bytes"] for row in table if row["scene"] == scene)
        decoded = np.asarray(Image.open(io.BytesIO(shipped)).convert("RGB")) / 255
        assert np.abs(decoded - scenery.paint(scene, 0, 0)).mean() < 0.05


def test_every_scene_is_painted_or_photographed() -> None:
    expected = [*scenery.PAINTERS, *dict.fromkeys(p.scene for p in sources.load_sources().photographs)]
    kinds = {row["scene"]: row["kind"] for row in rows("scenes.parquet")}
    assert list(kinds) == expected
    assert [kinds[s] == "painted" for s in expected] == [s in scenery.PAINTERS for s in expected]
    assert len(expected) == 38


def test_a_window_lies_inside_its_wallpaper() -> None:
    red = Image.new("RGB", (900, 640), "red")
    for index in range(5):
        window = wallpapers.window(red, 0.5, np.random.default_rng(index))
        assert window.shape == (176, 176, 3)
        assert np.array_equal(window[..., 0], np.ones((176, 176)))


def tarball(folder: Path, text: str) -> Path:
    """A package that holds one file."""
    path = folder / "pack-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("package/a.svg")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_a_package_is_unpacked_only_if_it_is_the_pinned_one(tmp_path: Path) -> None:
    archive = tarball(tmp_path, "as published")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    pinned = sources.Design("d", "D", "a", "MIT", "h", "pack", "1.0.0", f"sha512-{digest}", "{}.svg")
    tarball(tmp_path, "as changed")
    with pytest.raises(TamingError, match=r"is not the file that sources\.toml pins\. Delete it"):
        sources.npm_package(pinned, tmp_path)
    assert not (tmp_path / "pack-1.0.0").exists()
    changed = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    folder = sources.npm_package(replace(pinned, integrity=f"sha512-{changed}"), tmp_path)
    assert (folder / "a.svg").read_text() == "as changed"


def test_without_its_package_manager_a_missing_package_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wallpaper = sources.load_sources().wallpapers[0]
    with pytest.raises(TamingError, match=r"apt-get download plasma.* put plasma.*%3a5.27.5-2_all.deb into"):
        sources.debian_package(wallpaper, tmp_path)


def test_a_cutout_keeps_its_shape_and_stands_in_the_middle() -> None:
    image = Image.new("RGBA", (300, 200))
    ImageDraw.Draw(image).rectangle((10, 20, 109, 69), fill=(200, 10, 10, 255))  # 100 x 50, off the centre
    art = cutouts.canonical(image)
    assert art is not None
    seen = art[..., 3] > 0.5
    ys, xs = np.nonzero(seen)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (4, 123, 34, 93)
    assert np.allclose(art[64, 64], [200 / 255, 10 / 255, 10 / 255, 1], atol=0.01)
    assert cutouts.canonical(Image.new("RGBA", (8, 8))) is None


def test_no_colour_leaks_from_what_is_transparent() -> None:
    pixels = np.full((64, 64, 4), (0, 255, 0, 0), np.uint8)
    pixels[16:48, 16:48] = (255, 0, 0, 255)
    art = cutouts.canonical(Image.fromarray(pixels))
    assert art is not None
    assert art[art[..., 3] > 0.01][:, 1].max() < 0.01


def test_artwork_is_found_under_other_spellings_and_names(tmp_path: Path) -> None:
    square = '<path d="M0 0h128v128H0z" fill="#00f"/>'
    (tmp_path / "2764.svg").write_text(cutouts_frame(square))
    icons = {"icons": {"red-heart": {"body": square}}, "aliases": {"heart": {"parent": "red-heart"}}}
    names = {"chars.json": {"2764": "heart"}, "icons.json": {"width": 128, "height": 128, **icons}}
    for name, content in names.items():
        (tmp_path / name).write_text(json.dumps(content))
    design = sources.load_sources().designs[0]
    for files in ("{}.svg", "icons.json"):
        read = cutouts.reader(replace(design, files=files), tmp_path)
        heart = read("2764-FE0F")
        assert heart is not None
        assert heart.convert("RGBA").getpixel((128, 128)) == (0, 0, 255, 255)
        assert read("1F480") is None


def cutouts_frame(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{body}</svg>'


def test_the_shipped_splits_are_those_of_the_list_of_concepts() -> None:
    listed = {c.concept: c for c in artwork.load_concepts(MINI / "concepts.tsv")}
    shipped = rows("cutouts.parquet")
    assert list(dict.fromkeys(row["concept"] for row in shipped)) == list(range(701)) == list(listed)
    for row in shipped:
        concept = listed[row["concept"]]
        assert (row["name"], row["split"]) == (concept.name, concept.split_of(row["design"]))
    train, unseen = ({r["name"] for r in shipped if r["split"] == s} for s in ("train", "unseen-concepts"))
    assert (len(train), len(unseen), train & unseen) == (631, 70, set())
    assert sum(row["split"] == "unseen-designs" for row in shipped) == 70


def test_a_smoke_run_holds_every_split() -> None:
    few = artwork.subset(artwork.load_concepts(MINI / "concepts.tsv"), 20)
    assert len(few) == 24
    assert {c.split for c in few} == {"train", "unseen-concepts"}
    assert sum(bool(c.unseen_design) for c in few) == 2


def test_every_picture_has_an_open_licence_that_its_source_is_pinned_under() -> None:
    pinned = sources.load_sources()
    allowed = {(d.source, d.licence) for d in pinned.designs} | {("pipelines/mini/scenery.py", "Apache-2.0")}
    versions = {w.package: w.source for w in pinned.wallpapers}
    allowed |= {(f"{versions[p.package]} {p.file}", p.licence) for p in pinned.photographs}
    for row in rows("cutouts.parquet") + rows("scenes.parquet"):
        assert (row["source"], row["licence"]) in allowed
        assert row["licence"] in notice.LICENCES


def test_notice_lists_the_content_of_the_shipped_tables() -> None:
    text = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert notice.updated(text, notice.written(WORLD, sources.load_sources())) == text


def test_datasets_reads_pictures_as_pictures() -> None:
    for table in ("cutouts.parquet", "scenes.parquet"):
        features = Features.from_arrow_schema(pq.read_schema(WORLD / table))
        assert type(features["image"]).__name__ == "Image"


def test_the_dominant_colour_is_that_of_the_saturated_part() -> None:
    grey_with_red = np.full((4, 4, 4), (0.5, 0.5, 0.5, 1), np.float32)
    grey_with_red[0] = (1, 0, 0, 1)
    red, green, blue = cutouts.dominant_colour(grey_with_red)
    assert red > 0.9
    assert green == blue < 0.1
