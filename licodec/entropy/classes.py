"""Classes: which of its channel's distributions a latent has, by what is decoded already.

Channels are coded one after another, in an order of their own. The magnitudes of those before, at a
latent's place and around it, are weighed into a forecast of its own, and thresholds sort the forecasts
from calm to busy. Everything here is numbered by coding order.

    |ŷ| of channels 0 … i-1 ─ at the place, over 3x3 around it ─ weights ─► forecast ─ thresholds ─► class

All of it is integers, carried in float32 whose sums stay below 2^24 and so are exact in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.tables import count_values, interpolate

Integers = NDArray[np.int32]
Classes = NDArray[np.uint8]

MAGNITUDE_LIMIT = 63
"""Larger magnitudes count as this."""
_EXACT = 2**24
_BLOCK = 16
"""Channels whose forecasts are begun together."""
_ROWS = 64
"""Channels whose forecasts are made together where all latents are known."""


def bands(height: int, width: int) -> list[slice]:
    """Rows of latents that are coded together: at most 2^16 positions, so that memory is bounded."""
    rows = max(1, 2**16 // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def magnitudes(values: Integers, limit: int = MAGNITUDE_LIMIT) -> NDArray[np.uint32]:
    """min(|values|, limit)."""
    # The least int32 has no magnitude among them, but has one as an unsigned integer.
    found = np.abs(values).view(np.uint32)
    return np.minimum(found, limit, out=found)


class Features:
    """What the channels so far show in one band, in pairs of rows (channels · 2, positions).

    Row 2i holds what channel i shows at each position, row 2i + 1 its sums over 3x3 positions, the band
    being continued by its border. `forecasts` is what all blocks of channels behind tell the present one.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.rows = np.empty((2 * channels, height * width), dtype=np.float32)
        self.forecasts = np.zeros((_BLOCK, height * width), dtype=np.float32)

    def add(self, i: int, planes: NDArray[Any]) -> None:
        """Take in the channels from the i-th on, of which planes (channels, h, w) has integers."""
        channels, height, width = planes.shape
        padded = np.empty((channels, height + 2, width + 2), dtype=np.float32)
        inner = padded[:, 1:-1, 1:-1]
        inner[...] = planes
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
        padded[..., 0], padded[..., -1] = padded[..., 1], padded[..., -2]
        columns = padded[:, :-2] + padded[:, 1:-1]
        columns += padded[:, 2:]
        pairs = self.rows[2 * i : 2 * (i + channels)].reshape(channels, 2, height, width)
        pairs[:, 0] = inner
        np.add(columns[..., :-2], columns[..., 1:-1], out=pairs[:, 1])
        pairs[:, 1] += columns[..., 2:]


