"""The everyday codec's transforms without PyTorch: g_a and h_a in floats, g_s in exact integers.

The networks are those of `licodec.training.codecs.everyday`. Arrays are (h, w, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.tables import exp2
from licodec.interface import named
from licodec.networks.fixed_point import (
    FINE_LIMIT,
    Block,
    Dense,
    Tensors,
    chunks,
    enter_finely,
    shuffle,
    to_stream,
    unshuffle,
)
from licodec.progress import track
from licodec.tiles import STRIDE, Box, cut, positions, tiles

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]

PATCH, CELL, HYPER = 8, 2, 2
LATENT_UNIT = 16
"""y and ŷ are integers in this fraction of a step."""
LATENT_LIMIT = 2**15 - 1
SLOPE = np.float32(1 / 8)
"""Of leaky ReLU."""
_TILE = 96
"""Latent positions a side that are computed at once."""


def blocks_of(tensors: Tensors, name: str) -> int:
    """How many blocks stand under a name."""
    count = 0
    while f"{name}.{count}.mix.weight" in tensors:
        count += 1
    return count


def halo_of(tensors: Tensors, net: str) -> int:
    """Latent positions around one that g_a or g_s looks at: a block looks one position further."""
    return blocks_of(tensors, f"{net}.coarse") + -(-blocks_of(tensors, f"{net}.fine") // CELL)


class Linear:
    def __init__(self, tensors: Tensors, name: str) -> None:
        self.weight = np.ascontiguousarray(tensors[f"{name}.weight"].astype(np.float32).T)
        self.bias = tensors[f"{name}.bias"].astype(np.float32)

    def __call__(self, x: Array) -> Array:
        out = x @ self.weight
        out += self.bias
        return out

    def back(self, slope: Array) -> Array:
        """The derivative by x of what has this one by the outputs."""
        found: Array = slope @ self.weight.T
        return found


class Signs(NamedTuple):
    """Which inputs of a block's two leaky ReLUs were positive: (h, w, C) and (h, w, 2C)."""

    mixed: NDArray[np.bool_]
    widened: NDArray[np.bool_]


