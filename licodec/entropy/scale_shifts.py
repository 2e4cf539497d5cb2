"""Scale shifts: Gaussians get wider or narrower by what is decoded already.

h_s tells a scale for every latent from ẑ alone. What is decoded since tells more: a latent that is larger
than its scale promised says that others around it will be, too, and a place that keeps still, that they
will not. Channels are coded block by block, in an order of their own, the busiest alone:

    scale's index, latent of earlier blocks ─ table ─► score, at the place and over 3x3 around it
                                                └─ weights ─► so many scales further up or down for a channel

A score is ∂ log p/∂ log σ of the latent under its Gaussian: above 0 where a larger scale would have suited
it better. Some blocks are coded in two halves, as on a chessboard: the second sees the four neighbours
of each of its latents in the first, whose scores move its scale and whose values its mean.

All of it is integers. Forecasts are carried in float32, whose sums stay below 2^24 and so are exact in any
order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.classes import Features, magnitudes
from licodec.entropy.gaussian import MEAN_UNIT, Gaussians, choose_steps
from licodec.rangecoder import Coder

Integers = NDArray[np.int32]

PREFIX = "surprises."
"""How their tensors' names start in weights files."""
PARTS = ("order", "blocks", "weights", "own", "table")
"""The tensors of `ScaleShifts`, in the order of its arguments."""
LARGEST = 64
"""No score is larger, to either side."""
REACH = 128
"""Magnitudes from REACH - 1 on have one score."""
SHIFT_UNIT = 2**16
"""Forecasts are in this fraction of the way from one scale to the next."""

NEAR_LIMIT = 15
"""Neighbours' values count as no more than so many steps."""
NEAR_BITS = 8
"""Of the fraction that the weights of neighbours' values have."""


class ScaleShifts:
    """The corrections of one weights file.

    Args:
        order: (M,) the channels in the order in which they are coded.
        blocks: (B,) how many of them are coded together; M in all.
        weights: (M, 2M) integers, numbered by coding order; zero from the first channel of a row's own
            block on.
        own: (M, 2) integers, numbered likewise: what the scores of a latent's four neighbours weigh, and
            their values; all 0 where a block is coded whole.
        table: (scales, REACH) the score at a magnitude, by the scale's index.
    """

    def __init__(
        self,
        order: NDArray[np.int16],
        blocks: NDArray[np.int16],
        weights: NDArray[np.int16],
        own: NDArray[np.int16],
        table: NDArray[np.int8],
    ) -> None:
        self.order = order.astype(np.intp)
        self.blocks = blocks.tolist()
        self.weights = weights.astype(np.float32)
        self.own = own.astype(np.int32)
        self.table = table

    def code(
        self, coder: Coder, gaussians: Gaussians, y: Integers | None,
        index: NDArray[np.uint8], mean: Integers, height: int, width: int, keep: bool = False,
    ) -> Integers:  # fmt: skip
        """Code y (M, height · width) in 1/MEAN_UNIT of a step, and return ŷ; all arrays are alike.

        Args:
            y: or None when decoding.
            index: of the scales that h_s tells.
            mean: that h_s tells, in 1/MEAN_UNIT.
            keep: whether index and mean are to become those that the latents are coded with.
        """
        features = Features(len(self.order), height, width)
        y_hat = np.empty(index.shape, dtype=np.int32)
        halves = chessboard(height, width)
        stop = 0
        for size in self.blocks:
            start, stop = stop, stop + size
            channels, plane = self.order[start:stop], (size, height, width)
            forecast = self.weights[start:stop, : 2 * start] @ features.rows[: 2 * start]
            own, about = index[channels], mean[channels]
            known = None if y is None else y[channels]
            steps = np.zeros(own.shape, dtype=np.int32)
            shown = np.zeros(own.shape, dtype=np.int8)
            for part in halves if self.own[start:stop].any() else [slice(None)]:
                if part is halves[1]:  # the first has no neighbours that are known, and so no sums
                    scale, shift = self.own[start:stop].T[:, :, None]
                    near = four(steps.clip(-NEAR_LIMIT, NEAR_LIMIT).reshape(plane))
                    forecast += scale.astype(np.float32) * four(shown.reshape(plane))
                    about = about + (shift * near >> NEAR_BITS)
                scale_index = moved(own[:, part], forecast[:, part], len(self.table))
                values = (
                    None if known is None else choose_steps(known[:, part] - about[:, part]).ravel()
                )
                coded = gaussians.code(coder, values, scale_index.ravel(), None)
                steps[:, part] = coded.reshape(scale_index.shape)
                shown[:, part] = score(self.table, own[:, part], steps[:, part])
                if keep:
                    places = channels[:, None], np.arange(height * width)[part]
                    index[places], mean[places] = scale_index, about[:, part]
            y_hat[channels] = steps * MEAN_UNIT + about
            features.add(start, shown.reshape(plane))
        return y_hat


def score(table: NDArray[np.int8], index: NDArray[np.uint8], values: Integers) -> NDArray[np.int8]:
    """The score of each of values under its scale, by the table (scales, REACH); of the shape of both."""
    found: NDArray[np.int8] = table[index, magnitudes(values, REACH - 1)]
    return found


def moved(
    index: NDArray[np.uint8], forecast: NDArray[np.float32], scales: int
) -> NDArray[np.uint8]:
    """The indices that latents are coded with, of h_s's own and of forecasts, all of one shape."""
    further = np.floor(forecast / SHIFT_UNIT + 0.5)
    found: NDArray[np.uint8] = (index + further).clip(0, scales - 1).astype(np.uint8)
    return found


def starts(blocks: NDArray[np.int16]) -> NDArray[np.int64]:
    """(M,) the first channel of each channel's block."""
    first: NDArray[np.int64] = np.repeat(np.cumsum(blocks) - blocks, blocks)
    return first


def chessboard(height: int, width: int) -> list[NDArray[np.intp]]:
    """The positions of a plane, row by row, whose row and column add up to an even number; and the others."""
    odd = (np.arange(height)[:, None] + np.arange(width)).reshape(-1) % 2
    return [np.flatnonzero(odd == half) for half in (0, 1)]


def four(planes: NDArray[Any]) -> Integers:
    """(C, h · w) sums over each position's neighbours above, below, left and right, of planes (C, h, w);
    outside is 0."""
    sums = np.zeros(planes.shape, dtype=np.int32)
    sums[:, 1:] += planes[:, :-1]
    sums[:, :-1] += planes[:, 1:]
    sums[:, :, 1:] += planes[:, :, :-1]
    sums[:, :, :-1] += planes[:, :, 1:]
    return sums.reshape(len(planes), -1)
