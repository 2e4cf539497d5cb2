"""An imported hyperprior codec as floats again, to be trained on: `licodec import` the other way round.

Its integer nets become float ones that compute the same but for their rounding in between, and the
tables of ẑ become bottlenecks of the same mass. What a run remembers beside its weights is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.hyperprior import (
    Z_UNIT,
    output_units,
    synthesis_layers,
)
from licodec.entropy.integer_nets import PARTS, LayerSpec
from licodec.entropy.tables import integer_softmax, interpolate
from licodec.entropy.wavefronts import PARAMETERS, PREDICTION
from licodec.networks.hyper import MaskedConv
from licodec.progress import track
from licodec.training.codecs.compressai_layers import EntropyBottleneck
from licodec.weights.file import STEPS, Weights

Floats = NDArray[np.float64]

_HIDDEN_UNIT = 2.0**-7
"""What an integer between two layers stands for; each channel's largest one is some 2^9."""
_STEPS = 600
_LR = 2e-2


def dequantize(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The state of a HyperpriorNetwork, its units 1, that codes as weights of its architecture
    do; in their sizes, whatever the model's."""
    architecture, M = weights.architecture, weights.numpy("log_gain").shape[1]
    state: dict[str, Tensor] = dict(model.state_dict())
    for part in ("g_a.", "g_s.", "h_a."):
        state |= {part + name: value for name, value in weights.torch(part).items()}
    outputs = output_units(architecture, M)
    nets: list[tuple[str, str, tuple[LayerSpec, ...], float, Any]]
    layers = synthesis_layers(architecture)
    if architecture.has_context:
        nets = [
            ("h_s", "h_s", layers, 1 / Z_UNIT, _HIDDEN_UNIT),
            ("context_prediction", "context", PREDICTION, 1.0, _HIDDEN_UNIT),
            ("entropy_parameters", "parameters", PARAMETERS, _HIDDEN_UNIT, outputs),
        ]
    else:
        nets = [("h_s", "h_s", layers, 1 / Z_UNIT, outputs)]
    for name, integer, specs, inputs, own in nets:
        units = [inputs, *[_HIDDEN_UNIT] * (len(specs) - 1), own]
        for i, (place, _) in enumerate(_layers(getattr(model, name))):
            parts = {part: weights.numpy(f"integer.{integer}.{i}.{part}") for part in PARTS}
            weight, bias = float_layer(parts, specs[i], *units[i : i + 2])
            if name == "context_prediction":
                weight = _from_columns(weight)
            path = ".".join(part for part in (name, place) if part)
            state[f"{path}.weight"] = torch.from_numpy(weight).float()
            state[f"{path}.bias"] = torch.from_numpy(bias).float()
    bottleneck = _bottleneck(weights.numpy("z_prior"), weights.numpy("z_median"))
    state |= {f"entropy_bottleneck.{k}": v for k, v in bottleneck.state_dict().items()}
    return state | {"log_gain": torch.from_numpy(weights.numpy("log_gain")).float()}


def _layers(net: nn.Module) -> list[tuple[str, Any]]:
    """What has weights in a net, and its name there: "" if it is the net itself."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, kinds)]


@torch.no_grad()
def balance(net: nn.Module) -> None:
    """Weights of one size in all layers of a net, which steps of one size then suit. It computes the same:
    what is between two layers, only rectified, is as large as the one before makes it."""
    layers = [layer for _, layer in _layers(net)]
    spreads = torch.stack([layer.weight.std() for layer in layers]).clamp(min=1e-9)
    factors = spreads.log().mean().exp() / spreads
    for layer, factor, scale in zip(layers, factors, factors.cumprod(0), strict=True):
        layer.weight.mul_(factor)
        layer.bias.mul_(scale)


def float_layer(
    tensors: Mapping[str, NDArray[Any]], spec: LayerSpec, input_unit: float, output_unit: Any
) -> tuple[Floats, Floats]:
    """Weight and bias (O,) of the convolution that an integer layer is, whose inputs and outputs stand for
    multiples of units, the latter one for all or (O,).

    Returns:
        weight: (O, inputs, k, k); (inputs, O, k, k) for deconv.
    """
    k, scale = spec.kernel, np.ldexp(output_unit, -tensors["shift"].astype(np.int64))
    weight = tensors["weight"].astype(np.float64) / input_unit
    if spec.kind == "deconv":
        weight = weight.reshape(len(weight), -1, k, k) * scale[:, None, None]
    else:
        weight = weight.reshape(len(scale), -1, k, k) * scale[:, None, None, None]
    return weight, tensors["bias"] * scale


def _from_columns(weight: Floats) -> Floats:
    """The 5x5 kernels whose visible taps a context's layer has as columns, taps outermost."""
    outputs = len(weight)
    whole = np.zeros((outputs, weight.shape[1] // MaskedConv.TAPS, 25))
    whole[:, :, : MaskedConv.TAPS] = weight.reshape(outputs, MaskedConv.TAPS, -1).swapaxes(1, 2)
    return whole.reshape(outputs, -1, 5, 5)


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
