"""Learning what decides a latent's class: the forecast of its magnitude, and thresholds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from licodec.entropy.classes import MAGNITUDE_LIMIT, Features, check_exact, magnitudes
from licodec.progress import track
from licodec.quantize import quantize

_IMAGES, _EACH = 600, 400
"""Draws of an image and a rate that a sample is from, and positions of each."""
_STEPS, _BATCH = 1200, 8000
_BLOCKS = 4
"""Parts of the rows, so that little is multiplied of what is zero in a triangle."""
_CUTS = 32
"""Thresholds are chosen among the quantiles of the forecasts that part them into so many."""


def sample(
    latents: list[Tensor],
    gains: Tensor,
    shares: Tensor,
    order: NDArray[np.int16],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (2M, n) of latent positions of images and rates drawn at random, and rates (n,).

    Args:
        latents: y (1, M, h, w) of each image, or with its back-projection (2, M, h, w).
        gains: (K, M).
        shares: (K,) how much of that is added.
        order: (M,) the channels in coding order, in which the features are.
    """
    K, M = gains.shape
    rows, rates = [], []
    for _ in range(_IMAGES):
        y = latents[rng.integers(len(latents))].float().numpy()
        k = int(rng.integers(K))
        u = quantize(y, gains[k].numpy(), float(shares[k]) if len(y) > 1 else 0.0)
        features = Features(M, *u.shape[1:])
        features.add(0, magnitudes(u[order]))
        positions = rng.integers(features.rows.shape[1], size=_EACH)
        rows.append(features.rows[:, positions])
        rates.append(np.full(_EACH, k))
    return np.concatenate(rows, 1), np.concatenate(rates)


def fit(
    features: NDArray[np.float32],
    rates: NDArray[np.int64],
    K: int,
    rng: np.random.Generator,
    rank: int = 0,
    processes: int = 1,
) -> NDArray[np.int16]:
    """Weights (M, 2M), integers, by the likelihood of a Laplace distribution of the forecast's spread.

    Every rate has an offset of its own, which the thresholds stand for later. Of several processes each
    fits its share of the rows, and leaves the others 0.
    """
    M = len(features) // 2
    mean = torch.from_numpy(features.mean(1))
    typical, scale = mean[0::2, None] + 0.02, 1 / (mean + 0.02)
    samples, rate = torch.from_numpy(features).T.contiguous(), torch.from_numpy(rates)
    blocks = torch.arange(rank, M, processes).chunk(_BLOCKS)
    masks = [torch.arange(2 * int(rows[-1])) // 2 < rows[:, None] for rows in blocks]
    weights = [torch.zeros(mask.shape, requires_grad=True) for mask in masks]
    offsets = (0.5 * typical).repeat(1, K).requires_grad_()
    optimizer = torch.optim.Adam([*weights, offsets], lr=0.01)
    for step in track(range(_STEPS), "fitting classes"):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, step / 10) * (1 - step / _STEPS)
        some = torch.from_numpy(rng.integers(len(rate), size=min(_BATCH, len(rate))))
        x = samples[some]
        magnitude, x = x[:, 0::2].T, (x * scale).T
        optimizer.zero_grad()
        for rows, mask, weight in zip(blocks, masks, weights, strict=True):
            forecast = offsets[rows][:, rate[some]] + typical[rows] * (
                (weight * mask) @ x[: mask.shape[1]]
            )
            spread = F.softplus(forecast * 8) / 8 + 0.11
            loss = (spread.log() + magnitude[rows] / spread).sum() / (M * len(some))
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    row = np.zeros((M, 2 * M))
    for rows, mask, weight in zip(blocks, masks, weights, strict=True):
        own = typical[rows] * weight.detach() * mask * scale[: mask.shape[1]]
        row[rows.numpy(), : mask.shape[1]] = own.double().numpy()
    # A row's unit is free, since only the order of forecasts counts: the finest that stays exact.
    largest = (np.abs(row) * MAGNITUDE_LIMIT * np.tile([1, 9], M)).sum(1, keepdims=True)
    peak = np.abs(row).max(1, keepdims=True)
    unit = np.minimum(2**23 / np.maximum(largest, 1e-9), (2**15 - 1) / np.maximum(peak, 1e-9))
    integers: NDArray[np.int16] = np.rint(row * np.minimum(unit, 2**16)).astype(np.int16)
    check_exact(integers)
    return integers


def thresholds(
    weights: NDArray[np.int16],
    features: NDArray[np.float32],
    rates: NDArray[np.int64],
    K: int,
    C: int,
) -> NDArray[np.int32]:
    """(K, M, C - 1) forecasts at which one class ends and the next begins."""
    out = np.zeros((K, len(weights), C - 1), dtype=np.int32)
    if C == 1:
        return out
    forecasts = weights.astype(np.float32) @ features
    for k in track(range(K), "parting classes"):
        some = rates == k
        for i, (forecast, magnitude) in enumerate(
            zip(forecasts[:, some], features[0::2, some], strict=True)
        ):
            out[k, i] = partition(forecast, magnitude, C)
    return out


def partition(
    forecasts: NDArray[np.float32], magnitudes: NDArray[np.float32], C: int
) -> NDArray[np.int32]:
    """(C - 1,) rising thresholds that part forecasts (n,) so that magnitudes (n,) cost the fewest bits.

    The best of all ways to join neighbouring quantiles, found by dynamic programming; each class is taken to
    be geometric, which says enough with few samples.
    """
    cuts = np.unique(np.ceil(np.quantile(forecasts, np.arange(1, _CUTS) / _CUTS)))
    part = np.searchsorted(cuts, forecasts, side="right")
    count, total = (
        np.concatenate([[0], np.bincount(part, weights, len(cuts) + 1).cumsum()])
        for weights in (None, magnitudes)
    )
    n = count[None] - count[:, None]  # of parts i … j - 1, at [i, j]
    # A third of a sample like all others keeps classes of few from looking better than they are.
    mean = (total[None] - total[:, None] + total[-1] / count[-1] / 3) / (np.maximum(n, 0) + 1 / 3)
    bits = np.where(n > 0, n * _geometric_entropy(mean), np.inf)
    best, joints = bits[0], []
    for _ in range(C - 1):
        ways = best[:, None] + bits
        joints.append(ways.argmin(0))
        best = ways.min(0)
    chosen = np.full(C - 1, forecasts.max() + 1)
    if np.isfinite(best[-1]):
        end = len(cuts) + 1
        for c in reversed(range(C - 1)):
            end = joints[c][end]
            chosen[c] = cuts[end - 1]
    else:  # too few different forecasts: the last classes stay empty
        chosen[: len(cuts)] = cuts[: C - 1]
    return chosen.astype(np.int32)


def _geometric_entropy(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits of an integer whose probability falls by the same factor with each step from 0, by its mean
    magnitude."""
    mean = np.maximum(mean, 1e-6)
    factor = (np.sqrt(1 + mean**2) - 1) / mean
    entropy: NDArray[np.float64] = -np.log2((1 - factor) / (1 + factor)) - mean * np.log2(factor)
    return entropy


def busiest_first(latents: list[Tensor], gain: Tensor) -> NDArray[np.int16]:
    """The channels (M,) by how large their latents are: what says most is coded first."""
    energy = torch.stack([y.float().abs().mean((1, 2)) for y in latents]).mean(0) * gain
    return torch.argsort(energy, descending=True, stable=True).numpy().astype(np.int16)