class Classifier:
    """The classes of all channels, at any rate.

    Args:
        order: (M,) the channels in the order in which they are coded.
        weights: (M, 2M) integers; row i is zero from column 2i on.
        thresholds: (K, M, C - 1) rising forecasts, for C classes at K rates.
        steps: positions from one rate to the next.
    """

    def __init__(
        self,
        order: NDArray[np.int16],
        weights: NDArray[np.int16],
        thresholds: NDArray[np.int32],
        steps: int,
    ) -> None:
        self.order = order.tolist()
        self.weights = weights.astype(np.float32)
        self.thresholds = thresholds
        self.steps = steps

    def at(self, position: int) -> NDArray[np.float32]:
        """Thresholds (M, C - 1) at a rate."""
        return interpolate(self.thresholds, position, self.steps).astype(np.float32)

    def classes(self, i: int, features: Features, thresholds: NDArray[np.float32]) -> Classes:
        """(positions,) classes of the i-th channel, once the features of all before it are in."""
        out = np.zeros(features.rows.shape[1], dtype=np.uint8)
        if thresholds.shape[1] == 0:
            return out
        row = i % _BLOCK
        first = i - row
        if row == 0:  # one product of matrices a block, in place of long ones of vectors
            behind = self.weights[i : i + _BLOCK, : 2 * i]
            np.matmul(behind, features.rows[: 2 * i], out=features.forecasts[: len(behind)])
        recent = slice(2 * first, 2 * i)
        forecast = self.weights[i, recent] @ features.rows[recent]
        forecast += features.forecasts[row]
        # Thresholds rise: the class is the number of them that the forecast reaches.
        for threshold in thresholds[i]:
            out += forecast >= threshold
        return out

    def all_classes(self, y: Integers, thresholds: NDArray[np.float32]) -> Classes:
        """(channels, positions) classes of a band y (M, h, w), in coding order.

        With all channels at hand, what `classes` finds one by one comes at once.
        """
        count = len(self.order)
        out = np.zeros((count, y[0].size), dtype=np.uint8)
        if thresholds.shape[1] and count:
            features = Features(count, *y.shape[1:])
            features.add(0, magnitudes(y[self.order]))
            for top in range(0, count, _ROWS):  # none looks at a later one
                rows = slice(top, top + _ROWS)
                behind = 2 * min(top + _ROWS, count)
                forecasts = self.weights[rows, :behind] @ features.rows[:behind]
                for threshold in thresholds[rows].T:
                    out[rows] += forecasts >= threshold[:, None]
        return out

    def sort(self, y: Integers, position: int, visible: NDArray[np.bool_] | None = None) -> Classes:
        """(channels, h, w) classes of all of y (M, h, w), in coding order; y counts as 0 where not
        visible (h, w)."""
        thresholds = self.at(position)
        out = np.zeros((len(self.order), *y.shape[1:]), dtype=np.uint8)
        for band in bands(*y.shape[1:]):
            part = y[:, band]
            if visible is not None:
                part = np.where(visible[band], part, 0)
            out[:, band] = self.all_classes(part, thresholds).reshape(-1, *part.shape[1:])
        return out

    def counts(
        self, y: Integers, classes: Classes, bins: int, visible: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """How often each channel of y (M, h, w) takes each value in each of the classes that `sort`
        found: (M, C, bins + 1); nothing for channels that have none.

        Only at positions that are `visible` (h, w), by default all.
        """
        C, count = self.thresholds.shape[2] + 1, len(self.order)
        total = np.zeros((C * count, bins + 1), dtype=np.int64)
        for band in bands(*y.shape[1:]):
            shape = (count, y[0, band].size)
            rows = classes[:, band].reshape(shape) + C * np.arange(count)[:, None]
            flat = y[self.order, band].reshape(shape)
            if visible is not None:
                shown = visible[band].reshape(-1)
                flat, rows = flat[:, shown], rows[:, shown]
            total += count_values(flat.reshape(-1), rows.reshape(-1), C * count, bins)
        out = np.zeros((len(y), C, bins + 1), dtype=np.int64)
        out[self.order] = total.reshape(count, C, bins + 1)
        return out

    def among(self, kept: NDArray[np.bool_]) -> Classifier:
        """Of the channels that are kept (M,) alone, where all others are 0 throughout."""
        rows = kept[self.order]
        return Classifier(
            np.asarray(self.order)[rows],
            self.weights[rows][:, rows.repeat(2)],
            self.thresholds[:, rows],
            self.steps,
        )


def check_exact(
    weights: NDArray[np.int16],
    limit: int = MAGNITUDE_LIMIT,
    near: NDArray[np.int16] | None = None,
    starts: NDArray[np.int64] | None = None,
) -> None:
    """Refuse weights whose forecasts float32 might round.

    Args:
        limit: the largest magnitude of a feature at one position.
        near: (M,) weights of a channel's own four neighbours, if it sees them.
        starts: (M,) the first channel that one does not see; by default itself.

    Raises:
        ValueError: a sum could reach 2^24, or a channel looks at what is not decoded yet.
    """
    largest = (np.abs(weights.astype(np.int64)) * np.tile([1, 9], weights.shape[1] // 2)).sum(1)
    if near is not None:
        largest += 4 * np.abs(near.astype(np.int64))
    if limit * largest.max() >= _EXACT:
        raise ValueError("context weights too large for exact sums")
    channels = np.arange(weights.shape[1]) // 2
    unseen = np.arange(len(weights)) if starts is None else starts
    if weights[channels[None] >= unseen[:, None]].any():
        raise ValueError("a context looks at what is not decoded yet")
