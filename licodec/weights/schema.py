"""Which tensors a weights file must have for what it offers: names, shapes and kinds, before any is used.

The shapes follow from a few sizes that the file itself states, through the networks' own state dicts,
which are built without memory (PyTorch's meta device).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from licodec.entropy import scale_shifts
from licodec.entropy.classes import check_exact
from licodec.entropy.gaussian import MIXTURE_TOTAL
from licodec.entropy.pdf_transform import SIDE_LENGTH, PdfAnalysis, PdfSynthesis
from licodec.entropy.tables import BINS
from licodec.errors import ModelMissingError
from licodec.networks import transforms
from licodec.networks.hyper import HyperNetworks, MaskedConv
from licodec.weights.catalogue import Z_DISTRIBUTIONS
from licodec.weights.file import BACK_PROJECTION, Weights

Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Name to shape, and the type that its values must fit into."""

_NARROW, _TABLES, _BIASES, _FLOATS = "int16", "int32", "int64", "float32"
_LARGEST_LOG_GAIN = 64
_LARGEST_SCALE = 2**30
_LARGEST_SHIFT = 127
_LARGEST_MEDIAN = 2**16
_MOST_Z_ENTRIES = 2**12
LARGEST_LIMIT = 2**20
"""Of a layer's outputs."""
_NARROW_LIMIT = 2**15 - 1
"""Of h_s's outputs where a context follows, which keeps them in 16 bits."""


def check(weights: Weights) -> None:
    """Hold a weights file against what its models need.

    Raises:
        ModelMissingError: something is missing or is not what it must be; one line says what.
    """
    try:
        with torch.device("meta"):
            tensors = _tensors(weights)
        for name, (shape, kind) in tensors.items():
            tensor = weights.numpy(name)
            if tensor.shape != shape or not np.can_cast(tensor.dtype, kind):
                raise ValueError(
                    f"{name} is {tensor.dtype} {tensor.shape}, where {kind} {shape} is needed"
                )
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
        for name, holds in _values(weights, tensors):
            if not holds:
                raise ValueError(f"{name} has values that make no sense")
    except KeyError as error:
        raise ModelMissingError(f"{weights.path}: {error.args[0]} is missing") from error
    except (ValueError, RuntimeError) as error:  # the latter from sizes that PyTorch refuses
        first = str(error).splitlines()[0]
        raise ModelMissingError(f"{weights.path}: no usable weights: {first}") from error


def _tensors(weights: Weights) -> Tensors:
    K, M = _sizes(weights, "log_gain", 2)
    own: Tensors = {"log_gain": ((K, M), _FLOATS)}
    if BACK_PROJECTION in weights:
        own[BACK_PROJECTION] = ((K,), _FLOATS)
    if "arch" in weights.metadata:
        return own | _hyperprior(weights, K, M)
    (N,) = _sizes(weights, "g_a.0.bias", 1)
    own |= _module("g_a.", transforms.analysis(N, M)) | _module("g_s.", transforms.synthesis(N, M))
    own["prior"] = ((K, M, BINS + 1), _TABLES)
    return own | _adaptive(weights, K, M) if "z_prior" in weights else own


def _adaptive(weights: Weights, K: int, M: int) -> Tensors:
    C = _sizes(weights, "class_prior", 4)[2]
    if C > 256:
        raise ValueError(f"{C} classes are not supported")
    return {
        **_distributions(weights, "", K, M, int(weights.metadata["groups"])),
        "class_prior": ((K, M, C, BINS + 1), _TABLES),
        "context.order": ((M,), _TABLES),
        "context.weights": ((M, 2 * M), _TABLES),
        "context.thresholds": ((K, M, C - 1), _TABLES),
    }


