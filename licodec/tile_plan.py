"""Which tiles of a picture a file corrects, and how finely: what a residual wins against what it costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.residual import LARGEST_STEP, TILE, ResidualPlan

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LEAST_PSNR = 36.0
"""In dB, of every tile from quality 90 on."""
_FLOOR = 255**2 / 10 ** (LEAST_PSNR / 10)
LEAST_FROM = 180
"""The header's quality from which that holds."""
_MARGIN = 1.5
"""A residual has to win so many times its estimated bits: estimates err, and little is not worth a tile."""
_BITS = np.where(np.arange(256), 1 + 2 * np.log2(1.0 + np.arange(256)), 0.15)
"""About what a residual of so many steps costs: what x̂ misses, or how x changes from pixel to pixel,
whichever is less in a tile."""
_COARSEST = 63


def plan_tiles(
    x: NDArray[np.uint8],
    x_hat: NDArray[np.uint8],
    lmbda: float,
    quality_step: int,
    max_error: int | None,
) -> ResidualPlan | None:
    """The tiles of x (H, W, C) to be corrected, x̂ being what a decoder gets without; None for none.

    Args:
        lmbda: weight of the mean squared error on 0 … 255 against bits per pixel.
        max_error: what no sample may be off by more; None to weigh cost and gain.
    """
    strips = [slice(top, top + TILE) for top in range(0, len(x), TILE)]
    if max_error is not None:
        step = 2 * max_error + 1
        chosen = np.stack([_largest(x[rows], x_hat[rows]) > max_error for rows in strips])
    else:
        step = _step(lmbda)
        if quality_step >= LEAST_FROM:
            step = min(step, 2 * math.floor(math.sqrt(3 * _FLOOR)) - 1)
        least = _FLOOR if quality_step >= LEAST_FROM else math.inf
        chosen = np.stack([_wins(x[rows], x_hat[rows], lmbda, step, least) for rows in strips])
    return ResidualPlan(step, chosen) if chosen.any() else None


def _wins(x: Array, x_hat: Array, lmbda: float, step: int, least: float) -> Mask:
    """Which tiles of a strip a residual serves: it is cheaper than the error, or that is above least."""
    error = _difference(x, x_hat)
    height, width, C = x.shape
    samples = C * height * np.minimum(TILE, width - np.arange(0, width, TILE))
    before = _by_tile(np.square(error, dtype=np.int64))
    after = np.minimum(before, samples * (step**2 - 1) / 12)
    change = np.zeros_like(x)
    change[:, 1:] = _difference(x[:, 1:], x[:, :-1])
    own, steps = (_by_tile(_BITS[values // step]) for values in (error, change))
    wins: Mask = lmbda / C * (before - after) > _MARGIN * np.minimum(own, steps)
    return wins | (before > least * samples)


def _largest(x: Array, x_hat: Array) -> Array:
    """The largest error of each tile of a strip."""
    largest = _difference(x, x_hat).max((0, 2))
    found: Array = np.maximum.reduceat(largest, np.arange(0, len(largest), TILE))
    return found


def _difference(a: Array, b: Array) -> Array:
    """|a - b| of samples, which stay bytes."""
    difference: Array = np.maximum(a, b) - np.minimum(a, b)
    return difference


def _by_tile(values: Array) -> Array:
    """Sums over the tiles of a strip (height, width, C)."""
    columns = values.sum((0, 2))
    sums: Array = np.add.reduceat(columns, np.arange(0, len(columns), TILE))
    return sums


def _step(lmbda: float) -> int:
    """The odd step whose uniform errors are as dear as λ says: R + λD is least where D falls by
    6 dB a bit."""
    ideal = math.sqrt(26 / max(lmbda, 1e-9))
    return max(3, min(_COARSEST, LARGEST_STEP, 2 * int(ideal / 2) + 1))
