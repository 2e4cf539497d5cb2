"""How latents become a stream: one traversal for both directions, and what the encoder chooses.

Here are the models whose tables go by channel and class; `hyperprior` has the others.

factorized:  y ────────────────────────────────────── static tables ─► coder      (Ballé 2018)
adaptive:    y ─┬ counts ─ h_a ─► z ─ coder ─► h_s ─┐
                └ forecasts ─► classes ─────────────┴─ tables ─► coder            (paper 1, by classes)

Ahead of y, both tell which channels are silent, 0 throughout, and of these nothing else is coded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.entropy.classes import Classes, Classifier, Features, bands, magnitudes
from licodec.entropy.image_distributions import ImageDistributions
from licodec.entropy.tables import BINS, PMF_TOTAL, code_values, integer_softmax, interpolate
from licodec.entropy.threads import one_blas_thread
from licodec.progress import track
from licodec.rangecoder import Coder, Pmf
from licodec.weights.file import STEPS, Weights

Integers = NDArray[np.int32]
Mask = NDArray[np.bool_]

_TOLD_FROM = 256
"""Latent positions from which on a file tells which channels it uses: what it costs is little there, and
the time saved is much."""


class TabledSide(NamedTuple):
    """What the encoder of a `Tabled` model finds out before it codes."""

    z: Integers | None
    used: Mask
    """(M,) channels that are not 0 throughout."""
    classes: Classes
    """(channels, h, w) of their latents, in coding order."""


class Tabled(ABC):
    """A model with a table for each channel and class."""

    classifier: Classifier
    """Sort the latents of a channel into the classes that `tables` tells apart."""

    @abstractmethod
    def side_information(
        self, y: Integers, position: int, visible: Mask | None = None
    ) -> TabledSide:
        """z, and the classes of y."""

    @abstractmethod
    def code_side(self, coder: Coder, position: int, z: Integers | None) -> Integers | None:
        """Code the side stream; z is None when decoding."""

    @abstractmethod
    def tables(self, position: int, z: Integers | None) -> Pmf:
        """(M, C, bins + 1) integer frequencies of each channel and class."""

    @abstractmethod
    def side_bits(self, side: TabledSide, position: int) -> float:
        """As in EntropyModel."""

    def quantize(self, y: Integers, side: TabledSide | None, position: int) -> Integers:
        return y

    @one_blas_thread()
    def code_latents(
        self,
        coder: Coder,
        position: int,
        h: int,
        w: int,
        y: Integers | None = None,
        side: TabledSide | None = None,
        visible: Mask | None = None,
    ) -> Integers:
        tables = self.tables(position, self.code_side(coder, position, side and side.z))
        used = code_used(coder, tables, count_visible(visible, h * w), side and side.used)
        classifier = self.classifier.among(used)
        thresholds = classifier.at(position)
        frequencies = tables[classifier.order].astype(np.float64)
        C, entries = tables.shape[1:]
        out = np.zeros((len(tables), h, w), dtype=np.int32)
        for band in track(bands(h, w), "latents"):
            shape = out[0, band].shape
            size = shape[0] * shape[1]
            shown = None if visible is None else np.flatnonzero(visible[band])
            features = Features(0 if side else len(classifier.order), *shape)
            for group in _groups(classifier.order, y, band):
                channels = classifier.order[group]
                rows = np.arange(len(channels))[:, None]
                if side is None:
                    classes = classifier.classes(group.start, features, thresholds)[None]
                else:
                    classes = side.classes[group, band].reshape(len(rows), size)
                if shown is not None:
                    classes = classes[:, shown]
                counts = np.bincount((classes + C * rows).reshape(-1), minlength=C * len(rows))
                by_class = np.argsort(classes, axis=1, kind="stable")
                places = by_class if shown is None else shown[by_class]
                places += size * rows
                places = places.reshape(-1)
                values = None if y is None else y[channels, band].reshape(-1)[places]
                planes = np.zeros(size * len(rows), dtype=np.int32)
                planes[places] = code_values(
                    coder, values, counts, frequencies[group].reshape(-1, entries)
                )
                planes = planes.reshape(-1, *shape)
                for channel, plane in zip(channels, planes, strict=True):
                    out[channel, band] = plane
                if side is None and C > 1:
                    features.add(group.start, magnitudes(planes))
        return out


def _groups(order: list[int], y: Integers | None, band: slice) -> Iterator[slice]:
    """Parts of a coding order that are coded in one call.

    A decoder needs each channel to sort the next: its parts are single ones. An encoder, which has all,
    takes as many as make the same stream: escapes follow their channel, so it is the last of its part.
    """
    most, ends = 1, np.ones(len(order), dtype=np.bool_)
    if y is not None and order:
        rows = y[order, band].reshape(len(order), -1)
        most = max(1, 2**19 // rows.shape[1])
        ends = (rows.max(1) >= BINS // 2) | (rows.min(1) < -BINS // 2)
    start = 0
    for i, is_end in enumerate(ends.tolist(), 1):
        if is_end or i - start == most or i == len(order):
            yield slice(start, i)
            start = i


def find_used(y: Integers, visible: Mask | None) -> Mask:
    """(M,) channels of y (M, h, w) that `code_used` is to tell of."""
    used: Mask = y.any((1, 2)) if visible is None else y[:, visible].any(1)
    return used | (count_visible(visible, y[0].size) < _TOLD_FROM)


def count_visible(visible: Mask | None, positions: int) -> int:
    """How many of all positions are visible."""
    return positions if visible is None else int(visible.sum())


def code_used(coder: Coder, tables: Pmf, count: int, used: Mask | None) -> Mask:
    """Code which channels (M,) have a latent other than 0 among `count`; `used` is None when decoding.

    In small images nothing is told, and all channels count as used.
    """
    if count < _TOLD_FROM:
        return np.ones(len(tables), dtype=np.bool_)
    symbols = None if used is None else used.astype(np.int32)
    return coder.code_each(symbols, used_odds(tables, count).astype(np.float64)).astype(np.bool_)


def used_odds(tables: Pmf, count: int) -> Pmf:
    """(M, 2) frequencies of silent and of used channels.

    They are as 1 is to the number of latents other than 0 that the tables (M, C, bins + 1), one class as
    likely as another, lead to expect among `count`.
    """
    others = PMF_TOTAL - tables[:, :, tables.shape[2] // 2].sum(1) // tables.shape[1]
    return np.stack([np.full_like(others, PMF_TOTAL), np.maximum(count * others, 1)], axis=1)


class Factorized(Tabled):
    """One static distribution a channel and rate."""

    def __init__(self, weights: Weights) -> None:
        self.prior = weights.numpy("prior")
        K, M, _ = self.prior.shape
        self.classifier = Classifier(
            np.arange(M, dtype=np.int16),
            np.zeros((M, 2 * M), dtype=np.int16),
            np.zeros((K, M, 0), dtype=np.int32),
            STEPS,
        )

    def side_information(
        self, y: Integers, position: int, visible: Mask | None = None
    ) -> TabledSide:
        used = find_used(y, visible)
        return TabledSide(None, used, np.zeros((int(used.sum()), *y.shape[1:]), dtype=np.uint8))

    def code_side(self, coder: Coder, position: int, z: Integers | None) -> None:
        return None

    def side_bits(self, side: TabledSide, position: int) -> float:
        return 0.0

    def tables(self, position: int, z: Integers | None) -> Pmf:
        return integer_softmax(interpolate(self.prior, position, STEPS))[:, None]


class Adaptive(ImageDistributions, Tabled):
    """This image's own distributions, one for each channel and class."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.classifier = Classifier(
            weights.numpy("context.order"),
            weights.numpy("context.weights"),
            weights.numpy("context.thresholds"),
            STEPS,
        )

    def side_information(
        self, y: Integers, position: int, visible: Mask | None = None
    ) -> TabledSide:
        """ẑ (Z, 32) of the encoding distributions, and the classes that they are told by."""
        used = find_used(y, visible)
        classifier = self.classifier.among(used)
        with one_blas_thread():
            classes = classifier.sort(y, position, visible)
        counts = classifier.counts(y, classes, BINS, visible)
        counts[~used, 0, BINS // 2] = count_visible(visible, y[0].size)
        return TabledSide(self.choose(counts, position), used, classes)

    def side_bits(self, side: TabledSide, position: int) -> float:
        assert side.z is not None
        return self.z_bits(side.z, position)
