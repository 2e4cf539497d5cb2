"""Post-training quantization: float layers to the integer ones of licodec/entropy/integer_nets.py.

Activations are seen on calibration images. Each channel gets a power of two as its unit, so that its
largest value seen fills the limit; the next layer's weights take the units up. Each output's weights
then get the finest power of two that keeps every possible sum exact: the accumulator is used
to the full, and its bound holds by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.integer_nets import FLOAT32_SUMS, LayerSpec, largest_sum, weight_magnitude

Floats = NDArray[np.float64]

_WEIGHT_LIMIT = 2**15 - 1
ACTIVATION_LIMIT = 2**9 - 1
"""Largest activation between integer layers: with it, sums stay within float32's 2^24."""


def grouped(net: nn.Sequential) -> list[tuple[nn.Module, nn.Module | None]]:
    """The layers of a net, each with the activation after it."""
    out: list[tuple[nn.Module, nn.Module | None]] = []
    for module in net:
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            out[-1] = (out[-1][0], module)
        else:
            out.append((module, None))
    return out


def units_for(largest: Floats, limit: int) -> Floats:
    """The power of two for each channel in which `largest` is at most `limit`."""
    units: Floats = np.exp2(np.ceil(np.log2(np.maximum(largest, 2.0**-20) / limit)))
    return units


def quantize_layer(
    weight: Floats,
    bias: Floats,
    spec: LayerSpec,
    input_units: Floats,
    input_limit: int,
    output_units: Floats,
    limit: tuple[int, int],
    sums: int = FLOAT32_SUMS,
) -> dict[str, NDArray[Any]]:
    """The tensors of one integer layer.

    Args:
        weight: (O, inputs, taps); its kernel flattened. (inputs, O, taps) for deconv.
        bias: (O,).
        input_units: (inputs,) what 1 stands for in each input channel.
        output_units: (O,) powers of two.
        limit: low and high of the outputs, in units.
        sums: no sum may reach it.

    Raises:
        ValueError: no precision keeps the sums below `sums`.
    """
    outputs = len(bias)
    if spec.kind == "deconv":
        scaled = (weight * input_units[:, None, None]).reshape(len(weight), -1)
        per_output = np.repeat(np.arange(outputs), weight.shape[2])[None]
    else:
        scaled = (weight * input_units[None, :, None]).reshape(outputs, -1)
        per_output = np.arange(outputs)[:, None]
    reach = weight_magnitude(scaled, outputs, spec) * input_limit + np.abs(bias)
    largest = np.zeros(outputs)
    np.maximum.at(largest, np.broadcast_to(per_output, scaled.shape), np.abs(scaled))
    finest = np.minimum(
        np.log2(sums / np.maximum(reach, 1e-12)),
        np.log2(_WEIGHT_LIMIT / np.maximum(largest, 1e-12)),
    )
    bits = np.minimum(np.floor(finest), 30).astype(np.int64)
    while True:
        unit = np.ldexp(1.0, -bits)
        integers = np.round(scaled / unit[per_output]).astype(np.int64)
        biases = np.round(bias / unit).astype(np.int64)
        over = weight_magnitude(integers, outputs, spec) * input_limit + np.abs(biases) >= sums
        if not over.any():  # rounding may have carried a sum beyond
            break
        bits[over] -= 1
    shift = bits + np.round(np.log2(output_units)).astype(np.int64)
    if largest_sum(integers, biases, spec, input_limit) >= sums or np.abs(shift).max() > 127:
        raise ValueError("weights too large for exact sums")
    return {
        "weight": integers.astype(np.int16),
        "bias": biases,
        "shift": shift.astype(np.int8),
        "limit": np.array(limit, dtype=np.int32),
    }


class Inputs(NamedTuple):
    """What a net gets.

    Attributes:
        seen: of the calibration images, (1, C, H, W) each, as floats.
        units: (C,) what 1 stands for in each channel's integers.
        limit: their largest magnitude.
    """

    seen: list[Tensor]
    units: Floats
    limit: int


def quantize_net(
    net: nn.Sequential,
    specs: Sequence[LayerSpec],
    name: str,
    inputs: Inputs,
    outputs: tuple[Floats, int] | None = None,
) -> tuple[dict[str, NDArray[Any]], Floats]:
    """Integer tensors `NAME.i.weight` … of a net, and the units of its outputs.

    Args:
        specs: of its integer layers, in the order of `grouped`.
        outputs: units and limit of the last layer; without them it is calibrated like the others.
    """
    tensors: dict[str, NDArray[Any]] = {}
    layers = grouped(net)
    seen, input_units, input_limit = inputs
    for i, ((layer, activation), spec) in enumerate(zip(layers, specs, strict=True)):
        with torch.inference_mode():
            seen = [layer(x) for x in seen]
            seen = seen if activation is None else [activation(x) for x in seen]
        conv: Any = layer[0] if isinstance(layer, nn.Sequential) else layer
        weight = conv.weight.detach().double().flatten(2).numpy()
        bias = conv.bias.detach().double().numpy()
        if i == len(layers) - 1 and outputs is not None:
            units, high = outputs
        else:
            largest = torch.stack([x.abs().amax((0, 2, 3)) for x in seen]).amax(0)
            units, high = units_for(largest.double().numpy(), ACTIVATION_LIMIT), ACTIVATION_LIMIT
        own = np.repeat(units, 4) if spec.kind == "subpixel" else units
        low = 0 if spec.activation == "relu" else -high
        for part, value in quantize_layer(
            weight, bias, spec, input_units, input_limit, own, (low, high)
        ).items():
            tensors[f"{name}.{i}.{part}"] = value
        input_units, input_limit = units, high
    return tensors, input_units
