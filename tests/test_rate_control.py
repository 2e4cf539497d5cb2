import math

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import licodec
from licodec import rate_control
from licodec.cli.main import main
from licodec.errors import UnreachableTargetError, UsageError
from licodec.networks import tiled


@pytest.fixture(scope="module")
def sizes(photo):
    """Bytes of the photograph at every tenth quality step."""
    return {q: len(licodec.encode(photo, quality=q)) for q in (0, 5, 33, 50, 71.5, 95, 100)}


@pytest.mark.parametrize("q", [0, 5, 33, 50, 71.5, 95, 100])
def test_a_reachable_size_is_met_within_two_percent(photo, sizes, q):
    data = licodec.encode(photo, target_size=sizes[q])
    assert 0.98 * sizes[q] <= len(data) <= sizes[q]


def test_bpp_is_size_per_pixel(photo):
    data = licodec.encode(photo, target_bpp=0.9)
    assert 0.98 * 0.9 <= 8 * len(data) / (photo.width * photo.height) <= 0.9


def test_chunks_count(photo):
    image = photo.copy()
    image.putalpha(noise(*photo.size, "L").point(lambda v: v & 240))
    image.info["icc_profile"] = np.random.default_rng(0).bytes(900)
    wanted = len(licodec.encode(image, quality=61))
    data = licodec.encode(image, target_size=wanted)
    assert 0.98 * wanted <= len(data) <= wanted
    assert "icc_profile" in licodec.decode(data).info


@pytest.mark.parametrize("wanted", [27.0, 30.0, 32.5])
def test_psnr_is_met_by_the_lowest_quality_that_does(photo, wanted):
    def psnr(data):
        error = np.asarray(licodec.decode(data), float) - np.asarray(photo, float)
        return 10 * math.log10(255**2 / (error**2).mean())

    data = licodec.encode(photo, target_psnr=wanted, device="cpu")
    quality = licodec.info(data)["quality"]
    assert psnr(data) >= wanted
    assert psnr(licodec.encode(photo, quality=quality - 0.5, device="cpu")) < wanted


def test_the_file_is_that_of_its_quality(photo):
    data = licodec.encode(photo, target_size=2000)
    assert data == licodec.encode(photo, quality=licodec.info(data)["quality"])


def test_sizes_that_fall_at_first_are_followed():
    """A hidden image may take 227 bytes at quality 0 and 63 at 37.5."""

    def size(step):
        return 63 + abs(step - 75) * 2

    assert rate_control.highest_within_size(size, 100) == 93
    assert rate_control.highest_within_size(size, 63) == 75
    with pytest.raises(UnreachableTargetError, match="62 bytes.* quality 37.5 takes 63"):
        rate_control.highest_within_size(size, 62)
    probes = []
    with pytest.raises(UnreachableTargetError, match="quality 0 takes 900"):
        rate_control.highest_within_size(lambda step: probes.append(step) or 900 + step, 800)
    assert {*probes} == {0, 25}


def test_features_are_made_once(photo, monkeypatch):
    calls = []
    features = tiled.TiledTransforms.features
    monkeypatch.setattr(
        tiled.TiledTransforms, "features", lambda *a: calls.append(a[-1]) or features(*a)
    )
    licodec.encode(photo, None, "adaptive", target_size=2000, device="cpu", precision="float32")
    assert sorted(calls) == [False, True]  # without a back-projection, and with


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"target_size": 50}, r"50 bytes cannot be reached: quality 0 takes \d+"),
        ({"target_bpp": 0.001}, "cannot be reached"),
        ({"target_psnr": 70}, r"70 dB cannot be reached: quality 100 gives \d+\.\d\d dB"),
        ({"target_bpp": 1e-323}, r"0 bytes cannot be reached: quality 0 takes \d+"),
    ],
)
def test_what_cannot_be_reached_is_said(photo, target, reason):
    with pytest.raises(UnreachableTargetError, match=reason):
        licodec.encode(photo, **target)


