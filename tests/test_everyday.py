"""The everyday codec from image to file and back, with a small net."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import small_everyday
from PIL import Image, ImageDraw

import licodec
from licodec.codec import verify_latents
from licodec.errors import DamagedFileError, UsageError
from licodec.training.graphics import drawn


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_everyday.weights(tmp_path_factory.mktemp("weights"))


def picture(height, width, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels = np.sort(pixels, axis=0)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 130), (47, 33), (80, 64)])
def test_files_decode_and_are_verified(weights, mode, size):
    image = picture(*size, mode)
    data = licodec.encode(image, 70, weights=weights)
    decoded = licodec.decode(data, weights=weights)
    assert (decoded.size, decoded.mode) == (image.size, image.mode)
    assert verify_latents(data, weights=weights) == licodec.info(data)["latents_crc32"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_lossless_keeps_every_pixel_hidden_ones_too(weights, mode):
    image = picture(70, 50, mode)
    data = licodec.encode(image, weights=weights, max_error=0)
    assert np.array_equal(np.asarray(licodec.decode(data, weights=weights)), np.asarray(image))


def test_near_lossless_keeps_its_promise(weights):
    image = picture(70, 50)
    plain = licodec.encode(image, weights=weights, max_error=0)
    data = licodec.encode(image, weights=weights, max_error=3)
    error = np.asarray(licodec.decode(data, weights=weights)).astype(int) - np.asarray(image)
    assert np.abs(error).max() <= 3 and len(data) < len(plain)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quality", [90, 100])
def test_graphics_are_not_ruined(weights, seed, quality):
    image = Image.fromarray(drawn(np.random.default_rng(seed), 80))
    data = licodec.encode(image, quality, weights=weights)
    error = np.asarray(licodec.decode(data, weights=weights)).astype(float) - np.asarray(image)
    tiles = [(error[r : r + 64, c : c + 64] ** 2).mean() for r in (0, 64) for c in (0, 64)]
    assert 10 * np.log10(255**2 / max(1e-9, *tiles)) >= 36


def test_targets(weights):
    image = picture(64, 96)
    data = licodec.encode(image, weights=weights, target_size=1500)
    assert len(data) <= 1500
    data = licodec.encode(image, weights=weights, target_psnr=25)
    error = np.asarray(licodec.decode(data, weights=weights)).astype(float) - np.asarray(image)
    assert 10 * np.log10(255**2 / (error**2).mean()) >= 25


def test_a_changed_pixel_checksum_is_noticed(weights):
    import dataclasses

    from licodec.container import pack, unpack

    container = unpack(licodec.encode(picture(40, 40), 50, weights=weights))
    wrong = dataclasses.replace(container, latents_crc32=container.latents_crc32 ^ 1)
    with pytest.raises(DamagedFileError, match="pixels"):
        licodec.decode(pack(wrong), weights=weights)


@pytest.mark.parametrize("seed", range(30))
def test_a_changed_payload_is_refused_or_decodes(weights, seed):
    import dataclasses

    from licodec.container import pack, unpack

    rng = np.random.default_rng(seed)
    container = unpack(licodec.encode(picture(60, 90), 80, weights=weights))
    payload = bytearray(container.payload)
    for _ in range(rng.integers(1, 20)):
        payload[rng.integers(len(payload))] = rng.integers(256)
    with pytest.raises(DamagedFileError):
        licodec.decode(
            pack(dataclasses.replace(container, payload=bytes(payload))), weights=weights
        )


def test_other_models_have_no_lossless():
    with pytest.raises(UsageError, match="exact"):
        licodec.encode(picture(16, 16), model="adaptive", max_error=0)


def test_a_search_has_no_largest_error(weights):
    with pytest.raises(UsageError, match="exclude each other"):
        licodec.encode(picture(16, 16), weights=weights, effort=3, max_error=2)


SCRIPT = """
import sys, hashlib, io
from PIL import Image
import licodec
from licodec import codec
weights, source = sys.argv[1:3]
data = open(source, "rb").read()
print(hashlib.sha256(licodec.decode(data, weights=weights).tobytes()).hexdigest())
image = Image.open(io.BytesIO(open(sys.argv[3], "rb").read()))
made = licodec.encode(image, 80, weights=weights)
licodec.decode(made, weights=weights)
print([name for name in sys.modules if name.split(".")[0] in ("torch", "compressai", "scipy")])
"""


@pytest.mark.parametrize(
    "setting",
    [
        {"OPENBLAS_NUM_THREADS": "1"},
        *(
            pytest.param(setting, marks=pytest.mark.slow)
            for setting in (
                {"OPENBLAS_NUM_THREADS": "2"},
                *({"OPENBLAS_CORETYPE": t} for t in ("Haswell", "SkylakeX", "Zen", "Sandybridge")),
                {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F"},
            )
        ),
    ],
    ids=lambda s: "-".join(f"{k}={v}".replace(" ", "+") for k, v in s.items()),
)
def test_pixels_are_the_same_everywhere_and_torch_is_not_needed(weights, tmp_path, setting):
    import hashlib
    import os

    image = picture(100, 150)
    image.save(tmp_path / "x.png")
    data = licodec.encode(image, 80, weights=weights)
    (tmp_path / "x.lic").write_bytes(data)
    wanted = hashlib.sha256(licodec.decode(data, weights=weights).tobytes()).hexdigest()
    arguments = [str(p) for p in (weights, tmp_path / "x.lic", tmp_path / "x.png")]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments],
        capture_output=True, text=True, env={**os.environ, **setting},
    )  # fmt: skip
    if "OPENBLAS_CORETYPE" in setting and run.returncode == -signal.SIGILL:
        pytest.skip("this processor has no such instructions")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == [wanted, "[]"]


@pytest.mark.slow
def test_a_search_costs_no_more(weights):
    from skimage import data

    image = Image.fromarray(data.astronaut()[:128, :128])
    files, costs = [], []
    for effort in (0, 6):
        files.append(licodec.encode(image, 50, weights=weights, effort=effort))
        decoded = licodec.decode(files[-1], weights=weights)
        error = np.asarray(decoded).astype(float) - np.asarray(image)
        costs.append(8 * len(files[-1]) / 128**2 + small_everyday.LAMBDAS[1] * (error**2).mean())
    assert costs[1] <= costs[0]


def test_what_needs_pytorch_says_so_where_there_is_none(weights, tmp_path):
    """As in an environment of numpy, pillow, constriction, click, rich and safetensors alone."""
    picture(40, 40).save(tmp_path / "x.png")
    script = (
        "import sys\n"
        "for name in ('torch', 'threadpoolctl', 'compressai', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from licodec.cli.main import main\n"
        "main(sys.argv[1:])"
    )
    picture(180, 170).save(tmp_path / "y.png")
    x, y, lic = (str(tmp_path / name) for name in ("x.png", "y.png", "y.lic"))
    own = ["--weights", str(weights)]

    def run(*arguments):
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    for arguments in (
        ["encode", "-f", "-j", "2", x, y, *own],
        ["encode", "-f", "-e", "2", x, *own],
        ["decode", "-f", "-j", "2", lic, lic.replace("y.", "x."), *own],
        ["compare", y, lic, *own],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    failed = run("encode", "-f", x, "-m", "adaptive")
    assert failed.returncode == 4
    assert failed.stderr.count("\n") == 1 and "PyTorch" in failed.stderr


@pytest.mark.parametrize("quality", [50, 90, 100])
def test_a_drawing_is_kept_without_loss_where_that_is_cheapest(weights, quality):
    image = Image.new("RGB", (150, 100), "white")
    ImageDraw.Draw(image).text((5, 40), "quadtree", "navy", font_size=30)
    data = licodec.encode(image, quality, weights=weights)
    assert licodec.decode(data, weights=weights).tobytes() == image.tobytes()
    assert len(data) < len(licodec.encode(image, weights=weights, max_error=0)) + 8
    assert licodec.info(data)["quality"] == quality
