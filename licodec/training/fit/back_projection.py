"""How much of its back-projection an encoder adds to y: what serves each rate best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from licodec.networks.transforms import back_projection
from licodec.training.data import central
from licodec.training.objective import rate_distortion

STRENGTHS = tuple(i / 8 for i in range(7))
_IMAGES, _SIDE = 24, 256
"""The images that tell how much of it serves, and the pixels of a side."""
_WORTH = 0.015
"""What it must win of R + λD, for an encoder to take three times as long."""


class Autoencoder(Protocol):
    """A codec's g_a and g_s."""

    g_a: Any
    g_s: Any


def middles(images: list[Tensor]) -> Tensor:
    """Of some images (3, H, W) that are large enough: (B, 3, 256, 256)."""
    large = [i for i in images if min(i.shape[1:]) >= _SIDE]
    some = large[:: max(1, len(large) // _IMAGES)][:_IMAGES]
    return torch.stack([central(i, _SIDE) for i in some]) if some else torch.empty(0)


def back_projected(codec: Autoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """y (B, M, H/16, W/16) of images x (B, 3, H, W), and its back-projection."""
    y = codec.g_a(x)
    return y.float(), back_projection(codec.g_a, codec.g_s, y).float()


@torch.no_grad()
def strengths(codec: Autoencoder, lambdas: Iterable[float], log_gain: Tensor, x: Tensor) -> Tensor:
    """(K,) those of STRENGTHS with the least R + λD over images x (B, 3, H, W) together, 0 where that is
    not worth the time, or where there are no images.

    R is the entropy of each channel's latents. log_gain is (K, M), for K lambdas.
    """
    if not len(x):
        return torch.zeros(len(log_gain))
    y, missed = back_projected(codec, x.contiguous(memory_format=torch.channels_last))
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    chosen = []
    for lmbda, row in zip(lambdas, log_gain, strict=True):
        gain = row.exp()[:, None, None]
        costs = []
        for strength in STRENGTHS:
            u = ((y + strength * missed) * gain).round()
            x_hat = codec.g_s((u / gain).contiguous(memory_format=torch.channels_last))
            mse = float(((x_hat.float().clamp(0, 1) - x) ** 2).mean())
            costs.append(rate_distortion(_entropy(u) / pixels, mse, lmbda))
        worth = min(costs) < (1 - _WORTH) * costs[0]
        chosen.append(STRENGTHS[costs.index(min(costs))] if worth else 0.0)
    return torch.tensor(chosen)


def _entropy(u: Tensor) -> float:
    """Bits of integers u (B, M, h, w), each channel by its own frequencies."""
    bits = 0.0
    for channel in u.transpose(0, 1).flatten(1):
        counts = torch.unique(channel, return_counts=True)[1].double()
        bits += float((counts * (counts.sum() / counts).log2()).sum())
    return bits
