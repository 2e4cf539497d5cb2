"""A picture coded in several ways, of which the cheapest in R + λD is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from licodec.distortion import squared_error
from licodec.entropy.corrections import TILE
from licodec.io.image import Picture
from licodec.open_codec import Codec, Latents
from licodec.payload import Coded, code
from licodec.rate_control import DEFAULT_QUALITY, quality_step
from licodec.tiles import positions
from licodec.zipped_size import zipped_size

_HOPE = 0.3
"""So much of what zlib makes of its samples residual tiles alone may take of a drawing: 0.13 to 0.6."""
_ERRORS = (None, 0, 1)
"""That files of residual tiles alone may have: what R + λD says, or none, or one."""
_PIXELS, _PIECE = 2**18, 1024
"""Of the part by which a large picture is judged, and of a row of its pieces."""
_MARGIN, _NEAR = 1.25, 1.1
"""A part costs more than the whole would, as tables have yet to be learnt: so much more is left to it than
latents cost, and than the cheapest way does."""


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
    ways = _hopeful(codec, picture, quality_step, cost)
    others = (_tiles_alone(codec, picture, quality_step, way) for way in ways)
    return cheapest(codec, picture, quality_step, coded, *others)


def code_within(codec: Codec, picture: Picture, max_error: int, quality: float | None) -> Coded:
    """A file whose samples are off by max_error at most: the latents with what they miss or,
    without a quality, no latents and all in residual tiles, if that is smaller."""
    step = quality_step(DEFAULT_QUALITY if quality is None else quality)
    y = codec.transforms.analyze(picture.color, codec.gain(step))
    trials = [code(codec, picture, y, step, None, max_error)]
    if quality is None:
        trials.append(_tiles_alone(codec, picture, step, max_error))
    return min(trials, key=lambda coded: len(coded.container.payload))


def cheapest(codec: Codec, picture: Picture, quality_step: int, *trials: Coded) -> Coded:
    """Of an exact architecture's files, that of the least R + λD."""
    return min(trials, key=lambda coded: _cost(codec, picture, quality_step, coded))


def _hopeful(codec: Codec, picture: Picture, quality_step: int, cost: float) -> list[int | None]:
    """Errors allowed in files of residual tiles alone that may cost less, by a part of a large picture."""
    part = _part(picture)
    if part is picture:
        return list(_ERRORS)
    costs = [
        _cost(codec, part, quality_step, _tiles_alone(codec, part, quality_step, way))
        for way in _ERRORS
    ]
    most = min(_MARGIN * cost, _NEAR * min(costs))
    return [way for way, found in zip(_ERRORS, costs, strict=True) if found <= most]


def _part(picture: Picture) -> Picture:
    """Pieces of rows of tiles from all over a picture; the picture itself where that is small."""
    height, width = picture.color.shape[:2]
    if height * width <= 2 * _PIXELS:
        return picture
    wide = min(width, _PIECE)
    count = _PIXELS // (TILE * wide)
    places = []
    for i in range(count):
        top, left = i * (height // TILE) // count * TILE, i % 4 * (width - wide) // 3
        places.append((slice(top, top + TILE), slice(left, left + wide)))
    color, opacity = (
        None if plane is None else np.concatenate([plane[place] for place in places])
        for plane in (picture.color, picture.alpha)
    )
    assert color is not None
    return replace(picture, color=color, alpha=opacity)


def _tiles_alone(codec: Codec, picture: Picture, quality_step: int, max_error: int | None) -> Coded:
    """A file without latents."""
    h, w = positions(*picture.color.shape[:2])
    nothing: Latents = np.zeros((codec.transforms.M, h, w), np.int32)
    return code(codec, picture, nothing, quality_step, None, max_error)


def _cost(codec: Codec, picture: Picture, quality_step: int, coded: Coded) -> float:
    """R + λD in bits per pixel, D on 0 … 255."""
    assert coded.color is not None
    total, samples = squared_error(picture, coded.color)
    height, width = picture.color.shape[:2]
    rate = 8 * len(coded.container.payload) / (height * width)
    return rate + codec.lmbda(quality_step) * total / max(1, samples)
