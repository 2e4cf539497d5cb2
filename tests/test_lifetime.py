"""What is no longer used goes at once: arrays do not wait for the garbage collector."""

import gc
import weakref

import numpy as np
import pytest

from licodec import open_codec
from licodec.io.image import Picture
from licodec.options import EncodeOptions
from licodec.rate_control import Target
from licodec.target_search import code_for_target


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("model", ["everyday", "adaptive"])
def test_a_picture_goes_with_the_search_for_its_target(uncollected, model):
    codec, _ = open_codec.open_codec(EncodeOptions(model=model))
    picture = Picture("RGB", np.full((20, 30, 3), 90, np.uint8), None, {})
    left = weakref.ref(picture)
    code_for_target(codec, picture, Target(psnr=30.0), 0)
    del picture
    assert left() is None


@pytest.mark.parametrize("model", ["everyday", "adaptive", "factorized", "hyperprior"])
def test_an_entropy_model_goes_with_its_codec(uncollected, model):
    codec, _ = open_codec.open_codec(EncodeOptions(model=model))
    left = weakref.ref(codec.entropy_model)
    del codec
    open_codec._codec.cache_clear()
    assert left() is None
