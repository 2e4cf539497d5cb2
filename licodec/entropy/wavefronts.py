"""The context model: positions of y in an order in which each knows what it is predicted from.

They go by wavefronts: (i, j) at time 3i + j, when all that a 5x5 mask lets it see is known. The encoder
knows all of ŷ and runs context and parameters over many positions at once; being integers, they are
what the decoder computes front by front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from licodec.entropy.gaussian import MEAN_UNIT, Gaussians, choose_steps
from licodec.entropy.integer_nets import IntegerNet, LayerSpec
from licodec.networks.hyper import MaskedConv
from licodec.progress import track
from licodec.rangecoder import Coder

Integers = NDArray[np.int32]
Places = NDArray[np.int64]
Decide = Callable[[Tensor], tuple[NDArray[np.uint8], Integers]]

CONTEXT_LIMIT = 2**8 - 1
"""The context sees ŷ clamped to ± this many steps."""
PREDICTION = (LayerSpec("conv", 1, "none"),)
"""The context's layer, over columns of twelve neighbours."""
PARAMETERS = (
    LayerSpec("conv", 1, "leaky"),
    LayerSpec("conv", 1, "leaky"),
    LayerSpec("conv", 1, "none"),
)
"""The layers of the entropy parameters."""

_BATCH = 2**12
"""Positions of y whose parameters are computed at once; bounds the memory."""

_EARLY, _LATE = slice(0, 8), slice(8, MaskedConv.TAPS)
"""The context's taps of which a position has known all for three times, and the others: those to the right
in the row above, and those in its own row."""


class Wavefronts:
    """Context and entropy parameters over one plane of latents.

    Args:
        tensors: of `integer.context` and `integer.parameters`.
        limit: the largest magnitude of h_s's outputs.
        decide: scale indices and means (n, M) of the parameters' outputs (n, 2M).
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], limit: int, M: int, decide: Decide
    ) -> None:
        self.context = IntegerNet(tensors, "integer.context", PREDICTION, CONTEXT_LIMIT)
        largest = max(limit, self.context.limit)
        self.parameters = IntegerNet(tensors, "integer.parameters", PARAMETERS, largest)
        self.M, self.decide = M, decide

    def code(
        self, coder: Coder, gaussians: Gaussians, hyper: Tensor, h: int, w: int, y: Integers | None
    ) -> Integers:
        """Code y (h·w, M) in 1/MEAN_UNIT, None when decoding, and return ŷ.

        Args:
            hyper: (h·w, 2M) h_s's outputs.
        """
        neighbours = _Neighbours(h, w, self.M)
        if y is not None:
            steps = choose_steps(y)
            neighbours.know(np.arange(h * w), steps)
            batches = np.split(np.arange(h * w), range(_BATCH, h * w, _BATCH))
            parts = [
                self._predict(self._begin(hyper, neighbours, b), neighbours, b)
                for b in track(batches, "parameters")
            ]
            index, mean = (np.concatenate(p) for p in zip(*parts, strict=True))
            for front in track(fronts(h, w), "latents"):
                values = steps[front].ravel()
                gaussians.code(coder, values, index[front].ravel(), mean[front].ravel())
            return steps * MEAN_UNIT
        steps = np.empty((h * w, self.M), dtype=np.int32)
        for block in track(_blocks(h, w), "latents"):
            context, parameters = self._begin(hyper, neighbours, np.concatenate(block))
            stop = 0
            for front in block:
                start, stop = stop, stop + len(front)
                begun = context[start:stop], parameters[start:stop]
                index, mean = self._predict(begun, neighbours, front)
                coded = gaussians.code(coder, None, index.ravel(), mean.ravel())
                steps[front] = coded = coded.reshape(-1, self.M)
                neighbours.know(front, coded)
        return steps * MEAN_UNIT

    def _begin(
        self, hyper: Tensor, neighbours: _Neighbours, places: Places
    ) -> tuple[Tensor, Tensor]:
        """What three fronts have in common: the sums (n, O) of the context's layer and of the parameters'
        first, as far as they do not see these fronts."""
        return (
            self.context.layers[0].sums(neighbours.columns(places, _EARLY)),
            self.parameters.layers[0].sums(hyper[torch.from_numpy(places)].float()),
        )

    def _predict(
        self, begun: tuple[Tensor, Tensor], neighbours: _Neighbours, places: Places
    ) -> tuple[NDArray[np.uint8], Integers]:
        """Scale indices and means (n, M) of positions whose neighbours are known."""
        (context,), (first, *others) = self.context.layers, self.parameters.layers
        late = neighbours.columns(places, _LATE)
        x = context.finish(context.sums(late, _EARLY.stop * self.M, begun[0]))
        x = first.finish(first.sums(x, 2 * self.M, begun[1]))
        for layer in others:
            x = layer.rows(x)
        return self.decide(x)


class _Neighbours:
    """What the context sees of ŷ: a canvas with a margin of zeros, and its twelve taps."""

    def __init__(self, h: int, w: int, M: int) -> None:
        stride = w + 4
        self.canvas = torch.zeros((h + 2) * stride, M, dtype=torch.float32, device="cpu")
        rows, columns = np.divmod(np.arange(h * w), w)
        self.places = torch.from_numpy((rows + 2) * stride + columns + 2)
        taps = [(row - 2) * stride + column - 2 for row in range(3) for column in range(5)]
        self.taps = torch.tensor(taps[: MaskedConv.TAPS], device="cpu")

    def know(self, places: Places, steps: Integers) -> None:
        """Enter ŷ (n, M) in steps."""
        at = self.places[torch.from_numpy(places)]
        values = torch.from_numpy(steps).clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT).float()
        self.canvas.index_copy_(0, at, values)

    def columns(self, places: Places, taps: slice) -> Tensor:
        """(n, taps · M): some of the twelve taps of each position, row by row."""
        at = self.places[torch.from_numpy(places)][:, None] + self.taps[taps]
        return F.embedding(at, self.canvas).flatten(1)


def fronts(h: int, w: int) -> list[Places]:
    """Positions of an h x w plane by time 3·row + column, rows rising within a time."""
    rows, columns = np.divmod(np.arange(h * w), w)
    time = 3 * rows + columns
    order = np.argsort(time, kind="stable")
    front: list[Places] = np.split(order, np.flatnonzero(np.diff(time[order])) + 1)
    return front


def _blocks(h: int, w: int) -> list[list[Places]]:
    """The fronts of each three times: a position's first eight taps lie in blocks before its own."""

    def block(front: Places) -> int:
        row, column = divmod(int(front[0]), w)
        return row + column // 3

    return [list(group) for _, group in groupby(fronts(h, w), block)]
