"""Residual tiles: what a decoder that is exact to the pixel still misses, coded after its latents.

A learned transform has a ceiling on pictures unlike those it was trained on. The encoder knows x̂ to the bit;
where a tile of 64x64 pixels is too far off, x is coded with x̂ as one of several predictions, to within a
step. With a step of 1 in all tiles that is lossless.

Tiles stand alone, and go side by side: one array operation codes the same front of pixels in all tiles of a
batch. A front holds the pixels whose left and upper neighbours lie in fronts before it. A tile of few colours
is coded by a palette, others by predictions, weighed by their errors at the neighbours. Tables learn from
what is coded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.corrections import TILE, CorrectionPlan, code_corrections, part_of
from licodec.entropy.learning_tables import LearningTables, LearningValues
from licodec.progress import track
from licodec.rangecoder import Coder

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LARGEST_STEP = 255
_BATCH = 64
"""Tiles that are coded at once."""
_WIDTH = TILE + 2
"""Of a tile's plane: a column on each side and a row above stand for what is not in it."""
_MOST_COLORS = 1024
_EXACT, _LOSSY = (1024, 1024), (64, 16)
"""Colours of a palette and of a tile that uses it, without loss and with a step above 1."""


def _fronts() -> list[Array]:
    """Places in a flat plane by time 2·row + column: all that is left of or above a pixel comes earlier."""
    rows, columns = np.divmod(np.arange(TILE * TILE), TILE)
    place = (rows + 1) * _WIDTH + columns + 1
    time = 2 * rows + columns
    return [place[time == t] for t in range(time.max() + 1)]


_FRONTS = _fronts()
_W, _N, _NW, _NE = -1, -_WIDTH, -_WIDTH - 1, -_WIDTH + 1
_NEIGHBOURS = (_W, _N, _NW, _NE)


class ResidualPlan(NamedTuple):
    """What an encoder decides.

    Attributes:
        step: odd; errors are at most half of it, rounded down.
        chosen: (rows, columns) of tiles.
        corrections: what is made first, in other tiles.
    """

    step: int
    chosen: Mask
    corrections: CorrectionPlan | None = None


