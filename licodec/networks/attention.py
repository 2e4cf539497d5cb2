"""g_a and g_s of cheng2020-attn: residual blocks, attention, sub-pixel convolutions.

    x ─ R↓2 ─ R ─ R↓2 ─ A ─ R ─ R↓2 ─ R ─ conv3↓2 ─ A ─► y
    x̂ ◄ sub-pixel↑2 ─ R ─ R↑2 ─ R ─ A ─ R↑2 ─ R ─ R↑2 ─ R ─ A ─ ŷ

Cheng et al. 2020, "Learned image compression with discretized Gaussian mixture likelihoods and
attention modules", as CompressAI defines it, with its parameter names. R is a residual block, A an
attention block. In CompressAI latents have as many channels as all else, M = N; here they may have more,
so that small networks can code at higher rates. Nothing here decides a probability.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.networks.tiled import MakeNetwork, TiledTransforms
from licodec.networks.transforms import GDN


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def subpixel(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) to (B, outputs, 2H, 2W)."""
    return nn.Sequential(conv3x3(inputs, 4 * outputs), nn.PixelShuffle(2))


class ResidualBlock(nn.Module):
    """(B, N, H, W) to the same."""

    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(N, N)
        self.conv2 = conv3x3(N, N)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x)))) + x


class ResidualDown(nn.Module):
    """(B, inputs, H, W) to (B, N, H/2, W/2)."""

    def __init__(self, inputs: int, N: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, N, stride=2)
        self.conv2 = conv3x3(N, N)
        self.gdn = GDN(N)
        self.skip = nn.Conv2d(inputs, N, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gdn(self.conv2(F.leaky_relu(self.conv1(x)))) + self.skip(x)
        return out


class ResidualUp(nn.Module):
    """(B, inputs, H, W) to (B, N, 2H, 2W)."""

    def __init__(self, inputs: int, N: int) -> None:
        super().__init__()
        self.subpel_conv = subpixel(inputs, N)
        self.conv = conv3x3(N, N)
        self.igdn = GDN(N, inverse=True)
        self.upsample = subpixel(inputs, N)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.igdn(self.conv(F.leaky_relu(self.subpel_conv(x)))) + self.upsample(x)
        return out


class _ResidualUnit(nn.Module):
    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(N, N // 2, 1),
            nn.ReLU(),
            conv3x3(N // 2, N // 2),
            nn.ReLU(),
            nn.Conv2d(N // 2, N, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class AttentionBlock(nn.Module):
    """x + a(x) · sigmoid(b(x)), both branches residual; (B, N, H, W) to the same."""

    def __init__(self, N: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(_ResidualUnit(N) for _ in range(3)))
        self.conv_b = nn.Sequential(*(_ResidualUnit(N) for _ in range(3)), nn.Conv2d(N, N, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x)) + x
        return out


def analysis(N: int, M: int) -> nn.Sequential:
    """g_a: x (B, 3, H, W) in [0, 1] to y (B, M, H/16, W/16)."""
    return nn.Sequential(
        ResidualDown(3, N),
        ResidualBlock(N),
        ResidualDown(N, N),
        AttentionBlock(N),
        ResidualBlock(N),
        ResidualDown(N, N),
        ResidualBlock(N),
        conv3x3(N, M, stride=2),
        AttentionBlock(M),
    )


def synthesis(N: int, M: int) -> nn.Sequential:
    """g_s: ŷ (B, M, h, w) to x̂ (B, 3, 16h, 16w), about [0, 1], not clamped."""
    return nn.Sequential(
        AttentionBlock(M), ResidualBlock(M), ResidualUp(M, N), ResidualBlock(N), ResidualUp(N, N),
        AttentionBlock(N), ResidualBlock(N), ResidualUp(N, N), ResidualBlock(N), subpixel(N, 3),
    )  # fmt: skip


class AttentionTransforms(TiledTransforms):
    """g_a and g_s of cheng2020-attn as the codec runs them.

    The receptive field of g_a is 117 pixels to either side, that of g_s 10.3 latent positions.
    """

    halo = 11

    def networks(self, g_a: dict[str, Tensor]) -> tuple[MakeNetwork, MakeNetwork, int]:
        N, M = len(g_a["0.conv1.bias"]), len(g_a["7.bias"])
        return partial(analysis, N, M), partial(synthesis, N, M), M