@pytest.mark.parametrize(
    ("target", "quality", "note"),
    [
        ({"target_size": 10**6}, 100, "quality 100, the best, takes less than the target"),
        ({"target_bpp": 1e300}, 100, "quality 100, the best, takes less than the target"),
        ({"target_psnr": 5}, 0, "quality 0, the lowest, reaches the target already"),
    ],
)
def test_a_generous_target_is_met_with_a_note(photo, tmp_path, target, quality, note):
    assert licodec.encode(photo, **target) == licodec.encode(photo, quality=quality)
    photo.save(tmp_path / "x.png")
    ((name, value),) = target.items()
    arguments = ["encode", str(tmp_path / "x.png"), f"--{name.replace('_', '-')}", f"{value:.0f}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and f"x.png: note: {note}\n" in result.stderr
    quiet = CliRunner().invoke(main, [*arguments, "-f", "--quiet"])
    assert quiet.exit_code == 0 and quiet.stderr == ""


def test_a_target_that_is_met_needs_no_note():
    assert rate_control.Target(size=1000).notes(100, 990, 10**4) == []
    assert rate_control.Target(size=1000).notes(99.5, 900, 10**4) == []
    assert rate_control.Target(psnr=30).notes(0.5, 900, 10**4) == []


def test_unreachable_is_one_line_without_a_file(photo, tmp_path):
    photo.save(tmp_path / "x.png")
    result = CliRunner().invoke(main, ["encode", str(tmp_path / "x.png"), "--target-size", "50"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert not (tmp_path / "x.lic").exists()


def test_target_on_the_command_line(photo, tmp_path):
    photo.save(tmp_path / "x.png")
    for option, value in (("--target-size", "2k"), ("--target-bpp", "1.0667")):
        arguments = ["encode", str(tmp_path / "x.png"), option, value, "-f"]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        assert 1960 <= (tmp_path / "x.lic").stat().st_size <= 2000


@pytest.mark.parametrize(
    "controls",
    [
        {"quality": 50, "target_size": 100}, {"quality": 50, "target_bpp": 1},
        {"quality": 50, "target_psnr": 30}, {"target_size": 100, "target_bpp": 1},
        {"target_bpp": 1, "target_psnr": 30}, {"target_size": 0}, {"target_bpp": -1},
        {"target_psnr": math.inf}, {"target_size": math.nan}, {"quality": math.nan}, {"quality": -1},
        {"quality": "high"}, {"target_bpp": "1"}, {"target_size": 10**400}, {"target_bpp": 10**400},
        {"target_psnr": 10**400},
    ],
)  # fmt: skip
def test_two_rate_controls_or_a_senseless_one_are_usage_errors(controls):
    with pytest.raises(UsageError):
        licodec.encode(Image.new("RGB", (8, 8)), **controls)


@pytest.mark.parametrize(
    ("text", "size"),
    [("60000", 60000), ("60k", 60000), ("60kB", 60000), ("1.5M", 1.5e6), ("64Ki", 65536),
     ("1MiB", 2**20), (".5k", 500), (" 7 ", 7), ("9B", 9)],
)  # fmt: skip
def test_sizes(text, size):
    assert rate_control.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-5", "1e5", "60 parsecs", "0x10", "nan", "1G", "1..5"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="is no size"):
        rate_control.parse_size(text)


RISES = st.binary(min_size=201, max_size=201).map(lambda data: [1 + byte % 50 for byte in data])
"""Lists of numbers would do, but take long to make."""


@given(RISES, st.integers(0, 200), st.floats(0, 1))
def test_search_finds_the_last_step_that_fits(rises, step, share):
    sizes = np.cumsum(rises) + 1000
    probes = []

    def size(step):
        probes.append(step)
        return int(sizes[step])

    wanted = sizes[step] + share * (rises[min(step + 1, 200)] - 1) * (step < 200)
    assert rate_control.highest_within_size(size, wanted) == step
    assert len(set(probes)) <= 16


@given(RISES, st.integers(1, 200))
def test_search_finds_the_first_step_that_is_good_enough(rises, step):
    decibels = np.cumsum(rises) / 100
    assert (
        rate_control.lowest_with_psnr(lambda s: float(decibels[s]), decibels[step] - 0.001) == step
    )


def test_search_ends_at_the_ends():
    assert rate_control.highest_within_size(lambda s: 1000 + s, 10**9) == 200
    assert rate_control.lowest_with_psnr(lambda s: 20.0 + s, 10) == 0
    with pytest.raises(UnreachableTargetError):
        rate_control.highest_within_size(lambda s: 1000 + s, 999)


def test_search_survives_a_perfect_image():
    assert rate_control.lowest_with_psnr(lambda s: math.inf if s > 150 else 30 + s / 100, 40) == 151