def code_tiles(
    coder: Coder,
    x_hat: NDArray[np.uint8],
    plan: ResidualPlan | None = None,
    x: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Code which tiles there are, and them; return x̂ (H, W, C), changed to have these in place.

    Args:
        plan: the encoder's, None for no tiles.
        x: the encoder's; a decoder passes neither.
    """
    height, width, _ = x_hat.shape
    plan = _code_plans(coder, x_hat, plan, x)
    if plan is None:
        return x_hat
    corrected: list[NDArray[np.uint8]] = []
    places = np.argwhere(plan.chosen)
    palette = _code_palette(coder, x_hat.shape[2], plan, places, x)
    errors, ranks = _Errors(plan.step), _Ranks()
    for start in track(range(0, len(places), _BATCH), "residual"):
        batch = places[start : start + _BATCH]
        tiles = np.stack([_tile(x_hat, place) for place in batch])
        wanted = None if x is None else np.stack([_tile(x, place) for place in batch])
        inside = np.stack([_inside(height, width, place) for place in batch])
        few = np.zeros(len(batch), np.bool_)
        if len(palette):
            told = None
            if wanted is not None:
                pairs = zip(wanted, inside, strict=True)
                told = np.array([_has_all(palette, w[i]) for w, i in pairs], np.int32)
            few = coder.code(told, len(batch), _EVEN).astype(np.bool_)
        found = np.empty_like(tiles)
        for rows, is_few in ((few, True), (~few, False)):
            part = None if wanted is None else wanted[rows]
            if rows.any() and is_few:
                found[rows] = _code_indices(coder, ranks, tiles[rows], part, inside[rows], palette)
            elif rows.any():
                found[rows] = _code_predicted(coder, errors, tiles[rows], part, inside[rows])
        planes = found.astype(np.uint8).reshape(len(found), -1, _WIDTH, found.shape[2])
        corrected.extend(planes[:, 1:, 1:-1])
    # What surrounds a tile is x̂ as it was, so tiles are put in place when all are known.
    for place, tile in zip(places, corrected, strict=True):
        target = part_of(x_hat, place)
        target[:] = tile[: target.shape[0], : target.shape[1]]
    return x_hat


def _code_plans(
    coder: Coder, x_hat: NDArray[np.uint8], plan: ResidualPlan | None, x: Array | None
) -> ResidualPlan | None:
    """Code the corrections, if there are any, and the plan of the tiles that follow. A first plan without
    tiles announces corrections."""
    shape = -(-x_hat.shape[0] // TILE), -(-x_hat.shape[1] // TILE)
    is_known, first, rest = x is not None, plan, plan
    corrections = None if plan is None else plan.corrections
    if plan is not None and corrections is not None:
        first = ResidualPlan(corrections.step, np.zeros(shape, np.bool_))
        rest = plan if plan.chosen.any() else None
    told = _code_plan(coder, shape, first, is_known)
    if told is None or told.chosen.any():
        return told
    chosen = _code_chosen(coder, shape, None if corrections is None else corrections.chosen)
    least = None if corrections is None else corrections.least
    code_corrections(coder, x_hat, told.step, chosen, least, x)
    told = _code_plan(coder, shape, rest, is_known)
    return told if told is not None and told.chosen.any() else None


def _code_one(coder: Coder, value: int | None, entries: int) -> int:
    """One of so many equally likely numbers."""
    symbol = None if value is None else np.array([value], np.int32)
    return int(coder.code(symbol, 1, np.ones(entries, np.int64))[0])


def _code_plan(
    coder: Coder, shape: tuple[int, int], plan: ResidualPlan | None, is_known: bool
) -> ResidualPlan | None:
    if not _code_one(coder, int(plan is not None) if is_known else None, 2):
        return None
    half = _code_one(coder, None if plan is None else plan.step // 2, LARGEST_STEP // 2 + 1)
    chosen = _code_chosen(coder, shape, None if plan is None else plan.chosen)
    return ResidualPlan(2 * half + 1, chosen)


def _code_chosen(coder: Coder, shape: tuple[int, int], chosen: Mask | None) -> Mask:
    """Which tiles (rows, columns)."""
    total = shape[0] * shape[1]
    count = None if chosen is None else int(chosen.sum())
    high = _code_one(coder, None if count is None else count >> 12, (total >> 12) + 2)
    low = _code_one(coder, None if count is None else count & 4095, 4096)
    count = min(high << 12 | low, total)
    if not count:
        return np.zeros(shape, np.bool_)
    odds = np.array([total - count, count], np.int64) * 16 + 1
    flags = None if chosen is None else chosen.reshape(-1).astype(np.int32)
    return coder.code(flags, total, odds).astype(np.bool_).reshape(shape)


_THRESHOLDS = np.array([1, 2, 4, 6, 9, 13, 18, 25, 34, 46, 62, 84, 114, 155, 210, 290, 420])
"""Of four times the error to be expected, in steps, between classes."""
_SPREADS = np.concatenate([[1], 2 + _THRESHOLDS])
_MISSES = np.array([1, 3, 8, 24])
"""Of the error at green, in steps, between classes of the other channels."""
_BINS = 512


class _Errors(LearningValues):
    """Of predictions, in steps, by class."""

    def __init__(self, step: int) -> None:
        self.step = step
        distance = np.abs(np.arange(_BINS + 1) - _BINS // 2)
        distance[-1] = _BINS
        spread = np.tile(_SPREADS, 2 + len(_MISSES))
        ratio = (spread << 16) // (spread + 3)
        power = np.full(len(spread), 1 << 24)
        counts = np.ones((len(spread), _BINS + 1), np.int64)
        for d in range(_BINS // 2 + 1):
            counts[:, distance == d] += (power >> 8)[:, None]
            power = power * ratio >> 16
        super().__init__(counts * 4096 // counts.sum(1, keepdims=True) + 1, 64)


def _code_predicted(
    coder: Coder, errors: _Errors, x_hat: Array, wanted: Array | None, inside: Mask
) -> Array:
    """Planes (n, places, C) by predictions: green first, and the others by what green was off."""
    n, places, C = x_hat.shape
    out = x_hat.astype(np.int32)
    off_green: Array = np.zeros((0,))
    missed: Array = np.zeros((0,))
    for channel in (1, 0, 2) if C == 3 else range(C):
        is_green = channel == (1 if C == 3 else 0)
        here, x = out[..., channel].copy(), out[..., channel]
        off = np.zeros((5, n, places), np.int32)
        known = np.zeros((5 if is_green else 11, n, places), np.int32) + 8
        misses = np.zeros((n, places), np.int32)
        for front in _FRONTS:
            guesses = _guesses(here, x, front)
            if not is_green:
                like = _like_green(x, out[..., 1], front)
                guesses = np.concatenate([guesses, guesses + off_green[:, :, front], like[None]])
            around = np.stack([known[:, :, front + side] for side in _NEIGHBOURS]).sum(0)
            weights = (1 << 20) // (around.astype(np.int64) + 1) ** 2 + 1
            total = weights.sum(0)
            guess = np.clip(((weights * guesses).sum(0) + total // 2) // total, 0, 255)
            expected = (weights * around).sum(0) // total
            classes = np.searchsorted(_THRESHOLDS, expected // errors.step, side="right")
            if not is_green:
                miss = np.searchsorted(_MISSES, missed[:, front] // errors.step, side="right")
                classes += len(_SPREADS) * (1 + miss)
            there = inside[:, front]
            told = None
            if wanted is not None:
                told = _to_steps(wanted[:, front, channel] - guess, errors.step)[there]
            coded = np.zeros(guess.shape, np.int64)
            coded[there] = errors.code(coder, told, classes[there])
            value = np.clip(guess + coded * errors.step, 0, 255).astype(np.int32)
            x[:, front] = value
            signed = value - guesses
            known[:, :, front] = np.abs(signed)
            off[:, :, front] = signed[:5]
            misses[:, front] = np.abs(value - guess)
        if is_green:
            off_green, missed = off, misses
    return out


def _guesses(x_hat: Array, x: Array, front: Array) -> Array:
    """Five guesses (5, n, pixels) of a front."""
    west, north, corner, east = (x[:, front + side] for side in _NEIGHBOURS)
    here = x_hat[:, front]
    off = [x[:, front + side] - x_hat[:, front + side] for side in _NEIGHBOURS]
    low, high = np.minimum(west, north), np.maximum(west, north)
    median = np.clip(west + north - corner, low, high)
    mean = here + ((3 * off[0] + 3 * off[1] + off[2] + off[3] + 4) >> 3)
    return np.stack([here, mean, median, west, north])


def _like_green(x: Array, green: Array, front: Array) -> Array:
    """Of each pixel of a front, its neighbour whose green is most like its own."""
    here = green[:, front]
    far = np.stack([np.abs(green[:, front + side] - here) for side in _NEIGHBOURS])
    near = np.stack([x[:, front + side] for side in _NEIGHBOURS])
    like: Array = np.take_along_axis(near, far.argmin(0)[None], 0)[0]
    return like


def _to_steps(difference: Array, step: int) -> Array:
    """The nearest number of odd steps."""
    half = step // 2
    return np.where(difference >= 0, (difference + half) // step, -((half - difference) // step))


_RANKS = 6
"""Left, above, above left, above right, what x̂ is nearest to, none of these."""
_EVEN = np.ones(2, np.int64)
_KEY = np.array([1, 256, 65536])


class _Ranks(LearningTables):
    """Which of its neighbours a pixel has the colour of, by which of these are alike."""

    def __init__(self) -> None:
        super().__init__(np.tile([320, 96, 32, 32, 64, 16], (2**7, 1)), 24)

    def code(self, coder: Coder, symbols: Array | None, classes: Array) -> Array:
        order, counts = self.order(classes)
        out = np.empty(len(order), np.int32)
        start = 0
        for row in np.flatnonzero(counts):
            part = order[start : start + counts[row]]
            start += counts[row]
            known = None if symbols is None else symbols[part].astype(np.int32)
            out[part] = coder.code(known, len(part), self.counts[row])
        self.learn(classes, out)
        return out


def _code_palette(
    coder: Coder, C: int, plan: ResidualPlan, places: Array, x: Array | None
) -> Array:
    """The colours (k, C) that tiles of few colours are made of, which are coded without loss."""
    palette = None
    if x is not None:
        palette = _choose_palette(x, places, *(_EXACT if plan.step == 1 else _LOSSY))
    count = _code_one(coder, None if palette is None else len(palette), _MOST_COLORS + 1)
    flat = None if palette is None else palette.reshape(-1).astype(np.int32)
    values = coder.code(flat, count * C, np.ones(256, np.int64)) if count else np.zeros(0)
    return values.reshape(count, C).astype(np.int64)


def _choose_palette(x: Array, places: Array, most: int, of_tile: int) -> Array:
    """The colours of the tiles that have fewest, as long as there are so many at most."""
    found = []
    for place in places:
        tile = part_of(x, place).reshape(-1, x.shape[2]).astype(np.int64)
        found.append(np.unique(tile @ _KEY[: x.shape[2]]))
    chosen = np.zeros(0, np.int64)
    for keys in sorted(found, key=len):
        more = np.union1d(chosen, keys)
        if len(more) > most or len(keys) > of_tile:
            break
        chosen = more
    return np.stack([chosen // key % 256 for key in _KEY[: x.shape[2]]], axis=1)


def _has_all(palette: Array, pixels: Array) -> bool:
    """Whether all pixels (n, C) have one of the colours."""
    key = _KEY[: pixels.shape[1]]
    return bool(np.isin(pixels.astype(np.int64) @ key, palette @ key).all())


def _code_indices(
    coder: Coder, ranks: _Ranks, x_hat: Array, wanted: Array | None, inside: Mask, palette: Array
) -> Array:
    """Planes (n, places, C) of tiles whose colours are in the palette."""
    index = np.stack([_nearest(x, palette) for x in x_hat])
    usage = LearningTables(np.ones((1, len(palette))), 8)
    hint = index.copy()
    target = None
    if wanted is not None:
        target = np.stack([_nearest(x, palette) for x in wanted])
    for front in _FRONTS:
        near = np.stack([*(index[:, front + side] for side in _NEIGHBOURS), hint[:, front]])
        west, north, corner, east, guess = near
        alike = (
            west == north,
            west == corner,
            north == corner,
            north == east,
            west == guess,
            north == guess,
            corner == guess,
        )
        classes = sum(bit.astype(np.int64) << i for i, bit in enumerate(alike))
        there = inside[:, front]
        told = value = None
        if target is not None:
            value = target[:, front]
            match = near == value
            told = np.where(match.any(0), match.argmax(0), _RANKS - 1)[there]
        coded = np.zeros(there.shape, np.int64)
        coded[there] = ranks.code(coder, told, classes[there])
        found = np.take_along_axis(near, np.minimum(coded, _RANKS - 2)[None], 0)[0]
        others = np.nonzero(coded == _RANKS - 1)
        if len(others[0]):
            known = None if value is None else value[others].astype(np.int32)
            # A table of one entry is none.
            table = np.append(usage.counts[0], 0)
            found[others] = coder.code(known, len(others[0]), table)
            usage.learn(np.zeros(len(others[0]), np.int64), found[others])
        index[:, front] = found
    planes: Array = palette[index]
    return planes


def _nearest(pixels: Array, palette: Array) -> Array:
    """(places,) the colour that each pixel (places, C) is nearest to."""
    # Integers below 2^24: exact in float32.
    colors = palette.astype(np.float32)
    distance = (colors**2).sum(1) - 2 * (pixels.astype(np.float32) @ colors.T)
    nearest: Array = distance.argmin(1)
    return nearest


def _tile(image: Array, place: Array) -> Array:
    """A tile's plane (places, C) with what lies around it; edges are repeated where the image ends."""
    rows, columns = (int(v) * TILE for v in place)
    at = np.clip(np.arange(rows - 1, rows + TILE), 0, image.shape[0] - 1)
    across = np.clip(np.arange(columns - 1, columns + TILE + 1), 0, image.shape[1] - 1)
    plane: Array = image[at[:, None], across].reshape(-1, image.shape[2]).astype(np.int64)
    return plane


def _inside(height: int, width: int, place: Array) -> Mask:
    """Which places of a tile's plane the image has."""
    rows, columns = (int(v) * TILE for v in place)
    at, across = np.arange(rows - 1, rows + TILE), np.arange(columns - 1, columns + TILE + 1)
    return ((at < height)[:, None] & (across < width)).reshape(-1)