class FloatBlock:
    """`training.codecs.everyday.Block`, changing x in place."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        self.mix, self.join, self.widen, self.narrow = (
            Linear(tensors, f"{name}.{part}") for part in ("mix", "join", "widen", "narrow")
        )
        weight = tensors[f"{name}.depthwise.weight"].astype(np.float32)
        self.taps = np.ascontiguousarray(weight.reshape(len(weight), 9).T)
        self.bias = tensors[f"{name}.depthwise.bias"].astype(np.float32)

    def __call__(self, x: Array, signs: Signs | None = None) -> None:
        """x (h, w, C); signs, where given, are filled."""
        h, w, C = x.shape
        inner = np.zeros((h + 2, w + 2, C), np.float32)
        parts = list(chunks(h, w))
        for part in parts:
            mixed = _leaky(self.mix(x[part].reshape(-1, C)))
            inner[part.start + 1 : part.stop + 1, 1:-1] = mixed.reshape(-1, w, C)
        if signs is not None:
            np.greater(inner[1:-1, 1:-1], 0, out=signs.mixed)
        for part in parts:
            height = part.stop - part.start
            sums = np.empty((height, w, C), np.float32)
            sums[:] = self.bias
            for tap, weight in enumerate(self.taps):
                row, column = part.start + tap // 3, tap % 3
                sums += inner[row : row + height, column : column + w] * weight
            x[part] += self.join(sums.reshape(-1, C)).reshape(-1, w, C)
            widened = _leaky(self.widen(x[part].reshape(-1, C)))
            if signs is not None:
                np.greater(widened.reshape(height, w, -1), 0, out=signs.widened[part])
            x[part] += self.narrow(widened).reshape(-1, w, C)


def _leaky(x: Array) -> Array:
    return np.maximum(x, x * SLOPE, out=x)


class Analysis:
    """g_a: pixels to y, in float32."""

    def __init__(self, tensors: Tensors) -> None:
        self.patch, self.cell = Linear(tensors, "g_a.patch"), Linear(tensors, "g_a.cell")
        self.fine, self.coarse = (
            [
                FloatBlock(tensors, f"g_a.{part}.{i}")
                for i in range(blocks_of(tensors, f"g_a.{part}"))
            ]
            for part in ("fine", "coarse")
        )
        self.halo = halo_of(tensors, "g_a")
        self.M = len(self.cell.bias)

    def __call__(self, color: NDArray[np.uint8]) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """(box of latent positions, y there before the gain) of pixels (H, W, 1 or 3), tile by tile; y is
        (h, w, M). Beyond the edges pixels are repeated."""
        h, w = positions(*color.shape[:2])
        for inner, outer in track(tiles(h, w, _TILE, self.halo), "analysis"):
            part = self._tile(_pixels(color, outer)).transpose(2, 0, 1)
            yield inner, cut(part, inner, outer, 1).transpose(1, 2, 0)

    def _tile(self, x: Array) -> Array:
        x = self.patch(unshuffle(x, PATCH))
        for block in self.fine:
            block(x)
        x = self.cell(unshuffle(x, CELL))
        for block in self.coarse:
            block(x)
        return x


def _pixels(color: NDArray[np.uint8], box: Box) -> Array:
    """-½ … ½ (H, W, 3) of a box of latent positions."""
    top, bottom, left, right = (STRIDE * side for side in box)
    part = color[top:bottom, left:right]
    x = part.astype(np.float32) / np.float32(255) - np.float32(0.5)
    below, beside = bottom - top - part.shape[0], right - left - part.shape[1]
    if below or beside:
        x = np.pad(x, ((0, below), (0, beside), (0, 0)), mode="edge")
    return x if x.shape[2] == 3 else x.repeat(3, axis=2)


class HyperAnalysis:
    """h_a: y in steps to z, in float32."""

    def __init__(self, tensors: Tensors) -> None:
        self.enter, self.shrink, self.leave = (
            Linear(tensors, f"h_a.{part}") for part in ("enter", "shrink", "leave")
        )
        self.first, self.second = (FloatBlock(tensors, f"h_a.{p}") for p in ("first", "second"))

    def __call__(self, y: Array) -> Array:
        """z (h/4, w/4, Z) of y (h, w, M), sides multiples of 4."""
        h, w, M = y.shape
        x = _leaky(self.enter(np.arcsinh(y).reshape(-1, M))).reshape(h, w, -1)
        self.first(x)
        x = unshuffle(x, HYPER)
        x = _leaky(self.shrink(x))
        self.second(x)
        return self.leave(unshuffle(x, HYPER))


class Synthesis:
    """g_s: ŷ to pixels, in integers."""

    def __init__(self, tensors: Tensors) -> None:
        self.coarse, self.fine = (
            [Block(tensors, f"g_s.{part}.{i}") for i in range(blocks_of(tensors, f"g_s.{part}"))]
            for part in ("coarse", "fine")
        )
        self.cell = Dense.of(tensors, "g_s.cell", FINE_LIMIT)
        self.patch = Dense.of(tensors, "g_s.patch", FINE_LIMIT)
        self.halo = halo_of(tensors, "g_s")

    def __call__(
        self, y_hat: Array, multiplier: NDArray[np.float64], height: int, width: int, channels: int
    ) -> NDArray[np.uint8]:
        """Pixels (height, width, channels) of ŷ (h, w, M) in 1/LATENT_UNIT of a step.

        Args:
            multiplier: (M,) what a unit of ŷ is in the first stream: integers of 31 bits times powers of two.
        """
        pixels = np.empty((height, width, channels), np.uint8)
        for inner, outer in track(
            tiles(y_hat.shape[0], y_hat.shape[1], _TILE, self.halo), "synthesis"
        ):
            part = self._tile(y_hat[outer[0] : outer[1], outer[2] : outer[3]], multiplier)
            part = cut(part.transpose(2, 0, 1), inner, outer, STRIDE).transpose(1, 2, 0)
            top, left = inner[0] * STRIDE, inner[2] * STRIDE
            target = pixels[top : top + part.shape[0], left : left + part.shape[1]]
            part = part[: target.shape[0], : target.shape[1]]
            target[:] = part if channels == 3 else _grey(part)
        return pixels

    def _tile(self, y_hat: Array, multiplier: NDArray[np.float64]) -> NDArray[np.uint8]:
        h, w, _ = y_hat.shape
        coarse = np.empty(y_hat.shape, np.float32)
        for rows in chunks(h, w):
            coarse[rows] = to_stream(y_hat[rows] * multiplier)
        for block in self.coarse:
            block(coarse)
        fine = _grown(coarse, lambda x: to_stream(self.cell(x)), CELL)
        for block in self.fine:
            block(fine)
        return _grown(fine, lambda x: _samples(self.patch(x)), PATCH)


def _grown(stream: Array, layer: Callable[[Array], Array], r: int) -> Array:
    """A layer of a stream (h, w, C), then `shuffle` by r; some rows at once, for the sake of memory."""
    parts = []
    for rows in chunks(*stream.shape[:2]):
        part = stream[rows]
        found = layer(enter_finely(part).reshape(-1, part.shape[2]))
        parts.append(shuffle(found.reshape(*part.shape[:2], -1), r))
    return np.concatenate(parts)


def _samples(x: Array) -> NDArray[np.uint8]:
    np.rint(x, out=x)
    return np.clip(x, 0, 255, out=x).astype(np.uint8)


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 1): the mean of three channels, rounded."""
    mean: NDArray[np.uint8] = ((pixels.astype(np.uint16).sum(2, keepdims=True) + 1) // 3).astype(
        np.uint8
    )
    return mean


