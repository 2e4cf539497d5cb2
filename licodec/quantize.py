"""What the encoder rounds y to: the nearest integer, or a cheaper one where that pays.

Any integers are legal; a decoder cannot tell. Rounding towards 0 saves bits and costs squared error; per
latent, the encoder takes what is least of bits + weight · error², by the very tables that will code it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from licodec.rangecoder import Pmf
from licodec.weights import Weights

CAUTION = 3.5
"""How much dearer an error counts than its first-order effect on the pixels: errors that all point to 0
add up. Chosen on held-out training images, where 3 to 5 do equally well."""


def nearest(u: NDArray[np.float32]) -> NDArray[np.int32]:
    """Plain rounding of (M, positions)."""
    return np.rint(u).astype(np.int32)


def error_weight(weights: Weights, position: int) -> NDArray[np.float64]:
    """(M,) bits that one squared quantization step of error is worth at a rate.

    From R + λ D with D = 255² · mean squared error: λ · 255² / 3 · sensitivity / gain², sensitivity being
    the squared error summed over pixels and channels that one squared unit of y causes.
    """
    sensitivity = weights.interpolated("sensitivity", position)
    gain = weights.gain(position).astype(np.float64)
    return CAUTION * weights.lmbda(position) * 255**2 / 3 * sensitivity / gain**2


def rate_distortion(
    u: NDArray[np.float32], pmf: Pmf, weight: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Integers near u that minimize bits + weight · (u - integer)² each.

    Args:
        u: (M, positions) latents in quantization steps.
        pmf: (M, bins + 1) the tables they are going to be coded with.
        weight: (M,) bits that one squared step of error is worth.

    Candidates are the nearest integer, its neighbour towards 0, and 0. Latents outside the bins keep the
    nearest.
    """
    half = (pmf.shape[1] - 1) // 2
    bits = -np.log2(np.maximum(pmf[:, :-1], 0.25) / pmf.sum(axis=1, keepdims=True))
    y = np.empty(u.shape, dtype=np.int32)
    for c, row in enumerate(u):
        best = np.rint(row).astype(np.int32)
        inside = np.clip(best, -half, half - 1)
        codable = inside == best
        cost = bits[c][inside + half] + weight[c] * (row - best) ** 2
        for candidate in (inside - np.sign(inside), np.zeros_like(inside)):
            other = bits[c][candidate + half] + weight[c] * (row - candidate) ** 2
            better = (other < cost) & codable
            best = np.where(better, candidate, best)
            cost = np.where(better, other, cost)
        y[c] = best
    return y
