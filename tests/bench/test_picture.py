"""README's picture: it is there, it is small, and its panels are what they are called."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def picture():
    spec = importlib.util.spec_from_file_location("picture", ROOT / "benchmarks" / "picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_it_and_it_is_small(picture):
    place = picture.PLACE.relative_to(ROOT).as_posix()
    assert f"]({place})" in (ROOT / "README.md").read_text("utf-8")
    assert picture.PLACE.stat().st_size <= picture.MOST_BYTES == 300_000
    with Image.open(picture.PLACE) as image:
        image.load()


def test_panels_are_cut_from_the_same_place(picture):
    x = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    images = [Image.fromarray(np.roll(x, i, 0)) for i in range(4)]
    whole = picture.mosaic([(f"panel {i}", image) for i, image in enumerate(images)])
    left, top, right, bottom = picture.BOX
    width, height = right - left, bottom - top
    for i, image in enumerate(images):
        at = (i % 2 * (width + picture.GAP), i // 2 * (height + picture.CAPTION))
        cut = whole.crop((*at, at[0] + width, at[1] + height))
        assert (np.asarray(cut) == np.asarray(image.crop(picture.BOX))).all()


def test_what_does_not_fit_is_compressed_further(picture, monkeypatch):
    image = Image.effect_noise((300, 200), 20).convert("RGB")
    best = picture.compressed(image)
    monkeypatch.setattr(picture, "MOST_BYTES", len(best) * 9 // 10)
    assert len(picture.compressed(image)) <= picture.MOST_BYTES
    monkeypatch.setattr(picture, "MOST_BYTES", 100)
    with pytest.raises(SystemExit, match="does not fit"):
        picture.compressed(image)
    assert Image.open(io.BytesIO(best)).size == (300, 200)
