"""The Bjøntegaard delta rate: how many more bits a codec needs for the same quality.

Log rate is interpolated over quality by PCHIP (Fritsch and Carlson 1980, with the slopes that scipy
and MATLAB use) and averaged over the range of quality that both curves reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from licodec.errors import LicodecError

Array = npt.NDArray[np.float64]


class CurveError(LicodecError):
    """A rate-distortion curve that cannot be interpolated."""


def bd_rate(
    anchor: tuple[Sequence[float], Sequence[float]], curve: tuple[Sequence[float], Sequence[float]]
) -> float | None:
    """Percentage of bits that `curve` needs beyond `anchor`; None where their qualities part.

    Args:
        anchor, curve: bpp and quality (dB, higher is better) of each point, in any order.

    Raises:
        CurveError: fewer than two points, or more bits without more quality.
    """
    quality_a, log_rate_a = _sorted(*anchor)
    quality_b, log_rate_b = _sorted(*curve)
    low = max(quality_a[0], quality_b[0])
    high = min(quality_a[-1], quality_b[-1])
    if low >= high:
        return None
    difference = integrate(quality_b, log_rate_b, low, high) - integrate(
        quality_a, log_rate_a, low, high
    )
    return float(100 * np.expm1(difference / (high - low)))


def _sorted(bpp: Sequence[float], quality: Sequence[float]) -> tuple[Array, Array]:
    """Quality, strictly increasing, and log rate. Points that stand twice count once."""
    points = np.unique(np.array([bpp, quality], np.float64), axis=1)  # by bpp, then quality
    if points.shape[1] < 2:
        raise CurveError("too few points")
    if not np.isfinite(points).all() or points[0, 0] <= 0:
        raise CurveError("a point is not a number")
    if (np.diff(points[0]) <= 0).any() or (np.diff(points[1]) <= 0).any():
        raise CurveError("not monotone")
    return points[1], np.log(points[0])


def integrate(x: Array, y: Array, low: float, high: float) -> float:
    """The integral of y's PCHIP interpolant over low … high, inside x's range.

    x (n,) strictly increasing, y (n,).
    """
    h = np.diff(x)
    delta = np.diff(y) / h
    d = _slopes(h, delta)
    c2 = (3 * delta - 2 * d[:-1] - d[1:]) / h
    c3 = (d[:-1] + d[1:] - 2 * delta) / h**2

    def antiderivative(end: float) -> Array:
        t = np.clip(end, x[:-1], x[1:]) - x[:-1]
        return np.asarray(t * (y[:-1] + t * (d[:-1] / 2 + t * (c2 / 3 + t * c3 / 4))))

    return float((antiderivative(high) - antiderivative(low)).sum())


def _slopes(h: Array, delta: Array) -> Array:
    """PCHIP's derivative at each of the n knots, from n−1 widths and secants."""
    if len(delta) == 1:
        return np.repeat(delta, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        harmonic = (w1 + w2) / (w1 / delta[:-1] + w2 / delta[1:])
    inner = np.where(delta[:-1] * delta[1:] > 0, harmonic, 0.0)
    first = _end_slope(h[0], h[1], delta[0], delta[1])
    last = _end_slope(h[-1], h[-2], delta[-1], delta[-2])
    return np.concatenate([[first], inner, [last]])


def _end_slope(h0: float, h1: float, delta0: float, delta1: float) -> float:
    """The three-point derivative at an end, held back where it would overshoot."""
    d = ((2 * h0 + h1) * delta0 - h0 * delta1) / (h0 + h1)
    if d * delta0 <= 0:
        return 0.0
    if delta0 * delta1 <= 0 and abs(d) > 3 * abs(delta0):
        return 3 * delta0
    return d
