"""Which tensors a weights file of the everyday codec must have, found out without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from licodec.entropy.quadtree import BINS, CLASSES, GROUPS
from licodec.errors import ModelMissingError
from licodec.networks.everyday import CELL, HYPER, LATENT_LIMIT, PATCH, blocks_of
from licodec.weights.file import STEPS, Weights

Shape = tuple[int, ...]
Tensors = dict[str, tuple[Shape, str]]

_FLOATS, _NARROW, _WIDE = "float32", "int16", "int32"
_LARGEST_LOG_GAIN = 64
_LARGEST_LOG2_STEP = 64 * 2**16
_MOST_Z_ENTRIES = 2**10


def check(weights: Weights) -> None:
    """Hold a weights file against what the everyday codec needs.

    Raises:
        ModelMissingError: something is missing or is not what it must be; one line says what.
    """
    try:
        for name, (shape, kind) in _tensors(weights).items():
            tensor = weights[name]
            if tensor.shape != shape or not np.can_cast(tensor.dtype, kind):
                raise ValueError(
                    f"{name} is {tensor.dtype} {tensor.shape}, where {kind} {shape} is needed"
                )
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
        for name, holds in _values(weights):
            if not holds:
                raise ValueError(f"{name} has values that make no sense")
    except KeyError as error:
        raise ModelMissingError(f"{weights.path}: {error.args[0]} is missing") from error
    except ValueError as error:
        raise ModelMissingError(f"{weights.path}: no usable weights: {error}") from error


def _tensors(weights: Weights) -> Tensors:
    K, M = _sizes(weights, "log_gain", 2)
    C, width, hyper_width = (
        _sizes(weights, f"{name}.bias", 1)[0]
        for name in ("g_a.patch", "steps.0.enter", "h_a.enter")
    )
    _, Z, z_entries = _sizes(weights, "z_prior", 3)
    directions, class_z_entries = _sizes(weights, "class_z_prior", 2)
    (thresholds,) = _sizes(weights, "asinh", 1)
    odd = z_entries % 2 and class_z_entries % 2
    if M % GROUPS or not odd or max(z_entries, class_z_entries, directions) > _MOST_Z_ENTRIES:
        raise ValueError("log_gain or z_prior is of a size that is not supported")
    squares, area = CELL**2 * C, HYPER**2 * hyper_width
    floats: Tensors = {
        "log_gain": ((K, M), _FLOATS),
        **_linear("g_a.patch", C, 3 * PATCH**2), **_linear("g_a.cell", M, squares),
        **_linear("h_a.enter", hyper_width, M), **_linear("h_a.shrink", hyper_width, area),
        **_linear("h_a.leave", Z, area),
    }  # fmt: skip
    for name, channels in _blocks(weights, "g_a", C, M):
        floats |= _float_block(name, channels)
    for part in ("first", "second"):
        floats |= _float_block(f"h_a.{part}", hyper_width)
    integers: Tensors = {
        "log2_step": ((K, M), _WIDE), "log_scale": ((K, M), _NARROW),
        "rate_features": ((K, hyper_width), _NARROW), "asinh": ((thresholds,), _WIDE),
        "z_prior": ((K, Z, z_entries), _NARROW),
        "class_prior": ((K, CLASSES, BINS + 1), _NARROW),
        "class_directions": ((directions, CLASSES, BINS + 1), _NARROW),
        "class_z_prior": ((directions, class_z_entries), _NARROW),
        **_dense("g_s.cell", squares, M), **_dense("g_s.patch", 3 * PATCH**2, C),
        **_dense("h_s.enter", area, Z), **_dense("h_s.grow", area, hyper_width),
        **_dense("h_s.leave", hyper_width, hyper_width),
    }  # fmt: skip
    for name, channels in _blocks(weights, "g_s", C, M):
        integers |= _block(name, channels)
    for part in ("first", "second"):
        integers |= _block(f"h_s.{part}", hyper_width)
    for i in range(GROUPS):
        integers |= _dense(f"steps.{i}.enter", width, hyper_width + (M if i else 0))
        integers |= _block(f"steps.{i}.block", width)
        for group in range(GROUPS):
            integers |= _dense(f"steps.{i}.heads.{group}", 2 * M // GROUPS, width)
    return floats | integers


def _blocks(weights: Weights, net: str, C: int, M: int) -> Iterator[tuple[str, int]]:
    """(name, channels) of a transform's blocks."""
    for part, channels in (("fine", C), ("coarse", M)):
        for i in range(blocks_of(weights, f"{net}.{part}")):
            yield f"{net}.{part}.{i}", channels


def _linear(name: str, rows: int, columns: int) -> Tensors:
    return {f"{name}.weight": ((rows, columns), _FLOATS), f"{name}.bias": ((rows,), _FLOATS)}


def _float_block(name: str, C: int) -> Tensors:
    return {
        **_linear(f"{name}.mix", C, C), **_linear(f"{name}.join", C, C),
        **_linear(f"{name}.widen", 2 * C, C), **_linear(f"{name}.narrow", C, 2 * C),
        f"{name}.depthwise.weight": ((C, 1, 3, 3), _FLOATS),
        f"{name}.depthwise.bias": ((C,), _FLOATS),
    }  # fmt: skip


def _dense(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": ((rows, columns), _NARROW),
        f"{name}.bias": ((rows,), _WIDE),
        f"{name}.shift": ((rows,), "int8"),
    }


def _block(name: str, C: int) -> Tensors:
    return {
        **_dense(f"{name}.mix", C, C), **_dense(f"{name}.join", C, C),
        **_dense(f"{name}.widen", 2 * C, C), **_dense(f"{name}.narrow", C, 2 * C),
        **_dense(f"{name}.depthwise", C, 9),
    }  # fmt: skip


def _sizes(weights: Weights, name: str, axes: int) -> Shape:
    shape = weights[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}, not {axes} axes")
    return shape


def _values(weights: Weights) -> Iterator[tuple[str, bool]]:
    """(tensor's name, whether its values make sense), once the shapes are right."""
    yield "log_gain", bool((np.abs(weights["log_gain"]) <= _LARGEST_LOG_GAIN).all())
    log2_step = weights["log2_step"].astype(np.int64)
    yield "log2_step", bool((np.abs(log2_step) <= _LARGEST_LOG2_STEP).all())
    asinh = weights["asinh"].astype(np.int64)
    yield (
        "asinh",
        bool((np.diff(asinh) >= 0).all() and asinh[0] > 0 and asinh[-1] <= 2 * LATENT_LIMIT),
    )
    K = len(weights["log_gain"])
    lambdas = weights.lambdas
    yield "lambdas", len(lambdas) == K and all(0 < lmbda < np.inf for lmbda in lambdas)
    if "positions" in weights:
        positions = weights["positions"].astype(np.int64)
        rises = positions.ndim == 1 and len(positions) > 1 and bool((np.diff(positions) >= 0).all())
        yield "positions", rises and 0 <= positions[0] and positions[-1] <= (K - 1) * STEPS
