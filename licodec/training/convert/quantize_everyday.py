"""The everyday codec's networks as integers, by the ranges of activations seen on photographs.

A channel's unit is chosen so that the largest activation seen fills LIMIT with a margin. A layer's weights
are then as fine as its sums allow in float32; its outputs are scaled by powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.quadtree import (
    BINS,
    CLASS_UNIT,
    CLASSES,
    GROUPS,
    LEAST_SCALE,
    LOW_BITS,
    PER_OCTAVE,
)
from licodec.entropy.tables import EXP2_UNIT, LOG2_UNIT
from licodec.networks.everyday import LATENT_LIMIT, LATENT_UNIT
from licodec.networks.fixed_point import FINE_LIMIT, FINE_SHIFT, LIMIT, STREAM_SHIFT
from licodec.training.codecs.everyday import (
    CELL,
    HYPER,
    PATCH,
    SLOPE,
    Z_UNIT,
    Block,
    Everyday,
    Step,
)
from licodec.training.fit.class_directions import no_directions

Array = NDArray[Any]
Units = dict[str, Tensor]

_MARGIN = 1.25
_MOST_SUM = 2**24 - 1
_MOST_WIDE_SUM = 2**40
_MOST_WEIGHT, _MOST_WIDE_WEIGHT = 511, 4095
_ASINH_UNIT = 96
_Z_BINS = 64
_CLASS_UNITS = CLASS_UNIT * PER_OCTAVE / math.log(2)
"""Of a class, in a natural logarithm of a scale."""
_PRIOR_COUNT = 200.0
"""Latents that the Gaussian counts for beside those seen, in a class's table."""


class Layer(NamedTuple):
    """A layer as a weights file names it, and what it is made of.

    Attributes:
        parts: modules of the network, and the columns that their weights fill; the first has the bias.
        inputs, outputs: what an integer stands for, by column and by row.
        offset: added to the bias.
        is_wide: its sums are in float64.
    """

    name: str
    parts: tuple[tuple[str, slice], ...]
    inputs: Tensor
    outputs: Tensor
    offset: float = 0.0
    is_wide: bool = False


