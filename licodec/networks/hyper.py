"""The float networks around the hyper-latents: h_a, h_s, context and entropy parameters.

    y ─ h_a ─► z          z at a quarter of y's resolution
    ẑ ─ h_s ─► scales (and means) of y, or what the entropy parameters make them of
    ŷ ─ context_prediction ─┐
    h_s(ẑ) ─────────────────┴─ entropy_parameters ─► scales, means

Ballé et al. 2018 (bmshj2018-hyperprior), Minnen et al. 2018 (mbt2018-mean, mbt2018) and Cheng et
al. 2020 (cheng2020-attn), as CompressAI defines them and with its parameter names, so that
state dicts pass between the two. At inference only h_a runs in floats: it decides no probability.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from licodec.architectures import Architecture
from licodec.errors import mismatch
from licodec.networks import attention, transforms
from licodec.networks.attention import conv3x3, subpixel

HYPER_STRIDE = 4
"""Latent positions of y per position of z, in each direction."""


def _conv5(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def _deconv5(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


def hyper_analysis(architecture: Architecture, N: int, M: int) -> nn.Sequential:
    """h_a: y (B, M, 4h, 4w), its magnitude where there are no means, to z (B, N, h, w)."""
    if not architecture.has_means:
        return nn.Sequential(conv3x3(M, N), nn.ReLU(), _conv5(N, N), nn.ReLU(), _conv5(N, N))
    leaky = nn.LeakyReLU
    if architecture.has_attention:
        return nn.Sequential(
            conv3x3(M, N), leaky(), conv3x3(N, N), leaky(), conv3x3(N, N, stride=2), leaky(),
            conv3x3(N, N), leaky(), conv3x3(N, N, stride=2),
        )  # fmt: skip
    return nn.Sequential(conv3x3(M, N), leaky(), _conv5(N, N), leaky(), _conv5(N, N))


def hyper_synthesis(architecture: Architecture, N: int, M: int) -> nn.Sequential:
    """h_s: ẑ (B, N, h, w) to scales (B, M, 4h, 4w) and, where there are means, (B, 2M, 4h, 4w)."""
    if not architecture.has_means:
        return nn.Sequential(
            _deconv5(N, N), nn.ReLU(), _deconv5(N, N), nn.ReLU(), conv3x3(N, M), nn.ReLU()
        )
    leaky = nn.LeakyReLU
    if architecture.has_attention:
        return nn.Sequential(
            conv3x3(N, N), leaky(), subpixel(N, N), leaky(), conv3x3(N, N * 3 // 2), leaky(),
            subpixel(N * 3 // 2, N * 3 // 2), leaky(), conv3x3(N * 3 // 2, M * 2),
        )  # fmt: skip
    return nn.Sequential(
        _deconv5(N, M), leaky(), _deconv5(M, M * 3 // 2), leaky(), conv3x3(M * 3 // 2, M * 2)
    )


class MaskedConv(nn.Conv2d):
    """A 5x5 convolution that sees what lies above and to the left: twelve taps of 25."""

    TAPS = 12

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        visible = torch.zeros_like(self.weight).flatten(2)
        visible[:, :, : self.TAPS] = 1
        weight = self.weight * visible.reshape(self.weight.shape)
        return nn.functional.conv2d(x, weight, self.bias, padding=2)


def entropy_parameters(M: int) -> nn.Sequential:
    """(B, 4M, h, w) of h_s and the context to (B, 2M, h, w): scales, then means."""
    return nn.Sequential(
        nn.Conv2d(4 * M, M * 10 // 3, 1),
        nn.LeakyReLU(),
        nn.Conv2d(M * 10 // 3, M * 8 // 3, 1),
        nn.LeakyReLU(),
        nn.Conv2d(M * 8 // 3, 2 * M, 1),
    )


class HyperNetworks(nn.Module):
    """The float networks of one codec; CompressAI's parameter names, its entropy models aside.

    Args:
        architecture: one with a hyperprior.
        N, M: channels of z and of y, as in CompressAI.
    """

    def __init__(self, architecture: Architecture, N: int, M: int) -> None:
        super().__init__()
        self.architecture, self.N, self.M = architecture, N, M
        kind = attention if architecture.has_attention else transforms
        self.g_a, self.g_s = kind.analysis(N, M), kind.synthesis(N, M)
        self.h_a = hyper_analysis(architecture, N, M)
        self.h_s = hyper_synthesis(architecture, N, M)
        if architecture.has_context:
            self.context_prediction = MaskedConv(M, 2 * M)
            self.entropy_parameters = entropy_parameters(M)

    @classmethod
    def from_state_dict(
        cls, architecture: Architecture, state: Mapping[str, Tensor]
    ) -> HyperNetworks:
        """The networks of a state dict of CompressAI's class.

        Raises:
            ValueError: the state is not of that class; one line says why.
        """
        arch = architecture.compressai
        parts = ("g_a.", "g_s.", "h_a.", "h_s.", "context_prediction.", "entropy_parameters.")
        buffers = (".mask", "_reparam.pedestal", "_reparam.lower_bound.bound")
        own = {k: v for k, v in state.items() if k.startswith(parts) and not k.endswith(buffers)}
        first, last = ("0.conv1", "7") if architecture.has_attention else ("0", "6")
        try:
            N, M = len(own[f"g_a.{first}.weight"]), len(own[f"g_a.{last}.weight"])
            if min(N, M) < architecture.least_channels or own[f"g_a.{last}.weight"].numel() < N * M:
                raise TypeError
            networks = cls(architecture, N, M)
            networks.load_state_dict(own)
        except KeyError as error:
            raise ValueError(f"no state of {arch}: {error.args[0]} is missing") from error
        except TypeError as error:
            raise ValueError(
                f"no state of {arch}: a weight of g_a has too few channels, or too many"
            ) from error
        except RuntimeError as error:
            raise ValueError(f"no state of {arch}: {mismatch(error)}") from error
        return networks.eval()

    def hyper_latents(self, y: Tensor) -> Tensor:
        """z (B, N, h, w) of y (B, M, 4h, 4w)."""
        z: Tensor = self.h_a(y if self.architecture.has_means else y.abs())
        return z

    def parameters_of(self, z_hat: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means (B, M, 4h, 4w), in floats; means are 0 where h_s has none.

        Args:
            z_hat: (B, N, h, w).
            y_hat: (B, M, 4h, 4w), what the context sees; of no account elsewhere.
        """
        params: Tensor = self.h_s(z_hat)
        if self.architecture.has_context:
            context = self.context_prediction(y_hat)
            params = self.entropy_parameters(torch.cat([params, context], dim=1))
        if not self.architecture.has_means:
            return params, torch.zeros_like(params)
        scales, means = params.chunk(2, 1)
        return scales, means
