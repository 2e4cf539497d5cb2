"""A hyperprior's integer nets as float ones, which compute the same but for the rounding in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.hyperprior import Z_UNIT, output_units, synthesis_layers
from licodec.entropy.integer_nets import PARTS, LayerSpec
from licodec.entropy.wavefronts import PARAMETERS, PREDICTION
from licodec.networks.hyper import MaskedConv
from licodec.weights.file import Weights

Floats = NDArray[np.float64]

_HIDDEN_UNIT = 2.0**-7
"""What an integer between two layers stands for; each channel's largest one is some 2^9."""


def float_state(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """The state of h_s, and of what a context has, under the names of HyperNetworks.

    Args:
        model: has these nets, of any sizes.
        weights: of a hyperprior.
    """
    architecture, M = weights.architecture, weights.numpy("log_gain").shape[1]
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
    state = {}
    for name, integer, specs, inputs, own in nets:
        units = [inputs, *[_HIDDEN_UNIT] * (len(specs) - 1), own]
        for i, (place, _) in enumerate(convolutions(getattr(model, name))):
            parts = {part: weights.numpy(f"integer.{integer}.{i}.{part}") for part in PARTS}
            weight, bias = float_layer(parts, specs[i], *units[i : i + 2])
            if name == "context_prediction":
                weight = _from_columns(weight)
            path = ".".join(part for part in (name, place) if part)
            state[f"{path}.weight"] = torch.from_numpy(weight).float()
            state[f"{path}.bias"] = torch.from_numpy(bias).float()
    return state


def convolutions(net: nn.Module) -> list[tuple[str, Any]]:
    """What has weights in a net, and its name there: "" if it is the net itself."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, kinds)]


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
