"""How an image's residuals are distributed within their classes, told by a few numbers (paper 1).

    counts ─ h_a ─► z ─ coder ─► h_s ─► Δ + log2 prior ─ softmax ─► tables

h_s is linear: Δ is a sum of directions, each times a z. The tables are then an exponential family, in which
the z that codes an image with the fewest bits is the minimum of a convex function: h_a is Newton's method.
Where z costs more than it wins, a flag says that there is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.tables import (
    LOG2_UNIT,
    code_values,
    count_values,
    information,
    integer_softmax,
    interpolate,
)
from licodec.networks.fixed_point import Tensors
from licodec.rangecoder import Coder, Pmf
from licodec.weights.file import STEPS

Integers = NDArray[np.int32]

DIRECTION_SHIFT = 4
"""Directions are in 1/(LOG2_UNIT · 2^DIRECTION_SHIFT) of a bit."""
_ROUNDS = 8
_RIDGE = 1e-3
_EVEN = np.ones(2, np.int64)


class ClassDistributions:
    """The tables of the classes, of all images or of one.

    Args:
        tensors: `class_prior` (K, C, bins + 1) by rate; `class_directions` (J, C, bins + 1);
            `class_z_prior` (J, entries), the tables of z.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.prior = tensors["class_prior"]
        self.directions = tensors["class_directions"].astype(np.int64)
        self.z_tables = integer_softmax(tensors["class_z_prior"].astype(np.int64))
        self.reach = self.z_tables.shape[1] // 2 - 1
        """|z| at most, as an encoder chooses it."""

    def tables(self, position: int, z: Integers | None) -> Pmf:
        """(C, bins + 1) frequencies; z (J,), or None for those of all images."""
        logits = interpolate(self.prior, position, STEPS)
        if z is not None:
            logits += np.tensordot(z.astype(np.int64), self.directions, 1) >> DIRECTION_SHIFT
        return integer_softmax(logits)

    def choose(self, counts: NDArray[np.int64], position: int) -> Integers | None:
        """The encoder's z (J,) for counts (C, bins + 1); None where that costs fewer bits in all."""
        best = self._best(counts.astype(np.float64), position)
        z = np.clip(np.rint(best), -self.reach, self.reach).astype(np.int32)
        plain = information(counts, self.tables(position, None))
        told = information(counts, self.tables(position, z)) + self.z_bits(z)
        return z if told < plain else None

    def _best(self, counts: NDArray[np.float64], position: int) -> NDArray[np.float64]:
        """The z of the fewest bits but for their own."""
        J = len(self.directions)
        unit = LOG2_UNIT << DIRECTION_SHIFT
        # Of the classes that are there: most images lack some.
        there = counts.sum(1) > 0
        counts = counts[there]
        total = counts.sum(1)
        directions = self.directions[:, there] / unit
        base = interpolate(self.prior, position, STEPS)[there] / LOG2_UNIT
        z = np.zeros(J)
        for _ in range(_ROUNDS):
            logits = base + np.tensordot(z, directions, 1)
            p = np.exp2(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            mean = (p * directions).sum(2)
            slope = (total * mean).sum(1) - (counts * directions).sum((1, 2))
            weighted = (directions * (p * total[:, None])).reshape(J, -1)
            curvature = weighted @ directions.reshape(J, -1).T - (mean * total) @ mean.T
            curvature *= np.log(2)
            curvature += _RIDGE * np.eye(J)
            step = np.linalg.solve(curvature, slope)
            z -= np.clip(step, -self.reach / 2, self.reach / 2)
        return np.clip(z, -self.reach, self.reach)

    def z_bits(self, z: Integers) -> float:
        """Information of z under its tables."""
        J, entries = self.z_tables.shape
        return information(count_values(z, np.arange(J), J, entries - 1), self.z_tables)

    def side_bits(self, z: Integers | None) -> float:
        """Information of what `code_side` codes."""
        return 1.0 if z is None else 1.0 + self.z_bits(z)

    def code_side(self, coder: Coder, z: Integers | None, is_known: bool) -> Integers | None:
        """Code whether there is a z, and z; the decoder, to which it is not known, passes None."""
        flag = np.array([z is not None], np.int32) if is_known else None
        if not coder.code(flag, 1, _EVEN)[0]:
            return None
        return code_values(coder, z, None, self.z_tables)
