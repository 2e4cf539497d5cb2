"""Scales that heed what is decoded: where the channels before surprised, later ones get wider Gaussians.

h_s tells a scale for every latent from ẑ alone. What is decoded since tells more: a latent that is larger
than its scale promised says that others around it will be, too, and a place that keeps still, that they
will not. Channels are coded one after another, in an order of their own:

    scale's index, latent of channels 0 … i-1 ─ table ─► surprise, at the place and over 3x3 around it
                                                 └─ weights ─► so many scales further up or down for channel i

A surprise is ∂ log p/∂ log σ of the latent under its Gaussian: above 0 where a larger scale would have suited
it better. Some channels are coded in two halves, as on a chessboard: the second sees the four neighbours
of each of its latents in the first, whose surprises move its scale and whose values its mean.

All of it is integers. Forecasts are carried in float32, whose sums stay below 2^24 and so are exact in any
order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.contexts import Features, Forecasts
from licodec.gaussian import MEAN_UNIT, Gaussians, to_steps
from licodec.rangecoder import Coder

Integers = NDArray[np.int32]

LARGEST = 64
"""No surprise is larger, to either side."""
REACH = 128
"""Magnitudes from REACH - 1 on surprise alike."""
SHIFT_UNIT = 2**16
"""Forecasts are in this fraction of the way from one scale to the next."""

NEAR_LIMIT = 15
"""Neighbours' values count as no more than so many steps."""
NEAR_BITS = 8
"""Of the fraction that the weights of neighbours' values have."""


class Surprises(Forecasts):
    """The corrections of one weights file.

    Args:
        order: (M,) the channels in the order in which they are coded.
        weights: (M, 2M) integers, numbered by coding order; row i is zero from column 2i on.
        own: (M, 2) integers, numbered likewise: what the surprises of a latent's four neighbours weigh, and
            their values; both 0 where a channel is coded whole.
        table: (scales, REACH) the surprise at a magnitude, by the scale's index.
    """

    def __init__(
        self, order: NDArray[np.int16], weights: NDArray[np.int16], own: NDArray[np.int16],
        table: NDArray[np.int8],
    ) -> None:  # fmt: skip
        super().__init__(weights)
        self.order = order.tolist()
        self.own = own.tolist()
        self.table = table

    def code(
        self, coder: Coder, gaussians: Gaussians, y: Integers | None,
        index: NDArray[np.uint8], mean: Integers, height: int, width: int,
    ) -> Integers:  # fmt: skip
        """Code y (M, height · width) in 1/MEAN_UNIT of a step, and return ŷ; all arrays are alike.

        Args:
            y: or None when decoding.
            index: of the scales that h_s tells.
            mean: that h_s tells, in 1/MEAN_UNIT.
        """
        features = Features(len(self.order), height, width)
        index, mean = np.ascontiguousarray(index), np.ascontiguousarray(mean)
        y_hat = np.empty(index.shape, dtype=np.int32)
        halves = chessboard(height, width)
        for i, channel in enumerate(self.order):
            forecast = self.forecast(i, features)
            own, about = index[channel], mean[channel]
            steps = np.zeros(height * width, dtype=np.int32)
            shown = np.zeros(height * width, dtype=np.int8)
            parts = halves if any(self.own[i]) else [slice(None)]
            for part in parts:
                if part is halves[1]:
                    plane = (height, width)
                    forecast, about = self.nearby(
                        i, forecast, about, shown.reshape(plane), steps.reshape(plane)
                    )
                moved = self.moved(own[part], forecast[part])
                known = None if y is None else to_steps(y[channel, part] - about[part])
                steps[part] = coded = gaussians.code(coder, known, moved, None)
                shown[part] = self.of(own[part], coded)
                y_hat[channel, part] = coded * MEAN_UNIT + about[part]
            features.add(i, shown.reshape(1, height, width))
        return y_hat

    def nearby(
        self, i: int, forecast: NDArray[np.float32], mean: Integers,
        shown: NDArray[np.int8], steps: Integers,
    ) -> tuple[NDArray[np.float32], Integers]:  # fmt: skip
        """The i-th channel's forecasts and means (h · w,), moved by what half of it showed (h, w)."""
        scale, shift = self.own[i]
        near = four(steps.clip(-NEAR_LIMIT, NEAR_LIMIT)).astype(np.int32)
        return forecast + np.float32(scale) * four(shown), mean + (shift * near >> NEAR_BITS)

    def moved(self, index: NDArray[np.uint8], forecast: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The indices that latents are coded with, of h_s's own and of forecasts, all of one shape."""
        further = np.floor(forecast / SHIFT_UNIT + 0.5)
        moved: NDArray[np.uint8] = (index + further).clip(0, len(self.table) - 1).astype(np.uint8)
        return moved

    def of(self, index: NDArray[np.uint8], values: Integers) -> NDArray[np.int8]:
        """The surprise at each of values, of the shape of both."""
        # The least int32 has no magnitude among them, but has one as an unsigned integer.
        magnitude = np.minimum(np.abs(values).view(np.uint32), REACH - 1)
        found: NDArray[np.int8] = self.table[index, magnitude]
        return found


def chessboard(height: int, width: int) -> list[NDArray[np.intp]]:
    """The positions of a plane, row by row, whose row and column add up to an even number; and the others."""
    odd = (np.arange(height)[:, None] + np.arange(width)).reshape(-1) % 2
    return [np.flatnonzero(odd == half) for half in (0, 1)]


def four(plane: NDArray[Any]) -> NDArray[np.int16]:
    """(h · w,) sums over each position's neighbours above, below, left and right; outside is 0."""
    sums = np.zeros(plane.shape, dtype=np.int16)
    sums[1:] += plane[:-1]
    sums[:-1] += plane[1:]
    sums[:, 1:] += plane[:, :-1]
    sums[:, :-1] += plane[:, 1:]
    return sums.reshape(-1)
