"""The codecs with a hyperprior as they are trained: CompressAI's networks, for one rate or several.

    x ─ g_a ─► y ─ ·gain ─► u ─ h_a ─► z ─┬─ + noise ─► entropy_bottleneck ─► rate of z
                            │             └─ round ─ h_s ─► scales (and means)
                            ├─ + noise ─► Gaussian conditional ─► rate of y
                            └─ round about the mean ─ /gain ─ g_s ─► x̂ ─► distortion

With a context model (autoregressive, attention) scales and means also see the causal neighbours of
u + noise. Ballé et al. 2018, Minnen et al. 2018, Cheng et al. 2020, as CompressAI defines them: the
state dict has its classes' names, and `log_gain` and `unit`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.architectures import Architecture
from licodec.entropy.hyperprior import Z_UNIT
from licodec.networks.hyper import HyperNetworks
from licodec.tiles import STRIDE
from licodec.training.codecs.compressai_layers import EntropyBottleneck, GaussianConditional
from licodec.training.codecs.factorized import DistributionNets, round_ste
from licodec.training.config import Config
from licodec.weights.catalogue import Z_DISTRIBUTIONS

_MULTIPLE = 64
"""Pixels per position of z, in each direction."""


class Patches(NamedTuple):
    """What became of each patch of a batch: bits per pixel (B,), mse (B,), and x̂ (B, 3, H, W)."""

    bpp: Tensor
    mse: Tensor
    x_hat: Tensor


class HyperpriorNetwork(HyperNetworks):
    """The networks of one architecture, with a gain vector for each lambda.

    A batch of R·K patches carries the K lambdas in turn: patch i is coded at lambda i mod K. With one
    lambda the gains are 1 and stay there: CompressAI's plain network.

    Args:
        architecture: one with a hyperprior.
        N, M: channels of z and of y.
        lambdas: (K,) rising.
        surrogate: what stands for rounding: round or noise, as in `config.Train`.
    """

    def __init__(
        self,
        architecture: Architecture,
        N: int,
        M: int,
        lambdas: tuple[float, ...],
        surrogate: str = "round",
    ) -> None:
        super().__init__(architecture, N, M)
        # ẑ's distributions differ from rate to rate, as y's do.
        self.entropy_bottleneck: Any = EntropyBottleneck(len(lambdas) * N)
        # The medians stay where they are, fresh ones at 0: z is rounded about them.
        self.entropy_bottleneck.quantiles.requires_grad_(False)
        self.gaussian_conditional: Any = GaussianConditional(None)
        self.lambdas, self.surrogate = lambdas, surrogate
        gain = torch.zeros(len(lambdas))
        if len(lambdas) > 1:
            gain = torch.tensor([0.5 * math.log(lmbda / lambdas[-1]) for lmbda in lambdas])
        self.log_gain = nn.Parameter(gain[:, None].repeat(1, M), requires_grad=len(lambdas) > 1)
        # In units of each channel's own, steps of one size suit all weights of h_a and h_s.
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(M))

    def forward(self, x: Tensor) -> Patches:
        """Code a batch (R·K, 3, H, W) in [0, 1]; H and W are multiples of 64.

        Training mode takes noise for rounding as `surrogate` says; evaluation mode rounds.
        """
        K = len(self.lambdas)
        return self.code(x, self.log_gain.exp().repeat(len(x) // K, 1)[:, :, None, None])

    def code(self, x: Tensor, gain: Tensor, index: int | None = None) -> Patches:
        """forward, with the gains (B or 1, M, 1, 1) given, and the index of their one lambda if it is one."""
        bits, y_hat = self.bits(self.g_a(x).float() * gain, index)
        x_hat = self.g_s(y_hat / gain).float()
        bpp = bits / (x.shape[2] * x.shape[3])
        return Patches(bpp, ((x_hat - x) ** 2).mean((1, 2, 3)), x_hat)

    def bits(self, u: Tensor, index: int | None = None) -> tuple[Tensor, Tensor]:
        """Bits (B,) of latents u (B, M, h, w), those of z with them, and ŷ."""
        z = self.hyper_latents(u).float()
        with torch.autocast(u.device.type, enabled=False):
            z_hat, z_likelihoods = self._bottleneck(z, index)
        straight = self.training and self.surrogate == "round"
        if straight:
            z_hat = round_ste(z - self.medians) + self.medians
        noisy = u
        if self.architecture.has_context:
            how = "noise" if self.training else "dequantize"
            noisy = self.gaussian_conditional.quantize(u, how)
        parts = self.parameters_of(z_hat, noisy)
        scales, means = (part.float() * self.unit[:, None, None] for part in parts)
        with torch.autocast(u.device.type, enabled=False):
            y_hat, y_likelihoods = self.conditional(u, scales, means)
        if straight:
            y_hat = round_ste(u - means) + means
        elif self.architecture.has_context:
            y_hat = noisy
        bits = [-torch.log2(p).flatten(1).sum(1) for p in (y_likelihoods, z_likelihoods)]
        return bits[0] + bits[1], y_hat

    @property
    def medians(self) -> Tensor:
        """(N, 1, 1) what z is rounded about, at every rate."""
        medians: Tensor = self.entropy_bottleneck.quantiles[: self.N, :, 1:2]
        return medians

    def _bottleneck(self, z: Tensor, index: int | None) -> tuple[Tensor, Tensor]:
        """ẑ and likelihoods of z (B, N, h, w), by the bottlenecks of all lambdas in turn or of one."""
        K = len(self.lambdas)
        if index is None:
            of_all = self.entropy_bottleneck(z.reshape(-1, K * self.N, *z.shape[2:]))
            z_hat, likelihoods = (part.reshape(z.shape) for part in of_all)
        else:
            of_all = self.entropy_bottleneck(z.repeat(1, K, 1, 1))
            z_hat, likelihoods = (part.chunk(K, 1)[index] for part in of_all)
        return z_hat, likelihoods

    def hyper_latents(self, y: Tensor) -> Tensor:
        """z (B, N, h/4, w/4) of y times its gain, (B, M, h, w)."""
        return super().hyper_latents(y / self.unit[:, None, None])

    def conditional(self, u: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, M, h, w) quantized, and its likelihoods, as CompressAI has them."""
        y_hat, likelihoods = self.gaussian_conditional(u, scales, means=means)
        return y_hat, likelihoods

    @torch.no_grad()
    def evaluate(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """bpp by likelihoods, and mse of the clamped x̂, of images (B, 3, H, W) at one lambda.

        With a context model both are estimates, as CompressAI's own forward pass is: it rounds
        about 0 where the coder, going position by position, rounds about the mean.
        """
        height, width = x.shape[2:]
        pad = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        padded = F.pad(x, pad, mode="replicate")
        out = self.code(padded, self.log_gain[index].exp()[None, :, None, None], index)
        bpp = out.bpp.mean() * padded[0, 0].numel() / (height * width)
        x_hat = out.x_hat[:, :, :height, :width].clamp(0, 1)
        return bpp, ((x_hat - x) ** 2).mean()


class KnownTransforms(HyperpriorNetwork):
    """A network whose g_a, g_s and gains stay as they are, while the rest learns the rate of y."""

    def __init__(
        self, architecture: Architecture, N: int, M: int, lambdas: tuple[float, ...]
    ) -> None:
        super().__init__(architecture, N, M, lambdas)
        for part in (self.g_a, self.g_s):
            part.requires_grad_(False)
        self.log_gain.requires_grad_(False)

    def forward(self, y: Tensor) -> Tensor:  # type: ignore[override]
        """Bits per pixel (R·K,) of latents y (R·K, M, h, w), as g_a makes them; h and w are multiples
        of 4."""
        gain = self.log_gain.exp().repeat(len(y) // len(self.lambdas), 1)[:, :, None, None]
        return self.bits(y * gain)[0] / (y.shape[2] * y.shape[3] * STRIDE**2)

    def conditional(self, u: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Scales learn from rounded latents, as files have them: noise would make small ones dear. Means
        learn from noisy ones: what rounds to 0 is reconstructed as its mean, at whatever rate."""
        gaussians = self.gaussian_conditional
        rounded = gaussians.quantize(u, "dequantize", means.detach())
        likelihoods = gaussians.likelihood_lower_bound(
            gaussians._likelihood(rounded, scales, means.detach())
        )
        _, noisy = gaussians(u, scales.detach(), means=means)
        return rounded, likelihoods * noisy / noisy.detach()


class KnownHyperprior(KnownTransforms):
    """A network with a context whose h_a, h_s and bottleneck stay as they are, too. Nothing stands for
    rounding then: ŷ and its rate are those of files, in training as well."""

    def __init__(
        self, architecture: Architecture, N: int, M: int, lambdas: tuple[float, ...]
    ) -> None:
        super().__init__(architecture, N, M, lambdas)
        for part in (self.h_a, self.h_s, self.entropy_bottleneck):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> KnownHyperprior:
        return super().train(False)

    def conditional(self, u: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        gaussians = self.gaussian_conditional
        y_hat = u.round()
        return y_hat, gaussians.likelihood_lower_bound(gaussians._likelihood(y_hat, scales, means))


class ZDistributions(HyperpriorNetwork):
    """A trained network, frozen, and the nets that code ẑ by the image's own distributions."""

    def __init__(self, config: Config) -> None:
        settings = config.model
        super().__init__(settings.architecture, settings.N, settings.M, settings.lambdas)
        self.requires_grad_(False)
        self.z_distributions = DistributionNets(settings.N, settings, classes=1)

    def forward(self, loss: str, *args: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """DDP's one entrance, as that of AdaptiveNetwork."""
        return self.z_distributions.forward(loss, *args)

    def z_hat(self, y: Tensor) -> Tensor:
        """ẑ's symbols (N, h, w) of y (M, 4h, 4w) times its gain, about the medians that weights hold."""
        z = self.hyper_latents(y[None])[0]
        z_hat: Tensor = (z - torch.round(self.medians * Z_UNIT) / Z_UNIT).round()
        return z_hat


def z_distributions(config: Config, state: dict[str, Tensor]) -> DistributionNets | None:
    """The nets that code ẑ, of a run's state; None where it has none."""
    if not any(name.startswith(Z_DISTRIBUTIONS) for name in state):
        return None
    model = ZDistributions(config)
    own = {k: v for k, v in state.items() if k.startswith(Z_DISTRIBUTIONS)}
    model.load_state_dict(own, strict=False)
    return model.z_distributions


def tail(network: Any) -> Any:
    """The convolution that scales and means come from."""
    net = getattr(network, "entropy_parameters", network.h_s)
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1]


@torch.no_grad()
def take_units(network: Any, unit: Tensor) -> None:
    """Let h_a and the last layer before the Gaussians do what units (M,) did."""
    network.h_a[0].weight.div_(unit[:, None, None])
    last = tail(network)
    rows = unit.repeat(len(last.bias) // len(unit))
    last.weight.mul_(rows[:, None, None, None])
    last.bias.mul_(rows)
