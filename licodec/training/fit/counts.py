"""Counts of latents over images and rates: what stage (b) learns from, and its static prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.entropy.classes import Classifier
from licodec.entropy.tables import BINS, count_channels
from licodec.progress import track
from licodec.training.codecs.factorized import AdaptiveNetwork, between
from licodec.training.codecs.hyperprior import ZDistributions
from licodec.training.fit.back_projection import back_projected
from licodec.weights.file import STEPS

_LEANING = 8
"""Samples of the common distribution that are added to those of each class."""


@dataclass
class Counts:
    """Per example: counts (n, M, C, BINS + 1) as int16, the last for escapes, and the rate (n,)."""

    values: Tensor
    rate: Tensor


@torch.no_grad()
def latents(
    model: Any, images: list[Tensor], device: torch.device, multiple: int = 16
) -> list[Tensor]:
    """y (1, M, h, w) of each image (3, H, W), cut to multiples, as float16 on the CPU; and its
    back-projection with it, (2, M, h, w), where an adaptive codec takes account of that.
    """
    out = []
    for image in track(images, "analysing images"):
        height, width = (side // multiple * multiple for side in image.shape[1:])
        x = image[None, :, :height, :width].float() / 255
        x = x.contiguous(memory_format=torch.channels_last)
        if isinstance(model, AdaptiveNetwork) and model.back_projection.any():
            both = torch.cat(back_projected(model, x))
        else:
            both = model.g_a(x)
        out.append(both.to("cpu", torch.float16))
    return out


def collect(model: AdaptiveNetwork, latents: list[Tensor], rates: list[list[float]]) -> Counts:
    """Counts of each image's latents at each of its rates, 0 … K-1."""
    classifier = Classifier(
        model.context_order.cpu().numpy().astype(np.int16),
        model.context_weights.cpu().numpy().astype(np.int16),
        model.context_thresholds.cpu().numpy(),
        STEPS,
    )
    share = model.back_projection.cpu()

    def count(y: Tensor, gain: Tensor, rate: Tensor) -> NDArray[np.int64]:
        u = y[0].float()
        if len(y) > 1:
            u = u + between(share, rate) * y[1]
        symbols = (u * gain.cpu()).round().to(torch.int32).numpy()
        classes = classifier.sort(symbols, round(float(rate) * STEPS))
        return classifier.counts(symbols, classes, BINS)

    return _over_rates(model.log_gain, latents, rates, count)


def collect_z(model: ZDistributions, latents: list[Tensor], rates: list[list[float]]) -> Counts:
    """Counts (n, N, 1, BINS + 1) of the symbols of each image's ẑ, likewise."""

    def count(y: Tensor, gain: Tensor, rate: Tensor) -> NDArray[np.int64]:
        z = model.z_hat(y[0].to(gain.device).float() * gain).int().cpu().numpy()
        return count_channels(z, BINS)[:, None]

    return _over_rates(model.log_gain, latents, rates, count)


@torch.no_grad()
def _over_rates(
    log_gain: Tensor,
    latents: list[Tensor],
    rates: list[list[float]],
    count: Callable[[Tensor, Tensor, Tensor], NDArray[np.int64]],
) -> Counts:
    """What count(y, gain (M, 1, 1), rate (1,)) finds of each image at each of its rates."""
    values, kept = [], []
    for y, wanted in track(list(zip(latents, rates, strict=True)), "counting latents"):
        for rate in wanted:
            known = torch.tensor([round(rate * STEPS) / STEPS])
            gain = between(log_gain, known.to(log_gain.device))[0].exp()[:, None, None]
            values.append(torch.from_numpy(count(y, gain, known).astype(np.int16)))
            kept.append(known)
    return Counts(torch.stack(values), torch.cat(kept))


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


def best_average(counts: Counts, k: int) -> tuple[Tensor, Tensor]:
    """log2 of the best static distributions at anchor k: (M, BINS + 1), and by class (M, C, BINS + 1).

    A class that is rare in a channel leans on what all its classes have in common.
    """
    total = counts.values[counts.rate == k].sum(0, dtype=torch.float64).numpy()
    prior = log2_average(total.sum(1))
    common = 2.0 ** prior.double().numpy()[:, None]
    classes = [log2_average(c) for c in np.swapaxes(total + _LEANING * common, 0, 1)]
    return prior, torch.stack(classes, 1)
