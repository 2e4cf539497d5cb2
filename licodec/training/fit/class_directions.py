"""The directions in which images' residuals differ from the average, from counts of many images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.entropy.class_distributions import DIRECTION_SHIFT, ClassDistributions
from licodec.entropy.tables import LOG2_UNIT, count_values
from licodec.progress import track
from licodec.weights.file import STEPS

DIRECTIONS = 8
_KNOTS = 8
"""Of the classes, between which directions are linear."""
_STEPS = 300
_LR = 0.05
_Z_SPREAD = 8.0
"""Root mean square of z, in whole numbers."""
_Z_BINS = 64
_DECAY = 2e-5


def no_directions(C: int, entries: int) -> dict[str, NDArray[np.int16]]:
    """Tensors that tell nothing."""
    return {
        "class_directions": np.zeros((1, C, entries), np.int16),
        "class_z_prior": np.zeros((1, 3), np.int16),
    }


def fit_directions(
    prior: NDArray[np.int16], counts: list[tuple[int, NDArray[np.int64]]], seed: int = 0
) -> dict[str, NDArray[np.int16]]:
    """`class_directions` and `class_z_prior` for the class tables of a weights file.

    Args:
        prior: (K, C, bins + 1), `class_prior`.
        counts: of each image, the anchor that it was coded at, and (C, bins + 1).
    """
    _, C, entries = prior.shape
    observed = torch.from_numpy(np.stack([c for _, c in counts])).float()
    base = torch.from_numpy(prior[[k for k, _ in counts]].astype(np.float32)) / LOG2_UNIT
    torch.manual_seed(seed)
    theta = (0.05 * torch.randn(DIRECTIONS, _KNOTS, entries // 2 + 1)).requires_grad_(True)
    z = (0.1 * torch.randn(len(counts), DIRECTIONS)).requires_grad_(True)
    hats = _hats(C)
    plain = _bits(base, observed)
    optimizer = torch.optim.Adam([theta, z], lr=_LR)
    for step in track(range(_STEPS), "fitting directions of classes"):
        optimizer.param_groups[0]["lr"] = _LR * (1 - step / _STEPS)
        logits = base + torch.einsum("nj,jcs->ncs", z, _mirrored(theta, hats, entries))
        loss = (_bits(logits, observed) / plain.clamp_min(1)).mean() + _DECAY * z.square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        spread = z.square().mean(0).sqrt()[:, None, None] / _Z_SPREAD
        found = _mirrored(theta, hats, entries) * spread * (LOG2_UNIT << DIRECTION_SHIFT)
    tensors = no_directions(C, entries) | {
        "class_prior": prior,
        "class_directions": found.round().clamp(-(2**15), 2**15 - 1).numpy().astype(np.int16),
        "class_z_prior": np.zeros((DIRECTIONS, _Z_BINS + 1), np.int16),
    }
    tensors["class_z_prior"] = _z_prior(ClassDistributions(tensors), counts)
    del tensors["class_prior"]
    return tensors


def _hats(C: int) -> Tensor:
    """(_KNOTS, C): each class's shares of the knots about it."""
    place = torch.linspace(0, _KNOTS - 1, C)
    return (1 - (place - torch.arange(_KNOTS)[:, None]).abs()).clamp_min(0)


def _mirrored(theta: Tensor, hats: Tensor, entries: int) -> Tensor:
    """Directions (J, C, entries), the same left and right of 0; theta has |symbol|, then the escape."""
    bins = entries - 1
    places = (torch.arange(bins) - bins // 2).abs()
    places[0] -= 1  # the leftmost bin has no counterpart
    places = torch.cat([places, torch.tensor([theta.shape[2] - 1])])
    directions: Tensor = torch.einsum("jks,kc->jcs", theta, hats)[:, :, places]
    return directions


def _bits(logits: Tensor, counts: Tensor) -> Tensor:
    """(n,) bits of counts (n, C, entries)."""
    logs = torch.log_softmax(logits * np.log(2), -1) / np.log(2)
    bits: Tensor = -(counts * logs).sum((1, 2))
    return bits


def _z_prior(
    distributions: ClassDistributions, counts: list[tuple[int, NDArray[np.int64]]]
) -> NDArray[np.int16]:
    """Log frequencies of each direction's z among the images, smoothed."""
    J = len(distributions.directions)
    seen = np.zeros((J, _Z_BINS + 1))
    for k, c in counts:
        z = np.rint(distributions._best(c.astype(np.float64), k * STEPS)).astype(np.int32)
        seen += count_values(z, np.arange(J), J, _Z_BINS)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    smooth = np.stack([np.convolve(row[:-1], kernel / kernel.sum(), "same") for row in seen])
    smooth += 0.002 * len(counts)
    escape = np.full((J, 1), 0.001 * len(counts))
    mass = np.concatenate([smooth, escape], 1)
    logs = np.log2(mass / mass.sum(1, keepdims=True)) * LOG2_UNIT
    tables: NDArray[np.int16] = np.rint(logs).astype(np.int16)
    return tables
