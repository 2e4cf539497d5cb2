"""Adapters: every codec that runs here gives a file of its own kind and an image back."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from licodec.bench import peers
from licodec.bench.interface import Peer, Settings
from licodec.bench.matching import match_size
from licodec.bench.metrics import psnr_rgb
from licodec.errors import LicodecError, UsageError

MAGIC = {
    "jpeg": b"\xff\xd8", "webp": b"RIFF", "jpeg2000": b"\x00\x00\x00\x0cjP", "avif": b"ftypavif",
    "avif-speed6": b"ftypavif", "jpegxl": b"\xff\x0a",
    **{name: b"\x89LIC" for name in peers.ADAPTERS if "licodec" in name},
}  # fmt: skip


@pytest.fixture(scope="module")
def image():
    x = np.asarray(Image.radial_gradient("L").resize((50, 37)).convert("RGB")).copy()
    x[5:20, 8:30] = (200, 30, 90)
    return Image.fromarray(x)


@pytest.mark.parametrize("name", peers.ADAPTERS)
def test_adapters_write_files_that_grow_with_quality(name, image):
    codec = peers.make(name, Settings())
    try:
        peers.check(codec)
    except LicodecError as error:
        pytest.skip(str(error))
    files = [codec.encode(image, q) for q in (codec.qualities[0], codec.qualities[-1])]
    decoded = [codec.decode(data).convert("RGB") for data in files]
    assert all(MAGIC[name] in data[:16] for data in files)
    assert all(d.size == image.size for d in decoded)
    low, high = (psnr_rgb(np.asarray(image), np.asarray(d)) for d in decoded)
    assert len(files[0]) < len(files[1]) and low < high
    streams = codec.streams(files[0])
    assert not streams or sum(streams.values()) == len(files[0])


def test_jpeg_xl_is_registered_in_whatever_process_encodes():
    if peers.make("jpegxl", Settings()).missing():
        pytest.skip("no JPEG XL")
    code = """
from PIL import Image
from licodec.bench.interface import Settings
from licodec.bench.pillow_peers import JpegXl
print(len(JpegXl(Settings()).encode(Image.new("RGB", (8, 8)), 50)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) > 0


def test_unknown_names_are_usage_errors():
    with pytest.raises(UsageError, match="no codec named 'bmp'"):
        peers.make("bmp", Settings())


class Broken(Peer):
    name, description, qualities = "broken", "", (1.0, 2.0)
    reason: str | None = None

    def missing(self) -> str | None:
        return self.reason

    def version(self) -> str:
        return "1"

    def encode(self, image: Image.Image, quality: float) -> bytes:
        return bytes(int(100 * quality))

    def decode(self, data: bytes) -> Image.Image:
        raise RuntimeError("boom")


def test_a_codec_that_cannot_run_says_why():
    codec = Broken(Settings())
    with pytest.raises(LicodecError, match="RuntimeError: boom"):
        peers.check(codec)
    codec.reason = "not installed"
    with pytest.raises(LicodecError, match="not installed"):
        peers.check(codec)


@pytest.mark.parametrize(("target", "nearest"), [(1234, 12), (0, 1), (9999, 50), (1251, 13)])
@pytest.mark.parametrize("known", [{}, {7.0: 700, 20.0: 2000}, {7.0: 9000, 20.0: 2}])
def test_matching_a_size_finds_the_nearest_quality(target, nearest, known, image):
    codec = Broken(Settings())
    codec.qualities = (1.0, 7.0, 50.0)
    quality, data = match_size(codec, image, target, known)
    assert quality == nearest and len(data) == 100 * nearest
    codec.quality_step = None
    assert match_size(codec, image, target)[0] in codec.qualities


def test_sizes_that_are_known_save_trials(image):
    trials = []

    class Counted(Broken):
        def encode(self, image, quality):
            trials.append(quality)
            return super().encode(image, quality)

    codec = Counted(Settings())
    codec.qualities = (1.0, 100.0)
    assert match_size(codec, image, 5000, {48.0: 4800, 52.0: 5200})[0] == 50
    assert all(48 <= quality <= 52 for quality in trials) and len(trials) <= 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    if find_spec("compressai") is None:
        pytest.skip("no compressai")
    from licodec.bench.compressai_networks import model_architectures

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    network = model_architectures["bmshj2018-hyperprior"](8, 12)
    torch.save({"state_dict": network.state_dict()}, file)
    return file


def test_compressai_architectures_run_from_a_checkpoint(checkpoint, image):
    settings = Settings(device="cpu", checkpoints=(("bmshj2018-hyperprior", checkpoint),) * 2)
    codec = peers.make("bmshj2018-hyperprior", settings)
    assert codec.qualities == (1.0, 2.0)
    peers.check(codec)
    assert "checkpoints" in peers.version(codec)
    data = codec.encode(image, 2)
    assert data[0] == 2 and codec.decode(data).size == image.size
    complexity = codec.decoder_complexity(64, 64)
    # g_s: 5x5 from 12 to 8, 8, 8, 3 channels with three IGDNs; h_s: 5x5, 5x5, 3x3.
    g_s = 16 * 25 * (12 * 8 + 4 * 64 + 16 * 64 + 64 * 24) + 16 * (4 + 16 + 64) * 64
    h_s = 25 * (64 + 4 * 64) + 16 * 9 * 8 * 12
    assert complexity.macs == g_s + h_s


def test_checkpoints_are_never_unpickled_freely(tmp_path):
    if find_spec("compressai") is None:
        pytest.skip("no compressai")

    class Code:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"state_dict": Code()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    for name in ("evil", "text", "other", "nowhere"):
        settings = Settings(checkpoints=(("mbt2018", tmp_path / f"{name}.pth"),))
        with pytest.raises(LicodecError, match=f"{name}.pth: no checkpoint of mbt2018") as refusal:
            peers.make("mbt2018", settings).encode(Image.new("RGB", (64, 64)), 1)
        assert "\n" not in str(refusal.value) and "weights_only" not in str(refusal.value)


def test_codecs_have_many_names():
    from licodec.bench.peers import canonical

    names = {"jxl": "jpegxl", "JXL": "jpegxl", "JPEG": "jpeg", "jpg": "jpeg", "WebP": "webp"}
    assert {name: canonical(name) for name in names} == names
    assert canonical("Mine") == "Mine"
