"""How latents become a stream: one traversal for both directions, and what the encoder chooses.

Here are the models whose tables go by channel and class; `hyperprior` has the others.

factorized:  y ────────────────────────────────────── static tables ─► coder      (Ballé 2018)
adaptive:    y ─┬ counts ─ h_a ─► z ─ coder ─► h_s ─┐
                └ contexts ─► classes ──────────────┴─ tables ─► coder            (paper 1, by classes)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from licodec.catalogue import ARCHITECTURES
from licodec.contexts import Contexts, Features, bands
from licodec.distributions import BINS, code_values, integer_softmax, interpolate
from licodec.hyperprior import Hyperprior
from licodec.image_distributions import ImageDistributions
from licodec.progress import track
from licodec.rangecoder import Coder, Pmf
from licodec.weights import STEPS, Weights

Integers = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Model(Protocol):
    """An entropy model. `position` is the rate, 0 … (K-1)·STEPS.

    y and ŷ (M, h, w) are in steps for `Tabled` models, in 1/MEAN_UNIT of a step for hyperpriors.
    """

    def side_information(
        self, y: Integers, position: int, seen: Mask | None = None
    ) -> Integers | None:
        """What the encoder sends ahead of y, and its choice alone."""

    def side_bits(self, z: Integers | None, position: int) -> float:
        """Information of the side stream under its tables."""

    def quantize(self, y: Integers, position: int) -> Integers:
        """ŷ as a decoder would get it for y."""

    def code_latents(
        self, coder: Coder, position: int, h: int, w: int,
        y: Integers | None = None, z: Integers | None = None, seen: Mask | None = None,
    ) -> Integers:  # fmt: skip
        """Code side stream and latents, and return ŷ; the decoder passes neither y nor z.

        Latents that are not `seen` (h, w) do not matter: a model may leave them out, and return 0.
        """


class Tabled(ABC):
    """A model with a table for each channel and class."""

    contexts: Contexts
    """Sort the latents of a channel into the classes that `tables` tells apart."""

    @abstractmethod
    def code_side(self, coder: Coder, position: int, z: Integers | None) -> Integers | None:
        """Code the side stream; z is None when decoding."""

    @abstractmethod
    def tables(self, position: int, z: Integers | None) -> Pmf:
        """(M, C, bins + 1) integer frequencies of each channel and class."""

    def quantize(self, y: Integers, position: int) -> Integers:
        return y

    def code_latents(
        self, coder: Coder, position: int, h: int, w: int,
        y: Integers | None = None, z: Integers | None = None, seen: Mask | None = None,
    ) -> Integers:  # fmt: skip
        z = self.code_side(coder, position, z)
        tables = self.tables(position, z)
        contexts = self.contexts
        thresholds = contexts.at(position)
        out = np.zeros((len(tables), h, w), dtype=np.int32)
        for band in track(bands(h, w), "latents"):
            rows = out[:, band]
            visible = None if seen is None else seen[band]
            shown = np.arange(rows[0].size) if visible is None else np.flatnonzero(visible)
            known = None if y is None else contexts.all_classes(y[:, band], thresholds, visible)
            features = Features(*rows.shape)
            for i, c in enumerate(contexts.order):
                found = contexts.classes(i, features, thresholds) if known is None else known[i]
                classes = found[shown]
                places = shown[np.argsort(classes, kind="stable")]
                counts = np.bincount(classes, minlength=len(tables[c]))
                values = None if y is None else y[c, band].reshape(-1)[places]
                flat = np.zeros(rows[c].size, dtype=np.int32)
                flat[places] = code_values(coder, values, counts, tables[c])
                rows[c] = flat.reshape(rows[c].shape)
                if known is None and tables.shape[1] > 1:
                    features.add(i, rows[c][None])
        return out


class Factorized(Tabled):
    """One static distribution a channel and rate."""

    def __init__(self, weights: Weights) -> None:
        self.prior = weights.numpy("prior")
        K, M, _ = self.prior.shape
        self.contexts = Contexts(
            np.arange(M, dtype=np.int16), np.zeros((M, 0), dtype=np.int16),
            np.zeros((K, M, 0), dtype=np.int32), STEPS,
        )  # fmt: skip

    def side_information(self, y: Integers, position: int, seen: Mask | None = None) -> None:
        return None

    def code_side(self, coder: Coder, position: int, z: Integers | None) -> None:
        return None

    def side_bits(self, z: Integers | None, position: int) -> float:
        return 0.0

    def tables(self, position: int, z: Integers | None) -> Pmf:
        return integer_softmax(interpolate(self.prior, position, STEPS))[:, None]


class Adaptive(ImageDistributions, Tabled):
    """This image's own distributions, one for each channel and class."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.contexts = Contexts(
            weights.numpy("context.order"), weights.numpy("context.weights"),
            weights.numpy("context.thresholds"), STEPS,
        )  # fmt: skip

    def side_information(self, y: Integers, position: int, seen: Mask | None = None) -> Integers:
        """ẑ (Z, 32) of the encoding distributions."""
        return self.choose(self.contexts.counts(y, position, BINS, seen), position)


MODELS: dict[str, type[Factorized] | type[Adaptive] | type[Hyperprior]] = {
    "factorized": Factorized,
    "adaptive": Adaptive,
    **dict.fromkeys(ARCHITECTURES.values(), Hyperprior),
}
