"""h_a and h_s over encoding distributions (paper 1, figure 3), and h_s in integers.

    √p - √prior (M, 256) ─ conv5 ─ convK↓2 ─ convK↓2 ─ convK↓2 ─ convK ─► z (Z, 32)
    Δ (M, 256) ◄ conv5 ─ deconvK↑2 ─ deconvK↑2 ─ deconvK↑2 ─ convK ◄ ẑ (Z, 32), rate

The convolutions run over the bins, the latent's channels are their channels; layers are grouped, with an
interleave after each, and ReLU between. Δ is added to the log2 of the prior; p̂ is the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import BINS, LOG2_UNIT

SIDE_LENGTH = BINS // 8

_WEIGHT_UNIT = 2**12
_ACTIVATION_LIMIT = 2**20
Z_LIMIT = 2**8
"""h_s sees ẑ clamped to ± this, so that no file can overflow its sums."""
RATE_UNIT = 256
"""h_s sees the rate as an integer of RATE_UNIT'ths, 0 at the lowest anchor and RATE_UNIT at the highest."""


def interleave(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of (B, C, L) over the groups of the next layer."""
    B, C, L = x.shape
    return x.reshape(B, groups, C // groups, L).transpose(1, 2).reshape(B, C, L)


class PdfAnalysis(nn.Module):
    """h_a: (B, M, 256) to (B, Z, 32)."""

    def __init__(self, M: int, width: int, Z: int, groups: int, K: int) -> None:
        super().__init__()
        self.groups = groups
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(M, width, 5, padding=2, groups=groups),
                *(
                    nn.Conv1d(width, width, K, stride=2, padding=K // 2, groups=groups)
                    for _ in range(3)
                ),
                nn.Conv1d(width, Z, K, padding=K // 2),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = interleave(F.relu(layer(x)), self.groups)
        out: Tensor = self.layers[-1](x)
        return out


class PdfSynthesis(nn.Module):
    """h_s: ẑ (B, Z, 32) and rate (B,) in 0 … 1 to Δ (B, M, 256), in bits."""

    def __init__(self, M: int, width: int, Z: int, groups: int, K: int) -> None:
        super().__init__()
        self.groups = groups
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(Z + 1, width, K, padding=K // 2),
                *(
                    nn.ConvTranspose1d(
                        width, width, K, stride=2, padding=K // 2, output_padding=1, groups=groups
                    )
                    for _ in range(3)
                ),
                nn.Conv1d(width, M, 5, padding=2, groups=groups),
            ]
        )
        nn.init.zeros_(self.layers[-1].get_parameter("weight"))
        nn.init.zeros_(self.layers[-1].get_parameter("bias"))

    def forward(self, z_hat: Tensor, rate: Tensor) -> Tensor:
        x = torch.cat([z_hat, rate[:, None, None].expand(-1, 1, z_hat.shape[2])], dim=1)
        for layer in self.layers[:-1]:
            x = interleave(F.relu(layer(x)), self.groups)
        out: Tensor = self.layers[-1](x)
        return out


def quantize_synthesis(h_s: PdfSynthesis) -> dict[str, NDArray[np.int32]]:
    """h_s's weights in units of 2^-12 and biases in those of a sum, as IntegerSynthesis reads them.

    Raises:
        ValueError: a sum could leave the integers that float64 holds exactly.
    """
    out = {}
    for i, layer in enumerate(h_s.layers):
        weight = (layer.get_parameter("weight").detach().double() * _WEIGHT_UNIT).round()
        bias = (layer.get_parameter("bias").detach().double() * LOG2_UNIT).round()
        _check_exact(i, weight, bias)
        out[f"h_s.{i}.weight"] = weight.numpy().astype(np.int32)
        out[f"h_s.{i}.bias"] = bias.numpy().astype(np.int32)
    return out


def _check_exact(i: int, weight: Tensor, bias: Tensor) -> None:
    """Hold layer i's worst sum against what float64 holds exactly; weight and bias are integers.

    Raises:
        ValueError: it could be larger.
    """
    rows = (0, 2) if 0 < i < 4 else (1, 2)  # a transposed convolution's inputs come first
    largest_input = max(_ACTIVATION_LIMIT, Z_LIMIT * LOG2_UNIT)
    worst = weight.abs().sum(rows).max() * largest_input + bias.abs().max() * _WEIGHT_UNIT
    largest = torch.maximum(weight.abs().max(), bias.abs().max())
    if not (worst < 2**52 and largest < 2**30):  # as they are not for what is no number
        raise ValueError(f"h_s layer {i}: weights too large for exact sums")


class IntegerSynthesis:
    """h_s in exact integer arithmetic: the same Δ on every machine.

    Activations are integers in units of 1/1024 (LOG2_UNIT), weights of 1/4096; a sum is divided by 4096
    with floor, and clamped. They travel in float64 tensors on the CPU, where sums of integers below
    2^53 are exact in any order.
    """

    def __init__(self, tensors: Mapping[str, NDArray[np.int32]], groups: int) -> None:
        self.groups = groups
        self.layers = []
        for i in range(5):
            weight = torch.from_numpy(tensors[f"h_s.{i}.weight"].astype(np.float64))
            bias = torch.from_numpy(tensors[f"h_s.{i}.bias"].astype(np.float64))
            _check_exact(i, weight, bias)
            self.layers.append((weight, bias * _WEIGHT_UNIT))

    def __call__(self, z_hat: NDArray[np.int32], rate: int) -> NDArray[np.int64]:
        """Δ (M, 256) in 1/1024 bit, from ẑ (Z, 32) and the rate in 1/RATE_UNIT."""
        z = torch.from_numpy(np.clip(z_hat, -Z_LIMIT, Z_LIMIT).astype(np.float64))
        rates = torch.full_like(z[:1], float(rate * LOG2_UNIT // RATE_UNIT))
        x = torch.cat([z * LOG2_UNIT, rates])[None]
        for i, (weight, bias) in enumerate(self.layers):
            pad = weight.shape[2] // 2
            if i == 0:
                x = F.conv1d(x, weight, bias, padding=pad)
            elif i < 4:
                x = F.conv_transpose1d(
                    x, weight, bias, stride=2, padding=pad, output_padding=1, groups=self.groups
                )
            else:
                x = F.conv1d(x, weight, bias, padding=pad, groups=self.groups)
            x = torch.floor(x / _WEIGHT_UNIT)
            if i < 4:
                x = interleave(x.clamp(0, _ACTIVATION_LIMIT), self.groups)
        return x[0].clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT).numpy().astype(np.int64)
