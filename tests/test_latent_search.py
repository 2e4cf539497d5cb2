import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import noise
from opened import opened
from PIL import Image
from skimage import data
from small_checkpoints import analyzed, with_scale_shifts

import licodec
from licodec.architectures import EVERYDAY, HYPERPRIOR
from licodec.codec import encode_at, verify_latents
from licodec.container import pack, unpack
from licodec.entropy.gaussian import MEAN_UNIT
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.tables import PMF_TOTAL
from licodec.errors import UsageError
from licodec.io.image import Picture, from_pillow
from licodec.latent_search import Rate, descend, rate_slope, soft_round
from licodec.networks.tiled import TiledTransforms
from licodec.rangecoder import Encoder
from licodec.training.convert.export import write_weights
from licodec.weights import catalogue
from licodec.weights import file as weights_file


@pytest.fixture(scope="module")
def shipped():
    return catalogue.resolve("hyperprior")[1]


@pytest.fixture(scope="module")
def crop():
    """320 x 200 of a photograph, two tiles of 16 latent positions wide."""
    return Image.fromarray(data.coffee()[100:300, 100:420])


def cost(encoded: bytes, image: Image.Image, path, visible=None) -> float:
    """R + λ·255²·mse of a file."""
    found = unpack(encoded)
    loaded = weights_file.load(path)
    error = np.asarray(licodec.decode(encoded), float) - np.asarray(image, float)
    error = error[..., :3] if visible is None else error[visible][..., :3]
    bpp = 8 * len(encoded) / (image.width * image.height)
    return bpp + loaded.lmbda(loaded.position(found.quality_step)) * float((error**2).mean())


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_files_cost_less(shipped, crop, quality):
    costs = [
        cost(licodec.encode(crop, quality, "hyperprior", effort=e), crop, shipped)
        for e in (0, 2, 5)
    ]
    assert costs[1] < 0.99 * costs[0] and costs[2] < 0.98 * costs[0]


