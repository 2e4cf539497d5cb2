"""g_a and g_s: the float transforms between pixels and latents.

    x ─ conv5↓2 ─ GDN ─ conv5↓2 ─ GDN ─ conv5↓2 ─ GDN ─ conv5↓2 ─► y
    x̂ ◄ deconv5↑2 ─ IGDN ─ deconv5↑2 ─ IGDN ─ deconv5↑2 ─ IGDN ─ deconv5↑2 ─ ŷ

Ballé et al. 2018, "Variational image compression with a scale hyperprior" (its factorized
baseline). Parameter names and the GDN parametrization are CompressAI's, so that state dicts pass
between the two. Nothing here decides a probability: another rounding moves a pixel by a level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = Callable[[Tensor], Tensor]

_PEDESTAL = 2.0**-36


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient still lets x return from below the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x >= ctx.bound) | (grads[0] < 0)), None


def _nonnegative(raw: Tensor, minimum: float) -> Tensor:
    bounded: Tensor = _LowerBound.apply(raw, (minimum + _PEDESTAL) ** 0.5)  # type: ignore[no-untyped-call]
    return bounded**2 - _PEDESTAL


_CHUNK = 8192
"""Positions that are normalized at once, so that what lies between fits a processor's cache."""


class GDN(nn.Module):
    """Generalized divisive normalization, x_i / sqrt(β_i + Σ_j γ_ij x_j²), or its inverse.

    Shape (B, C, H, W) to the same; without gradients the result takes the place of x. Ballé, Laparra
    and Simoncelli 2016, equation 1.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Filled, not computed: on the meta device, a root would import half of PyTorch.
        self.beta = nn.Parameter(torch.full((channels,), (1 + _PEDESTAL) ** 0.5))
        gamma = torch.full((channels, channels), _PEDESTAL**0.5)
        self.gamma = nn.Parameter(gamma.fill_diagonal_((0.1 + _PEDESTAL) ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        beta = _nonnegative(self.beta, 1e-6)
        gamma = _nonnegative(self.gamma, 0.0)
        if torch.is_grad_enabled():
            energy = F.conv2d(x * x, gamma[:, :, None, None], beta)
            return x * (torch.sqrt(energy) if self.inverse else torch.rsqrt(energy))
        return self._normalize_(x, beta.to(x.dtype), gamma.to(x.dtype))

    def _normalize_(self, x: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        """In place, piece by piece: fresh buffers of x's size cost more than the arithmetic."""
        x = x.contiguous(memory_format=torch.channels_last)
        for chunk in torch.split(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), _CHUNK):
            row = chunk.T[None, :, None]
            # A convolution: a product of matrices may sum in another order for another chunk.
            energy = F.conv2d(row * row, gamma[:, :, None, None], beta)
            row.mul_(energy.sqrt_() if self.inverse else energy.rsqrt_())
        return x


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def _deconv(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


def analysis(N: int, M: int) -> nn.Sequential:
    """g_a: x (B, 3, H, W) in [0, 1] to y (B, M, H/16, W/16)."""
    return nn.Sequential(_conv(3, N), GDN(N), _conv(N, N), GDN(N), _conv(N, N), GDN(N), _conv(N, M))


def synthesis(N: int, M: int) -> nn.Sequential:
    """g_s: ŷ (B, M, h, w) to x̂ (B, 3, 16h, 16w), about [0, 1], not clamped."""
    return nn.Sequential(
        _deconv(M, N),
        GDN(N, inverse=True),
        _deconv(N, N),
        GDN(N, inverse=True),
        _deconv(N, N),
        GDN(N, inverse=True),
        _deconv(N, 3),
    )


def back_projection(g_a: Network, g_s: Network, y: Tensor) -> Tensor:
    """y - g_a(g_s(y)): what g_a misses in what g_s makes of y (B, M, h, w).

    Some of it added to y costs bits and wins more quality where y is coded finely.
    """
    return y - g_a(g_s(y).contiguous(memory_format=torch.channels_last))


def as_subpixel(deconv: nn.ConvTranspose2d) -> nn.Sequential:
    """The same map as a 3x3 convolution to all four phases and their interleave.

    For few outputs, as g_s's last layer has, twice as fast. deconv is as `_deconv` makes it.
    """
    inputs, outputs = deconv.in_channels, deconv.out_channels
    weight = deconv.weight
    conv = nn.Conv2d(inputs, 4 * outputs, 3, padding=1, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        # Output 2m + a takes from input m - i the tap a + 2 + 2i; a sixth tap of zeros evens the phases.
        taps = F.pad(weight, (0, 1, 0, 1)).reshape(inputs, outputs, 3, 2, 3, 2).flip(2, 4)
        conv.weight.copy_(taps.permute(1, 3, 5, 0, 2, 4).reshape(conv.weight.shape))
        conv.get_parameter("bias").copy_(deconv.get_parameter("bias").repeat_interleave(4))
    return nn.Sequential(conv, nn.PixelShuffle(2))