def _distributions(weights: Weights, prefix: str, K: int, M: int, groups: int) -> Tensors:
    """Of what tells an image's own distributions of M channels."""
    (width,) = _sizes(weights, f"{prefix}h_a.layers.0.bias", 1)
    Z, _, kernel = _sizes(weights, f"{prefix}h_a.layers.4.weight", 3)
    if kernel % 2 == 0:
        raise ValueError(f"a kernel of {kernel} taps is not supported")
    shape = (M, width, Z, groups, kernel)
    return {
        **_module(f"{prefix}h_a.", PdfAnalysis(*shape)),
        **_module(f"{prefix}h_s.", PdfSynthesis(*shape).layers, _TABLES),
        f"{prefix}prior": ((K, M, BINS + 1), _TABLES),
        f"{prefix}z_prior": ((K, Z * SIDE_LENGTH, _z_bins(weights, prefix)), _TABLES),
    }


def _hyperprior(weights: Weights, K: int, M: int) -> Tensors:
    architecture = weights.architecture
    (N,) = _sizes(weights, "z_median", 1)
    anchors = _sizes(weights, "z_prior", 3)[0]
    (scales,) = _sizes(weights, "scales", 1)
    if anchors not in (1, K) or scales > 256 or (architecture.has_attention and N != M):
        raise ValueError("z_prior, scales or z_median is of another size than the rest")
    networks = HyperNetworks(architecture, N, M)
    own = {
        "z_median": ((N,), _TABLES),
        "z_prior": ((anchors, N, _z_bins(weights, "")), _TABLES),
        "scales": ((scales,), _TABLES),
        "scale_thresholds": ((scales - 1,), _TABLES),
    }
    for part in ("g_a", "g_s", "h_a"):
        own |= _module(f"{part}.", getattr(networks, part))
    own |= _integer_net("integer.h_s", networks.h_s)
    if architecture.has_context:
        own |= _integer_net("integer.context", networks.context_prediction)
        own |= _integer_net("integer.parameters", networks.entropy_parameters)
    elif f"{scale_shifts.PREFIX}order" in weights:
        own |= {
            f"{scale_shifts.PREFIX}order": ((M,), _TABLES),
            f"{scale_shifts.PREFIX}weights": ((M, 2 * M), _TABLES),
            f"{scale_shifts.PREFIX}blocks": (
                _sizes(weights, f"{scale_shifts.PREFIX}blocks", 1),
                _TABLES,
            ),
            f"{scale_shifts.PREFIX}own": ((M, 2), _NARROW),
            f"{scale_shifts.PREFIX}table": ((scales, scale_shifts.REACH), _TABLES),
            f"{scale_shifts.PREFIX}mixture": ((scales, scales), _TABLES),
        }
    if f"{Z_DISTRIBUTIONS}prior" in weights:
        groups = N // _sizes(weights, f"{Z_DISTRIBUTIONS}h_a.layers.0.weight", 3)[1]
        own |= _distributions(weights, Z_DISTRIBUTIONS, K, N, groups)
    return own


def _module(prefix: str, module: nn.Module, kind: str = _FLOATS) -> Tensors:
    return {prefix + k: (tuple(v.shape), kind) for k, v in module.state_dict().items()}


def _integer_net(prefix: str, net: nn.Module) -> Tensors:
    """The tensors of `integer_nets.IntegerNet` for a float network's layers."""
    own: Tensors = {}
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    for i, layer in enumerate(layers):
        rows, columns = layer.weight.flatten(1).shape
        if isinstance(layer, MaskedConv):
            columns = MaskedConv.TAPS * layer.in_channels
        own |= {
            f"{prefix}.{i}.weight": ((rows, columns), _TABLES),
            f"{prefix}.{i}.bias": ((layer.out_channels,), _BIASES),
            f"{prefix}.{i}.shift": ((layer.out_channels,), _TABLES),
            f"{prefix}.{i}.limit": ((2,), _TABLES),
        }
    return own


def _sizes(weights: Weights, name: str, axes: int) -> tuple[int, ...]:
    shape = weights.numpy(name).shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}, not {axes} axes")
    return shape