def test_a_search_that_finds_nothing_changes_nothing():
    """White noise at the lowest quality came to 28 % more bytes and a tenth more error."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    plain, searched = (licodec.encode(image, 0, "hyperprior", effort=e) for e in (0, 5))
    assert searched == plain


def test_the_usual_effort(crop):
    usual = licodec.encode(crop, model="hyperprior")
    assert usual == licodec.encode(crop, model="hyperprior", effort=HYPERPRIOR.usual_effort)
    assert usual != licodec.encode(crop, model="hyperprior", effort=0)
    assert licodec.encode(crop) == licodec.encode(crop, effort=EVERYDAY.usual_effort)
    assert licodec.encode(crop, model="adaptive") == licodec.encode(
        crop, model="adaptive", effort=0
    )


def test_within_a_program_that_needs_no_gradients(photo):
    expected = licodec.encode(photo, model="hyperprior")
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert licodec.encode(photo, model="hyperprior") == expected


@pytest.mark.parametrize("model", ["hyperprior", "adaptive", "factorized"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_within_a_program_that_casts(photo, model, dtype):
    expected = licodec.encode(photo, model=model)
    pixels = np.asarray(licodec.decode(expected))
    with torch.autocast("cpu", dtype):
        assert licodec.encode(photo, model=model) == expected
        assert (np.asarray(licodec.decode(expected)) == pixels).all()


def test_tiles_are_nearly_as_good(shipped, crop):
    whole = opened("hyperprior")
    transforms = TiledTransforms.of(whole.weights, "cpu", "auto")
    transforms.tile = 4
    tiled = dataclasses.replace(whole, transforms=transforms)
    costs = [
        cost(pack(encode_at(codec, from_pillow(crop), 100, rounds).container), crop, shipped)
        for codec, rounds in ((whole, 5), (tiled, 5), (whole, 0))
    ]
    assert costs[0] < costs[2] and abs(costs[1] - costs[0]) < 0.15 * (costs[2] - costs[0])


@pytest.mark.parametrize("size", [(1, 1), (17, 40), (97, 101)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_any_size_and_mode(size, mode):
    image = noise(*size, mode)
    encoded = licodec.encode(image, model="hyperprior")
    assert licodec.decode(encoded).size == size
    assert verify_latents(encoded) == unpack(encoded).latents_crc32


def test_grey_images_cost_less(shipped, crop):
    grey = crop.convert("L")
    pair = [cost(licodec.encode(grey, 60, "hyperprior", effort=e), grey, shipped) for e in (0, 5)]
    assert pair[1] < 0.97 * pair[0]


def test_what_is_transparent_does_not_count(shipped):
    """The latents of hidden pixels go where they cost least; those seen are as good as ever."""
    pixels = data.coffee()[100:292, 100:356].copy()
    opacity = np.full(pixels.shape[:2], 255, np.uint8)
    opacity[:, 128:] = 0
    codec = opened("hyperprior")
    step, position = 100, codec.weights.position(100)
    y = codec.transforms.analyze(pixels, codec.gain(step))
    model = codec.entropy_model
    z = model.side_information(y, position)
    bits = []
    rate = Rate(codec.lmbda(step), MEAN_UNIT, codec.weights.gain(position), precise=False)
    for picture in (Picture("RGB", pixels), Picture("RGBA", pixels, opacity)):
        forecast = lambda y: model.forecast(y, z, position)  # noqa: E731
        found = descend(codec.transforms, picture, y, forecast, rate, 5)
        encoder = Encoder()
        y_hat = model.code_latents(encoder, position, *y.shape[1:], found, z)
        x_hat = codec.synthesize(y_hat, *opacity.shape, "RGB", step)
        error = ((x_hat.astype(float) - pixels)[:, :128] ** 2).mean()
        bits.append((len(encoder.finish()), error))
    assert bits[1][0] < 0.97 * bits[0][0]
    assert bits[1][1] < 1.03 * bits[0][1]


@pytest.mark.parametrize("shifted_weights", [False, True])
@pytest.mark.parametrize("arch", ["bmshj2018-hyperprior", "mbt2018-mean"])
def test_forecasts_are_what_latents_are_coded_with(
    hyper_weights, tmp_path, photo, arch, shifted_weights
):
    path = hyper_weights[arch]
    path = with_scale_shifts(path, tmp_path, arch) if shifted_weights else path
    codec, position, y = analyzed(path, photo, 60)
    model = codec.entropy_model
    assert isinstance(model, Hyperprior)
    z = model.side_information(y, position)
    forecast = model.forecast(y, z, position)
    encoder = Encoder()
    y_hat = model.code_latents(encoder, position, *y.shape[1:], y, z)
    steps, rest = np.divmod(y_hat - forecast.means, MEAN_UNIT)
    assert not rest.any()
    bits = model.side_bits(z, position)
    for scale, table in enumerate(model.gaussians.centred):
        half = (len(table) - 1) // 2
        symbols = steps[forecast.indices == scale] + half
        inside = (symbols >= 0) & (symbols < 2 * half)
        masses = table[np.where(inside, symbols, 2 * half)]
        bits -= np.log2((masses + 1) / (PMF_TOTAL + len(table))).sum()
    size = 8 * len(encoder.finish())
    assert abs(bits - size) < 0.02 * size + 100


def test_soft_rounding():
    d = torch.linspace(-2.3, 2.3, 93, dtype=torch.float64)
    for sharpness in (1.0, 8.0):
        v, slope = soft_round(d, sharpness)
        assert ((v - d.round()).abs() <= (d - d.round()).abs() + 1e-12).all()
        h = 1e-6
        numeric = (soft_round(d + h, sharpness)[0] - soft_round(d - h, sharpness)[0]) / (2 * h)
        torch.testing.assert_close(slope, numeric, rtol=1e-4, atol=1e-6)
    whole = torch.arange(-3.0, 4.0)
    torch.testing.assert_close(soft_round(whole, 4.0)[0], whole)


def test_rate_slope_is_that_of_the_bits():
    v = torch.linspace(-6, 6, 121, dtype=torch.float64)
    for sigma in (0.3, 1.0, 20.0):

        def bits(v, sigma=sigma):
            normal = torch.distributions.Normal(0.0, sigma)
            mass = normal.cdf(0.5 - v.abs()) - normal.cdf(-0.5 - v.abs())
            return -torch.log2(mass)

        near = v[(v.abs() > 1e-3) & (v.abs() < 7 * sigma)]
        numeric = (bits(near + 1e-5) - bits(near - 1e-5)) / 2e-5
        found = rate_slope(near, torch.full_like(near, sigma))
        torch.testing.assert_close(found, numeric, rtol=1e-3, atol=1e-4)
    far = rate_slope(torch.tensor([-1e4, 1e4]), torch.tensor([0.11, 0.11]))
    assert torch.isfinite(far).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_slope_of_the_distortion(shipped, channels):
    pair = opened("hyperprior", precision="float32").transforms
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():  # an image of middling greys, which nothing clamps
        y = pair._run("g_a", torch.rand(1, 3, 64, 48, generator=generator) * 0.2 + 0.4, True)[0]
    y = y.clone()
    x = torch.rand(channels, 64, 48, generator=generator)
    weight = torch.rand(64, 48, generator=generator)

    def distortion(y):
        with torch.inference_mode():
            x_hat = pair._run("g_s", y[None], True)[0].double().clamp(0, 1)
        return float((weight * (x_hat.mean(0) - x if channels == 1 else x_hat - x) ** 2).sum())

    slope = pair.slope(y, x, weight, True)
    direction = torch.randn(y.shape, generator=generator) * y.std()
    h = 1e-2
    numeric = (distortion(y + h * direction) - distortion(y - h * direction)) / (2 * h)
    assert math.isclose(float((slope * direction).sum()), numeric, rel_tol=0.02)


def test_targets_are_met_by_searched_files(photo):
    found = licodec.encode(photo, model="hyperprior", target_size=1500, effort=2)
    assert len(found) <= 1500
    quality = licodec.info(found)["quality"]
    assert found == licodec.encode(photo, quality, "hyperprior", effort=2)
    assert len(licodec.encode(photo, quality + 5, "hyperprior", effort=2)) > 1500
    wanted = licodec.encode(photo, model="hyperprior", target_psnr=32, effort=2)
    error = np.asarray(licodec.decode(wanted), float) - np.asarray(photo, float)
    assert 10 * math.log10(255**2 / (error**2).mean()) >= 32


@pytest.mark.parametrize("effort", [-1, 21, 1.5, "3", True])
def test_odd_efforts(photo, effort):
    with pytest.raises(UsageError, match="effort is a whole number"):
        licodec.encode(photo, model="hyperprior", effort=effort)


def test_models_without_a_search(photo, hyper_weights, shipped, tmp_path):
    for model in ("adaptive", "factorized"):
        with pytest.raises(UsageError, match=f"asks for a search, and {model} has none"):
            licodec.encode(photo, model=model, effort=1)
    with pytest.raises(UsageError, match="asks for a search, and autoregressive has none"):
        licodec.encode(photo, weights=hyper_weights["mbt2018"], effort=1)
    loaded = weights_file.load(shipped)
    told = {k: v for k, v in loaded.metadata.items() if k != "lambdas"} | {"lambdas": "[]"}
    untold = write_weights(tmp_path, "untold", loaded.tensors(""), told, {})
    with pytest.raises(UsageError, match="was made without what it needs"):
        licodec.encode(photo, weights=untold, effort=1)
    assert licodec.encode(photo, weights=untold)
