"""Holding a weights file against what is needed of it: tensors by name, shape and type, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.errors import ModelMissingError
from licodec.weights.file import BACK_PROJECTION, STEPS, Weights

Shape = tuple[int, ...]
Tensors = dict[str, tuple[Shape, str]]
"""Name to shape, and the type that its values must fit into."""
Values = Iterator[tuple[str, bool]]
"""Names, and whether what stands there makes sense; later ones may rely on those before."""

FLOATS, BYTES, NARROW, WIDE, WIDEST = "float32", "int8", "int16", "int32", "int64"
_LARGEST_LOG_GAIN = 64


def hold(
    weights: Weights,
    tensors_of: Callable[[Weights], Tensors],
    values_of: Callable[[Weights, Tensors], Values],
) -> None:
    """See that all tensors are there and, once their shapes are right, that their values make sense.

    Raises:
        ModelMissingError: something is missing or is not what it must be; one line says what.
    """
    try:
        tensors = tensors_of(weights)
        for name, (shape, kind) in tensors.items():
            tensor = weights[name]
            if tensor.shape != shape or not np.can_cast(tensor.dtype, kind):
                raise ValueError(
                    f"{name} is {tensor.dtype} {tensor.shape}, where {kind} {shape} is needed"
                )
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
        for name, holds in chain(_rates(weights), values_of(weights, tensors)):
            if not holds:
                raise ValueError(f"{name} has values that make no sense")
    except KeyError as error:
        raise ModelMissingError(f"{weights.path}: {error.args[0]} is missing") from error
    except (ValueError, RuntimeError) as error:  # the latter from sizes that PyTorch refuses
        first = str(error).splitlines()[0]
        raise ModelMissingError(f"{weights.path}: no usable weights: {first}") from error


def _rates(weights: Weights) -> Values:
    yield "log_gain", within(weights["log_gain"], _LARGEST_LOG_GAIN)
    lambdas = weights.lambdas
    K = len(weights["log_gain"])
    yield "lambdas", len(lambdas) in (0, K) and all(0 < lmbda < np.inf for lmbda in lambdas)
    if BACK_PROJECTION in weights:
        shares = weights[BACK_PROJECTION]
        yield BACK_PROJECTION, bool(((shares >= 0) & (shares <= 1)).all())
    if "positions" in weights:
        positions = weights["positions"]
        known = positions.dtype.kind in "iu" and positions.ndim == 1 and len(positions) > 1
        last = (K - 1) * STEPS
        yield (
            "positions",
            known and rises(positions) and 0 <= positions[0] and positions[-1] <= last,
        )


def sizes(weights: Weights, name: str, axes: int) -> Shape:
    """A tensor's shape.

    Raises:
        ValueError: it has another number of axes, or no entries.
    """
    shape = weights[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}, not {axes} axes")
    return shape


def within(values: NDArray[Any], most: int) -> bool:
    """Whether no magnitude is above most."""
    if values.dtype.kind != "f":
        values = values.astype(np.int64)
    return bool((np.abs(values) <= most).all())


def rises(values: NDArray[Any]) -> bool:
    return bool((np.diff(values.astype(np.int64)) >= 0).all())
