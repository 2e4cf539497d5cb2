import numpy as np
import pytest
from opened import opened
from PIL import Image
from skimage import data

import licodec
from licodec.cheapest import cheapest
from licodec.codec import encode_at
from licodec.io.image import from_pillow
from licodec.rdo_quantization import search


@pytest.fixture(scope="module")
def codec():
    return opened("everyday")


@pytest.fixture(scope="module")
def crop():
    return Image.fromarray(data.coffee()[100:300, 100:420])


def weighed(codec, picture, step, coded):
    """Bits and λD of a file in all."""
    error = np.square(coded.color.astype(float) - picture.color)
    if picture.alpha is not None:
        error = error[picture.alpha > 0]
    pixels = picture.color.shape[0] * picture.color.shape[1]
    return 8 * len(coded.container.payload) + pixels * codec.lmbda(step) * error.mean()


@pytest.mark.parametrize("step", [30, 100, 180])
def test_files_cost_less(codec, crop, step):
    picture = from_pillow(crop)
    costs = [
        weighed(codec, picture, step, encode_at(codec, picture, step, rounds))
        for rounds in range(3)
    ]
    assert costs[1] < 0.995 * costs[0] and costs[2] < 0.99 * costs[0]


def test_white_noise_costs_no_more(codec):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    picture = from_pillow(Image.fromarray(pixels))
    for step in (0, 200):
        plain, searched = (encode_at(codec, picture, step, rounds) for rounds in (0, 2))
        assert cheapest(codec, picture, step, searched, plain) is searched


def test_where_no_move_serves_latents_are_as_without_a_search(codec, crop, monkeypatch):
    picture = from_pillow(crop.crop((0, 0, 128, 64)))
    plain = encode_at(codec, picture, 100)
    monkeypatch.setattr("licodec.rdo_quantization._curvature", lambda share: 1e-3)
    for rounds in (1, 2):
        assert encode_at(codec, picture, 100, rounds).container == plain.container


@pytest.mark.parametrize("rounds", [1, 2])
def test_latents_move(codec, crop, rounds):
    picture = from_pillow(crop.crop((0, 0, 128, 64)))
    y = codec.analyze(picture, 100)
    plain = codec.entropy_model.quantize(y, None, codec.position(100))
    found, side = search(codec, picture, y.copy, 100, rounds)
    assert found is side.y_hat and (found != plain).any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (17, 40), (97, 101)])
def test_any_size_and_mode(mode, size):
    image = Image.effect_noise(size, 60).convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(size).point(lambda v: 255 * (v > 90)))
    for effort in (1, 2):
        assert licodec.decode(licodec.encode(image, effort=effort)).size == size


def test_what_is_transparent_does_not_count(codec, crop):
    """What is seen is as good in R + λD as where all counts, with hidden pixels of another kind."""
    opacity = Image.new("L", crop.size, 255)
    opacity.paste(0, (160, 0, 320, 200))
    noisy = np.asarray(crop).copy()
    noisy[:, 160:] = np.random.default_rng(0).integers(0, 256, (200, 160, 3))
    image = Image.fromarray(noisy)
    image.putalpha(opacity)
    picture = from_pillow(image)
    plain, searched = (encode_at(codec, picture, 100, rounds) for rounds in (0, 1))
    assert weighed(codec, picture, 100, searched) < weighed(codec, picture, 100, plain)
