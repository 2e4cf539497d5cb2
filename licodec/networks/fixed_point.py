"""Networks in exact integers: the same result on every machine, in NumPy.

A layer's numbers are integers held in floats. A matrix product of integers is exact in float32 while the sum
of magnitudes stays below 2^24, and in float64 below 2^53, in whatever order a library adds. Each layer takes
the narrower type that its own weights allow; `Dense.of` and `Depthwise.of` check that.

Activations lie within ±LIMIT. What blocks add to, the stream, has STREAM_SHIFT more bits. A layer's sums are
scaled by powers of two alone, which is exact, and rounded half to even.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Tensors(Protocol):
    """A weights file's tensors by name, or a dict of them."""

    def __getitem__(self, name: str, /) -> Array: ...

    def __contains__(self, name: str, /) -> bool: ...


LIMIT = 1023
FINE_LIMIT = 2**14 - 1
"""Of activations that a layer takes of a stream where their rounding would show in pixels."""
STREAM_SHIFT = 6
FINE_SHIFT = 3
STREAM_LIMIT = 2**17 - 1
"""In a stream; exact in float32 with what one block adds."""
_MOST_SHIFT = 40
_LEAKY = 8
"""Negative numbers are divided by so much."""
_CHUNK = 1024
"""Positions that a chain of 1x1 layers takes at once, so that they stay in the cache."""


def exact_type(bound: int) -> type[np.floating[Any]]:
    """The narrower float whose integers reach so far.

    Raises:
        ValueError: none does.
    """
    if bound < 2**24:
        return np.float32
    if bound < 2**53:
        return np.float64
    raise ValueError(f"sums up to {bound} are not exact")


class Dense:
    """A 1x1 convolution: (n, I) to (n, O).

    Attributes:
        bound: no sum has a larger magnitude, for inputs within ±LIMIT.
        shift: (O,) sums are in 2^-shift of what the next layer takes.
    """

    def __init__(self, weight: Array, bias: Array, shift: Array, limit: int = LIMIT) -> None:
        wide = weight.astype(np.int64)
        self.bound = int((np.abs(wide).sum(1) * limit + np.abs(bias.astype(np.int64))).max())
        self.type = exact_type(self.bound)
        self.weight = np.ascontiguousarray(weight.T.astype(self.type))
        self.bias = bias.astype(self.type)
        self.scale = _powers(shift).astype(self.type)

    @classmethod
    def of(cls, tensors: Tensors, name: str, limit: int = LIMIT) -> Dense:
        weight, bias, shift = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        return cls(weight, bias, shift, limit)

    def __call__(self, x: Array) -> Array:
        """Scaled sums (n, O), not yet rounded: multiples of 2^-shift, in float32 or float64."""
        sums: Array = x.astype(self.type, copy=False) @ self.weight
        sums += self.bias
        sums *= self.scale
        return sums


