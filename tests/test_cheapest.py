import numpy as np
import pytest
from opened import opened
from PIL import Image, ImageDraw
from skimage import data

from licodec import cheapest as module
from licodec.cheapest import code_cheaply
from licodec.io.image import from_pillow


@pytest.fixture
def sizes(monkeypatch):
    """Of all pictures that are coded, (height, width) one after the other."""
    found = []

    def code(codec, picture, *arguments):
        found.append(picture.color.shape[:2])
        return whole(codec, picture, *arguments)

    whole = module.code
    monkeypatch.setattr(module, "code", code)
    return found


def coded(image, step):
    codec, picture = opened("everyday"), from_pillow(image)
    return code_cheaply(codec, picture, codec.analyze(picture, step), step)


def drawing():
    image = Image.new("RGB", (900, 700), "white")
    for top in range(10, 680, 30):
        ImageDraw.Draw(image).text((20, top), "distributions of latents", "navy", font_size=22)
    return image


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [False, True])
def test_a_large_photograph_is_coded_whole_once(sizes, alpha):
    """Tiles alone may look cheap where all is dear; a part of the picture tells that they are not."""
    image = Image.fromarray(np.tile(data.astronaut(), (1, 2, 1))[:, :1000].repeat(2, 0))
    if alpha:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    coded(image, 200)
    height, width = image.size[::-1]
    assert len(sizes) == 4 and sizes.count((height, width)) == 1
    assert all(h * w <= height * width / 3 for h, w in sizes[1:])


@pytest.mark.slow
def test_a_large_drawing_is_coded_whole_in_the_cheapest_way(sizes):
    image = drawing()
    found = coded(image, 150)
    assert sizes.count(image.size[::-1]) == 2
    assert np.array_equal(found.color, np.asarray(image))


def test_a_part_is_of_all_of_a_picture():
    pixels = np.zeros((1280, 1600, 1), np.uint8)
    pixels[:] = np.arange(1280)[:, None, None] // 64
    part = module._part(module.Picture("L", pixels))
    assert part.color.shape == (256, 1024, 1)
    assert sorted(set(part.color.flat)) == [0, 5, 10, 15]


@pytest.mark.parametrize("shape", [(512, 1024), (40, 7000), (60000, 9), (1, 1)])
def test_pictures_of_any_shape_have_a_part(shape):
    picture = module.Picture("L", np.zeros((*shape, 1), np.uint8))
    part = module._part(picture)
    assert (part is picture) == (shape[0] * shape[1] <= 2**19)
    assert 0 < part.color.shape[0] * part.color.shape[1] <= 2**19
