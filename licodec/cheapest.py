"""A picture coded in several ways, of which the cheapest in R + λD is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from licodec.distortion import in_db, squared_error
from licodec.io.image import Picture
from licodec.open_codec import Codec, Latents
from licodec.payload import Coded, code
from licodec.rate_control import DEFAULT_QUALITY, quality_step

_MUCH = 0.25
"""Share of corrected tiles from which on latents may be worth nothing."""


def code_cheaply(
    codec: Codec, picture: Picture, y: Latents, quality_step: int, side: Any = None
) -> Coded:
    """The file of a picture whose latents are known, without its chunks.

    Where an exact architecture misses much, its residual tiles are tried without latents to speak of,
    with loss and without; the cheapest in R + λD is taken.

    Args:
        y: (M, h, w), in 1/latent_unit.
        side: their side information, as far as it is known.
    """
    coded = code(codec, picture, y, quality_step, side)
    if coded.corrected < _MUCH:
        return coded
    nothing = np.zeros_like(y)
    others = (code(codec, picture, nothing, quality_step, None, error) for error in (None, 0))
    return cheapest(codec, picture, quality_step, coded, *others)


def code_within(codec: Codec, picture: Picture, max_error: int, quality: float | None) -> Coded:
    """A file whose samples are off by max_error at most: the latents with what they miss or,
    without a quality, no latents to speak of and all in residual tiles, if that is smaller."""
    step = quality_step(DEFAULT_QUALITY if quality is None else quality)
    y = codec.transforms.analyze(picture.color, codec.gain(step))
    trials = [code(codec, picture, y, step, None, max_error)]
    if quality is None:
        trials.append(code(codec, picture, np.zeros_like(y), 0, None, max_error))
    return min(trials, key=lambda coded: len(coded.container.payload))


def cheapest(codec: Codec, picture: Picture, quality_step: int, *trials: Coded) -> Coded:
    """Of an exact architecture's files, that of the least R + λD."""
    height, width = picture.color.shape[:2]
    lmbda = codec.lmbda(quality_step)

    def cost(coded: Coded) -> float:
        assert coded.color is not None
        mse = 255**2 / 10 ** (in_db(*squared_error(picture, coded.color)) / 10)
        return 8 * len(coded.container.payload) / (height * width) + lmbda * mse

    return min(trials, key=cost)
