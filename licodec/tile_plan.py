"""Which tiles of a picture a file corrects, and how: what that wins against what it costs.

A tile has all its samples coded anew (`entropy.residual`), a few of them corrected (`entropy.corrections`),
or neither. The former suits drawings, the latter photographs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.corrections import TILE, CorrectionPlan, part_of
from licodec.entropy.residual import LARGEST_STEP, ResidualPlan

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LEAST_PSNR = 36.0
"""In dB, of every tile from quality 90 on."""
_FLOOR = 255**2 / 10 ** (LEAST_PSNR / 10)
LEAST_FROM = 180
"""The header's quality from which that holds."""
_SAFE_STEP = 13
"""Errors that are even within such a step have LEAST_PSNR."""
_FINER = (_SAFE_STEP, 11, 9, 7)
"""Steps of corrections. With 7, a tile has LEAST_PSNR whatever its errors are."""
_COARSEST = 63
_BLOCK = 4
"""Pixels a side over which a tile's bits are estimated."""
_SPREAD = 2.5
"""An error of e is taken to cost log2(1 + _SPREAD · e / step) bits."""
_ONE_STEP, _TWICE = 1.5, 1.5
"""Bits of a correction's sign and size, for one step and for twice as many steps."""
_LEAST_BITS = 12
"""Of a correction that stands alone."""
_LEARNING = 800.0
"""Bits that it takes until the tables of corrections fit."""


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
        chosen = np.stack([_largest(x[rows], x_hat[rows]) > max_error for rows in strips])
        return ResidualPlan(2 * max_error + 1, chosen) if chosen.any() else None
    weight = lmbda / x.shape[2]
    has_floor = quality_step >= LEAST_FROM
    step = min(_step(lmbda), _SAFE_STEP) if has_floor else _step(lmbda)
    weighed = [_weighed(x[rows], x_hat[rows], weight, step) for rows in strips]
    costs, mse = (np.stack(part) for part in zip(*weighed, strict=True))
    too_bad = (mse > _FLOOR) & has_floor
    corrections = _corrections(x, x_hat, weight, _step(lmbda), costs, too_bad)
    chosen = (costs < 0) | too_bad
    if corrections is None:
        return ResidualPlan(step, chosen) if chosen.any() else None
    return ResidualPlan(step, chosen & ~corrections.chosen, corrections)


def _weighed(x: Array, x_hat: Array, weight: float, step: int) -> tuple[Array, Array]:
    """Of each tile of a strip, what a residual costs, in bits, the error that it saves taken off; and the
    mean squared error without."""
    height, width, C = x.shape
    error = _difference(x, x_hat)
    samples = C * height * np.minimum(TILE, width - np.arange(0, width, TILE))
    before = _by_tile(np.square(error, dtype=np.int64))
    after = np.minimum(before, samples * (step**2 - 1) / 12)
    # Predictions take what x̂ misses, or how x changes from pixel to pixel, whichever is less.
    change = np.zeros_like(x)
    change[:, 1:] = _difference(x[:, 1:], x[:, :-1])
    missed = np.minimum(_by_block(error), _by_block(change))
    bits = C * _BLOCK**2 * np.log2(1 + _SPREAD / step * missed).sum(0)
    bits = np.add.reduceat(bits, np.arange(0, len(bits), TILE // _BLOCK))
    return bits - weight * (before - after), before / samples


def _corrections(
    x: Array, x_hat: Array, weight: float, step: int, costs: Array, too_bad: Mask
) -> CorrectionPlan | None:
    """The tiles that are best corrected in few samples, None for none.

    Args:
        weight: of a squared error, in bits.
        step: of corrections; a finer one is taken where too bad a tile would not have LEAST_PSNR.
        costs: (rows, columns) of residuals.
        too_bad: the tiles that are to have LEAST_PSNR.
    """
    counts = {}
    for place in np.ndindex(costs.shape):
        error = _difference(part_of(x, place), part_of(x_hat, place))
        if too_bad[place] or weight * int(error.max()) ** 2 > _LEAST_BITS:
            counts[place] = np.bincount(error.reshape(-1), minlength=256)
    # Where x̂ is off by half a step all over, a residual would leave it.
    beyond = {p for p in counts if too_bad[p] and not _bound(counts[p], _SAFE_STEP, 0.0, True)[0]}
    bounds: dict[Any, tuple[int, float]] = {}
    for trial in (step, *(finer for finer in _FINER if finer < step)):
        step = trial
        bounds = {p: _bound(found, step, weight, too_bad[p]) for p, found in counts.items()}
        if all(bound for place, (bound, _) in bounds.items() if too_bad[place]):
            break
    least, won = np.zeros(costs.shape, np.int64), 0.0
    for place, (bound, cost) in bounds.items():
        other = costs[place] if too_bad[place] else min(0.0, costs[place])
        if place in beyond or cost < other:
            least[place], won = bound, won + other - cost
    if won < _LEARNING and not too_bad.any():
        return None
    return CorrectionPlan(step, least > 0, least) if least.any() else None


def _bound(counts: Array, step: int, weight: float, is_too_bad: bool) -> tuple[int, float]:
    """From which error on a tile is best corrected, of which there are so many (256,), 0 where none is
    enough for a tile that is too bad; and its cost, as of a residual."""
    errors, total = np.arange(256), counts.sum()
    steps = (errors + step // 2) // step
    before, after = errors**2, (errors - steps * step) ** 2
    size = _ONE_STEP + _TWICE * np.log2(np.maximum(1, steps))
    won, sizes, share = (_from(counts * v) for v in (before - after, size, 1 / total))
    where = [-p * np.log2(np.maximum(p, 1e-12)) for p in (share, 1 - share)]
    costs = total * (where[0] + where[1]) + sizes - weight * won
    costs[0] = math.inf
    if is_too_bad:
        costs[won < (counts * before).sum() - _FLOOR * total] = math.inf
    bound = int(costs.argmin())
    return (bound if costs[bound] < math.inf else 0), float(costs[bound])


def _from(values: Array) -> Array:
    """Sums of all values from each place on."""
    sums: Array = np.cumsum(values[::-1])[::-1]
    return sums


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


def _by_block(values: Array) -> Array:
    """Means over the blocks of a strip (height, width, C); those at its edges count as whole ones."""
    height, width, C = values.shape
    rows, columns = (np.arange(0, side, _BLOCK) for side in (height, width))
    sums = np.add.reduceat(values.sum(2, dtype=np.int32), rows, axis=0)
    means: Array = np.add.reduceat(sums, columns, axis=1) / (C * _BLOCK**2)
    return means


def _step(lmbda: float) -> int:
    """The odd step whose uniform errors are as dear as λ says: R + λD is least where D falls by
    6 dB a bit."""
    ideal = math.sqrt(26 / max(lmbda, 1e-9))
    return max(3, min(_COARSEST, LARGEST_STEP, 2 * int(ideal / 2) + 1))
