"""The codecs as they are trained.

FactorizedNetwork, stage (a): transforms, one gain vector and static bottleneck per lambda.

    x ─ g_a ─► y ─ ·gain ─┬─ + noise ──► bottleneck ─► likelihoods ─► rate
                          └─ round ─ /gain ─ g_s ─► x̂ ─► distortion

AdaptiveNetwork, stages (b) and (c): the transform of encoding distributions on top (paper 1).

    u = y·gain ─ histogram ─► p ─ h_a ─► z ─┬─ + noise ─► bottleneck ─► R_q
                                            └─ round ─ h_s ─ + log2 priors ─ softmax ─► p̂ ─► R_y

with one prior, and so one p̂, for each channel and class (licodec/entropy/classes.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from licodec.entropy.image_distributions import analysis_input
from licodec.entropy.pdf_transform import SIDE_LENGTH, PdfAnalysis, PdfSynthesis
from licodec.entropy.tables import BINS
from licodec.networks.transforms import analysis, back_projection, synthesis
from licodec.training.codecs.compressai_layers import EntropyBottleneck
from licodec.training.config import Model
from licodec.training.fit.histogram import straight_through_histogram
from licodec.training.objective import balanced, by_rate, rate_distortion


def round_ste(x: Tensor) -> Tensor:
    """Round; the gradient passes as if nothing had happened."""
    return x + (x.round() - x).detach()


def first_log_gain(lambdas: tuple[float, ...], M: int) -> Tensor:
    """Gains (K, M), in log, that suit latents of the Karhunen-Loève transform."""
    gain = torch.tensor([5.7 * math.sqrt(lmbda / 0.013) for lmbda in lambdas])
    return gain.log()[:, None].repeat(1, M)


class FactorizedNetwork(nn.Module):
    """bmshj2018-factorized with gain vectors, all rates at once.

    A batch of R·K patches carries the K lambdas in turn: patch i is coded at lambda i mod K, and the
    K bottlenecks are one bottleneck of K·M channels, so that each step sees every rate.
    """

    def __init__(
        self, N: int, M: int, lambdas: tuple[float, ...], back_projection: tuple[float, ...] = ()
    ) -> None:
        super().__init__()
        self.lambdas = lambdas
        self.strengths = back_projection or (0.0,) * len(lambdas)
        self.M = M
        self.g_a = analysis(N, M)
        self.g_s = synthesis(N, M)
        self.log_gain = nn.Parameter(first_log_gain(lambdas, M))
        self.bottleneck = EntropyBottleneck(len(lambdas) * M)
        self.bottleneck.quantiles.requires_grad_(False)  # latents are rounded about 0

    def forward(self, x: Tensor, rate_balance: float) -> tuple[Tensor, Tensor]:
        """The training loss and, for the log, bpp and mse per lambda.

        Args:
            x: (R·K, 3, H, W) in [0, 1].
            rate_balance: the loss at each lambda is divided by lambda to this power.

        Returns:
            loss (), and (2, K): bits per pixel and mean squared error on 0…1.
        """
        K = len(self.lambdas)
        batch, _, height, width = x.shape
        gain = self.log_gain.exp().repeat(batch // K, 1)[:, :, None, None]
        u = self._back_projected(self.g_a(x).float(), self.strengths * (batch // K)) * gain
        x_hat = self.g_s(round_ste(u) / gain).float()
        stacked = u.reshape(batch // K, K * self.M, *u.shape[2:])
        with torch.autocast(x.device.type, enabled=False):
            _, likelihoods = self.bottleneck(stacked, training=True)
        bits = -torch.log2(likelihoods).reshape(batch, -1).sum(1)
        return _loss(bits / (height * width), x_hat, x, self.lambdas, rate_balance)

    def _back_projected(self, y: Tensor, strengths: tuple[float, ...]) -> Tensor:
        """y (B, M, h, w) with so much of its back-projection as the encoder will add, which passes no
        gradient."""
        some = [i for i, strength in enumerate(strengths) if strength]
        if not some:
            return y
        scale = y.new_tensor(strengths)[:, None, None, None]
        missed = torch.zeros_like(y)
        with torch.no_grad():
            part = y[some].contiguous(memory_format=torch.channels_last)
            missed[some] = back_projection(self.g_a, self.g_s, part).float()
        return y + scale * missed

    @torch.no_grad()
    def evaluate(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """bpp by the static bottleneck's likelihoods, and mse of the clamped x̂, at one lambda."""
        gain = self.log_gain[index].exp()[None, :, None, None]
        y = self._back_projected(self.g_a(x).float(), self.strengths[index : index + 1] * len(x))
        y_hat = (y * gain).round()
        x_hat = self.g_s(y_hat / gain).float().clamp(0, 1)
        K, M = len(self.lambdas), self.M
        stacked = y_hat.new_zeros(len(x), K * M, *y_hat.shape[2:])
        stacked[:, index * M : (index + 1) * M] = y_hat
        with torch.autocast(x.device.type, enabled=False):
            _, likelihoods = self.bottleneck(stacked, training=False)
        bits = -torch.log2(likelihoods[:, index * M : (index + 1) * M]).sum()
        return bits / (x.shape[0] * x.shape[2] * x.shape[3]), ((x_hat - x) ** 2).mean()


