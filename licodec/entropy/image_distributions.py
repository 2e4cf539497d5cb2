"""One image's own distributions, sent as a side stream ahead of what they code (paper 1).

    counts ─ p ─ h_a ─► z ─ coder ─► h_s ─ Δ + log2 prior ─ softmax ─► tables

For the channels of y in the adaptive codec, and for those of ẑ in codecs with a hyperprior.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from licodec.entropy.pdf_transform import RATE_UNIT, SIDE_LENGTH, IntegerSynthesis, PdfAnalysis
from licodec.entropy.tables import (
    code_values,
    count_values,
    information,
    integer_softmax,
    interpolate,
)
from licodec.networks.build import built
from licodec.rangecoder import Coder, Pmf
from licodec.weights.file import STEPS, Weights

Integers = NDArray[np.int32]


class ImageDistributions:
    """h_a, h_s, their priors and the tables of their side stream.

    The side stream tells how the image differs from the average in each channel; how a channel's classes
    differ from each other is the same in all images.

    Args:
        weights: hold them under names that start with `prefix`; where `class_prior` is missing, each
            channel has one class.
    """

    def __init__(self, weights: Weights, prefix: str = "") -> None:
        own = {k.removeprefix(prefix): v for k, v in weights.tensors(prefix).items()}
        self.prior = own["prior"]
        self.class_prior = own.get("class_prior", self.prior[:, :, None])
        self.z_prior = own["z_prior"]
        self.anchors, M, _ = self.prior.shape
        first, last = own["h_a.layers.0.weight"], own["h_a.layers.4.weight"]
        groups = M // first.shape[1]
        self.h_s = IntegerSynthesis(own, groups)
        self.Z = last.shape[0]
        shape = M, first.shape[0], self.Z, groups, last.shape[2]
        self.h_a = built(partial(PdfAnalysis, *shape), weights.torch(f"{prefix}h_a."))
        # The encoder weighs tables before it codes with them, and those of ẑ = 0 for every image.
        # None of these caches holds this object, which would then outlive its last use.
        tables = partial(_tables, self.class_prior, self.h_s, self.Z, self.anchors)
        self._kept_tables = lru_cache(maxsize=4)(tables)
        self._z_tables = lru_cache(maxsize=4)(partial(_frequencies, self.z_prior))
        self._prior = lru_cache(maxsize=4)(partial(_frequencies, self.prior))

    @torch.no_grad()
    def choose(self, counts: NDArray[np.int64], position: int) -> Integers:
        """ẑ (Z, 32) for counts (M, C, bins + 1): what h_a says, or all zero where that costs fewer bits in
        all."""
        p = torch.from_numpy(counts[..., :-1].sum(1).astype(np.float32))
        p /= p.sum(1, keepdim=True).clamp(min=1)
        prior = torch.from_numpy(self._prior(position)[:, :-1].astype(np.float32))
        with torch.autocast("cpu", enabled=False):  # a caller's own
            z = self.h_a(analysis_input(p, prior)[None])[0].round().numpy().astype(np.int32)
        candidates = (z, np.zeros_like(z))
        return min(candidates, key=lambda z: self.bits(counts, z, position))

    def bits(self, counts: NDArray[np.int64], z: Integers, position: int) -> float:
        """Information of the side stream, and of symbols counted (M, C, bins + 1) under its tables."""
        return self.z_bits(z, position) + information(counts, self.tables(position, z))

    def code_side(self, coder: Coder, position: int, z: Integers | None) -> Integers:
        """Code the side stream; z is None when decoding."""
        tables = self._z_tables(position)
        flat = None if z is None else z.reshape(-1)
        return code_values(coder, flat, None, tables).reshape(self.Z, SIDE_LENGTH)

    def z_bits(self, z: Integers, position: int) -> float:
        """Information of the side stream under its tables."""
        tables, flat = self._z_tables(position), z.reshape(-1)
        counts = count_values(flat, np.arange(len(flat)), len(flat), tables.shape[1] - 1)
        return information(counts, tables)

    def tables(self, position: int, z: Integers | None) -> Pmf:
        """(M, C, bins + 1) integer frequencies of each channel and class."""
        assert z is not None
        return self._kept_tables(position, z.astype(np.int32).tobytes())


def _tables(
    class_prior: NDArray[Any], h_s: IntegerSynthesis, Z: int, anchors: int, position: int, z: bytes
) -> Pmf:
    z_hat = np.frombuffer(z, dtype=np.int32).reshape(Z, SIDE_LENGTH)
    rate = position * RATE_UNIT // max(1, (anchors - 1) * STEPS)
    logits = interpolate(class_prior, position, STEPS)
    logits[..., :-1] += h_s(z_hat, rate)[:, None]
    pmf = integer_softmax(logits)
    pmf.setflags(write=False)
    return pmf


def _frequencies(prior: NDArray[Any], position: int) -> Pmf:
    pmf = integer_softmax(interpolate(prior, position, STEPS))
    pmf.setflags(write=False)
    return pmf


def analysis_input(p: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """√p - √prior: what h_a sees. p sums to 1 over its last axis, prior to anything."""
    # The root has no finite slope at 0; empty bins take no part in the gradient.
    root = torch.where(p > 0, p.clamp(min=1e-12).sqrt(), 0.0)
    return root - (prior / prior.sum(-1, keepdim=True)).sqrt()
