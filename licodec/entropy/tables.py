"""Encoding distributions: measured histograms, integer tables, the range of a symbol.

A distribution is kept as log2 frequencies in units of 1/1024 bit, and only integers act on it from
there to the range coder:

    prior (K rates, M, bins) ─ interpolate ─► (M, bins) ─ + Δ of h_s ─► integer softmax ─► pmf

Bins 0 … 255 stand for the latents -128 … 127; the last bin is the escape for all others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.errors import UnsupportedImageError
from licodec.rangecoder import Coder, Frequencies, Pmf

BINS = 256
LOG2_UNIT = 1024
"""Log frequencies are integers in units of 1/1024 bit."""

PMF_TOTAL = 2**22
_FRACTION_BITS = 30


def _exp2_table() -> NDArray[np.int64]:
    """round(2^(30 - f/1024)) for f = 0 … 1023, by integers alone: no libm has a say in it."""
    precision = 128
    root = 1 << precision - 1
    for _ in range(10):  # ten square roots of 1/2
        root = math.isqrt(root << precision)
    values, power = [], 1 << precision
    for _ in range(LOG2_UNIT):
        shift = precision - _FRACTION_BITS
        values.append((power + (1 << shift - 1)) >> shift)
        power = power * root >> precision
    return np.array(values, dtype=np.int64)


_LEAST = 31 * LOG2_UNIT
"""So far below the largest, a weight is 0."""
_EXP2 = (_exp2_table()[None] >> np.arange(32)[:, None]).reshape(-1)
"""round(2^30 / 2^(f/1024)) for f = 0 … 1023, halved and rounded down for each whole bit of 0 … 31."""


def interpolate(prior: NDArray[Any], position: int, steps: int) -> NDArray[np.int64]:
    """Tables between two rates: log frequencies, or whatever else is linear there.

    Args:
        prior: (K, …) integers at the K anchors.
        position: 0 … (K-1)·steps.
        steps: positions from one anchor to the next.
    """
    k = min(position // steps, max(0, len(prior) - 2))
    t = position - k * steps
    row: NDArray[np.int64] = prior[k].astype(np.int64)
    row *= steps - t
    high = prior[min(k + 1, len(prior) - 1)].astype(np.int64)
    high *= t
    row += high
    row //= steps
    return row


EXP2_UNIT = 2**16


def exp2(logs: NDArray[np.int64]) -> NDArray[np.float64]:
    """2^(logs / EXP2_UNIT) as integers of 31 bits times powers of two; |logs| < 500 · EXP2_UNIT."""
    # Downwards from the next whole power, as the table goes.
    whole = -(-logs // EXP2_UNIT)
    below = whole * EXP2_UNIT - logs
    fine = EXP2_UNIT // LOG2_UNIT
    at, rest = below // fine, below % fine
    mantissa = _EXP2[at] - (_EXP2[at] - _EXP2[at + 1]) * rest // fine
    return np.ldexp(mantissa.astype(np.float64), whole - _FRACTION_BITS)


def integer_softmax(logits: NDArray[np.int64]) -> Pmf:
    """2^logits, normalized to frequencies that sum to about PMF_TOTAL.

    Integer arithmetic only. Shape (…, bins) to the same; entries may be 0.
    """
    below = logits.max(axis=-1, keepdims=True) - logits
    np.minimum(below, _LEAST, out=below)
    pmf: Pmf = _EXP2[below]
    totals = pmf.sum(axis=-1, keepdims=True)
    pmf *= PMF_TOTAL
    pmf //= totals
    return pmf


def code_values(
    coder: Coder,
    values: NDArray[np.int32] | None,
    counts: NDArray[np.int64] | None,
    pmf: Pmf | Frequencies,
) -> NDArray[np.int32]:
    """Code integers, however large, run after run under one table each: the one traversal.

    Args:
        values: (Σ counts,), or None when decoding.
        counts: (runs,) how long the runs are; None where each is a single value.
        pmf: (runs, bins + 1); the last entry of each row is the escape, the bins are centred on 0.
    """
    bins = pmf.shape[1] - 1
    symbols = None
    if values is not None:
        # As unsigned integers, those below the bins lie above them too.
        symbols = np.minimum((values + bins // 2).view(np.uint32), bins).view(np.int32)
    if counts is None:
        out = coder.code_each(symbols, pmf.astype(np.float64)).copy()
    else:
        out = np.empty(int(counts.sum()), dtype=np.int32)
        start = 0
        for row, count in zip(pmf, counts.tolist(), strict=True):
            run = slice(start, start + count)
            if count:
                out[run] = coder.code(None if symbols is None else symbols[run], count, row)
            start += count
    escaped = np.flatnonzero(out == bins)
    out -= bins // 2
    if len(escaped):
        outside = None if values is None else values[escaped]
        out[escaped] = code_outside(coder, outside, len(escaped), bins)
    return out


_COIN = np.array([1, 1], dtype=np.int64)
_LENGTHS = np.ones(25, dtype=np.int64)


def code_outside(
    coder: Coder, values: NDArray[np.int32] | None, count: int, bins: int | NDArray[np.int32]
) -> NDArray[np.int64]:
    """Values outside the bins: how far outside, folded with the sign, by Elias-gamma.

    `bins` may differ from value to value.

    n = 1 + 2·distance + (1 if below), distance from 0. The bit length of n, less one, is coded evenly
    among 25; then come the bits below its leading one as coins, highest first.
    """
    half = bins // 2
    n = lengths = None
    if values is not None:
        wide = values.astype(np.int64)
        n = np.where(wide < 0, 2 * (-half - 1 - wide) + 1, 2 * (wide - half)) + 1
        lengths = np.frexp(n.astype(np.float64))[1].astype(np.int32) - 1
        if lengths.max() >= len(_LENGTHS):
            raise UnsupportedImageError("a latent is beyond what the format can hold")
    lengths = coder.code(lengths, count, _LENGTHS)
    result = np.ones(count, dtype=np.int64)
    for bit in range(int(lengths.max()) - 1, -1, -1):
        rows = np.flatnonzero(lengths > bit)
        coins = None if n is None else (n[rows] >> bit & 1).astype(np.int32)
        result[rows] = result[rows] << 1 | coder.code(coins, len(rows), _COIN)
    folded = result - 1
    distance = folded >> 1
    return np.where(folded & 1, -half - 1 - distance, half + distance)


def count_values(
    values: NDArray[np.int32], classes: NDArray[Any], C: int, bins: int
) -> NDArray[np.int64]:
    """How often values (count,) fall in each bin, by class: (C, bins + 1), the escapes last."""
    symbols = np.minimum((values + bins // 2).view(np.uint32), bins)
    return np.bincount(classes * (bins + 1) + symbols, minlength=C * (bins + 1)).reshape(
        C, bins + 1
    )


def count_channels(planes: NDArray[np.int32], bins: int) -> NDArray[np.int64]:
    """`count_values` of each of some planes (C, h, w): (C, bins + 1)."""
    channels = np.repeat(np.arange(len(planes)), planes[0].size)
    return count_values(planes.reshape(-1), channels, len(planes), bins)


def information(counts: NDArray[np.int64], pmf: Pmf) -> float:
    """Bits that symbols counted (…, bins + 1) cost under pmf, escapes at their table's price alone."""
    # Few: most bins of most tables stay empty, and those of booleans are found three times as fast.
    used = np.flatnonzero(counts.reshape(-1) != 0)
    totals = pmf.sum(axis=-1).reshape(-1)[used // pmf.shape[-1]]
    shares = np.maximum(pmf.reshape(-1)[used], PMF_TOTAL / 2**24) / totals
    return float(-(counts.reshape(-1)[used] * np.log2(shares)).sum())