def layers(net: Everyday, units: Units) -> list[Layer]:
    """All layers that a decoder runs in integers.

    Args:
        units: by name, what an activation of LIMIT / _MARGIN stands for in each channel, as `ranges` found.
    """
    stream, finer = 2.0**-STREAM_SHIFT, 2.0 ** (FINE_SHIFT - STREAM_SHIFT)
    coarse, fine, features = units["g_s.coarse"], units["g_s.fine"], units["features"]
    first, second = units["h_s.first"], units["h_s.second"]
    M = net.log_gain.shape[1]
    z_unit = torch.full((net.log_z_scale.shape[1],), 1 / Z_UNIT).double()
    level = torch.full((3 * PATCH**2,), 1 / 255).double()
    asinh = torch.full((M,), 1 / _ASINH_UNIT).double()
    told = torch.tensor([1 / LATENT_UNIT, 1 / _CLASS_UNITS]).double().repeat_interleave(M // GROUPS)

    def dense(name: str, inputs: Tensor, outputs: Tensor, **more: Any) -> Layer:
        return Layer(name, ((name, slice(None)),), inputs, outputs, **more)

    def block(name: str, own: Tensor) -> list[Layer]:
        mix, depth, widen = (units[f"{name}.{part}"] for part in ("mix", "depthwise", "widen"))
        return [
            dense(f"{name}.mix", own, mix),
            dense(f"{name}.depthwise", mix[:, None], depth),
            dense(f"{name}.join", depth, own * stream),
            dense(f"{name}.widen", own, widen),
            dense(f"{name}.narrow", widen, own * stream),
        ]

    found = [
        dense("g_s.cell", coarse * finer, fine.repeat(CELL**2) * stream, is_wide=True),
        dense("g_s.patch", fine * finer, level, offset=0.5, is_wide=True),
        dense("h_s.enter", z_unit, first.repeat(HYPER**2) * stream),
        *block("h_s.first", first),
        dense("h_s.grow", first, second.repeat(HYPER**2) * stream),
        *block("h_s.second", second),
        dense("h_s.leave", second, features),
    ]
    for part, own in (("coarse", coarse), ("fine", fine)):
        for i in range(len(getattr(net.g_s, part))):
            found += block(f"g_s.{part}.{i}", own)
    for i in range(GROUPS):
        name = f"steps.{i}"
        own, width = units[f"{name}.block"], len(features)
        parts: tuple[tuple[str, slice], ...] = ((f"{name}.features", slice(width)),)
        inputs = features
        if i:
            parts += ((f"{name}.context", slice(width, None)),)
            inputs = torch.cat([features, asinh])
        found.append(Layer(f"{name}.enter", parts, inputs, own * stream))
        found += block(f"{name}.block", own)
        found += [dense(f"{name}.heads.{group}", own, told) for group in range(GROUPS)]
    return found


@torch.no_grad()
def quantized(net: Everyday, images: Iterable[Tensor]) -> dict[str, Array]:
    """Every tensor of a weights file; the tables of classes are Gaussian.

    Args:
        images: x (H, W, 3), 0 … 1, sides multiples of 64, for the ranges.
    """
    units = {
        name: (value.clamp_min(1e-6) * _MARGIN / LIMIT).double()
        for name, value in _ranges(net, images).items()
    }
    tensors: dict[str, Array] = {"log_gain": net.log_gain.numpy().astype(np.float32)}
    state = net.state_dict()
    for name, value in state.items():
        if name.startswith(("g_a.", "h_a.")):
            tensors[name] = value.half().numpy()
    for layer in layers(net, units):
        weight = torch.cat([state[f"{part}.weight"].flatten(1) for part, _ in layer.parts], 1)
        weight = weight.double() * layer.inputs / layer.outputs[:, None]
        bias = (state[f"{layer.parts[0][0]}.bias"].double() + layer.offset) / layer.outputs
        tensors |= _rows(layer.name, weight.numpy(), bias.numpy(), layer.is_wide)
    tensors |= _by_rate(net, units)
    steps = np.arange(1, int(_ASINH_UNIT * math.asinh((LATENT_LIMIT + 1) / LATENT_UNIT)) + 1)
    tensors["asinh"] = np.ceil(LATENT_UNIT * np.sinh((steps - 0.5) / _ASINH_UNIT)).astype(np.int32)
    tensors["z_prior"] = _z_prior(net.log_z_scale)
    tensors["class_prior"] = np.repeat(_gaussian_prior()[None], len(net.lambdas), axis=0)
    tensors |= no_directions(CLASSES, BINS + 1)
    return tensors | {f"units.{name}": value.float().numpy() for name, value in units.items()}


def _by_rate(net: Everyday, units: Units) -> dict[str, Array]:
    """What has a row for each anchor, in the units of the layers that take it."""
    step = units["g_s.coarse"] * 2.0**-STREAM_SHIFT * LATENT_UNIT
    log2_step = net.log_inverse_gain.double() / math.log(2) - step.log2()
    scale = (net.log_scale - math.log(LEAST_SCALE)) * _CLASS_UNITS
    return {
        "log2_step": _integers(log2_step * EXP2_UNIT).astype(np.int32),
        "log_scale": _integers(scale).astype(np.int16),
        "rate_features": _integers(net.rate_features / units["features"]).astype(np.int16),
        "units.log_z_scale": net.log_z_scale.numpy().astype(np.float32),
    }


def dequantized(net: Everyday, tensors: Mapping[str, Array]) -> dict[str, Tensor]:
    """The state of a network that computes as a weights file does but for its rounding, to be trained on.

    Blocks that its g_a has beyond the file's stay as they are, which is fresh: they change nothing.

    Raises:
        KeyError: a tensor is missing.
    """
    floats = {name: torch.from_numpy(value.astype(np.float64)) for name, value in tensors.items()}
    units = {k.removeprefix("units."): v for k, v in floats.items() if k.startswith("units.")}
    fresh = {k: v for k, v in net.state_dict().items() if k.startswith(("g_a.fine", "g_a.coarse"))}
    own = {k: v for k, v in floats.items() if k.startswith(("g_a.", "h_a.", "log_gain"))}
    state = fresh | own
    for layer in layers(net, units):
        scale = torch.ldexp(layer.outputs, -floats[f"{layer.name}.shift"].int())
        weight = floats[f"{layer.name}.weight"] * scale[:, None] / layer.inputs
        for part, columns in layer.parts:
            state[f"{part}.weight"] = weight[:, columns]
        state[f"{layer.parts[0][0]}.bias"] = floats[f"{layer.name}.bias"] * scale - layer.offset
    step = units["g_s.coarse"] * 2.0**-STREAM_SHIFT * LATENT_UNIT
    log2_step = floats["log2_step"] / EXP2_UNIT + step.log2()
    state |= {
        "log_inverse_gain": log2_step * math.log(2),
        "log_scale": floats["log_scale"] / _CLASS_UNITS + math.log(LEAST_SCALE),
        "rate_features": floats["rate_features"] * units["features"],
        "log_z_scale": units["log_z_scale"],
    }
    return {k: state[k].float().reshape(v.shape) for k, v in net.state_dict().items()}


def class_tables(counts: NDArray[np.int64]) -> NDArray[np.int16]:
    """Log frequencies of residuals by class, as they were counted at each anchor (K, CLASSES, BINS + 1)."""
    prior = 2.0 ** (_gaussian_prior().astype(np.float64) / LOG2_UNIT)
    total = counts + _PRIOR_COUNT * prior / prior.sum(1, keepdims=True)
    # Anchors beside help out; left and right are alike but for chance.
    total[1:] += counts[:-1] / 2
    total[:-1] += counts[1:] / 2
    inner = total[:, :, 1:BINS]
    inner[:] = (inner + inner[:, :, ::-1]) / 2
    return _log2(total / total.sum(2, keepdims=True))


def _ranges(net: Everyday, images: Iterable[Tensor]) -> Units:
    """The largest magnitude by channel of what each layer takes and gives, over images and rates."""
    ranges: Units = {}

    def note(name: str, value: Tensor, channel: int = -1) -> None:
        largest = value.detach().abs().movedim(channel, -1).flatten(0, -2).amax(0)
        ranges[name] = torch.maximum(ranges[name], largest) if name in ranges else largest

    handles = []
    for name, module in net.named_modules():
        if not isinstance(module, Block) or name.startswith(("g_a", "h_a")):
            continue
        stream = name if name.startswith(("h_s", "steps")) else name.rsplit(".", 1)[0]

        def of_block(_: nn.Module, x: tuple[Tensor], out: Tensor, stream: str = stream) -> None:
            note(stream, x[0])
            note(stream, out)

        def of_widen(
            _: nn.Module, x: tuple[Tensor], out: Tensor, stream: str = stream, name: str = name
        ) -> None:
            note(stream, x[0])
            note(f"{name}.widen", nn.functional.leaky_relu(out, SLOPE))

        def of_mix(_: nn.Module, x: tuple[Tensor], out: Tensor, name: str = name) -> None:
            note(f"{name}.mix", nn.functional.leaky_relu(out, SLOPE))

        def of_depthwise(_: nn.Module, x: tuple[Tensor], out: Tensor, name: str = name) -> None:
            note(f"{name}.depthwise", out, 1)

        handles += [
            module.register_forward_hook(of_block),
            module.widen.register_forward_hook(of_widen),
            module.mix.register_forward_hook(of_mix),
            module.depthwise.register_forward_hook(of_depthwise),
        ]
    for step in cast(list[Step], list(net.steps)):
        handles.append(
            step.features.register_forward_hook(lambda _, x, out: note("features", x[0]))
        )
    K = len(net.lambdas)
    for index, x in enumerate(images):
        for t in {0.0, K - 1.0, float(index % K)}:
            net.code(x[None], torch.tensor([t]), False)
    for handle in handles:
        handle.remove()
    return ranges


def _rows(name: str, weight: Array, bias: Array, wide: bool = False) -> dict[str, Array]:
    """Each row as fine as _MOST_WEIGHT and the sum's bound allow; `wide` sums are in float64."""
    limit = FINE_LIMIT if wide else LIMIT
    most, largest = (_MOST_WIDE_SUM, _MOST_WIDE_WEIGHT) if wide else (_MOST_SUM, _MOST_WEIGHT)
    shift = np.full(len(weight), 30, np.int64)
    for _ in range(61):
        scaled = np.ldexp(weight, shift[:, None])
        sums = np.abs(np.rint(scaled)).sum(1) * limit + np.abs(np.rint(np.ldexp(bias, shift)))
        too_much = (np.abs(scaled).max(1) > largest) | (sums > most)
        if not too_much.any():
            break
        shift -= too_much
    return {
        f"{name}.weight": np.rint(np.ldexp(weight, shift[:, None])).astype(np.int16),
        f"{name}.bias": np.rint(np.ldexp(bias, shift)).astype(np.int32),
        f"{name}.shift": shift.astype(np.int8),
    }


def _z_prior(log_scale: Tensor) -> NDArray[np.int16]:
    """(K, Z, _Z_BINS + 1) log frequencies of a logistic distribution about 0."""
    edges = torch.arange(_Z_BINS + 1).double() - _Z_BINS // 2 - 0.5
    below = torch.sigmoid(edges / log_scale.double().exp()[..., None])
    mass = below.diff(dim=-1)
    escape = 1 - mass.sum(-1, keepdim=True)
    return _log2(torch.cat([mass, escape], -1).numpy())


def _gaussian_prior() -> NDArray[np.int16]:
    """(CLASSES, BINS + 1) log frequencies of Gaussians of the classes' scales, low bits taken off."""
    scale = LEAST_SCALE * 2 ** (np.arange(CLASSES) / PER_OCTAVE)
    width = 2.0**LOW_BITS
    symbols = np.arange(BINS + 1) - BINS // 2
    edges = torch.from_numpy((symbols * width[:, None] - 0.5) / scale[:, None])
    below = torch.special.ndtr(edges)
    mass = below.diff(dim=-1)
    escape = 1 - mass.sum(-1, keepdim=True)
    return _log2(torch.cat([mass, escape], -1).numpy())


def _log2(mass: Array) -> NDArray[np.int16]:
    logs: NDArray[np.int16] = np.rint(np.log2(np.maximum(mass, 2.0**-24)) * LOG2_UNIT).astype(
        np.int16
    )
    return logs


def _integers(values: Tensor) -> Array:
    rounded: Array = values.round().numpy()
    return rounded