class Depthwise:
    """A 3x3 convolution of each channel by itself."""

    def __init__(self, weight: Array, bias: Array, shift: Array) -> None:
        wide = weight.astype(np.int64)  # (C, 9)
        bound = np.abs(wide).sum(1) * LIMIT + np.abs(bias.astype(np.int64))
        self.type = exact_type(int(bound.max()))
        self.weight = np.ascontiguousarray(weight.T.astype(self.type))
        self.bias = bias.astype(self.type)
        self.scale = _powers(shift).astype(self.type)

    @classmethod
    def of(cls, tensors: Tensors, name: str) -> Depthwise:
        return cls(*(tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift")))

    def __call__(self, x: Array) -> Array:
        """(h, w, C) of x (h + 2, w + 2, C) with a margin: scaled sums, not yet rounded."""
        h, w = x.shape[0] - 2, x.shape[1] - 2
        sums = np.empty((h, w, x.shape[2]), self.type)
        sums[:] = self.bias
        product = np.empty_like(sums)
        for tap, weight in enumerate(self.weight):
            row, column = divmod(tap, 3)
            np.multiply(x[row : row + h, column : column + w], weight, out=product)
            sums += product
        sums *= self.scale
        return sums


class Block:
    """What `training.codecs.everyday.Block` is in integers; it changes a stream in place."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        self.mix, self.join, self.widen, self.narrow = (
            Dense.of(tensors, f"{name}.{part}") for part in ("mix", "join", "widen", "narrow")
        )
        self.depthwise = Depthwise.of(tensors, f"{name}.depthwise")

    def __call__(self, stream: Array) -> None:
        """stream (h, w, C) float32, within ±STREAM_LIMIT before and after."""
        h, w, C = stream.shape
        inner = np.zeros((h + 2, w + 2, C), np.float32)
        for rows in chunks(h, w):
            mixed = leaky(self.mix(enter(stream[rows]).reshape(-1, C)))
            inner[rows.start + 1 : rows.stop + 1, 1:-1] = mixed.reshape(-1, w, C)
        for rows in chunks(h, w):
            part = stream[rows]
            joined = clipped(self.depthwise(inner[rows.start : rows.stop + 2])).reshape(-1, C)
            _add(part, self.join(joined))
            _add(part, self.narrow(leaky(self.widen(enter(part).reshape(-1, C)))))


def enter(stream: Array) -> Array:
    """What a layer takes of a stream: activations within ±LIMIT."""
    return clipped(stream * np.float32(2.0**-STREAM_SHIFT))


def enter_finely(stream: Array) -> Array:
    """The same in finer units, within ±FINE_LIMIT."""
    x = stream * np.float32(2.0**-FINE_SHIFT)
    np.rint(x, out=x)
    return np.clip(x, -FINE_LIMIT, FINE_LIMIT, out=x)


def clipped(x: Array) -> Array:
    """x rounded to integers within ±LIMIT, in place."""
    np.rint(x, out=x)
    return np.clip(x, -LIMIT, LIMIT, out=x)


def leaky(x: Array) -> Array:
    """Leaky ReLU of slope 1/8, then `clipped`; in place."""
    np.maximum(x, x * x.dtype.type(1 / _LEAKY), out=x)
    return clipped(x)


def to_stream(x: Array) -> Array:
    """x rounded to a stream's integers, in float32."""
    np.rint(x, out=x)
    return np.clip(x, -STREAM_LIMIT, STREAM_LIMIT, out=x).astype(np.float32, copy=False)


def _add(stream: Array, x: Array) -> None:
    np.rint(x, out=x)
    np.clip(x, -(2**23), 2**23, out=x)
    stream += x.reshape(stream.shape)
    np.clip(stream, -STREAM_LIMIT, STREAM_LIMIT, out=stream)


def shuffle(x: Array, r: int) -> Array:
    """(h·r, w·r, C) of x (h, w, r·r·C), whose channels go by row, column, channel."""
    h, w, channels = x.shape
    C = channels // (r * r)
    return x.reshape(h, w, r, r, C).transpose(0, 2, 1, 3, 4).reshape(h * r, w * r, C)


def unshuffle(x: Array, r: int) -> Array:
    """The inverse of `shuffle`."""
    h, w, C = x.shape
    cells = x.reshape(h // r, r, w // r, r, C).transpose(0, 2, 1, 3, 4)
    return cells.reshape(h // r, w // r, r * r * C)


def _powers(shift: Array) -> Array:
    if np.abs(shift.astype(np.int64)).max() > _MOST_SHIFT:
        raise ValueError("a shift is out of range")
    return np.ldexp(1.0, -shift.astype(np.int64))


def chunks(h: int, w: int) -> Iterator[slice]:
    """The rows of a plane that layers take at once."""
    rows = max(1, _CHUNK // w)
    for top in range(0, h, rows):
        yield slice(top, min(top + rows, h))