def _rounded(y: Array) -> Array:
    return np.rint(y, out=y).clip(-LATENT_LIMIT, LATENT_LIMIT, out=y)


class EverydayTransforms:
    """g_a and g_s as the codec runs them. y and ŷ are (M, h, w), in memory (h, w, M).

    Args:
        on_gpu: g_s in PyTorch on a CUDA device, to the same pixels.
    """

    def __init__(self, tensors: Tensors, on_gpu: bool = False) -> None:
        self.tensors, self.on_gpu = tensors, on_gpu
        self.M = len(tensors["g_a.cell.bias"])
        self.halo = halo_of(tensors, "g_s")

    @classmethod
    def of(cls, weights: Tensors, device: str, precision: str) -> Self:
        """Those of a weights file. They run on the processor unless device is cuda, and in one precision.

        Raises:
            UsageError: there is no such device.
        """
        if device == "cuda":
            named("licodec.networks.everyday_torch:check_cuda")()
        return cls(weights, device == "cuda")

    @cached_property
    def g_a(self) -> Analysis:
        return Analysis(self.tensors)

    @cached_property
    def g_s(self) -> Synthesis:
        kind = named("licodec.networks.everyday_torch:CudaSynthesis") if self.on_gpu else Synthesis
        made: Synthesis = kind(self.tensors)
        return made

    def is_reduced(self, precise: bool) -> bool:
        return False

    def features(
        self, color: NDArray[np.uint8], precise: bool = True, back_projection: bool = False
    ) -> NDArray[np.float32]:
        """y (1, M, h, w) before the gain, or with its back-projection (2, M, h, w)."""
        h, w = positions(*color.shape[:2])
        out = np.empty((1 + back_projection, h, w, self.M), np.float32)
        if back_projection:
            y_hat = self._finely(color)
            for (top, bottom, left, right), *parts in self._missed(color, y_hat):
                out[:, top:bottom, left:right] = parts
        else:
            for (top, bottom, left, right), part in self.g_a(color):
                out[0, top:bottom, left:right] = part
        return out.transpose(0, 3, 1, 2)

    def analyze(
        self,
        color: NDArray[np.uint8],
        gain: NDArray[np.float32],
        precise: bool = True,
        back_projection: float = 0.0,
    ) -> Array:
        """y (M, h, w) times gain, with so much of its back-projection, rounded, in int16."""
        if back_projection:
            found = self._finely(color)
            y = found.transpose(1, 2, 0)
            for (top, bottom, left, right), part, missed in self._missed(color, found):
                part += np.float32(back_projection) * missed
                y[top:bottom, left:right] = _rounded(part * gain)
            return found
        h, w = positions(*color.shape[:2])
        y = np.empty((h, w, self.M), np.int16)
        for (top, bottom, left, right), part in self.g_a(color):
            y[top:bottom, left:right] = _rounded(part * gain)
        return y.transpose(2, 0, 1)

    @property
    def _finest(self) -> NDArray[np.float32]:
        """(M,) the gain of the best quality, times LATENT_UNIT."""
        gain: NDArray[np.float32] = np.exp(self.tensors["log_gain"][-1].astype(np.float32))
        return gain * np.float32(LATENT_UNIT)

    def _finely(self, color: NDArray[np.uint8]) -> Array:
        """y (M, h, w) times the finest gain, as good as not rounded."""
        return self.analyze(color, self._finest)

    def _missed(
        self, color: NDArray[np.uint8], y: Array
    ) -> Iterator[tuple[Box, NDArray[np.float32], NDArray[np.float32]]]:
        """(box of latent positions, y there before the gain, its back-projection): how far g_a(x) is from
        g_a(g_s(y)). What of y is in a box may be overwritten once that box is told."""
        height, width, channels = color.shape
        step = exp2(self.tensors["log2_step"][-1])
        x_hat = self.synthesize(y, step, height, width, channels)
        rows = y.transpose(1, 2, 0)
        for box, part in self.g_a(x_hat):
            top, bottom, left, right = box
            known = rows[top:bottom, left:right] / self._finest
            yield box, known, known - part

    def synthesize(
        self,
        y: Array,
        gain: NDArray[Any],
        height: int,
        width: int,
        channels: int,
        precise: bool = True,
    ) -> NDArray[np.uint8]:
        """Pixels of ŷ (M, h, w); gain (M,) is what a unit of it is in g_s, exactly."""
        return self.g_s(y.transpose(1, 2, 0), gain, height, width, channels)
