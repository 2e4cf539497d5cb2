"""Hyperprior codecs: how y becomes a stream, by one traversal for both directions.

    y ─ h_a ─► z ─ round ─► ẑ ─ coder                         h_a floats: it decides no probability
                            └ counts ─► tables of ẑ            the image's own, where it is asked for
    ẑ ─ h_s ─► scales (and means) ─► Gaussians ─► coder of y   integers from here on
         ├──── + scale shifts by channels before ───┤          where the weights have them
         └──── + context of ŷ ─ entropy parameters ─┘          mbt2018, cheng2020-attn

Everything is an integer: ŷ in 1/64 of a step (MEAN_UNIT), ẑ in quarters. With a context, positions
go by wavefronts (licodec/entropy/wavefronts.py).

Ballé et al. 2018, "Variational image compression with a scale hyperprior"; Minnen et al. 2018, "Joint
autoregressive and hierarchical priors for learned image compression"; Cheng et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.architectures import Architecture
from licodec.entropy.gaussian import MEAN_UNIT, SCALE_UNIT, Forecast, Gaussians, choose_steps
from licodec.entropy.image_distributions import ImageDistributions
from licodec.entropy.integer_nets import IntegerNet, LayerSpec, exact_products
from licodec.entropy.scale_shifts import PARTS, PREFIX, ScaleShifts
from licodec.entropy.tables import (
    BINS,
    PMF_TOTAL,
    code_values,
    count_channels,
    information,
    integer_softmax,
    interpolate,
)
from licodec.entropy.threads import one_blas_thread
from licodec.entropy.wavefronts import Wavefronts
from licodec.networks.build import built
from licodec.networks.hyper import HYPER_STRIDE, hyper_analysis
from licodec.progress import track
from licodec.rangecoder import Coder, Encoder, Pmf
from licodec.tiles import cut, tiles
from licodec.weights.catalogue import Z_DISTRIBUTIONS
from licodec.weights.file import STEPS, Weights
from licodec.weights.schema import LARGEST_LIMIT

Integers = NDArray[np.int32]
Mask = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

Z_UNIT = 4
"""ẑ lies on quarters of a step, where its medians can be."""
Z_CURVATURE = 25.0
"""Bits that y takes more for a square step that ẑ is off (20 to 30 are alike; high-rate theory has 17)."""
Z_LIMIT = 2**9 - 1
"""h_s sees ẑ clamped to ± this many quarters, so that no file can overflow its sums."""
OUTPUT_LIMIT = 2**20 - 1
"""Scales and means are clamped to ± this many of their units."""
SCALE_THRESHOLD_UNIT = 2**10
"""Predicted scales are integers in this fraction of a step."""

_DECONV = {a: LayerSpec("deconv", 5, a) for a in ("relu", "leaky")}
_CONV = {a: LayerSpec("conv", 3, a) for a in ("relu", "leaky", "none")}
_SUBPIXEL = LayerSpec("subpixel", 3, "leaky")


def synthesis_layers(architecture: Architecture) -> tuple[LayerSpec, ...]:
    """The layers of h_s."""
    if architecture.has_attention:
        return _CONV["leaky"], _SUBPIXEL, _CONV["leaky"], _SUBPIXEL, _CONV["none"]
    if not architecture.has_means:
        return _DECONV["relu"], _DECONV["relu"], _CONV["relu"]
    return _DECONV["leaky"], _DECONV["leaky"], _CONV["none"]


def output_units(architecture: Architecture, M: int) -> NDArray[np.float64]:
    """(M,) or (2M,) steps that 1 stands for in what decides scales and means."""
    scales = np.full(M, 1 / SCALE_THRESHOLD_UNIT)
    means = np.full(M if architecture.has_means else 0, 1 / MEAN_UNIT)
    return np.concatenate([scales, means])


_TILE = 16
"""Positions of z a side that h_s sees at once; bounds the memory."""
_HALO = 4
"""Positions of z around a tile that its result depends on, at most."""


class Hyperprior:
    """The entropy model of one weights file.

    Args:
        weights: the file.
        adaptive: code ẑ by the image's own distributions, for which the file must have nets.
    """

    def __init__(self, weights: Weights, adaptive: bool = False) -> None:
        self.architecture = weights.architecture
        tensors = weights.tensors("integer.")
        layers = synthesis_layers(self.architecture)
        self.h_s = IntegerNet(tensors, "integer.h_s", layers, Z_LIMIT)
        self.scale_shifts = None
        mixture = None
        if f"{PREFIX}order" in weights and not self.architecture.has_context:
            parts = (weights.numpy(f"{PREFIX}{part}") for part in PARTS)
            self.scale_shifts = ScaleShifts(*parts)
            mixture = weights.numpy(f"{PREFIX}mixture")
        has_plain_means = self.architecture.has_means and not self.architecture.has_context
        self.about_means = has_plain_means or self.scale_shifts is not None
        self.gaussians = Gaussians(weights.numpy("scales"), mixture)
        self.scales = (weights.numpy("scales") / SCALE_UNIT).astype(np.float32)
        self.z_prior = weights.numpy("z_prior")
        self.z_median = weights.numpy("z_median").astype(np.int32)
        self.N, self.M = len(self.z_median), weights.numpy("log_gain").shape[1]
        self.decide = partial(_decided, _indices(weights.numpy("scale_thresholds")), self.M)
        self.wavefronts = None
        if self.architecture.has_context:
            self.wavefronts = Wavefronts(tensors, self.h_s.limit, self.M, self.decide)
        h_a = partial(hyper_analysis, self.architecture, self.N, self.M)
        self.h_a = built(h_a, weights.torch("h_a."))
        self.z_distributions = ImageDistributions(weights, Z_DISTRIBUTIONS) if adaptive else None

    @torch.inference_mode()
    def side_information(self, y: Integers, position: int, visible: Mask | None = None) -> Integers:
        """Symbols of ẑ (N, ⌈h/4⌉, ⌈w/4⌉) for y (M, h, w) in 1/MEAN_UNIT: the encoder's choice."""
        _, h, w = y.shape
        down, right = -h % HYPER_STRIDE, -w % HYPER_STRIDE
        padded = np.pad(y, ((0, 0), (0, down), (0, right)), mode="edge")
        hz, wz = padded.shape[1] // HYPER_STRIDE, padded.shape[2] // HYPER_STRIDE
        z = np.empty((self.N, hz, wz), dtype=np.int32)
        median = torch.from_numpy(self.z_median).float()[:, None, None] / Z_UNIT
        tables = self._static_z_tables(position)
        bits = torch.from_numpy(np.log2(PMF_TOTAL / np.maximum(tables, 1))).float()
        for inner, outer in track(tiles(hz, wz, 2 * _TILE, _HALO), "hyper-analysis"):
            top, bottom, left, right = (HYPER_STRIDE * side for side in outer)
            part = torch.from_numpy(padded[:, top:bottom, left:right]).float() / MEAN_UNIT
            part = part if self.architecture.has_means else part.abs()
            with torch.autocast("cpu", enabled=False):  # a caller's own
                raw = self.h_a(part[None])[0]
            tile = cut(_cheapest(raw - median, bits), inner, outer, 1)
            z[:, inner[0] : inner[1], inner[2] : inner[3]] = tile.numpy()
        return z

    def side_bits(self, z: Integers | None, position: int) -> float:
        """Information of ẑ's symbols under their tables, and of what tells these."""
        assert z is not None
        if self.z_distributions is not None:
            counts = count_channels(z, BINS)[:, None]
            chosen = self.z_distributions.choose(counts, position)
            return self.z_distributions.bits(counts, chosen, position)
        tables = self._static_z_tables(position)
        return information(count_channels(z, tables.shape[1] - 1), tables)

    def quantize(self, y: Integers, side: Integers | None, position: int) -> Integers:
        """ŷ (M, h, w) that a decoder would get for y and ẑ's symbols, both in 1/MEAN_UNIT."""
        if not self.about_means:
            return choose_steps(y) * MEAN_UNIT
        _, h, w = y.shape
        side = self.side_information(y, position) if side is None else side
        return self.code_latents(Encoder(), position, h, w, y, side)

    def forecast(self, y: Integers, side: Integers, position: int) -> Forecast:
        """What y (M, h, w) would be coded with, ẑ's symbols given; only where there is no context."""
        M, h, w = y.shape
        rows = self._rows(y)
        index, mean = np.empty((h * w, M), np.uint8), np.empty((h * w, M), np.int32)
        with exact_products(), one_blas_thread():
            for places, outputs in self._synthesized(side, h, w):
                told = self.decide(outputs)
                if self.scale_shifts is not None:
                    self._code_shifted(Encoder(), rows[places], *told, places, w, keep=True)
                index[places], mean[places] = told
        return Forecast(self._planes(index, h, w), self._planes(mean, h, w), self.scales)

    def code_latents(
        self,
        coder: Coder,
        position: int,
        h: int,
        w: int,
        y: Integers | None = None,
        z: Integers | None = None,
        visible: Mask | None = None,
    ) -> Integers:
        """Code ẑ, then ŷ, visible or not; the decoder passes neither y nor z.

        Args:
            position: on the rate axis, 0 … (K-1)·STEPS.
            y: (M, h, w) in 1/MEAN_UNIT, not yet rounded to steps.
            z: symbols, as `side_information` gives them.

        Returns:
            ŷ (M, h, w) in 1/MEAN_UNIT.
        """
        hz, wz = -(-h // HYPER_STRIDE), -(-w // HYPER_STRIDE)
        flat = None if z is None else z.reshape(-1)
        counts = np.full(self.N, hz * wz)
        tables = self._code_z_tables(coder, position, z)
        z = code_values(coder, flat, counts, tables).reshape(self.N, hz, wz)
        rows = None if y is None else self._rows(y)
        with exact_products(), one_blas_thread():
            if self.wavefronts is None:
                y_hat = self._code_tiles(coder, z, h, w, rows)
            else:
                hyper = torch.empty(h * w, 2 * self.M, dtype=torch.int16, device="cpu")
                for places, outputs in self._synthesized(z, h, w):
                    hyper[torch.from_numpy(places)] = outputs.short()
                y_hat = self.wavefronts.code(coder, self.gaussians, hyper, h, w, rows)
        return self._planes(y_hat, h, w)

    def _rows(self, y: Integers) -> Integers:
        """(h·w, M) of y (M, h, w)."""
        return np.ascontiguousarray(y.reshape(self.M, -1).T)

    def _planes(self, rows: NDArray[T], h: int, w: int) -> NDArray[T]:
        """(M, h, w) of rows (h·w, M)."""
        return np.ascontiguousarray(rows.T).reshape(self.M, h, w)

    def _code_tiles(
        self, coder: Coder, z: Integers, h: int, w: int, y: Integers | None
    ) -> Integers:
        """Without a context: ŷ (h·w, M), tile by tile of z."""
        y_hat = np.empty((h * w, self.M), dtype=np.int32)
        for places, outputs in self._synthesized(z, h, w):
            index, mean = self.decide(outputs)
            known = None if y is None else y[places]
            if self.scale_shifts is not None:
                y_hat[places] = self._code_shifted(coder, known, index, mean, places, w)
                continue
            values = None if known is None else choose_steps(known - mean).ravel()
            steps = self.gaussians.code(coder, values, index.ravel(), None)
            y_hat[places] = steps.reshape(index.shape) * MEAN_UNIT + mean
        return y_hat

    def _code_shifted(
        self,
        coder: Coder,
        y: Integers | None,
        index: NDArray[np.uint8],
        mean: Integers,
        places: NDArray[np.int64],
        w: int,
        keep: bool = False,
    ) -> Integers:
        """ŷ (n, M) at the places of a tile, as `ScaleShifts.code` has it."""
        assert self.scale_shifts is not None
        height = int(places[-1] // w - places[0] // w) + 1
        known = None if y is None else y.T
        shape = height, len(places) // height
        return self.scale_shifts.code(coder, self.gaussians, known, index.T, mean.T, *shape, keep).T

    def _synthesized(
        self, z: Integers, h: int, w: int
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """(positions (n,) in 0 … h·w - 1, h_s's outputs (n, O)), tile by tile."""
        z_hat = np.clip(
            z.astype(np.int64) * Z_UNIT + self.z_median[:, None, None], -Z_LIMIT, Z_LIMIT
        )
        planes = torch.from_numpy(z_hat.astype(np.float32))
        place = np.arange(h * w).reshape(h, w)
        for inner, outer in track(tiles(z.shape[1], z.shape[2], _TILE, _HALO), "hyper-synthesis"):
            part = planes[:, outer[0] : outer[1], outer[2] : outer[3]]
            tile = cut(self.h_s.plane(part), inner, outer, HYPER_STRIDE)
            top, left = inner[0] * HYPER_STRIDE, inner[2] * HYPER_STRIDE
            places = place[top : top + tile.shape[1], left : left + tile.shape[2]]
            tile = tile[:, : places.shape[0], : places.shape[1]]
            yield places.ravel(), tile.flatten(1).T.contiguous()

    def _static_z_tables(self, position: int) -> Pmf:
        """(N, bins + 1) frequencies of ẑ's symbols, the same for all images."""
        return integer_softmax(interpolate(self.z_prior, position, STEPS))

    def _code_z_tables(self, coder: Coder, position: int, z: Integers | None) -> Pmf:
        """(N, bins + 1) frequencies of ẑ's symbols, once what tells them, if anything does, is coded."""
        if self.z_distributions is None:
            return self._static_z_tables(position)
        chosen = None
        if z is not None:
            chosen = self.z_distributions.choose(count_channels(z, BINS)[:, None], position)
        chosen = self.z_distributions.code_side(coder, position, chosen)
        return self.z_distributions.tables(position, chosen)[:, 0]


def _cheapest(z: Tensor, bits: Tensor) -> Tensor:
    """The whole steps by z (N, h, w), medians taken off, that cost least: ẑ's own bits, and those that y
    takes more for what rounding loses.

    Args:
        bits: (N, bins + 1) of the symbols.
    """
    bins = bits.shape[1] - 1
    below = z.floor()
    costs = []
    for steps in (below, below + 1):
        symbols = steps.long() + bins // 2
        symbols = torch.where((symbols < 0) | (symbols >= bins), bins, symbols)
        own = bits.gather(1, symbols.flatten(1)).reshape(z.shape)
        costs.append(own + Z_CURVATURE * (z - steps) ** 2)
    return torch.where(costs[0] <= costs[1], below, below + 1).int()


def _decided(
    index_of: NDArray[np.uint8], M: int, outputs: Tensor
) -> tuple[NDArray[np.uint8], Integers]:
    """Scale indices and means (n, M) from (n, 2M), or (n, M) where there are no means."""
    integers = outputs.int().numpy()
    index = index_of[integers[:, :M] + LARGEST_LIMIT]
    if integers.shape[1] == M:
        return index, np.zeros(index.shape, dtype=np.int32)
    return index, integers[:, M:]


def _indices(thresholds: NDArray[np.int32]) -> NDArray[np.uint8]:
    """How many thresholds lie below each integer of ±LARGEST_LIMIT: a look instead of a search."""
    above = np.clip(thresholds.astype(np.int64) + 1 + LARGEST_LIMIT, 0, 2 * LARGEST_LIMIT + 1)
    found = np.bincount(above, minlength=2 * LARGEST_LIMIT + 2).cumsum(dtype=np.uint8)
    indices: NDArray[np.uint8] = found[:-1]
    return indices
