"""Which tensors a weights file of the everyday codec must have, found out without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from licodec.entropy.quadtree import BINS, CLASSES, GROUPS
from licodec.networks.everyday import CELL, HYPER, LATENT_LIMIT, PATCH, blocks_of
from licodec.weights.file import BACK_PROJECTION, Weights
from licodec.weights.needed import (
    BYTES,
    FLOATS,
    NARROW,
    WIDE,
    Tensors,
    Values,
    hold,
    rises,
    sizes,
    within,
)

_LARGEST_LOG2_STEP = 64 * 2**16
_MOST_Z_ENTRIES = 2**10


def check(weights: Weights) -> None:
    """Hold a weights file against what the everyday codec needs.

    Raises:
        ModelMissingError: something is missing or is not what it must be; one line says what.
    """
    hold(weights, _tensors, _values)


def _tensors(weights: Weights) -> Tensors:
    K, M = sizes(weights, "log_gain", 2)
    C, width, hyper_width = (
        sizes(weights, f"{name}.bias", 1)[0] for name in ("g_a.patch", "steps.0.enter", "h_a.enter")
    )
    _, Z, z_entries = sizes(weights, "z_prior", 3)
    directions, class_z_entries = sizes(weights, "class_z_prior", 2)
    (thresholds,) = sizes(weights, "asinh", 1)
    odd = z_entries % 2 and class_z_entries % 2
    if M % GROUPS or not odd or max(z_entries, class_z_entries, directions) > _MOST_Z_ENTRIES:
        raise ValueError("log_gain or z_prior is of a size that is not supported")
    squares, area = CELL**2 * C, HYPER**2 * hyper_width
    floats: Tensors = {
        "log_gain": ((K, M), FLOATS),
        **_linear("g_a.patch", C, 3 * PATCH**2),
        **_linear("g_a.cell", M, squares),
        **_linear("h_a.enter", hyper_width, M),
        **_linear("h_a.shrink", hyper_width, area),
        **_linear("h_a.leave", Z, area),
    }
    if BACK_PROJECTION in weights:
        floats[BACK_PROJECTION] = ((K,), FLOATS)
    for name, channels in _blocks(weights, "g_a", C, M):
        floats |= _float_block(name, channels)
    for part in ("first", "second"):
        floats |= _float_block(f"h_a.{part}", hyper_width)
    integers: Tensors = {
        "log2_step": ((K, M), WIDE),
        "log_scale": ((K, M), NARROW),
        "rate_features": ((K, hyper_width), NARROW),
        "asinh": ((thresholds,), WIDE),
        "z_prior": ((K, Z, z_entries), NARROW),
        "class_prior": ((K, CLASSES, BINS + 1), NARROW),
        "class_directions": ((directions, CLASSES, BINS + 1), NARROW),
        "class_z_prior": ((directions, class_z_entries), NARROW),
        **_dense("g_s.cell", squares, M),
        **_dense("g_s.patch", 3 * PATCH**2, C),
        **_dense("h_s.enter", area, Z),
        **_dense("h_s.grow", area, hyper_width),
        **_dense("h_s.leave", hyper_width, hyper_width),
    }
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
    return {f"{name}.weight": ((rows, columns), FLOATS), f"{name}.bias": ((rows,), FLOATS)}


def _dense(name: str, rows: int, columns: int) -> Tensors:
    return {
        f"{name}.weight": ((rows, columns), NARROW),
        f"{name}.bias": ((rows,), WIDE),
        f"{name}.shift": ((rows,), BYTES),
    }


def _block(name: str, C: int, layer: Callable[[str, int, int], Tensors] = _dense) -> Tensors:
    return {
        **layer(f"{name}.mix", C, C),
        **layer(f"{name}.join", C, C),
        **layer(f"{name}.widen", 2 * C, C),
        **layer(f"{name}.narrow", C, 2 * C),
        **layer(f"{name}.depthwise", C, 9),
    }


def _float_block(name: str, C: int) -> Tensors:
    kernels: Tensors = {f"{name}.depthwise.weight": ((C, 1, 3, 3), FLOATS)}
    return _block(name, C, _linear) | kernels


def _values(weights: Weights, tensors: Tensors) -> Values:
    yield "log2_step", within(weights["log2_step"], _LARGEST_LOG2_STEP)
    asinh = weights["asinh"].astype(np.int64)
    yield "asinh", rises(asinh) and 0 < asinh[0] and asinh[-1] <= 2 * LATENT_LIMIT
    K = len(weights["log_gain"])
    yield "lambdas", len(weights.lambdas) == K
