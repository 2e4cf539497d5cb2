"""Which tiles of a picture a file corrects, and how finely: what a residual wins against what it costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.residual import LARGEST_STEP, TILE, ResidualPlan

Array = NDArray[Any]

LEAST_PSNR = 36.0
"""In dB, of every tile from quality 90 on."""
LEAST_FROM = 180
"""The header's quality from which that holds."""
_MARGIN = 1.5
"""A residual has to win so many times its estimated bits: estimates err, and little is not worth a tile."""
_FEWEST_BITS = 0.15
_COARSEST = 63


def plan_tiles(
    x: NDArray[np.uint8], x_hat: NDArray[np.uint8], lmbda: float, quality_step: int,
    max_error: int | None,
) -> ResidualPlan | None:  # fmt: skip
    """The tiles of x (H, W, C) to be corrected, x̂ being what a decoder gets without; None for none.

    Args:
        lmbda: weight of the mean squared error on 0 … 255 against bits per pixel.
        max_error: what no sample may be off by more; None to weigh cost and gain.
    """
    error = np.abs(x.astype(np.int16) - x_hat)
    if max_error is not None:
        chosen = _tiled(error).max((1, 3, 4)) > max_error
        return ResidualPlan(2 * max_error + 1, chosen) if chosen.any() else None
    step = _step(lmbda)
    before = _tiled(error.astype(np.int64) ** 2).sum((1, 3, 4))
    sides = (np.clip(side - np.arange(0, side, TILE), 0, TILE) for side in x.shape[:2])
    rows, columns = sides
    samples = x.shape[2] * rows[:, None] * columns
    floor = 255**2 / 10 ** (LEAST_PSNR / 10)
    if quality_step >= LEAST_FROM:
        step = min(step, 2 * math.floor(math.sqrt(3 * floor)) - 1)
    after = np.minimum(before, samples * (step**2 - 1) / 12)
    wins = lmbda / x.shape[2] * (before - after) > _MARGIN * _bits(x, error, step)
    if quality_step >= LEAST_FROM:
        wins |= before > floor * samples
    return ResidualPlan(step, wins) if wins.any() else None


def _step(lmbda: float) -> int:
    """The odd step whose uniform errors are as dear as λ says: R + λD is least where D falls by
    6 dB a bit."""
    ideal = math.sqrt(26 / max(lmbda, 1e-9))
    return max(3, min(_COARSEST, LARGEST_STEP, 2 * int(ideal / 2) + 1))


def _bits(x: Array, error: Array, step: int) -> Array:
    """About what the residuals of tiles (rows, columns) cost: what x̂ misses, or how x changes from pixel to
    pixel, whichever is less."""
    change = np.abs(np.diff(x.astype(np.int16), axis=1, prepend=x[:, :1].astype(np.int16)))
    own, steps = (_tiled(_bits_of(v // step)).sum((1, 3, 4)) for v in (error, change))
    bits: Array = np.minimum(own, steps)
    return bits


def _bits_of(values: Array) -> Array:
    return np.where(values, 1 + 2 * np.log2(1.0 + values), _FEWEST_BITS)


def _tiled(samples: Array) -> Array:
    """(rows, 64, columns, 64, C) of samples (H, W, C), with 0 where the image ends."""
    height, width, C = samples.shape
    padded = np.pad(samples, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
    return padded.reshape(padded.shape[0] // TILE, TILE, padded.shape[1] // TILE, TILE, C)
