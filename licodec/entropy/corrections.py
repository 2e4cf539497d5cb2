"""Corrections: where few samples of a tile are far off, x̂ plus so many steps at these.

Large errors lie where x̂ is busy, and at the same pixels in all channels. These two tell a sample's class;
the tables learn from what is coded. Tiles of 64x64 stand alone, as residual tiles do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.learning_tables import LearningValues
from licodec.rangecoder import Coder

Array = NDArray[Any]
Mask = NDArray[np.bool_]

TILE = 64
_BATCH = 64
"""Tiles that are coded side by side."""
_ROWS = 4
"""Of these that are coded before tables learn."""
_LEVELS = 10
"""Classes of activity, by powers of two."""
_BINS = 16
_TOTAL, _GAIN = 1 << 16, 1 << 10


class CorrectionPlan(NamedTuple):
    """What an encoder decides.

    Attributes:
        step: odd; a corrected sample is off by half of it at most, rounded down.
        chosen: (rows, columns) of tiles.
        least: (rows, columns) the smallest errors that are corrected.
    """

    step: int
    chosen: Mask
    least: Array


def code_corrections(
    coder: Coder,
    x_hat: NDArray[np.uint8],
    step: int,
    chosen: Mask,
    least: Array | None,
    x: NDArray[np.uint8] | None,
) -> None:
    """Code the corrections of the chosen tiles of x̂ (H, W, C), which is changed to have them.

    Args:
        least, x: the encoder's; a decoder passes neither.
    """
    tables = LearningValues(_first_counts(), _GAIN)
    places = np.argwhere(chosen)
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        parts = [part_of(x_hat, place) for place in batch]
        told = None
        if x is not None and least is not None:
            pairs = zip(batch, parts, strict=True)
            told = [_steps(part_of(x, p), part, step, int(least[tuple(p)])) for p, part in pairs]
        for part, steps in zip(parts, _code_steps(coder, tables, parts, told), strict=True):
            part[:] = np.clip(part + step * steps, 0, 255)


def _code_steps(
    coder: Coder, tables: LearningValues, parts: list[Array], told: list[Array] | None
) -> list[Array]:
    """How many steps each sample of some tiles of x̂ is moved by; `told` is the encoder's."""
    found = [np.zeros(part.shape, np.int64) for part in parts]
    levels = [_levels(part) for part in parts]
    for top in range(0, TILE, _ROWS):
        rows = slice(top, top + _ROWS)
        seen: list[Array] = [np.zeros(level[rows].shape, np.int64) for level in levels]
        for order, channel in enumerate((1, 0, 2) if parts[0].shape[2] == 3 else (0,)):
            pairs = zip(levels, seen, strict=True)
            classes = _flat(
                [level[rows] + _LEVELS * ((1 << order) - 1 + bits) for level, bits in pairs]
            )
            flat = None if told is None else _flat([part[rows, :, channel] for part in told])
            coded = tables.code(coder, flat, classes)
            start = 0
            for part, bits in zip(found, seen, strict=True):
                target = part[rows, :, channel]
                target[:] = coded[start : start + target.size].reshape(target.shape)
                start += target.size
                bits += (target != 0).astype(np.int64) << order
    return found


def _steps(x: Array, x_hat: Array, step: int, least: int) -> Array:
    """How many steps each sample is moved by, where it is off by `least` or more."""
    error = x.astype(np.int32) - x_hat
    steps = np.sign(error) * ((np.abs(error) + step // 2) // step)
    moved: Array = np.where(np.abs(error) >= least, steps, 0)
    return moved


def part_of(image: Array, place: Sequence[int] | Array) -> Array:
    """A tile (h, w, C) of an image, at its row and column."""
    top, left = (int(v) * TILE for v in place)
    return image[top : top + TILE, left : left + TILE]


def _flat(parts: list[Array]) -> Array:
    return np.concatenate([part.reshape(-1) for part in parts])


def _levels(x_hat: Array) -> Array:
    """(h, w) classes of activity of a tile (h, w, C): how much pixels differ from their four neighbours."""
    padded = np.pad(x_hat.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    here = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    differences = np.stack([np.abs(here - other) for other in around])
    activity = differences.sum((0, 3)) * (3 // x_hat.shape[2])
    levels: Array = np.searchsorted(2 ** np.arange(1, _LEVELS), activity + 1, side="right")
    return levels


def _first_counts() -> Array:
    """(classes, _BINS + 1). A class is a level, for each of: green, or grey; red where green is not, or is,
    corrected; blue by which of both are."""
    share = np.tile(_TOTAL >> (12 - np.arange(_LEVELS)), 7)
    for seen in (2, 4, 5, 6):
        share[_LEVELS * seen :][:_LEVELS] = _TOTAL >> 2
    counts = np.ones((len(share), _BINS + 1), np.int64)
    distance = np.abs(np.arange(_BINS) - _BINS // 2)
    counts[:, :_BINS] += (3 * share[:, None]) >> (1 + 2 * distance)
    counts[:, _BINS // 2] = _TOTAL - share
    return counts
