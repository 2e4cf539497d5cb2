"""Tables that learn from what is coded: encoder and decoder keep the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.tables import code_values
from licodec.rangecoder import Coder

Array = NDArray[Any]


class LearningTables:
    """Tables (classes, entries): frequencies start at a guess and rise with what is coded."""

    def __init__(self, counts: Array, gain: int) -> None:
        self.counts, self.gain = counts.astype(np.int64), gain

    def order(self, classes: Array) -> tuple[Array, Array]:
        """Places by rising class, and how many of each there are."""
        return np.argsort(classes, kind="stable"), np.bincount(classes, minlength=len(self.counts))

    def learn(self, classes: Array, symbols: Array) -> None:
        entries = self.counts.shape[1]
        seen = np.bincount(classes * entries + symbols, minlength=self.counts.size)
        self.counts += self.gain * seen.reshape(self.counts.shape)


class LearningValues(LearningTables):
    """Tables of integers, centred on 0; the last entry is the escape."""

    def code(self, coder: Coder, values: Array | None, classes: Array) -> Array:
        """Values (n,) by their classes (n,)."""
        order, counts = self.order(classes)
        known = None if values is None else values[order].astype(np.int32)
        out = np.empty(len(order), np.int32)
        out[order] = code_values(coder, known, counts, self.counts)
        bins = self.counts.shape[1] - 1
        self.learn(classes, np.clip(out + bins // 2, 0, bins))
        return out
