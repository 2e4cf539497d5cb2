"""A picture coded in several ways, of which the cheapest in R + λD is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from licodec.distortion import squared_error
from licodec.io.image import Picture
from licodec.open_codec import Codec, Latents
from licodec.payload import Coded, code
from licodec.rate_control import DEFAULT_QUALITY, quality_step
from licodec.zipped_size import zipped_size

_HOPE = 0.3
"""So much of what zlib makes of its samples residual tiles alone may take of a drawing: 0.13 to 0.6."""


def code_cheaply(
    codec: Codec, picture: Picture, y: Latents, quality_step: int, side: Any = None
) -> Coded:
    """The file of a picture whose latents are known, without its chunks.

    Of an exact architecture, a file of residual tiles alone, with loss and without, is tried where pixels
    look cheap; the cheapest in R + λD is taken.

    Args:
        y: (M, h, w), in 1/latent_unit.
        side: their side information, as far as it is known.
    """
    coded = code(codec, picture, y, quality_step, side)
    if not codec.architecture.is_exact:
        return coded
    samples = picture.color.shape[0] * picture.color.shape[1]
    cost = _cost(codec, picture, quality_step, coded)
    if cost < _HOPE * 8 * zipped_size(picture.color) / samples:
        return coded
    nothing = np.zeros_like(y)
    others = (code(codec, picture, nothing, quality_step, None, error) for error in (None, 0, 1))
    return cheapest(codec, picture, quality_step, coded, *others)


def code_within(codec: Codec, picture: Picture, max_error: int, quality: float | None) -> Coded:
    """A file whose samples are off by max_error at most: the latents with what they miss or,
    without a quality, no latents and all in residual tiles, if that is smaller."""
    step = quality_step(DEFAULT_QUALITY if quality is None else quality)
    y = codec.transforms.analyze(picture.color, codec.gain(step))
    trials = [code(codec, picture, y, step, None, max_error)]
    if quality is None:
        trials.append(code(codec, picture, np.zeros_like(y), step, None, max_error))
    return min(trials, key=lambda coded: len(coded.container.payload))


def cheapest(codec: Codec, picture: Picture, quality_step: int, *trials: Coded) -> Coded:
    """Of an exact architecture's files, that of the least R + λD."""
    return min(trials, key=lambda coded: _cost(codec, picture, quality_step, coded))


def _cost(codec: Codec, picture: Picture, quality_step: int, coded: Coded) -> float:
    """R + λD in bits per pixel, D on 0 … 255."""
    assert coded.color is not None
    total, samples = squared_error(picture, coded.color)
    height, width = picture.color.shape[:2]
    rate = 8 * len(coded.container.payload) / (height * width)
    return rate + codec.lmbda(quality_step) * total / max(1, samples)
