"""p: how one image's latents are distributed, channel by channel (paper 1, section III)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from licodec.entropy.tables import BINS

Kernel = Callable[[Tensor], Tensor]

KERNELS: dict[str, tuple[Kernel, int]] = {
    "uniform": (lambda t: (t.abs() <= 0.5).to(t.dtype), 1),
    "triangular": (lambda t: (1 - t.abs()).clamp(min=0), 1),
    "epanechnikov": (lambda t: (0.75 * (1 - t * t)).clamp(min=0), 1),
    "gaussian": (lambda t: torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi), 4),
}
"""k(t), and how many bins it reaches to either side; t in bins, bandwidth one bin."""

_BOUND = 0.75 * BINS / 2


class _Inward(torch.autograd.Function):
    """Clamp to ±bound; outside, only a gradient that pushes back inside passes."""

    @staticmethod
    def forward(ctx, u: Tensor, bound: float) -> Tensor:  # type: ignore[no-untyped-def,override]
        ctx.save_for_backward(u)
        ctx.bound = bound
        return u.clamp(-bound, bound)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def,override]
        (u,) = ctx.saved_tensors
        keep = (u.abs() <= ctx.bound) | (grad * u > 0)
        return grad * keep, None


def kernel_density(u: Tensor, kernel: str = "triangular") -> Tensor:
    """Kernel density estimate over the bins, differentiable in u.

    p_c[b] = mean over positions of k(u - b), normalized to sum to 1 (paper 1, equation 4). Each sample
    touches only the bins its kernel reaches.

    Args:
        u: (B, C, positions) latents; values beyond 75 % of the range count at that bound.

    Returns:
        (B, C, BINS).
    """
    k, reach = KERNELS[kernel]
    u = _Inward.apply(u, _BOUND)  # type: ignore[no-untyped-call]
    nearest = u.detach().round()
    p = u.new_zeros(*u.shape[:2], BINS)
    for offset in range(-reach, reach + 1):
        b = nearest + offset
        p = p.scatter_add(2, (b + BINS // 2).long().clamp(0, BINS - 1), k(u - b))
    return p / p.sum(2, keepdim=True).clamp(min=1e-9)


def histogram(u: Tensor) -> Tensor:
    """Exact shares of the rounded latents: (B, C, positions) to (B, C, BINS), not differentiable."""
    b = (u.detach().round() + BINS // 2).long().clamp(0, BINS - 1)
    p = u.new_zeros(*u.shape[:2], BINS)
    return p.scatter_add(2, b, torch.ones_like(u)) / u.shape[2]


def straight_through_histogram(u: Tensor, kernel: str = "triangular") -> Tensor:
    """`histogram` forward, `kernel_density` backward."""
    soft = kernel_density(u, kernel)
    return histogram(u) + (soft - soft.detach())
