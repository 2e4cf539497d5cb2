"""An imported hyperprior codec as floats again, to be trained on: `licodec import` the other way round.

Its integer nets become float ones that compute the same but for their rounding in between, and the
tables of ẑ become bottlenecks of the same mass. What a run remembers beside its weights is gone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.float_nets import convolutions, float_state
from licodec.entropy.hyperprior import Z_UNIT
from licodec.entropy.tables import integer_softmax, interpolate
from licodec.progress import track
from licodec.training.codecs.compressai_layers import EntropyBottleneck
from licodec.weights.file import STEPS, Weights

_STEPS = 600
_LR = 2e-2


def dequantize(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The state of a HyperpriorNetwork, its units 1, that codes as weights of its architecture
    do; in their sizes, whatever the model's."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for part in ("g_a.", "g_s.", "h_a."):
        state |= {part + name: value for name, value in weights.torch(part).items()}
    state |= float_state(model, weights)
    bottleneck = _bottleneck(weights.numpy("z_prior"), weights.numpy("z_median"))
    state |= {f"entropy_bottleneck.{k}": v for k, v in bottleneck.state_dict().items()}
    return state | {"log_gain": torch.from_numpy(weights.numpy("log_gain")).float()}


@torch.no_grad()
def balance(net: nn.Module) -> None:
    """Weights of one size in all layers of a net, which steps of one size then suit. It computes the same:
    what is between two layers, only rectified, is as large as the one before makes it."""
    layers = [layer for _, layer in convolutions(net)]
    spreads = torch.stack([layer.weight.std() for layer in layers]).clamp(min=1e-9)
    factors = spreads.log().mean().exp() / spreads
    for layer, factor, scale in zip(layers, factors, factors.cumprod(0), strict=True):
        layer.weight.mul_(factor)
        layer.bias.mul_(scale)


def _bottleneck(z_prior: NDArray[np.int16], z_median: NDArray[np.int32]) -> Any:
    """CompressAI's bottleneck, of K·N channels, fitted to the tables (K, N, bins + 1) of ẑ's symbols."""
    K, N, bins = z_prior.shape[0], z_prior.shape[1], z_prior.shape[2] - 1
    tables = np.stack([integer_softmax(interpolate(z_prior, k * STEPS, STEPS)) for k in range(K)])
    p = torch.from_numpy(tables).float().reshape(K * N, -1)[:, :bins]
    p = p / p.sum(1, keepdim=True)
    median = torch.from_numpy(z_median).float().repeat(K)[:, None, None] / Z_UNIT
    places = torch.arange(bins) - bins // 2.0
    bottleneck: Any = EntropyBottleneck(K * N)
    bottleneck.quantiles.requires_grad_(False).add_(median)
    optimizer = torch.optim.Adam([q for q in bottleneck.parameters() if q.requires_grad])
    for step in track(range(_STEPS), "fitting the bottleneck"):
        optimizer.param_groups[0]["lr"] = _LR * (1 - step / _STEPS)
        mass = bottleneck._likelihood(median + places)[0][:, 0].clamp(min=1e-9)
        optimizer.zero_grad()
        (-(p * mass.log2()).sum(1).mean()).backward()
        optimizer.step()
    return bottleneck
