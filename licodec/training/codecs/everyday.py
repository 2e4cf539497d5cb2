"""The everyday codec as it is trained: low-complexity transforms, a hyperprior and a quadtree context.

    x ─ unshuffle 8 ─ 1x1 ─ blocks at 1/8 ─ unshuffle 2 ─ 1x1 ─ blocks at 1/16 ─► y · gain(t)
    x̂ ◄─ shuffle 8 ─ 1x1 ─ blocks at 1/8 ─ shuffle 2 ─ 1x1 ─ blocks at 1/16 ─ ŷ · inverse_gain(t)

Tensors are (B, h, w, channels): a 1x1 convolution is then a matrix product. `t` (B,) is each image's place on
the rate axis, 0 … K - 1, a real number; what depends on the rate is linear between the K anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licodec.entropy.quadtree import GROUPS, ORDERS
from licodec.training.config import Model

PATCH, CELL, HYPER = 8, 2, 2
"""Sides of what the transforms' two layers and each of the hyperprior's two take together."""

SLOPE = 0.125
Z_UNIT = 4.0
"""Steps of ẑ in a unit of the hyper-transforms."""

BY_RATE = ("log_gain", "log_inverse_gain", "log_scale", "log_z_scale", "rate_features")
"""Parameters with a row for each anchor, which bear a higher learning rate."""

LEAST_SCALE = 0.08
"""In steps; what is as narrow is not coded."""


def unshuffle(x: Tensor, r: int) -> Tensor:
    """(B, h/r, w/r, r·r·C) of x (B, h, w, C); channels in the order row, column, channel."""
    B, h, w, C = x.shape
    x = x.reshape(B, h // r, r, w // r, r, C).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, h // r, w // r, r * r * C)


def shuffle(x: Tensor, r: int) -> Tensor:
    """The inverse of `unshuffle`."""
    B, h, w, C = x.shape
    x = x.reshape(B, h, w, r, r, C // (r * r)).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, h * r, w * r, C // (r * r))


class Block(nn.Module):
    """x + 1x1(dw3x3(leaky(1x1 x))), then x + 1x1(leaky(1x1 x)) with twice the channels inside."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.mix = nn.Linear(C, C)
        self.depthwise = nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.join = nn.Linear(C, C)
        self.widen = nn.Linear(C, 2 * C)
        self.narrow = nn.Linear(2 * C, C)
        for last in (self.join, self.narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.mix(x), SLOPE).permute(0, 3, 1, 2)
        x = x + self.join(self.depthwise(inner).permute(0, 2, 3, 1))
        added: Tensor = self.narrow(F.leaky_relu(self.widen(x), SLOPE))
        return x + added


