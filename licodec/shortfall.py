"""Where a file is not what was asked for: far worse than its quality promises, or larger than a lossless one.

A codec that minimizes R + λD codes a Gaussian with D = 3 / (2 ln 2 λ) at most, whatever its variance: as far
as that, bits are worth spending. So much -q promises. A net that was trained on photographs may be unable to
keep it for drawings, text and saturated colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from licodec.container import ALPHA, QUALITY_STEPS
from licodec.distortion import in_db, squared_error
from licodec.io.image import Picture
from licodec.open_codec import Codec
from licodec.options import EncodeOptions
from licodec.payload import Coded
from licodec.tiles import STRIDE, Box, widened
from licodec.zipped_size import zipped_size

Decoded = Callable[[Box], NDArray[np.uint8]]

_FAR = 5.0
"""dB. Photographs are up to 4 below the promise at the highest qualities; text is 7 to 20."""
_CELL = 8
"""Latent positions a side of what is looked at first."""
_CELLS = 2
_HOPE = 0.2
"""A lossless file takes no less than this share of what the rows say."""
_MOST_TRIED = 2**24
_WEBP_SIDE = 16383


def promised_psnr(lmbda: float) -> float:
    """dB that λ of R + λ·mse comes to at least; R in bits per pixel of three samples, mse on 0 … 255."""
    return 10 * math.log10(255**2 * 2 * math.log(2) * lmbda / 3)


def notes(codec: Codec, picture: Picture, coded: Coded, options: EncodeOptions) -> list[str]:
    """What a person should know of a picture's file: that it is far worse than its quality promises, or
    that a lossless one is smaller."""
    found = []
    if not options.target_psnr:
        found += _quality_note(codec, picture, coded)
    if options.max_error != 0:
        container = coded.container
        size = len(container.payload) + len(container.chunks.get(ALPHA, b""))
        smaller = smaller_lossless(picture, size)
        if smaller is not None:
            found.append(f"a lossless {smaller[0]} of it takes {smaller[1]:,} bytes only")
    return found


def _quality_note(codec: Codec, picture: Picture, coded: Coded) -> list[str]:
    c, y_hat = coded.container, coded.y_hat
    lmbda = codec.lmbda(c.quality_step)
    if y_hat is None or not lmbda:
        return []

    def decoded(box: Box) -> NDArray[np.uint8]:
        top, bottom, left, right = box
        part = y_hat[:, top:bottom, left:right]
        height, width = (STRIDE * side for side in part.shape[1:])
        return codec.synthesize(part, height, width, c.mode, c.quality_step)

    found = far_below(picture, lmbda, y_hat.shape[1:], codec.transforms.halo, decoded)
    if found is None:
        return []
    quality, promised = c.quality_step * 100 / QUALITY_STEPS, promised_psnr(lmbda)
    return [
        f"{found:.1f} dB is far below the {promised:.0f} dB that quality {quality:g} promises: "
        f"{codec.architecture.name} is made for photographs"
    ]


def far_below(
    picture: Picture, lmbda: float, size: tuple[int, ...], halo: int, decoded: Decoded
) -> float | None:
    """The PSNR in dB of a picture that is far below what its λ promises; None of one that is not.

    Parts of the picture are decoded first: those that change most from pixel to pixel, where errors are
    largest. Only where these are bad is all of it.

    Args:
        size: latent positions, (h, w).
        halo: latent positions around one that its pixels depend on.
        decoded: the pixels (16 · rows, 16 · columns, C) of a box of latent positions alone.
    """
    h, w = size
    least = promised_psnr(lmbda) - _FAR
    for boxes in (_busiest(picture.color, h, w), [(0, h, 0, w)]):
        found = _psnr(picture, boxes, (h, w), halo, decoded)
        if found >= least:
            return None
    return found


def _busiest(color: NDArray[np.uint8], h: int, w: int) -> list[Box]:
    side = _CELL * STRIDE
    rows, columns = -(-h // _CELL), -(-w // _CELL)
    grey = color[::2, :, color.shape[2] // 2].astype(np.int32)  # every other row does
    change = np.zeros((rows * side // 2, columns * side), np.int32)
    change[: len(grey), : grey.shape[1] - 1] = np.diff(grey, axis=1) ** 2
    change[: len(grey) - 1, : grey.shape[1]] += np.diff(grey, axis=0) ** 2
    energy = change.reshape(rows, side // 2, columns, side).sum((1, 3), dtype=np.int64)
    order = np.argsort(-energy, axis=None, kind="stable")[:_CELLS]
    return [
        (r * _CELL, min((r + 1) * _CELL, h), c * _CELL, min((c + 1) * _CELL, w))
        for r, c in (divmod(int(i), columns) for i in order)
    ]


def _psnr(
    picture: Picture, boxes: list[Box], size: tuple[int, int], halo: int, decoded: Decoded
) -> float:
    """Of boxes of latent positions, where alpha does not hide them."""
    height, width = picture.color.shape[:2]
    total = samples = 0
    for box in boxes:
        top, bottom, left, right = box
        outer = widened(box, halo, *size)
        inside = decoded(outer)[STRIDE * (top - outer[0]) :, STRIDE * (left - outer[2]) :]
        rows = min(STRIDE * bottom, height) - STRIDE * top
        columns = min(STRIDE * right, width) - STRIDE * left
        found = squared_error(picture, inside[:rows, :columns], STRIDE * top, STRIDE * left)
        total, samples = total + found[0], samples + found[1]
    return in_db(total, samples)


def smaller_lossless(picture: Picture, size: int) -> tuple[str, int] | None:
    """The format and the bytes of a lossless file of a picture that takes less than `size`, if one does."""
    samples = picture.color
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], 2)
    if samples.shape[0] * samples.shape[1] > _MOST_TRIED or _HOPE * zipped_size(samples) >= size:
        return None
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    trials = {"PNG": {}, "WebP": {"lossless": True, "method": 1, "exact": False}}
    if not features.check("webp") or max(image.size) > _WEBP_SIDE:
        del trials["WebP"]
    found = {}
    for name, options in trials.items():
        buffer = BytesIO()
        image.save(buffer, name, **options)
        found[name] = len(buffer.getvalue())
    best = min(found, key=lambda name: found[name])
    return (best, found[best]) if found[best] < size else None
