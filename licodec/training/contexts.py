"""Learning what decides a latent's class: the forecast of its magnitude, and thresholds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from licodec.contexts import MAGNITUDE_LIMIT, Features, check_exact

_SAMPLES = 24_000
_STEPS = 300
_SHARE = 0.5
"""Each class takes this share of what the calmer ones leave."""


def sample(
    latents: list[Tensor], gains: Tensor, order: NDArray[np.int16], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (2M, n) of n latent positions of random images and rates, and their rates (n,).

    Args:
        latents: y (M, h, w) of each image.
        gains: (K, M).
        order: (M,) the channels in coding order, in which the features are.
    """
    K, M = gains.shape
    each = 64
    rows, rates = [], []
    for _ in range(_SAMPLES // each):
        y = latents[rng.integers(len(latents))].float()
        k = int(rng.integers(K))
        u = (y * gains[k][:, None, None]).round().to(torch.int32).numpy()
        features = Features(M, *u.shape[1:])
        features.add(0, u[order])
        positions = rng.integers(features.rows.shape[1], size=each)
        rows.append(features.rows[:, positions])
        rates.append(np.full(each, k))
    return np.concatenate(rows, 1), np.concatenate(rates)


def fit(features: NDArray[np.float32], rates: NDArray[np.int64], K: int) -> NDArray[np.int16]:
    """Weights (M, 2M), integers, by the likelihood of a Laplace distribution of the forecast's spread.

    Every rate has an offset of its own, which the thresholds stand for later.
    """
    M = len(features) // 2
    x, t = torch.from_numpy(features), torch.from_numpy(rates)
    magnitude = x[0::2]
    typical = magnitude.mean(1, keepdim=True) + 0.02
    scale = 1 / (x.mean(1, keepdim=True) + 0.02)
    x = x * scale
    mask = torch.tril(torch.ones(M, M), -1).repeat_interleave(2, 1)
    weights = torch.zeros(M, 2 * M, requires_grad=True)
    offsets = (0.5 * typical).repeat(1, K).requires_grad_()
    optimizer = torch.optim.Adam([weights, offsets], lr=0.01)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, step / 10) * (1 - step / _STEPS)
        forecast = offsets[:, t] + typical * ((weights * mask) @ x)
        spread = F.softplus(forecast * 8) / 8 + 0.11
        loss = (spread.log() + magnitude / spread).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    row = (typical * weights.detach() * mask * scale.T).double().numpy()
    # A row's unit is free, since only the order of forecasts counts: the finest that stays exact.
    largest = (np.abs(row) * MAGNITUDE_LIMIT * np.tile([1, 9], M)).sum(1, keepdims=True)
    peak = np.abs(row).max(1, keepdims=True)
    unit = np.minimum(2**23 / np.maximum(largest, 1e-9), (2**15 - 1) / np.maximum(peak, 1e-9))
    integers: NDArray[np.int16] = np.rint(row * np.minimum(unit, 2**16)).astype(np.int16)
    check_exact(integers)
    return integers


def thresholds(
    weights: NDArray[np.int16], features: NDArray[np.float32], rates: NDArray[np.int64],
    K: int, C: int,
) -> NDArray[np.int32]:  # fmt: skip
    """(K, M, C - 1) quantiles of the forecasts at each rate, so that busier classes are rarer."""
    if C == 1:
        return np.zeros((K, len(weights), 0), dtype=np.int32)
    forecasts = weights.astype(np.float32) @ features
    shares = 1 - _SHARE ** np.arange(1, C)
    out = np.stack([np.quantile(forecasts[:, rates == k], shares, axis=1).T for k in range(K)])
    rounded: NDArray[np.int32] = np.ceil(out).astype(np.int32)
    return rounded


def busiest_first(latents: list[Tensor], gain: Tensor) -> NDArray[np.int16]:
    """The channels (M,) by how large their latents are: what says most is coded first."""
    energy = torch.stack([y.float().abs().mean((1, 2)) for y in latents]).mean(0) * gain
    return torch.argsort(energy, descending=True, stable=True).numpy().astype(np.int16)
