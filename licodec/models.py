"""How latents become a stream: one traversal for both directions, and what the encoder chooses.

Here are the models whose tables go by channel and class; `hyperprior` has the others.

factorized:  y ────────────────────────────────────── static tables ─► coder      (Ballé 2018)
adaptive:    y ─┬ counts ─ h_a ─► z ─ coder ─► h_s ─┐
                └ contexts ─► classes ──────────────┴─ tables ─► coder            (paper 1, by classes)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from licodec.catalogue import ARCHITECTURES
from licodec.contexts import Contexts, Features, bands
from licodec.distributions import (
    BINS,
    code_values,
    count_values,
    information,
    integer_softmax,
    interpolate,
)
from licodec.hyperprior import Hyperprior
from licodec.pdf_transform import RATE_UNIT, SIDE_LENGTH, IntegerSynthesis, PdfAnalysis
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


class Adaptive(Tabled):
    """This image's own distributions, sent as a side stream (paper 1), one for each channel and class.

    The side stream tells how the image differs from the average in each channel; how a channel's classes
    differ from each other is the same in all images.
    """

    def __init__(self, weights: Weights) -> None:
        self.prior = weights.numpy("prior")
        self.class_prior = weights.numpy("class_prior")
        self.contexts = Contexts(
            weights.numpy("context.order"), weights.numpy("context.weights"),
            weights.numpy("context.thresholds"), STEPS,
        )  # fmt: skip
        self.z_prior = weights.numpy("z_prior")
        self.anchors = len(self.prior)
        self.h_s = IntegerSynthesis(weights.tensors("h_s."), int(weights.metadata["groups"]))
        M = self.prior.shape[1]
        first = weights.numpy("h_a.layers.0.weight")
        last = weights.numpy("h_a.layers.4.weight")
        self.Z = last.shape[0]
        self.h_a = PdfAnalysis(
            M, first.shape[0], self.Z, int(weights.metadata["groups"]), last.shape[2]
        )
        self.h_a.load_state_dict(weights.torch("h_a."))
        self.h_a.eval()
        # The encoder weighs tables before it codes with them, and those of ẑ = 0 for every image.
        self._kept_tables = lru_cache(maxsize=4)(self._tables)

    @torch.no_grad()
    def side_information(self, y: Integers, position: int, seen: Mask | None = None) -> Integers:
        """ẑ (Z, 32): what h_a says, or all zero where that costs fewer bits in all."""
        counts = self.contexts.counts(y, position, BINS, seen)
        p = torch.from_numpy(counts[..., :-1].sum(1).astype(np.float32))
        p /= p.sum(1, keepdim=True).clamp(min=1)
        prior = torch.from_numpy(self._prior(position).astype(np.float32))
        z = self.h_a(analysis_input(p, prior)[None])[0].round().numpy().astype(np.int32)
        candidates = (z, np.zeros_like(z))
        return min(
            candidates,
            key=lambda z: (
                self.side_bits(z, position) + information(counts, self.tables(position, z))
            ),
        )

    def code_side(self, coder: Coder, position: int, z: Integers | None) -> Integers:
        tables = self._z_tables(position)
        flat = None if z is None else z.reshape(-1)
        ones = np.ones(len(tables), dtype=np.int64)
        return code_values(coder, flat, ones, tables).reshape(self.Z, SIDE_LENGTH)

    def side_bits(self, z: Integers | None, position: int) -> float:
        if z is None:
            return 0.0
        tables, flat = self._z_tables(position), z.reshape(-1)
        counts = count_values(flat, np.arange(len(flat)), len(flat), tables.shape[1] - 1)
        return information(counts, tables)

    def tables(self, position: int, z: Integers | None) -> Pmf:
        assert z is not None
        return self._kept_tables(position, z.astype(np.int32).tobytes())

    def _tables(self, position: int, z: bytes) -> Pmf:
        z_hat = np.frombuffer(z, dtype=np.int32).reshape(self.Z, SIDE_LENGTH)
        rate = position * RATE_UNIT // max(1, (self.anchors - 1) * STEPS)
        logits = interpolate(self.class_prior, position, STEPS)
        logits[..., :-1] += self.h_s(z_hat, rate)[:, None]
        pmf = integer_softmax(logits)
        pmf.setflags(write=False)
        return pmf

    def _prior(self, position: int) -> Pmf:
        return integer_softmax(interpolate(self.prior, position, STEPS))[:, :-1]

    def _z_tables(self, position: int) -> Pmf:
        return integer_softmax(interpolate(self.z_prior, position, STEPS))


def analysis_input(p: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """√p - √prior: what h_a sees. p sums to 1 over its last axis, prior to anything."""
    # The root has no finite slope at 0; empty bins take no part in the gradient.
    root = torch.where(p > 0, p.clamp(min=1e-12).sqrt(), 0.0)
    return root - (prior / prior.sum(-1, keepdim=True)).sqrt()


MODELS: dict[str, type[Factorized] | type[Adaptive] | type[Hyperprior]] = {
    "factorized": Factorized,
    "adaptive": Adaptive,
    **dict.fromkeys(ARCHITECTURES.values(), Hyperprior),
}