def _z_bins(weights: Weights, prefix: str) -> int:
    """Entries of the tables of ẑ: as many on either side of 0, 0 itself, and the escape."""
    bins = _sizes(weights, f"{prefix}z_prior", 3)[2]
    if bins % 2 == 0 or not 3 <= bins <= _MOST_Z_ENTRIES:
        raise ValueError(f"{prefix}z_prior has tables of {bins} entries")
    return bins


def _values(weights: Weights, tensors: Tensors) -> Iterator[tuple[str, bool]]:
    """(tensor's name, whether its values do), once the shapes are right."""
    yield "log_gain", bool((np.abs(weights.numpy("log_gain")) <= _LARGEST_LOG_GAIN).all())
    lambdas = weights.lambdas
    known = len(lambdas) in (0, len(weights.numpy("log_gain")))
    yield "lambdas", known and all(0 < lmbda < np.inf for lmbda in lambdas)
    if BACK_PROJECTION in tensors:
        shares = weights.numpy(BACK_PROJECTION)
        yield BACK_PROJECTION, bool(((shares >= 0) & (shares <= 1)).all())
    if "scales" in tensors:
        scales, thresholds = weights.numpy("scales"), weights.numpy("scale_thresholds")
        yield "scales", _rises(scales) and 0 < scales[0] and scales[-1] <= _LARGEST_SCALE
        yield "scale_thresholds", _rises(thresholds)
    if "z_median" in tensors:
        medians = weights.numpy("z_median").astype(np.int64)
        yield "z_median", bool((np.abs(medians) <= _LARGEST_MEDIAN).all())
    if "integer.context.0.weight" in tensors:
        last = max(name for name in tensors if re.fullmatch(r"integer\.h_s\.\d\.limit", name))
        limits = weights.numpy(last).astype(np.int64)
        yield last, bool((np.abs(limits) <= _NARROW_LIMIT).all())
    for name in tensors:
        values = weights.numpy(name)
        if name.endswith(".shift"):
            yield name, bool((np.abs(values.astype(np.int64)) <= _LARGEST_SHIFT).all())
        elif name.endswith(".limit"):
            yield (
                name,
                bool(
                    values[0] <= values[1]
                    and np.abs(values.astype(np.int64)).max() <= LARGEST_LIMIT
                ),
            )
    for name in ("context.order", f"{scale_shifts.PREFIX}order"):
        if name in tensors:
            order = weights.numpy(name)
            yield name, np.array_equal(np.sort(order), np.arange(len(order)))
    if "context.order" in tensors:
        check_exact(weights.numpy("context.weights"))
    if f"{scale_shifts.PREFIX}order" in tensors:
        sizes, near = (
            weights.numpy(f"{scale_shifts.PREFIX}blocks"),
            weights.numpy(f"{scale_shifts.PREFIX}own")[:, 0],
        )
        yield (
            f"{scale_shifts.PREFIX}blocks",
            sizes.min() > 0 and sizes.sum(dtype=np.int64) == len(near),
        )
        first = scale_shifts.starts(sizes)
        check_exact(
            weights.numpy(f"{scale_shifts.PREFIX}weights"), scale_shifts.LARGEST, near, first
        )
        table, mixture = (
            weights.numpy(f"{scale_shifts.PREFIX}table"),
            weights.numpy(f"{scale_shifts.PREFIX}mixture"),
        )
        yield (
            f"{scale_shifts.PREFIX}table",
            bool((np.abs(table.astype(np.int64)) <= scale_shifts.LARGEST).all()),
        )
        shares = mixture.astype(np.int64)
        yield (
            f"{scale_shifts.PREFIX}mixture",
            bool((shares >= 0).all() and (shares.sum(1) == MIXTURE_TOTAL).all()),
        )


def _rises(values: NDArray[Any]) -> bool:
    return bool((np.diff(values.astype(np.int64)) >= 0).all())
