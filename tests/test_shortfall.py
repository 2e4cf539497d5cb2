"""What is far worse than its quality promises, and what would be smaller without loss, is said."""

import io

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, features

import licodec
from licodec.cli.main import main
from licodec.codec import encode_checked
from licodec.io.image import Picture, from_pillow
from licodec.options import EncodeOptions
from licodec.shortfall import far_below, promised_psnr, smaller_lossless


def text(width=128, height=96):
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for y in range(0, height, 11):
        draw.text((2, y), "The quick brown fox jumps over", fill=["black", "red", "blue"][y % 3])
    return image


def notes(image, quality, model="adaptive"):
    options = EncodeOptions(quality=quality, model=model, effort=0)
    return encode_checked(from_pillow(image), options)[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["adaptive", "factorized", "hyperprior"])
def test_text_is_told_and_a_photograph_is_not(photo, model):
    found = notes(text(), 80, model)
    assert any("is far below" in note and "quality 80 promises" in note for note in found)
    for quality in (10, 50, 100):
        assert notes(photo, quality, model) == []


def test_what_is_promised_falls_with_the_quality():
    """By 10 dB where λ is a tenth; at the lowest qualities next to nothing is."""
    assert promised_psnr(0.1) - promised_psnr(0.01) == pytest.approx(10)
    assert promised_psnr(3 / (2 * np.log(2) * 255**2)) == pytest.approx(0)


LMBDA = 0.05


def check(error, halo=0, hidden=None):
    """`far_below` of a grey picture whose decoded pixels are off by so much."""
    rng = np.random.default_rng(0)
    color = rng.integers(60, 190, (*error.shape, 1)).astype(np.uint8)
    color[: error.shape[0] // 2] = 100  # what is busy is below
    decoded, seen = color + error[..., None].astype(np.uint8), []

    def part(box):
        top, bottom, left, right = (16 * side for side in box)
        seen.append(box)
        padded = np.pad(decoded, ((0, 16), (0, 16), (0, 0)), mode="edge")
        return padded[top:bottom, left:right]

    picture = Picture("L", color) if hidden is None else Picture("LA", color, hidden)
    h, w = (-(-side // 16) for side in error.shape)
    return far_below(picture, LMBDA, (h, w), halo, part), seen


def test_only_the_busiest_parts_are_decoded_where_they_are_good():
    found, seen = check(np.full((1000, 700), 4), halo=2)
    assert found is None and len(seen) == 2
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in seen]
    assert sum(areas) < 0.2 * 63 * 44
    assert all(top >= 24 for top, *_ in seen)


def test_all_is_decoded_where_they_are_bad():
    error = np.zeros((1000, 700), int)
    error[500:] = 60
    found, seen = check(error)
    assert len(seen) == 3 and seen[-1] == (0, 63, 0, 44)
    assert found == pytest.approx(10 * np.log10(255**2 / (60**2 / 2)))
    error[:] = 0
    error[600:700, 100:200] = 60  # too little of the whole
    assert check(error)[0] is None


def test_what_alpha_hides_does_not_count():
    error = np.zeros((90, 50), int)
    error[45:] = 99
    hidden = np.where(error == 0, 255, 0).astype(np.uint8)
    assert check(error)[0] is not None and check(error, hidden=hidden)[0] is None


def test_the_size_of_a_lossless_file_is_that_of_the_file():
    picture = from_pillow(text())
    name, size = smaller_lossless(picture, 10**6)
    buffer = io.BytesIO()
    options = {"lossless": True, "method": 1, "exact": False} if name == "WebP" else {}
    text().save(buffer, name, **options)
    assert size == len(buffer.getvalue())
    assert name == ("WebP" if features.check("webp") else "PNG")
    assert smaller_lossless(picture, size) is None and smaller_lossless(picture, size + 1)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert smaller_lossless(Picture("RGB", noise), 6000) is None


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (20000, 3), (3, 300)])
def test_all_modes_and_sizes(mode, size):
    picture = from_pillow(Image.new(mode, size, 100 if mode == "L" else None))
    name, found = smaller_lossless(picture, 10**6)
    assert found < 2000 and (name == "PNG" or max(size) <= 16383)


def test_the_command_line_says_it_once_and_not_when_told_so(tmp_path):
    text().save(tmp_path / "x.png")
    command = ["encode", str(tmp_path / "x.png"), "-m", "adaptive", "-q", "100", "-f"]
    said = CliRunner().invoke(main, command).stderr
    assert said.count("is far below") == 1 and said.count("a lossless ") == 1
    before = (tmp_path / "x.lic").read_bytes()
    said = CliRunner().invoke(main, [*command, "--no-check"]).stderr
    assert "far below" not in said and "lossless" not in said
    assert (tmp_path / "x.lic").read_bytes() == before


def test_encode_file_notes_it(tmp_path):
    options = {"quality": 100, "model": "adaptive", "overwrite": True}
    text().save(tmp_path / "x.png")
    told = licodec.encode_file(tmp_path / "x.png", tmp_path / "x.lic", **options)["notes"]
    assert len(told) == 2
    options["check"] = False
    assert not licodec.encode_file(tmp_path / "x.png", tmp_path / "x.lic", **options)["notes"]
