"""The everyday codec's entropy model: ẑ, then ŷ in the four steps of a quadtree, from integers alone.

    ẑ ─ h_s ─► features ─┬─ step ─► μ and class of a quarter of the latents ─► coder ─► ŷ of that quarter
                         └───── ŷ so far ─┘

Latents go in four groups of channels. In each step a group takes one cell of every 2x2 square, each group
another, so that a step sees what all earlier ones coded everywhere around it. A latent's class is the index
of its scale on a ladder; its residual y - μ is coded with the class's table. Class 0 is not coded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.class_distributions import ClassDistributions
from licodec.entropy.tables import (
    PMF_TOTAL,
    code_values,
    count_values,
    information,
    integer_softmax,
    interpolate,
)
from licodec.networks.everyday import HYPER, LATENT_LIMIT, LATENT_UNIT, HyperAnalysis
from licodec.networks.fixed_point import (
    LIMIT,
    Block,
    Dense,
    Tensors,
    clipped,
    enter,
    leaky,
    shuffle,
    to_stream,
)
from licodec.progress import track
from licodec.rangecoder import Coder, Pmf
from licodec.tiles import cut, tiles
from licodec.weights.file import STEPS

Array = NDArray[Any]
Integers = NDArray[np.int32]
Mask = NDArray[np.bool_]

GROUPS = 4
"""Of channels, alike in size; as many as there are steps, and cells in a square."""
_CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
ORDERS = tuple(
    tuple(_CELLS[cell] for cell in order)
    for order in ((0, 3, 1, 2), (3, 0, 2, 1), (1, 2, 0, 3), (2, 1, 3, 0))
)
"""(row, column) by group, then step. Each step takes all four cells, each by another group."""

Z_STRIDE = HYPER**2
"""Latent positions per position of ẑ, in each direction."""
Z_UNIT = 4
"""Steps of ẑ in a unit of h_a."""

CLASSES = 64
PER_OCTAVE = 6
LEAST_SCALE = 0.08
"""Of class 0, in steps; a class is a sixth of an octave."""
CLASS_UNIT = 16
"""The nets tell a class in this fraction."""
BINS = 128
_FOLD = 42
"""From this class on, low bits are coded evenly: one from here, another every octave."""
LOW_BITS = np.maximum(0, (np.arange(CLASSES) - _FOLD + PER_OCTAVE) // PER_OCTAVE).astype(np.int32)

_STEP_BITS = 40.0
"""Bits that a squared step of distortion is worth, by trial: R + λD is least there at middle rates."""
_Z_TILE = 24
_EMPTINESS = np.array([2**12 - 1, 1], np.int64)
"""Frequencies of a file with latents and of one without."""
_POSITIONS = 8192
"""That a step computes at once, more or less: part of the order in which latents are coded."""

Symbols = tuple["NDArray[np.int8] | NDArray[np.int16]", NDArray[np.uint8]]
"""Values (n,) of latents in steps and their classes (n,)."""


class Side(NamedTuple):
    """What the encoder finds out before it codes.

    Attributes:
        z: (hz, wz, Z) symbols of ẑ; None where all of y is 0: then nothing is coded.
        symbols: values and classes of all latents, part after part in coding order.
        y_hat: (M, h, w).
        class_z: what tells the image's own distributions; None for those of all images.
        x_hat: the pixels that ŷ decodes to, where they are known already.
    """

    z: Integers | None
    symbols: deque[Symbols]
    y_hat: Array
    class_z: Integers | None
    x_hat: NDArray[np.uint8] | None = None


class _Step:
    def __init__(self, tensors: Tensors, index: int) -> None:
        name = f"steps.{index}"
        self.index = index
        self.enter = Dense.of(tensors, f"{name}.enter")
        self.block = Block(tensors, f"{name}.block")
        self.heads = [Dense.of(tensors, f"{name}.heads.{group}") for group in range(GROUPS)]

    def __call__(self, inputs: Array, top: int, bottom: int) -> Array:
        """(rows/2, w/2, GROUPS, 2·M/GROUPS): μ and class, in their units, of this step's cells.

        Args:
            inputs: (h, w, channels), of which rows top … bottom are wanted; these begin at an even row.
        """
        h, w, channels = inputs.shape
        stream = to_stream(self.enter(inputs.reshape(-1, channels))).reshape(h, w, -1)
        self.block(stream)
        active = leaky(stream[top:bottom] * np.float32(1 / 64))
        parts = []
        for group, head in enumerate(self.heads):
            row, column = ORDERS[group][self.index]
            cells = np.ascontiguousarray(active[row::2, column::2])
            found = head(cells.reshape(-1, cells.shape[2]))
            parts.append(np.rint(found, out=found).astype(np.int32).reshape(*cells.shape[:2], -1))
        return np.stack(parts, axis=2)


class Quadtree:
    """Codes ŷ (M, h, w), in memory (h, w, M), in 1/LATENT_UNIT of a step.

    Args:
        tensors: of a weights file; what depends on the rate has a row for each of K anchors.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.z_prior = tensors["z_prior"]
        self.rate_features = tensors["rate_features"]
        self.log_scale = tensors["log_scale"]
        self.distributions = ClassDistributions(tensors)
        self.M = self.log_scale.shape[1]
        self.enter, self.grow, self.leave = (
            Dense.of(tensors, f"h_s.{part}") for part in ("enter", "grow", "leave")
        )
        self.first, self.second = (Block(tensors, f"h_s.{part}") for part in ("first", "second"))
        self.steps = [_Step(tensors, index) for index in range(GROUPS)]
        self.seen = _seen(tensors["asinh"])
        self.tensors = tensors

    def side_information(
        self,
        y: Array,
        position: int,
        visible: Mask | None = None,
        z: Integers | None = None,
        step_bits: float = _STEP_BITS,
    ) -> Side:
        """ẑ, if it is not given, ŷ and all symbols.

        Args:
            y: (M, h, w) in 1/LATENT_UNIT; where that is in int16, ŷ overwrites it.
            step_bits: that a squared step of loss is worth.
        """
        if not y.any():
            return Side(None, deque(), y, None)
        y = y.transpose(1, 2, 0)
        h, w, _ = y.shape
        y = _padded(y)
        z = self._analyze(y) if z is None else z
        features = self._features(z, position)
        symbols: deque[Symbols] = deque()
        bits = np.log2(PMF_TOTAL / np.maximum(self.distributions.tables(position, None), 1))
        traversal = self.traverse(features, position, _coded(h, w, visible), y, True)
        try:
            part = next(traversal)
            while True:
                residual, classes = part
                assert residual is not None
                values = _cheapest(residual, classes, bits, step_bits)
                symbols.append((_narrowed(values), classes))
                part = traversal.send(values)
        except StopIteration:
            class_z = self.distributions.choose(count_classes(symbols), position)
            return Side(z, symbols, _planes(y, h, w), class_z)

    def side_bits(self, side: Side, position: int) -> float:
        """Information of ẑ and of what tells the image's distributions."""
        if side.z is None:
            return 0.0
        tables = self._z_tables(position)
        Z = len(tables)
        flat = side.z.reshape(-1, Z).T
        classes = np.repeat(np.arange(Z), flat.shape[1])
        counts = count_values(
            np.ascontiguousarray(flat).reshape(-1), classes, Z, tables.shape[1] - 1
        )
        return information(counts, tables) + self.distributions.side_bits(side.class_z)

    def bits(self, side: Side, position: int) -> float:
        """Information of all that is coded."""
        counts = count_classes(side.symbols)
        low = int((counts.sum(1) * LOW_BITS).sum())
        tables = self.distributions.tables(position, side.class_z)
        return information(counts, tables) + low + self.side_bits(side, position)

    def quantize(self, y: Array, side: Side | None, position: int) -> Array:
        """ŷ that a decoder would get."""
        return (side or self.side_information(y.copy(), position)).y_hat

    def code_latents(
        self,
        coder: Coder,
        position: int,
        h: int,
        w: int,
        y: Array | None = None,
        side: Side | None = None,
        visible: Mask | None = None,
    ) -> Array:
        """Code ẑ, then ŷ; return ŷ (M, h, w). The decoder passes neither y nor side; symbols are used up."""
        if self._code_emptiness(coder, None if side is None else side.z is None):
            return np.zeros((h, w, self.M), np.int16).transpose(2, 0, 1)
        z = self._code_z(coder, position, h, w, side and side.z)
        class_z = self.distributions.code_side(coder, side and side.class_z, side is not None)
        tables = self.distributions.tables(position, class_z)
        if side is not None:
            for _ in track(range(len(side.symbols)), "latents"):
                code_classes(coder, *side.symbols.popleft(), tables)
            return side.y_hat
        features = self._features(z, position)
        y_hat = np.zeros((*features.shape[:2], self.M), np.int16)
        traversal = self.traverse(features, position, _coded(h, w, visible), y_hat)
        try:
            _, classes = next(traversal)
            while True:
                _, classes = traversal.send(code_classes(coder, None, classes, tables))
        except StopIteration:
            return _planes(y_hat, h, w)

    def traverse(
        self,
        features: Array,
        position: int,
        coded: Mask | None,
        y_hat: NDArray[np.int16],
        is_known: bool = False,
    ) -> Generator[tuple[Integers | None, NDArray[np.uint8]], Integers, None]:
        """The order of latents: yields y - μ in 1/LATENT_UNIT (None when decoding) and classes of each part,
        and takes its values in steps.

        Args:
            features: (h, w, ·) of ẑ, sides multiples of 4.
            coded: (h, w), the positions that are coded; None for all.
            y_hat: (h, w, M), to be filled with ŷ.
            is_known: when encoding; y_hat then holds y.
        """
        h, w = features.shape[:2]
        m = self.M // GROUPS
        base = interpolate(self.log_scale, position, STEPS).reshape(GROUPS, m)
        for step in self.steps:
            fresh = []
            for top, bottom in track(bands(h, w), "latents"):
                outer = slice(max(0, top - 1), min(h, bottom + 1))
                inputs = features[outer].astype(np.float32)
                if step.index:
                    seen = self.seen[y_hat[outer]]
                    if is_known:
                        _hide(seen, outer.start, step.index)
                    inputs = np.concatenate([inputs, seen], axis=2)
                outputs = step(inputs, top - outer.start, bottom - outer.start)
                mean = outputs[..., :m]
                scale = outputs[..., m:] + base
                classes = np.clip((scale + CLASS_UNIT // 2) // CLASS_UNIT, 0, CLASSES - 1)
                classes = classes.astype(np.uint8)
                if coded is not None:
                    classes *= _cells(coded[top:bottom], step.index)
                where = np.flatnonzero(classes)
                values = None
                if is_known:
                    values = _cells_of(y_hat[top:bottom], step.index).reshape(-1)[where]
                    values = values - mean.reshape(-1)[where]
                values = yield values, classes.reshape(-1)[where]
                found = np.clip(mean, -LATENT_LIMIT, LATENT_LIMIT)
                flat = found.reshape(-1)
                steps = np.clip(values, -LATENT_LIMIT, LATENT_LIMIT) * LATENT_UNIT
                flat[where] = np.clip(flat[where] + steps, -LATENT_LIMIT, LATENT_LIMIT)
                fresh.append((top, bottom, found.astype(np.int16)))
            for top, bottom, found in fresh:
                _place(y_hat[top:bottom], found, step.index)

    def _analyze(self, y: Array) -> Integers:
        """ẑ's symbols (hz, wz, Z) of y, sides multiples of 4."""
        h_a = HyperAnalysis(self.tensors)
        hz, wz = y.shape[0] // Z_STRIDE, y.shape[1] // Z_STRIDE
        z = np.empty((hz, wz, self.z_prior.shape[1]), np.int32)
        for inner, outer in track(tiles(hz, wz, _Z_TILE, 1), "hyper-analysis"):
            top, bottom, left, right = (Z_STRIDE * side for side in outer)
            part = h_a(y[top:bottom, left:right].astype(np.float32) / LATENT_UNIT)
            part = np.clip(np.rint(part * Z_UNIT), -LIMIT, LIMIT).astype(np.int32)
            z[inner[0] : inner[1], inner[2] : inner[3]] = _cut(part, inner, outer, 1)
        return z

    def _features(self, z: Integers, position: int) -> NDArray[np.int16]:
        """What ẑ tells (4·hz, 4·wz, ·)."""
        own = interpolate(self.rate_features, position, STEPS).astype(np.float32)
        hz, wz, _ = z.shape
        features = np.empty((Z_STRIDE * hz, Z_STRIDE * wz, len(own)), np.int16)
        z = np.clip(z, -LIMIT, LIMIT)
        for inner, outer in track(tiles(hz, wz, _Z_TILE, 1), "hyper-synthesis"):
            part = z[outer[0] : outer[1], outer[2] : outer[3]].astype(np.float32)
            found = clipped(self._synthesize(part) + own)
            top, bottom, left, right = (Z_STRIDE * side for side in inner)
            features[top:bottom, left:right] = _cut(found, inner, outer, Z_STRIDE)
        return features

    def _synthesize(self, z: Array) -> Array:
        h, w, Z = z.shape
        stream = to_stream(self.enter(z.reshape(-1, Z))).reshape(h, w, -1)
        stream = np.ascontiguousarray(shuffle(stream, HYPER))
        self.first(stream)
        flat = enter(stream).reshape(-1, stream.shape[2])
        stream = to_stream(self.grow(flat)).reshape(HYPER * h, HYPER * w, -1)
        stream = np.ascontiguousarray(shuffle(stream, HYPER))
        self.second(stream)
        features = clipped(self.leave(enter(stream).reshape(-1, stream.shape[2])))
        return features.reshape(Z_STRIDE * h, Z_STRIDE * w, -1)

    def _z_tables(self, position: int) -> Pmf:
        """(Z, bins + 1) frequencies of ẑ's symbols."""
        return integer_softmax(interpolate(self.z_prior, position, STEPS))

    def _code_emptiness(self, coder: Coder, is_empty: bool | None) -> bool:
        """Whether nothing follows; the decoder passes None."""
        symbol = None if is_empty is None else np.array([is_empty], np.int32)
        return bool(coder.code(symbol, 1, _EMPTINESS)[0])

    def _code_z(self, coder: Coder, position: int, h: int, w: int, z: Integers | None) -> Integers:
        tables = self._z_tables(position)
        hz, wz, Z = -(-h // Z_STRIDE), -(-w // Z_STRIDE), len(tables)
        values = None if z is None else np.ascontiguousarray(z.reshape(-1, Z).T).reshape(-1)
        coded = code_values(coder, values, np.full(Z, hz * wz), tables)
        return np.ascontiguousarray(coded.reshape(Z, -1).T).reshape(hz, wz, Z)


def _cheapest(
    residual: Integers, classes: NDArray[np.uint8], bits: NDArray[np.float64], step_bits: float
) -> Integers:
    """The values in steps, the nearest or the next one towards 0, that cost least: the bits of the class's
    table, and those that what rounding loses is worth.

    Args:
        residual: (n,) in 1/LATENT_UNIT.
        bits: (CLASSES, BINS + 1).
        step_bits: that a squared step of loss is worth.
    """
    near = (residual + LATENT_UNIT // 2) // LATENT_UNIT
    lower = near - np.sign(near)
    shift = LOW_BITS[classes]

    def cost(values: Integers) -> NDArray[np.float64]:
        symbols = np.clip((values >> shift) + BINS // 2, 0, BINS)
        loss = (residual / LATENT_UNIT - values) ** 2
        found: NDArray[np.float64] = step_bits * loss + bits[classes, symbols]
        return found

    found = np.where(cost(lower) < cost(near), lower, near)
    return np.clip(found, -LATENT_LIMIT, LATENT_LIMIT).astype(np.int32)


def _narrowed(values: Integers) -> NDArray[np.int8] | NDArray[np.int16]:
    """Values in as few bytes as they fit."""
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    if -128 <= least and most < 128:
        return values.astype(np.int8)
    return values.astype(np.int16)


def code_classes(
    coder: Coder,
    values: NDArray[np.int8] | NDArray[np.int16] | None,
    classes: NDArray[np.uint8],
    tables: Pmf,
) -> Integers:
    """Code values (n,) by rising class, those of a class in the order given; then the low bits of wide ones.

    Args:
        values: in steps, or None when decoding.
        classes: (n,), none 0.
        tables: (CLASSES, BINS + 1).
    """
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes, minlength=CLASSES)
    shift = np.repeat(LOW_BITS, counts)
    known = None if values is None else values[order].astype(np.int32)
    high = code_values(coder, None if known is None else known >> shift, counts, tables)
    sorted_values = high << shift
    start = int(counts[: np.flatnonzero(LOW_BITS)[0]].sum())
    for bits in range(1, int(LOW_BITS.max()) + 1):
        count = int(counts[bits == LOW_BITS].sum())
        part = slice(start, start + count)
        start += count
        if count:
            even = np.ones(1 << bits, np.int64)
            low = None if known is None else known[part] & ((1 << bits) - 1)
            sorted_values[part] += coder.code(low, count, even)
    out = np.empty(len(order), np.int32)
    out[order] = sorted_values
    return out


def count_classes(symbols: Iterable[Symbols]) -> NDArray[np.int64]:
    """How often each class has each bin: (CLASSES, BINS + 1), the escapes last."""
    counts = np.zeros((CLASSES, BINS + 1), np.int64)
    for values, classes in symbols:
        folded = (values >> LOW_BITS[classes]).astype(np.int32)
        counts += count_values(folded, classes.astype(np.int64), CLASSES, BINS)
    return counts


def bands(h: int, w: int) -> list[tuple[int, int]]:
    """(top, bottom) of the bands of rows that a step takes one after the other; even numbers."""
    rows = 2 * max(1, _POSITIONS // (2 * w))
    return [(top, min(top + rows, h)) for top in range(0, h, rows)]


def _seen(thresholds: Array) -> NDArray[np.float32]:
    """What the context sees of ŷ, by ŷ as an index (negative ones from the end): an integer near the inverse
    hyperbolic sine, as many as there are thresholds up to |ŷ|."""
    magnitudes = np.searchsorted(thresholds, np.arange(LATENT_LIMIT + 2), side="right")
    table = np.zeros(2 * (LATENT_LIMIT + 1), np.float32)
    table[: LATENT_LIMIT + 1] = magnitudes[:-1]
    table[LATENT_LIMIT + 1 :] = -magnitudes[:0:-1]
    return table


def _planes(y_hat: Array, h: int, w: int) -> Array:
    """(M, h, w), without copying, of the first rows and columns of ŷ (…, …, M)."""
    return y_hat[:h, :w].transpose(2, 0, 1)


def _padded(y: Array) -> NDArray[np.int16]:
    """y (h, w, M) with its edges repeated up to multiples of 4; y itself where that changes nothing."""
    h, w, _ = y.shape
    if y.dtype != np.int16:
        y = np.clip(y, -LATENT_LIMIT, LATENT_LIMIT).astype(np.int16)
    if h % Z_STRIDE == w % Z_STRIDE == 0:
        return y
    return np.pad(y, ((0, -h % Z_STRIDE), (0, -w % Z_STRIDE), (0, 0)), mode="edge")


def _coded(h: int, w: int, visible: Mask | None) -> Mask | None:
    """The positions that are coded of a plane whose sides are rounded up to multiples of 4."""
    if visible is None and h % Z_STRIDE == w % Z_STRIDE == 0:
        return None
    coded = np.zeros((h + -h % Z_STRIDE, w + -w % Z_STRIDE), np.bool_)
    coded[:h, :w] = True if visible is None else visible
    return coded


def _cells_of(y: Array, step: int) -> Array:
    """(h/2, w/2, GROUPS, M/GROUPS): what a step codes of y (h, w, M)."""
    h, w, M = y.shape
    groups = y.reshape(h, w, GROUPS, M // GROUPS)
    places = [order[step] for order in ORDERS]
    return np.stack([groups[r::2, c::2, g] for g, (r, c) in enumerate(places)], axis=2)


def _cells(plane: Mask, step: int) -> Mask:
    """(h/2, w/2, GROUPS, 1): the cells of a plane (h, w) that the groups take in a step."""
    places = [order[step] for order in ORDERS]
    cells: Mask = np.stack([plane[r::2, c::2] for r, c in places], axis=2)[..., None]
    return cells


def _place(y_hat: Array, found: Array, step: int) -> None:
    """Put what `_cells_of` would take back into ŷ (h, w, M)."""
    h, w, M = y_hat.shape
    groups = y_hat.reshape(h, w, GROUPS, M // GROUPS)
    for group, order in enumerate(ORDERS):
        row, column = order[step]
        groups[row::2, column::2, group] = found[:, :, group]


def _hide(seen: Array, top: int, step: int) -> None:
    """Set to 0 what this and later steps code, in rows (h, w, M) of which the first is row `top`."""
    h, w, M = seen.shape
    groups = seen.reshape(h, w, GROUPS, M // GROUPS)
    for group, order in enumerate(ORDERS):
        for row, column in order[step:]:
            groups[(row - top) % 2 :: 2, column::2, group] = 0


def _cut(part: Array, inner: Any, outer: Any, scale: int) -> Array:
    """`tiles.cut` of an array (h, w, channels)."""
    cut_out: Array = cut(part.transpose(2, 0, 1), inner, outer, scale).transpose(1, 2, 0)
    return cut_out
