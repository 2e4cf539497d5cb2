"""Counts of latents over images and rates: what stage (b) learns from, and its static prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.distributions import BINS
from licodec.training.model import Adaptive, between


@dataclass
class Counts:
    """Per example: counts (n, M, BINS + 1) as int16, the last for escapes, and the rate t (n,)."""

    values: Tensor
    t: Tensor


@torch.no_grad()
def collect(
    model: Adaptive,
    images: list[Tensor],
    rates: list[list[float]],
    precision: torch.dtype,
    device: torch.device,
) -> Counts:
    """Histograms of each image (3, H, W) at each of its rates t in 0 … K-1."""
    values, ts = [], []
    for image, wanted in zip(images, rates, strict=True):
        height, width = (side // 16 * 16 for side in image.shape[1:])
        x = image[None, :, :height, :width].float() / 255
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            y = model.g_a(x).float()[0].flatten(1)
        for t in wanted:
            gain = between(model.log_gain, torch.tensor([t], device=device))[0].exp()
            values.append(count(y * gain[:, None]))
            ts.append(t)
    return Counts(torch.stack(values), torch.tensor(ts, dtype=torch.float32))


def count(u: Tensor) -> Tensor:
    """Bin counts of rounded latents (C, positions): (C, BINS + 1) as int16."""
    b = u.round().long() + BINS // 2
    b = torch.where((b < 0) | (b >= BINS), BINS, b)
    rows = torch.arange(len(u), device=u.device)[:, None] * (BINS + 1)
    flat = torch.bincount((rows + b).flatten(), minlength=len(u) * (BINS + 1))
    return flat.reshape(len(u), BINS + 1).to(torch.int16).cpu()


def log2_average(counts: NDArray[Any]) -> Tensor:
    """The best single distribution for counts (C, bins + 1): log2 of their smoothed shares.

    Bins never seen get the tail of a Laplace distribution of three times the channel's spread, with
    the weight of two samples: dear, but never absurd.
    """
    bins = counts.shape[1] - 1
    distance = np.abs(np.arange(bins) - bins // 2)
    total = counts[:, :-1].sum(1, keepdims=True)
    spread = 3 * ((counts[:, :-1] * distance).sum(1, keepdims=True) / np.maximum(total, 1) + 0.1)
    tail = np.exp(-distance / spread)
    tail = np.concatenate([tail / tail.sum(1, keepdims=True), np.full((len(counts), 1), 1e-3)], 1)
    smoothed = counts + 2 * tail
    return torch.from_numpy(np.log2(smoothed / smoothed.sum(1, keepdims=True))).float()


def best_average(counts: Counts, k: int) -> Tensor:
    """log2 of the best static distribution at anchor k: (M, BINS + 1)."""
    rows = counts.values[counts.t == k]
    return log2_average(rows.sum(0, dtype=torch.float64).numpy())
