"""How much of its echo an encoder adds to y (`transforms.Pair.analyze`): what serves each rate best."""

from __future__ import annotations

import torch
from torch import Tensor

from licodec.training.model import Adaptive

STRENGTHS = tuple(i / 8 for i in range(7))
_WORTH = 0.015
"""What an echo must win of R + λD, for an encoder to take three times as long."""


def echo_of(model: Adaptive, x: Tensor) -> tuple[Tensor, Tensor]:
    """y (B, M, H/16, W/16) of images x (B, 3, H, W), and y - g_a(g_s(y))."""
    y = model.g_a(x)
    heard = model.g_a(model.g_s(y).contiguous(memory_format=torch.channels_last))
    return y.float(), (y - heard).float()


@torch.no_grad()
def strengths(model: Adaptive, x: Tensor) -> Tensor:
    """(K,) those of STRENGTHS with the least R + λD over images x (B, 3, H, W) together, 0 where that is
    not worth the time.

    R is the entropy of each channel's latents.
    """
    y, echo = echo_of(model, x)
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    chosen = []
    for lmbda, log_gain in zip(model.lambdas, model.log_gain, strict=True):
        gain = log_gain.exp()[:, None, None]
        costs = []
        for strength in STRENGTHS:
            u = ((y + strength * echo) * gain).round()
            x_hat = model.g_s((u / gain).contiguous(memory_format=torch.channels_last))
            mse = float(((x_hat.float().clamp(0, 1) - x) ** 2).mean())
            costs.append(_entropy(u) / pixels + lmbda * 255**2 * mse)
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
