"""Metrics, data sets and complexity: each against a value found by other means."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from licodec.bench import datasets, metrics
from licodec.bench.complexity import count
from licodec.bench.datasets import UnreadableImageError
from licodec.errors import UsageError
from licodec.networks.transforms import synthesis
from licodec.weights.file import Weights


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


def test_bpp_counts_bits_of_the_whole_file():
    assert metrics.bpp(1000, 40, 25) == 8


@pytest.mark.parametrize("error", [1, 5, 255])
def test_psnr_of_a_constant_error(error):
    x = np.zeros((8, 9, 3), np.uint8)
    expected = 20 * math.log10(255 / error)
    assert metrics.psnr_rgb(x, x + np.uint8(error)) == pytest.approx(expected)
    assert metrics.psnr_rgb(x + np.uint8(error), x) == pytest.approx(expected)


def test_identical_images_count_as_the_cap(noise):
    assert metrics.psnr_rgb(noise, noise) == metrics.MAX_DB
    assert metrics.ms_ssim_db(1.0) == metrics.MAX_DB


def test_ms_ssim_in_db():
    assert metrics.ms_ssim_db(0.99) == pytest.approx(20)


def test_ms_ssim_falls_with_noise_and_needs_five_scales():
    pytest.importorskip("pytorch_msssim")
    side = metrics.MS_SSIM_MIN_SIDE
    rng = np.random.default_rng(1)
    x = np.asarray(Image.radial_gradient("L").resize((side + 3, side)).convert("RGB"))
    slightly, badly = (
        np.clip(x + rng.normal(0, sigma, x.shape), 0, 255).astype(np.uint8) for sigma in (2, 20)
    )
    assert metrics.ms_ssim_rgb(x, x) == pytest.approx(1)
    assert 1 > metrics.ms_ssim_rgb(x, slightly) > metrics.ms_ssim_rgb(x, badly) > 0
    assert metrics.ms_ssim_rgb(x[1:], slightly[1:]) is None


def test_ssimulacra2_is_given_both_images_where_it_is_installed(noise, tmp_path, monkeypatch):
    assert "ssimulacra2" in sys.modules or metrics.ssimulacra2(noise, noise) in (None, 100)
    (tmp_path / "ssimulacra2.py").write_text(
        "from PIL import Image, ImageChops\n"
        "def compute_ssimulacra2(a, b):\n"
        "    difference = ImageChops.subtract(Image.open(a), Image.open(b))\n"
        "    return 100 - max(high for low, high in difference.getextrema())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ssimulacra2", raising=False)
    noise[0, 0] = 200
    other = noise.copy()
    other[0, 0, 1] -= 30
    assert metrics.ssimulacra2(noise, other) == 70
    monkeypatch.delitem(sys.modules, "ssimulacra2")


def test_a_folder_gives_its_images_and_a_file_itself(tmp_path, noise):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    found = datasets.collect([tmp_path, tmp_path / "b.png", tmp_path / "notes.txt"])
    assert [path.name for path in found] == ["a.JPG", "b.png", "notes.txt"]
    with pytest.raises(UsageError, match=r"nowhere: no such file"):
        datasets.collect([tmp_path / "nowhere"])


def test_images_are_given_as_plain_rgb(tmp_path, noise):
    grey = Image.fromarray(noise[..., 0])
    grey.save(tmp_path / "grey.png")
    opaque = Image.fromarray(noise).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "exif.png", exif=exif)
    for name, expected in (("grey", grey.convert("RGB")), ("opaque", noise), ("exif", noise)):
        image = datasets.load(tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert image.mode == "RGB" and not image.info and not image.getexif()


def test_what_cannot_be_measured_is_named(tmp_path, noise):
    good = tmp_path / "good.png"
    Image.fromarray(noise).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-300])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(noise).convert("LA").convert("RGBA").save(tmp_path / "alpha.png")
    clear = Image.fromarray(noise).convert("RGBA")
    clear.putpixel((3, 3), (0, 0, 0, 254))
    clear.save(tmp_path / "clear.png")
    assert datasets.examine(tmp_path / "alpha.png").width == 30
    for name in ("cut", "text", "empty", "deep", "clear"):
        with pytest.raises(UnreadableImageError, match=f"{name}.png") as refusal:
            datasets.examine(tmp_path / f"{name}.png")
        assert "\n" not in str(refusal.value)


def test_pixels_not_files_are_what_a_picture_goes_by(tmp_path, noise):
    Image.fromarray(noise).save(tmp_path / "a.png", compress_level=0)
    Image.fromarray(noise).save(tmp_path / "b.bmp")
    noise[0, 0, 0] ^= 1
    Image.fromarray(noise).save(tmp_path / "c.png")
    a, b, c = (datasets.examine(tmp_path / name) for name in ("a.png", "b.bmp", "c.png"))
    assert a.sha256 == b.sha256 != c.sha256
    assert (a.width, a.height) == (30, 40)


def test_complexity_of_a_synthesis_counted_by_hand():
    N, M, h, w = 6, 10, 3, 2
    counted = count(synthesis(N, M), torch.zeros(1, M, h, w))
    # A transposed convolution spreads each input sample over 25 taps of every output channel;
    # each inverse GDN mixes N by N channels at the resolution it stands at.
    deconvs = 25 * h * w * (M * N + 4 * N * N + 16 * N * N + 64 * N * 3)
    gdns = h * w * (4 + 16 + 64) * N * N
    assert counted.macs == deconvs + gdns
    assert counted.parameters == 25 * (M * N + 2 * N * N + 3 * N) + 3 * N + 3 + 3 * (N * N + N)
    assert counted.kmac_per_pixel(256 * h * w) == pytest.approx(counted.macs / 256000 / h / w)


def test_complexity_of_grouped_strided_and_linear_layers():
    net = nn.Sequential(nn.Conv1d(8, 12, 5, stride=2, padding=2, groups=4), nn.ReLU(),
                        nn.Flatten(), nn.Linear(12 * 8, 7))  # fmt: skip
    counted = count(net, torch.zeros(1, 8, 16))
    assert counted.macs == 12 * 8 * (8 // 4) * 5 + 12 * 8 * 7
    again = count(net, torch.zeros(1, 8, 16))
    assert again == counted, "hooks were left behind"


def test_complexity_of_everyday_by_shapes_is_that_of_its_networks(tmp_path):
    import small_everyday

    from licodec.bench.licodec_networks import everyday

    net = small_everyday.network()
    h, w, M = 8, 4, 16
    features, y_hat = torch.zeros(1, h, w, 8), torch.zeros(1, h, w, M)
    counted = count(net.g_s, y_hat) + count(net.h_s, torch.zeros(1, h // 4, w // 4, 4))
    for step in net.steps:
        counted += count(step, features, y_hat)
    assert everyday(Weights(small_everyday.weights(tmp_path)), 16 * w, 16 * h) == counted
