"""The derivative of the everyday codec's g_s, for an encoder's choice of ŷ: in float32, by NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.networks.everyday import (
    CELL,
    PATCH,
    SLOPE,
    Array,
    FloatBlock,
    Linear,
    Signs,
    blocks_of,
    halo_of,
)
from licodec.networks.fixed_point import (
    FINE_SHIFT,
    STREAM_SHIFT,
    Tensors,
    chunks,
    shuffle,
    unshuffle,
)
from licodec.progress import track
from licodec.tiles import STRIDE, Box, cut, tiles

if TYPE_CHECKING:
    from typing_extensions import Self

_TILE = 64
"""Latent positions a side that are computed at once."""


class Part(NamedTuple):
    """What is known of a box of latent positions.

    Attributes:
        box: of whole latents.
        slope: (h, w, M) how the error changes with a unit of ŷ.
        error: Σ (x̂ - x)² over its pixels, a mean over their channels.
    """

    box: Box
    slope: NDArray[np.float32]
    error: float


class Slope:
    """The derivative of Σ (x̂ - x)², a mean over channels, by ŷ.

    Args:
        tensors: of a weights file of everyday.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.coarse, self.fine = (
            [
                _Block.of(tensors, f"g_s.{part}.{i}")
                for i in range(blocks_of(tensors, f"g_s.{part}"))
            ]
            for part in ("coarse", "fine")
        )
        self.cell, self.patch = (
            Linear(_floats(tensors, name, FINE_SHIFT), name) for name in ("g_s.cell", "g_s.patch")
        )
        self.halo = halo_of(tensors, "g_s")

    def __call__(
        self,
        y_hat: Array,
        unit: NDArray[np.float64],
        color: NDArray[np.uint8],
        shown: NDArray[np.bool_] | None = None,
    ) -> Iterator[Part]:
        """Tile by tile; what pixels beyond a tile's margin would say is left out.

        Args:
            y_hat: (h, w, M).
            unit: (M,) what a unit of it is in g_s.
            color: x (H, W, 1 or 3).
            shown: (H, W), the pixels that count; None for all.
        """
        h, w, _ = y_hat.shape
        for inner, outer in track(tiles(h, w, _TILE, self.halo), "slope"):
            top, bottom, left, right = outer
            stream = (y_hat[top:bottom, left:right] * unit).astype(np.float32)
            x_hat, signs = self._forth(stream)
            error = _error(x_hat, outer, color, shown)
            own = cut(error.transpose(2, 0, 1), inner, outer, STRIDE)
            slope = self._back(error * np.float32(2 / 3), signs) * unit.astype(np.float32)
            own_slope: Array = cut(slope.transpose(2, 0, 1), inner, outer, 1)
            yield Part(
                inner,
                own_slope.transpose(1, 2, 0),
                float(np.square(own, dtype=np.float64).sum()) / 3,
            )

    def _forth(self, stream: Array) -> tuple[Array, list[Signs]]:
        """x̂ (H, W, 3) of a first stream, which is changed, and the signs in each block."""
        signs = [block.forth(stream) for block in self.coarse]
        stream = shuffle(self.cell(stream), CELL)
        signs += [block.forth(stream) for block in self.fine]
        return shuffle(self.patch(stream), PATCH), signs

    def _back(self, slope: Array, signs: list[Signs]) -> Array:
        """The derivative by the first stream of what has this one by x̂ (H, W, 3)."""
        slope = self.patch.back(unshuffle(slope, PATCH))
        for block in reversed(self.fine):
            block.back(slope, signs.pop())
        slope = self.cell.back(unshuffle(slope, CELL))
        for block in reversed(self.coarse):
            block.back(slope, signs.pop())
        return slope


class _Block(FloatBlock):
    """A block of g_s in floats, there and back."""

    @classmethod
    def of(cls, tensors: Tensors, name: str) -> Self:
        inputs = {
            "mix": STREAM_SHIFT,
            "depthwise": 0,
            "join": 0,
            "widen": STREAM_SHIFT,
            "narrow": 0,
        }
        floats: dict[str, Array] = {}
        for part, shift in inputs.items():
            floats |= _floats(tensors, f"{name}.{part}", shift)
        return cls(floats, name)

    def forth(self, x: Array) -> Signs:
        h, w, C = x.shape
        signs = Signs(np.empty((h, w, C), np.bool_), np.empty((h, w, 2 * C), np.bool_))
        self(x, signs)
        return signs

    def back(self, slope: Array, signs: Signs) -> None:
        """The derivative (h, w, C) by the outputs becomes that by the inputs."""
        h, w, C = slope.shape
        inner = np.zeros((h + 2, w + 2, C), np.float32)
        for rows in chunks(h, w):
            wide = self.narrow.back(slope[rows])
            wide *= _steepness(signs.widened[rows])
            slope[rows] += self.widen.back(wide)
            inner[rows.start + 1 : rows.stop + 1, 1:-1] = self.join.back(slope[rows])
        for rows in chunks(h, w):
            sums = np.zeros_like(slope[rows])
            for tap, weight in enumerate(self.taps[::-1]):
                row, column = rows.start + tap // 3, tap % 3
                sums += inner[row : row + len(sums), column : column + w] * weight
            sums *= _steepness(signs.mixed[rows])
            slope[rows] += self.mix.back(sums)


def _steepness(positive: NDArray[np.bool_]) -> Array:
    return np.where(positive, np.float32(1), SLOPE)


def _floats(tensors: Tensors, name: str, input_shift: int) -> dict[str, Array]:
    """Weight and bias of an integer layer that takes 2^-input_shift of what it is given."""
    shift = -tensors[f"{name}.shift"].astype(np.int64)
    weight, bias = (tensors[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
    scaled = np.ldexp(weight, (shift - input_shift)[:, None])
    return {f"{name}.weight": scaled, f"{name}.bias": np.ldexp(bias, shift)}


def _error(
    x_hat: Array, box: Box, color: NDArray[np.uint8], shown: NDArray[np.bool_] | None
) -> Array:
    """x̂ - x (H, W, 3) in a box of latents; 0 for pixels that do not count."""
    top, bottom, left, right = (STRIDE * side for side in box)
    x = color[top:bottom, left:right]
    if x.shape[2] == 1:
        x_hat = x_hat.mean(2, keepdims=True)
    error = np.zeros((*x_hat.shape[:2], 3), np.float32)
    there = error[: x.shape[0], : x.shape[1]]
    there[:] = np.clip(x_hat[: x.shape[0], : x.shape[1]], 0, 255) - x
    if shown is not None:
        there *= shown[top:bottom, left:right, None]
    return error
