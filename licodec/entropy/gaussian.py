"""Gaussian distributions of quantized latents, from integers alone, and the order they are coded in.

A scale is chosen from 64 by integer comparison; a mean only shifts. The mass of each bin comes from
a table of the normal distribution's upper tail that big integers build: no libm has a say in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.tables import PMF_TOTAL, code_outside
from licodec.rangecoder import Coder, Frequencies, Pmf

Integers = NDArray[np.int32]

SCALE_UNIT = 2**16
"""The scales of the tables are integers in this fraction of a step."""

_GRID = 256
"""Points of the tail's table per standard deviation."""
_REACH = 10
"""Standard deviations that the tail's table covers; beyond is nothing."""
_TAIL_BITS = 40
_FRACTION_BITS = 16

_WIDEST = 4096


def _upper_tail() -> NDArray[np.int64]:
    """round(2^40 · Q(k/256)), k = 0 … 2560, Q being the normal distribution's upper tail.

    The sum of exp(-x²/2) over the points from k on, with Euler and Maclaurin's first two corrections,
    which leave an error of 1e-19. The density follows by multiplication from exp(-1/(2·256²)).
    """
    one = 1 << 128
    exponent = one // (2 * _GRID**2)
    ratio = term = one
    for n in range(1, 16):  # the exponential series
        term = -term * exponent // (one * n)
        ratio += term
    density, step, square = [one], ratio, ratio * ratio // one
    for _ in range(_GRID * _REACH):
        density.append(density[-1] * step // one)
        step = step * square // one
    beyond, tail = 0, []
    for k in reversed(range(len(density))):
        f = density[k]
        first = k * f // (12 * _GRID**2)
        second = (3 * k * _GRID**2 - k**3) * f // (720 * _GRID**6)
        tail.append(beyond + f // 2 - first - second)
        beyond += f
    tail.reverse()
    half = 1 << _TAIL_BITS - 1
    return np.array([(2 * value * half + tail[0]) // (2 * tail[0]) for value in tail], np.int64)


def _tail_at(distance: Pmf, scale: Pmf) -> Pmf:
    """2^40 · Q(distance / scale), linear between the table's points; distance ≥ 0 in SCALE_UNITs."""
    x = (distance << _FRACTION_BITS) * _GRID // scale
    k = np.minimum(x >> _FRACTION_BITS, _GRID * _REACH - 1)
    f = np.minimum(x - (k << _FRACTION_BITS), 1 << _FRACTION_BITS)
    drop = (_TAIL[k] - _TAIL[k + 1]) * f >> _FRACTION_BITS
    value: Pmf = _TAIL[k] - drop
    return value


_TAIL = _upper_tail()


def bins_of(scale: int) -> int:
    """How many bins a scale's table has: a power of two that holds 5.5 scales to either side."""
    bins = 8
    while bins < _WIDEST and bins * SCALE_UNIT < 11 * scale:
        bins *= 2
    return bins


def frequencies(bins: int, scale: Pmf, shift: Pmf) -> Pmf:
    """Frequencies (n, bins + 1) of the integers -bins/2 … bins/2 - 1 and, last, of all others.

    Args:
        scale: (n,) standard deviations in 1/SCALE_UNIT of a step.
        shift: (n,) means, likewise, within ± half a step.
    """
    edges = (np.arange(bins + 1) - bins // 2) * SCALE_UNIT - SCALE_UNIT // 2 - shift[:, None]
    tail = _tail_at(np.abs(edges), scale[:, None])
    whole = 1 << _TAIL_BITS
    below = np.where(edges < 0, tail, whole - tail)
    escape = below[:, :1] + whole - below[:, -1:]
    mass: Pmf = np.hstack([np.diff(below), escape])
    return mass * PMF_TOTAL >> _TAIL_BITS


MEAN_UNIT = 64
"""Means are integers in this fraction of a step."""


def to_steps(y: Integers) -> Integers:
    """The nearest whole steps of what is in 1/MEAN_UNIT, halves upwards."""
    steps: Integers = (y + MEAN_UNIT // 2) // MEAN_UNIT
    return steps


def choose_steps(y: Integers) -> Integers:
    """What the encoder codes of latents, means taken off, in 1/MEAN_UNIT: steps. Decoders take any."""
    return to_steps(y)


_BATCH = 2**20
"""Frequencies that are gathered at once; bounds the memory."""


class _Width:
    """The tables that have the same number of bins.

    Attributes:
        shifts: how many means within a step they tell apart; fewer for wide tables, where a shift
            of a small part of a scale makes no difference.
        shifted: (scales · shifts, bins + 1).
    """

    def __init__(self, bins: int, scales: Pmf) -> None:
        self.bins = bins
        self.shifts = max(1, min(MEAN_UNIT, MEAN_UNIT * 16 // bins))
        width = MEAN_UNIT // self.shifts  # means that share a table, which stands for their middle
        middles = (np.arange(self.shifts) * 2 * width + width - 1 - MEAN_UNIT) * (SCALE_UNIT // 128)
        self.shifted: Frequencies = frequencies(
            bins, np.repeat(scales, self.shifts), np.tile(middles, len(scales))
        ).astype(np.float64)


class Forecast(NamedTuple):
    """The Gaussians that latents (M, h, w) would be coded with.

    Attributes:
        indices: of their scales.
        means: in 1/MEAN_UNIT of a step.
        scales: standard deviations by index, in steps.
    """

    indices: NDArray[np.uint8]
    means: Integers
    scales: NDArray[np.float32]


MIXTURE_TOTAL = 2**14
"""What the shares of a mixture add up to."""


class Gaussians:
    """The tables of all scales and means within a step.

    Args:
        scales: (64,) rising, in 1/SCALE_UNIT of a step.
        mixture: (64, 64) shares of MIXTURE_TOTAL: what is coded about its mean with scale i has the
            distribution of scale j in mixture[i, j] of all cases. A scale is a forecast, which may err.

    Attributes:
        bins: (64,) of each scale's tables.
        centred: the table of each scale for a mean of 0, (bins + 1,).
    """

    def __init__(self, scales: NDArray[Any], mixture: NDArray[Any] | None = None) -> None:
        scales = scales.astype(np.int64)
        bins = [bins_of(int(scale)) for scale in scales]
        widths = sorted(set(bins))
        self.widths = [_Width(w, scales[np.array(bins) == w]) for w in widths]
        self.bins = np.array(bins, dtype=np.int32)
        self.centred: list[Frequencies] = []
        for width in widths:
            tables = frequencies(width, scales, np.zeros_like(scales))
            if mixture is not None:
                tables = mixture.astype(np.int64) @ tables // MIXTURE_TOTAL
            self.centred += [*tables[self.bins == width].astype(np.float64)]
        self.width_of = np.array([widths.index(b) for b in bins], dtype=np.uint8)
        self.place_of = np.array([i - bins.index(b) for i, b in enumerate(bins)], dtype=np.int64)

    def code(
        self, coder: Coder, values: Integers | None, index: NDArray[np.uint8], mean: Integers | None
    ) -> Integers:
        """Code integers (n,), however large, each under the Gaussian of its scale and mean.

        They go by rising scale or, with means, by rising width of their tables, equals in the order
        given; then comes what lies outside the bins.

        Args:
            values: or None when decoding.
            index: (n,) of the scale, 0 … 63.
            mean: (n,) in 1/MEAN_UNIT of a step; None for 0 everywhere.
        """
        key = index if mean is None else self.width_of[index]
        order = np.argsort(key, kind="stable")
        index = index[order]
        inner, whole = None, np.zeros(len(index), np.int32)
        if mean is not None:
            whole = to_steps(mean)
            inner = (mean - whole * MEAN_UNIT + MEAN_UNIT // 2)[order]
        escape = self.bins[index]
        half = escape // 2
        known = symbols = None
        if values is not None:
            known = (values - whole)[order]
            symbols = known + half
            symbols = np.where(symbols.view(np.uint32) < escape, symbols, escape)  # < 0 is large
        coded = np.empty(len(index), dtype=np.int32)
        for part, tables in self._groups(np.bincount(key).tolist(), index, inner):
            some = None if symbols is None else symbols[part]
            if tables.ndim == 1:
                coded[part] = coder.code(some, part.stop - part.start, tables)
            else:
                coded[part] = coder.code_each(some, tables)
        rows = np.flatnonzero(coded == escape)
        coded -= half
        if len(rows):
            outside = None if known is None else known[rows]
            coded[rows] = code_outside(coder, outside, len(rows), escape[rows])
        result = np.empty(len(index), dtype=np.int32)
        result[order] = coded
        return result + whole

    def _groups(
        self, counts: list[int], index: NDArray[np.uint8], inner: Integers | None
    ) -> Iterator[tuple[slice, Any]]:
        """(part, its one table or a table each) of what is coded in one call, of what is sorted by rising
        key, of which there are counts."""
        stop = 0
        for group, count in enumerate(counts):
            start, stop = stop, stop + count
            if not count:
                continue
            if inner is None:
                yield slice(start, stop), self.centred[group]
                continue
            width = self.widths[group]
            batch = max(1, _BATCH // width.bins)
            for first in range(start, stop, batch):
                part = slice(first, min(first + batch, stop))
                shift = inner[part] * width.shifts // MEAN_UNIT
                chosen = self.place_of[index[part]] * width.shifts + shift
                yield part, width.shifted.take(chosen, axis=0)