Z_BINS = 32
"""Bins of ẑ's tables, centred on 0; an escape follows."""

TARGET_PIXELS = 768 * 512
"""The image size over which side information is spread in the loss, as in paper 1."""


class DistributionNets(nn.Module):
    """h_a and h_s over the distributions of M channels, with the priors and the side stream's tables.

    `prior` (K, M, BINS + 1), `class_prior` (K, M, C, BINS + 1) and `z_prior` (K, Z·32, Z_BINS + 1)
    hold log2 probabilities, the last entry of each being the escape's. The stage sets these buffers from
    data.

    Args:
        M: channels whose distributions these are.
        settings: a config's [model]: lambdas, and the sizes of h_a and h_s.
        classes: C, of each channel.
    """

    prior: Tensor
    class_prior: Tensor
    z_prior: Tensor

    def __init__(self, M: int, settings: Model, classes: int) -> None:
        super().__init__()
        K, Z = len(settings.lambdas), settings.z_channels
        self.lambdas, self.M = settings.lambdas, M
        sizes = M, settings.width, Z, settings.groups, settings.kernel_size
        self.h_a, self.h_s = PdfAnalysis(*sizes), PdfSynthesis(*sizes)
        self.bottleneck = EntropyBottleneck(Z * SIDE_LENGTH, init_scale=4)
        self.bottleneck.quantiles.requires_grad_(False)
        self.register_buffer("prior", torch.zeros(K, M, BINS + 1))
        self.register_buffer("class_prior", torch.zeros(K, M, classes, BINS + 1))
        self.register_buffer("z_prior", torch.zeros(K, Z * SIDE_LENGTH, Z_BINS + 1))

    def prior_at(self, rate: Tensor) -> Tensor:
        """log2 of the prior at rates (B,) in 0 … K-1: (B, M, BINS + 1), normalized."""
        return normalized_log2(between(self.prior, rate))

    def latents_of(self, p: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, Z, 32) of distributions p (B, M, BINS), and the log2 prior at the rate."""
        log_prior = self.prior_at(rate)
        return self.h_a(analysis_input(p, log_prior[..., :-1].exp2())), log_prior

    def class_prior_at(self, rate: Tensor) -> Tensor:
        """log2 of each class's prior at rates (B,): (B, M, C, BINS + 1), normalized."""
        return normalized_log2(between(self.class_prior, rate))

    def reconstruct(self, z_hat: Tensor, rate: Tensor, log_prior: Tensor) -> Tensor:
        """log2 p̂ (B, M, BINS + 1) of channels with one class."""
        delta = self.h_s(z_hat, rate / max(1, len(self.lambdas) - 1))
        logits = torch.cat([log_prior[..., :-1] + delta, log_prior[..., -1:]], dim=-1)
        return normalized_log2(logits)

    def bits(self, counts: Tensor, z_hat: Tensor, rate: Tensor) -> Tensor:
        """What symbols counted (B, M, C, BINS + 1) cost under p̂: (B,).

        With Δ the same for all classes, Σ counts · log2 p̂ falls apart, and p̂'s norm is a product of
        matrices: the many numbers of p̂ need not be written down.
        """
        delta = self.h_s(z_hat, rate / max(1, len(self.lambdas) - 1))
        log_prior = self.class_prior_at(rate)
        norm = torch.einsum("bmcn,bmn->bmc", log_prior[..., :-1].exp2(), delta.exp2())
        norm = norm + log_prior[..., -1].exp2()
        logits = (counts * log_prior).sum((1, 2, 3)) + (counts[..., :-1].sum(2) * delta).sum((1, 2))
        bits: Tensor = (counts.sum(-1) * norm.log2()).sum((1, 2)) - logits
        return bits

    def forward(self, loss: str, *args: Any) -> tuple[Tensor, Tensor]:
        """DDP's one entrance: the name of a loss, and its arguments."""
        return self.rates(*args)

    def rates(self, counts: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Stage (b): loss, and the mean bits (3,): static prior, p̂, side stream.

        Args:
            counts: (B, M, C, BINS + 1) of whole images.
            rate: (B,) of each.

        The loss is the mean of log2 of total over static bits: all images and rates weigh the same.
        """
        z, log_prior = self.latents_of(shares(counts), rate)
        _, likelihoods = self.bottleneck(z.flatten(1)[..., None], training=True)
        side = -torch.log2(likelihoods).sum((1, 2))
        adaptive = self.bits(counts, round_ste(z), rate)
        static = -(counts.sum(2) * log_prior).sum((1, 2))
        loss = torch.log2((adaptive + side) / static.clamp(min=1)).mean()
        return loss, torch.stack([static.mean(), adaptive.mean(), side.mean()]).detach()


class AdaptiveNetwork(DistributionNets):
    """Factorized transforms with encoding distributions that follow the image.

    `context_order` (M,), `context_weights` (M, 2M) and `context_thresholds` (K, M, C - 1) are the integers
    of licodec.entropy.classes, which the stage sets as well; `back_projection` (K,) is what an encoder adds.
    """

    context_order: Tensor
    context_weights: Tensor
    context_thresholds: Tensor
    back_projection: Tensor

    def __init__(self, settings: Model) -> None:
        N, M, K, C = settings.N, settings.M, len(settings.lambdas), settings.classes
        super().__init__(M, settings, C)
        self.g_a, self.g_s = analysis(N, M), synthesis(N, M)
        self.log_gain = nn.Parameter(torch.zeros(K, M))
        self.register_buffer("context_order", torch.arange(M, dtype=torch.int32))
        self.register_buffer("context_weights", torch.zeros(M, 2 * M, dtype=torch.int32))
        self.register_buffer("context_thresholds", torch.zeros(K, M, C - 1, dtype=torch.int32))
        self.register_buffer("back_projection", torch.zeros(K))

    def forward(self, loss: str, *args: Any) -> tuple[Tensor, Tensor]:
        """DDP's one entrance: `rates` or `joint`, with their arguments."""
        return self.joint(*args) if loss == "joint" else self.rates(*args)

    def joint(
        self, x: Tensor, rate_balance: float, kernel: str = "triangular"
    ) -> tuple[Tensor, Tensor]:
        """Stage (c): loss with the rate of the adaptive distributions, and (2, K) bpp and mse.

        Args:
            x: (R·K, 3, H, W) in [0, 1]; patch i is coded at lambda i mod K.
            rate_balance: the loss at each lambda is divided by lambda to this power.

        L = R_y + λ_q R_q + λ D with R_y = Σ_c positions · H(p_c, p̂_c) (paper 1, equation 7).
        """
        K = len(self.lambdas)
        batch, _, height, width = x.shape
        repeats = batch // K
        gain = self.log_gain.exp().repeat(repeats, 1)[:, :, None, None]
        u = self.g_a(x).float() * gain
        x_hat = self.g_s(round_ste(u) / gain).float()
        rate = torch.arange(K, device=x.device).repeat(repeats).float()
        with torch.autocast(x.device.type, enabled=False):
            p = straight_through_histogram(u.flatten(2), kernel)
            z, log_prior = self.latents_of(p, rate)
            _, likelihoods = self.bottleneck(z.flatten(1)[..., None], training=True)
            log_p_hat = self.reconstruct(round_ste(z), rate, log_prior)[..., :-1]
        pixels = height * width
        positions = u.shape[2] * u.shape[3]
        bpp_y = -(p * log_p_hat).sum((1, 2)) * positions / pixels
        bpp_q = -torch.log2(likelihoods).sum((1, 2)) / TARGET_PIXELS
        return _loss(bpp_y + bpp_q, x_hat, x, self.lambdas, rate_balance)


def _loss(
    bpp: Tensor, x_hat: Tensor, x: Tensor, lambdas: tuple[float, ...], rate_balance: float
) -> tuple[Tensor, Tensor]:
    """The loss (), and (2, K) bits per pixel and mean squared error, of patches (R·K,) in turn."""
    K, each = len(lambdas), torch.tensor(lambdas, device=x.device)
    bpp, mse = by_rate(bpp, K), by_rate(((x_hat - x) ** 2).mean((1, 2, 3)), K)
    loss: Tensor = balanced(rate_distortion(bpp, mse, each), each, rate_balance)
    return loss, torch.stack([bpp, mse]).detach()


def shares(counts: Tensor) -> Tensor:
    """p (B, M, BINS) of counts (B, M, C, BINS + 1): all classes together, escapes left out."""
    p = counts[..., :-1].sum(2)
    return p / p.sum(-1, keepdim=True).clamp(min=1)


def between(tables: Tensor, rate: Tensor) -> Tensor:
    """Rows of tables (K, …) at rates (B,)."""
    k = rate.floor().long().clamp(0, max(0, len(tables) - 2))
    f = (rate - k).reshape(-1, *[1] * (tables.ndim - 1))
    return tables[k] * (1 - f) + tables[(k + 1).clamp(max=len(tables) - 1)] * f


def normalized_log2(logits: Tensor) -> Tensor:
    """logits minus log2 of the sum of their powers of 2 over the last axis."""
    return logits - torch.logsumexp(logits * math.log(2), -1, keepdim=True) / math.log(2)
