"""The everyday codec's networks as integers, by the ranges of activations seen on photographs.

A channel's unit is chosen so that the largest activation seen fills LIMIT with a margin. A layer's weights
are then as fine as its sums allow in float32; its outputs are scaled by powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.quadtree import (
    BINS,
    CLASS_UNIT,
    CLASSES,
    LEAST_SCALE,
    LOW_BITS,
    PER_OCTAVE,
    Quadtree,
    count_classes,
)
from licodec.entropy.tables import EXP2_UNIT, LOG2_UNIT
from licodec.networks.everyday import LATENT_LIMIT, LATENT_UNIT
from licodec.networks.fixed_point import FINE_LIMIT, FINE_SHIFT, LIMIT, STREAM_SHIFT
from licodec.training.codecs.everyday import PATCH, SLOPE, Z_UNIT, Block, Everyday, Step
from licodec.weights.file import STEPS, narrowed

Array = NDArray[Any]
Ranges = dict[str, Tensor]

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


@torch.no_grad()
def quantized(net: Everyday, images: Iterable[Tensor]) -> dict[str, Array]:
    """Every tensor of a weights file but its class tables.

    Args:
        images: x (H, W, 3), 0 … 1, sides multiples of 64, for the ranges.
    """
    ranges = _ranges(net, images)
    units = {name: value.clamp_min(1e-6) * _MARGIN / LIMIT for name, value in ranges.items()}
    K, M = net.log_gain.shape
    tensors: dict[str, Array] = {"log_gain": net.log_gain.numpy().astype(np.float32)}
    for part in ("g_a", "h_a"):
        for name, value in getattr(net, part).state_dict().items():
            tensors[f"{part}.{name}"] = value.half().numpy()

    coarse, fine = units["g_s.coarse"], units["g_s.fine"]
    stream = 2.0**-STREAM_SHIFT
    tensors["log2_step"] = _integers(
        (
            net.log_inverse_gain.double() / math.log(2)
            - (coarse * stream * LATENT_UNIT).double().log2()
        )
        * EXP2_UNIT
    ).astype(np.int32)
    for i, block in enumerate(net.g_s.coarse):
        tensors |= _block(f"g_s.coarse.{i}", cast(Block, block), coarse, units)
    finer = 2.0 ** (FINE_SHIFT - STREAM_SHIFT)
    tensors |= _dense("g_s.cell", net.g_s.cell, coarse * finer, fine.repeat(4) * stream, wide=True)
    for i, block in enumerate(net.g_s.fine):
        tensors |= _block(f"g_s.fine.{i}", cast(Block, block), fine, units)
    level = torch.full((3 * PATCH**2,), 1 / 255)
    tensors |= _dense("g_s.patch", net.g_s.patch, fine * finer, level, 127.5 / 255, wide=True)

    first, second = units["h_s.first"], units["h_s.second"]
    z_unit = torch.full((net.log_z_scale.shape[1],), 1 / Z_UNIT)
    tensors |= _dense("h_s.enter", net.h_s.enter, z_unit, first.repeat(4) * stream)
    tensors |= _block("h_s.first", net.h_s.first, first, units)
    tensors |= _dense("h_s.grow", net.h_s.grow, first, second.repeat(4) * stream)
    tensors |= _block("h_s.second", net.h_s.second, second, units)
    features = units["features"]
    tensors |= _dense("h_s.leave", net.h_s.leave, second, features)
    tensors["rate_features"] = _integers(net.rate_features / features).astype(np.int16)

    asinh = torch.full((M,), 1 / _ASINH_UNIT)
    told = torch.cat([
        torch.full((M // 4,), 1 / LATENT_UNIT), torch.full((M // 4,), 1 / _CLASS_UNITS)
    ])  # fmt: skip
    for i, step in enumerate(cast(list[Step], list(net.steps))):
        name, own = f"steps.{i}", units[f"steps.{i}.block"]
        enter = nn.Linear(features.numel() + (M if i else 0), own.numel())
        enter.bias.copy_(step.features.bias)
        context = [] if step.context is None else [step.context.weight]
        enter.weight.copy_(torch.cat([step.features.weight, *context], 1))
        inputs = torch.cat([features, asinh]) if i else features
        tensors |= _dense(f"{name}.enter", enter, inputs, own * stream)
        tensors |= _block(f"{name}.block", step.block, own, units)
        for group, head in enumerate(step.heads):
            tensors |= _dense(f"{name}.heads.{group}", cast(nn.Linear, head), own, told)
    base = (net.log_scale - math.log(LEAST_SCALE)) * _CLASS_UNITS
    tensors["log_scale"] = _integers(base).astype(np.int16)
    steps = np.arange(1, int(_ASINH_UNIT * math.asinh((LATENT_LIMIT + 1) / LATENT_UNIT)) + 1)
    tensors["asinh"] = np.ceil(LATENT_UNIT * np.sinh((steps - 0.5) / _ASINH_UNIT)).astype(np.int32)
    tensors["z_prior"] = _z_prior(net.log_z_scale)
    tensors["class_prior"] = np.repeat(_gaussian_prior()[None], K, axis=0)
    return tensors


def measured_classes(
    tensors: dict[str, Array], latents: Iterable[tuple[Array, int]]
) -> NDArray[np.int16]:
    """Tables of classes (K, CLASSES, BINS + 1) as residuals are distributed.

    Args:
        latents: y (M, h, w) in 1/LATENT_UNIT, and the anchor whose gain made it.
    """
    model = Quadtree(tensors)
    K = len(tensors["log_gain"])
    prior = 2.0 ** (_gaussian_prior().astype(np.float64) / LOG2_UNIT)
    counts = np.repeat(_PRIOR_COUNT * prior[None] / prior.sum(1, keepdims=True), K, axis=0)
    for y, k in latents:
        found = count_classes(model.side_information(y, k * STEPS).symbols)
        for near, share in ((k - 1, 0.5), (k, 1.0), (k + 1, 0.5)):
            if 0 <= near < K:
                counts[near] += share * found
    # Left and right are alike but for chance.
    inner = counts[:, :, 1:BINS]
    inner[:] = (inner + inner[:, :, ::-1]) / 2
    return _log2(counts / counts.sum(2, keepdims=True))


def packed_integers(tensors: dict[str, Array]) -> dict[str, Array]:
    """The tensors as a weights file holds them: wide weights a byte each where that holds them."""
    out: dict[str, Array] = {}
    for name, value in tensors.items():
        is_wide = name.endswith(".weight") and value.dtype == np.int16
        out |= narrowed(name, value) if is_wide else {name: value}
    return out


def _ranges(net: Everyday, images: Iterable[Tensor]) -> Ranges:
    """The largest magnitude by channel of what each layer takes and gives, over images and rates."""
    ranges: Ranges = {}

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
            net(x[None], torch.tensor([t]), False)
    for handle in handles:
        handle.remove()
    return ranges


def _block(name: str, block: Block, stream: Tensor, units: Ranges) -> dict[str, Array]:
    fine = stream * 2.0**-STREAM_SHIFT
    mix, depth, widen = (units[f"{name}.{part}"] for part in ("mix", "depthwise", "widen"))
    return {
        **_dense(f"{name}.mix", block.mix, stream, mix),
        **_depthwise(f"{name}.depthwise", block.depthwise, mix, depth),
        **_dense(f"{name}.join", block.join, depth, fine),
        **_dense(f"{name}.widen", block.widen, stream, widen),
        **_dense(f"{name}.narrow", block.narrow, widen, fine),
    }


def _dense(
    name: str, layer: nn.Linear, inputs: Tensor, outputs: Tensor, offset: float = 0.0,
    wide: bool = False,
) -> dict[str, Array]:  # fmt: skip
    weight = layer.weight.double() * inputs.double() / outputs.double()[:, None]
    bias = (layer.bias.double() + offset) / outputs.double()
    return _rows(name, weight.numpy(), bias.numpy(), wide)


def _depthwise(name: str, layer: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> dict[str, Array]:
    weight = layer.weight.double().flatten(1) * (inputs / outputs).double()[:, None]
    assert layer.bias is not None
    return _rows(name, weight.numpy(), (layer.bias.double() / outputs.double()).numpy())


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