class Analysis(nn.Module):
    """g_a, of pixels -½ … ½."""

    def __init__(self, C: int, M: int, fine: int, coarse: int) -> None:
        super().__init__()
        self.patch = nn.Linear(3 * PATCH**2, C)
        self.fine = nn.Sequential(*(Block(C) for _ in range(fine)))
        self.cell = nn.Linear(C * CELL**2, M)
        self.coarse = nn.Sequential(*(Block(M) for _ in range(coarse)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fine(self.patch(unshuffle(x, PATCH)))
        y: Tensor = self.coarse(self.cell(unshuffle(x, CELL)))
        return y


class Synthesis(nn.Module):
    """g_s, to pixels -½ … ½."""

    def __init__(self, C: int, M: int, fine: int, coarse: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(*(Block(M) for _ in range(coarse)))
        self.cell = nn.Linear(M, C * CELL**2)
        self.fine = nn.Sequential(*(Block(C) for _ in range(fine)))
        self.patch = nn.Linear(C, 3 * PATCH**2)

    def forward(self, y: Tensor) -> Tensor:
        x = shuffle(self.cell(self.coarse(y)), CELL)
        return shuffle(self.patch(self.fine(x)), PATCH)


class HyperAnalysis(nn.Module):
    def __init__(self, M: int, width: int, z_channels: int) -> None:
        super().__init__()
        self.enter = nn.Linear(M, width)
        self.first = Block(width)
        self.shrink = nn.Linear(width * HYPER**2, width)
        self.second = Block(width)
        self.leave = nn.Linear(width * HYPER**2, z_channels)
        nn.init.normal_(self.leave.weight, std=0.02)

    def forward(self, y: Tensor) -> Tensor:
        x = self.first(F.leaky_relu(self.enter(torch.asinh(y)), SLOPE))
        x = self.second(F.leaky_relu(self.shrink(unshuffle(x, HYPER)), SLOPE))
        z: Tensor = self.leave(unshuffle(x, HYPER))
        return z


class HyperSynthesis(nn.Module):
    def __init__(self, width: int, z_channels: int) -> None:
        super().__init__()
        self.enter = nn.Linear(z_channels, width * HYPER**2)
        self.first = Block(width)
        self.grow = nn.Linear(width, width * HYPER**2)
        self.second = Block(width)
        self.leave = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(shuffle(self.enter(z), HYPER))
        x = self.second(shuffle(self.grow(x), HYPER))
        features: Tensor = self.leave(x)
        return features


class Step(nn.Module):
    """One of the quadtree's steps: μ and log σ of a quarter of the latents, from the features of ẑ and ŷ so
    far; `ORDERS` tells which cell of each 2x2 square a group of channels takes."""

    def __init__(self, index: int, M: int, width: int, hyper_width: int) -> None:
        super().__init__()
        self.index = index
        self.features = nn.Linear(hyper_width, width)
        self.context = nn.Linear(M, width, bias=False) if index else None
        self.block = Block(width)
        heads = [nn.Linear(width, 2 * M // GROUPS) for _ in range(GROUPS)]
        for last in heads:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor, y_hat: Tensor) -> Tensor:
        """(B, h/2, w/2, GROUPS, 2·M/GROUPS): μ, then log σ, of the cells of this step."""
        x = self.features(features)
        if self.context is not None:
            x = x + self.context(torch.asinh(y_hat).to(x.dtype))
        x = F.leaky_relu(self.block(x), SLOPE)
        parts = []
        for group, head in enumerate(self.heads):
            row, column = ORDERS[group][self.index]
            parts.append(head(x[:, row::2, column::2]))
        return torch.stack(parts, 3)


class Everyday(nn.Module):
    """The whole codec, for all rates.

    Args:
        C, M: channels at 1/8 and of the latents, M a multiple of 4.
        fine, coarse: blocks at 1/8 and 1/16, in g_a and in g_s.
        lambdas: of the K anchors, weight of the mean squared error on 0 … 255.
        encoder_fine, encoder_coarse: blocks that g_a has beyond those.
    """

    def __init__(
        self, C: int, M: int, fine: int, coarse: int, lambdas: Sequence[float],
        encoder_fine: int = 0, encoder_coarse: int = 0,
        hyper_width: int = 192, z_channels: int = 96, width: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        K = len(lambdas)
        self.lambdas = tuple(lambdas)
        self.g_a = Analysis(C, M, fine + encoder_fine, coarse + encoder_coarse)
        self.g_s = Synthesis(C, M, fine, coarse)
        self.h_a = HyperAnalysis(M, hyper_width, z_channels)
        self.h_s = HyperSynthesis(hyper_width, z_channels)
        self.steps = nn.ModuleList(Step(i, M, width, hyper_width) for i in range(GROUPS))
        self.log_gain = nn.Parameter(torch.zeros(K, M))
        self.log_inverse_gain = nn.Parameter(torch.zeros(K, M))
        self.log_scale = nn.Parameter(torch.zeros(K, M))
        self.log_z_scale = nn.Parameter(torch.full((K, z_channels), -1.0))
        self.rate_features = nn.Parameter(torch.zeros(K, hyper_width))

    @classmethod
    def of(cls, settings: Model) -> Everyday:
        """The codec of a training config's model."""
        return cls(
            settings.N, settings.M, settings.fine, settings.coarse, settings.lambdas,
            settings.encoder_fine, settings.encoder_coarse,
        )  # fmt: skip

    def lmbda(self, t: Tensor) -> Tensor:
        """λ at t (B,), linear in log between anchors."""
        logs = torch.tensor(self.lambdas, device=t.device).log()[:, None]
        return between(logs, t)[:, 0, 0, 0].exp()

    def analyze(self, x: Tensor, t: Tensor) -> Tensor:
        """y (B, h, w, M) in steps, of x (B, H, W, 3), 0 … 1, sides multiples of 64."""
        y: Tensor = self.g_a(x - 0.5)
        return y.float() * between(self.log_gain, t).exp()

    def synthesize(self, y_hat: Tensor, t: Tensor) -> Tensor:
        """x̂ (B, H, W, 3) of ŷ in steps."""
        x_hat: Tensor = self.g_s(y_hat * between(self.log_inverse_gain, t).exp())
        return x_hat.float() + 0.5

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`code` with noise."""
        return self.code(x, t, noise=True)

    def code(self, x: Tensor, t: Tensor, noise: bool) -> tuple[Tensor, Tensor, Tensor]:
        """R and D of each image.

        Args:
            x: (B, H, W, 3), 0 … 1.
            t: (B,), 0 … K - 1.
            noise: uniform noise for the rate, as in training; else whole numbers.

        Returns:
            bpp (B,), mse (B,) on 0 … 1, and x̂ (B, H, W, 3). Rounding is straight through for x̂.
        """
        y = self.analyze(x, t)
        z_bits, features = self.hyper(y, t, noise)
        y_bits, y_hat = self.latents(y, features, t, noise)
        x_hat = self.synthesize(y_hat, t)
        bpp = (z_bits + y_bits) / (x.shape[1] * x.shape[2])
        return bpp, (x_hat - x).square().mean((1, 2, 3)), x_hat

    def hyper(self, y: Tensor, t: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """Bits of ẑ (B,), and the features (B, h, w, ·) that it gives."""
        z = self.h_a(y).float() * Z_UNIT
        z_hat = z + (z.round() - z).detach()
        magnitude = (z + torch.rand_like(z) - 0.5 if noise else z_hat).abs()
        scale = between(self.log_z_scale, t).exp()
        mass = torch.sigmoid((0.5 - magnitude) / scale) - torch.sigmoid((-0.5 - magnitude) / scale)
        features = self.h_s(z_hat / Z_UNIT) + between(self.rate_features, t)
        return -mass.clamp_min(1e-9).log2().sum((1, 2, 3)), features

    def latents(self, y: Tensor, features: Tensor, t: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """Bits of ŷ (B,), and ŷ (B, h, w, M) in steps."""
        B, h, w, M = y.shape
        base = between(self.log_scale, t).reshape(B, 1, 1, GROUPS, M // GROUPS)
        y_hat = torch.zeros_like(y)
        bits = y.new_zeros(B)
        for i, step in enumerate(self.steps):
            mu, log_scale = step(features, y_hat).float().chunk(2, -1)
            scale = (log_scale + base).exp().clamp_min(LEAST_SCALE)
            residual = cells_of(y, i) - mu
            rounded = residual + (residual.round() - residual).detach()
            bits = bits + self.rate(residual, rounded, scale, noise).sum((1, 2, 3, 4))
            y_hat = y_hat + spread(rounded + mu, i)
        return bits, y_hat

    def rate(self, residual: Tensor, rounded: Tensor, scale: Tensor, noise: bool) -> Tensor:
        """Bits of latents, their means taken off; all alike in shape."""
        value = residual + torch.rand_like(residual) - 0.5 if noise else rounded
        return gaussian_bits(value, scale)


class KnownTransforms(Everyday):
    """The codec with g_a, g_s and gains as they are, while the rest learns the rate."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for part in (self.g_a, self.g_s):
            part.requires_grad_(False)
        self.log_gain.requires_grad_(False)
        self.log_inverse_gain.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        """bpp (B,) of images (B, H, W, 3)."""
        with torch.no_grad():
            y = self.analyze(x, t)
        z_bits, features = self.hyper(y, t, noise=True)
        y_bits, _ = self.latents(y, features, t, noise=True)
        return (z_bits + y_bits) / (x.shape[1] * x.shape[2])

    def rate(self, residual: Tensor, rounded: Tensor, scale: Tensor, noise: bool) -> Tensor:
        """Scales learn from rounded latents, as files have them: noise would make small ones dear. Means
        learn from noisy ones, as ŷ is the mean where it rounds to 0."""
        found = gaussian_bits(rounded.detach(), scale)
        if noise:
            noisy = super().rate(residual, rounded, scale.detach(), noise)
            found = found + noisy - noisy.detach()
        return found


def between(table: Tensor, t: Tensor) -> Tensor:
    """Rows (B, 1, 1, n) of a table (K, n) at t (B,), linear between anchors."""
    low = t.detach().floor().clamp(0, max(0, len(table) - 2)).long()
    share = (t - low)[:, None]
    rows = table[low] * (1 - share) + table[(low + 1).clamp_max(len(table) - 1)] * share
    return rows[:, None, None]


def gaussian_bits(value: Tensor, scale: Tensor) -> Tensor:
    """Information of values under a Gaussian about 0 integrated over a step."""
    magnitude, unit = value.abs(), 1 / (scale * math.sqrt(2))
    mass = torch.erfc((magnitude - 0.5) * unit) - torch.erfc((magnitude + 0.5) * unit)
    return -(0.5 * mass).clamp_min(1e-9).log2()


def cells_of(y: Tensor, step: int) -> Tensor:
    """(B, h/2, w/2, GROUPS, M/GROUPS): what a step codes of y (B, h, w, M), h and w even."""
    B, h, w, M = y.shape
    squares = y.reshape(B, h // CELL, CELL, w // CELL, CELL, GROUPS, M // GROUPS)
    places = [order[step] for order in ORDERS]
    return torch.stack([squares[:, :, r, :, c, g] for g, (r, c) in enumerate(places)], 3)


def spread(parts: Tensor, step: int) -> Tensor:
    """(B, h, w, M) with the cells of a step (B, h/2, w/2, GROUPS, M/GROUPS) in place and 0 elsewhere."""
    B, h, w, groups, n = parts.shape
    squares = parts.new_zeros(B, h, CELL, w, CELL, groups, n)
    for group in range(groups):
        row, column = ORDERS[group][step]
        squares[:, :, row, :, column, group] = parts[..., group, :]
    return squares.reshape(B, h * CELL, w * CELL, groups * n)


@torch.no_grad()
def karhunen_loeve(net: Everyday, x: Tensor) -> None:
    """Start as a block transform: the two linear layers become Karhunen-Loève transforms of 8x8 patches and
    of 2x2 cells of those, and all blocks do nothing yet. x (B, H, W, 3), 0 … 1."""
    patches = unshuffle(x - 0.5, PATCH)
    basis, _ = _principal(patches, net.g_a.patch.out_features)
    _set(net.g_a.patch, basis.T)
    _set(net.g_s.patch, basis)
    cells = unshuffle(net.g_a.patch(patches), CELL)
    M = net.log_gain.shape[1]
    basis, energy = _principal(cells, M)
    # Strong components are dealt out among the quadtree's groups.
    order = torch.arange(M).reshape(-1, GROUPS).T.reshape(-1)
    _set(net.g_a.cell, basis[:, order].T)
    _set(net.g_s.cell, basis[:, order])
    logs = energy[order].clamp_min(1e-9).log() / 2
    for k, lmbda in enumerate(net.lambdas):
        gain = math.log(5.7) + 0.5 * math.log(lmbda / 0.013)
        net.log_gain[k] = gain
        net.log_inverse_gain[k] = -gain
        net.log_scale[k] = logs + gain - 0.5


def _principal(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The strongest components of x (…, n) as columns (n, count), and their energy (count,)."""
    rows = x.reshape(-1, x.shape[-1]).double()
    energy, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors.flip(1)[:, :count].float(), energy.flip(0)[:count].float()


def _set(layer: nn.Linear, weight: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.zero_()
