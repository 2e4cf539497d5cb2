"""Which tensors a weights file must have for what it offers: names, shapes and kinds, before any is used.

The shapes follow from a few sizes that the file itself states, through the networks' own state dicts,
which are built without memory (PyTorch's meta device).
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn

from licodec.entropy import scale_shifts
from licodec.entropy.classes import check_exact
from licodec.entropy.gaussian import MIXTURE_TOTAL
from licodec.entropy.pdf_transform import SIDE_LENGTH, PdfAnalysis, PdfSynthesis
from licodec.entropy.scale_shifts import PREFIX
from licodec.entropy.tables import BINS
from licodec.networks import transforms
from licodec.networks.hyper import HyperNetworks, MaskedConv
from licodec.weights.catalogue import Z_DISTRIBUTIONS
from licodec.weights.file import BACK_PROJECTION, Weights
from licodec.weights.needed import (
    FLOATS,
    NARROW,
    WIDE,
    WIDEST,
    Tensors,
    Values,
    hold,
    rises,
    sizes,
    within,
)

_LARGEST_SCALE = 2**30
_LARGEST_SHIFT = 127
LARGEST_MEDIAN = 2**16
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
    hold(weights, _tensors, _values)


def _tensors(weights: Weights) -> Tensors:
    with torch.device("meta"):
        return _needed(weights)


def _needed(weights: Weights) -> Tensors:
    K, M = sizes(weights, "log_gain", 2)
    own: Tensors = {"log_gain": ((K, M), FLOATS)}
    if BACK_PROJECTION in weights:
        own[BACK_PROJECTION] = ((K,), FLOATS)
    if "arch" in weights.metadata:
        return own | _hyperprior(weights, K, M)
    (N,) = sizes(weights, "g_a.0.bias", 1)
    own |= _module("g_a.", transforms.analysis(N, M)) | _module("g_s.", transforms.synthesis(N, M))
    own["prior"] = ((K, M, BINS + 1), WIDE)
    return own | _adaptive(weights, K, M) if "z_prior" in weights else own


def _adaptive(weights: Weights, K: int, M: int) -> Tensors:
    C = sizes(weights, "class_prior", 4)[2]
    if C > 256:
        raise ValueError(f"{C} classes are not supported")
    return {
        **_distributions(weights, "", K, M, int(weights.metadata["groups"])),
        "class_prior": ((K, M, C, BINS + 1), WIDE),
        "context.order": ((M,), WIDE),
        "context.weights": ((M, 2 * M), WIDE),
        "context.thresholds": ((K, M, C - 1), WIDE),
    }


def _distributions(weights: Weights, prefix: str, K: int, M: int, groups: int) -> Tensors:
    """Of what tells an image's own distributions of M channels."""
    (width,) = sizes(weights, f"{prefix}h_a.layers.0.bias", 1)
    Z, _, kernel = sizes(weights, f"{prefix}h_a.layers.4.weight", 3)
    if kernel % 2 == 0:
        raise ValueError(f"a kernel of {kernel} taps is not supported")
    shape = (M, width, Z, groups, kernel)
    return {
        **_module(f"{prefix}h_a.", PdfAnalysis(*shape)),
        **_module(f"{prefix}h_s.", PdfSynthesis(*shape).layers, WIDE),
        f"{prefix}prior": ((K, M, BINS + 1), WIDE),
        f"{prefix}z_prior": ((K, Z * SIDE_LENGTH, _z_bins(weights, prefix)), WIDE),
    }


def _hyperprior(weights: Weights, K: int, M: int) -> Tensors:
    architecture = weights.architecture
    (N,) = sizes(weights, "z_median", 1)
    anchors = sizes(weights, "z_prior", 3)[0]
    (scales,) = sizes(weights, "scales", 1)
    if anchors not in (1, K) or scales > 256:
        raise ValueError("z_prior or scales is of another size than the rest")
    networks = HyperNetworks(architecture, N, M)
    own = {
        "z_median": ((N,), WIDE),
        "z_prior": ((anchors, N, _z_bins(weights, "")), WIDE),
        "scales": ((scales,), WIDE),
        "scale_thresholds": ((scales - 1,), WIDE),
    }
    for part in ("g_a", "g_s", "h_a"):
        own |= _module(f"{part}.", getattr(networks, part))
    own |= _integer_net("integer.h_s", networks.h_s)
    if architecture.has_context:
        own |= _integer_net("integer.context", networks.context_prediction)
        own |= _integer_net("integer.parameters", networks.entropy_parameters)
    elif f"{PREFIX}order" in weights:
        own |= {
            f"{PREFIX}order": ((M,), WIDE),
            f"{PREFIX}weights": ((M, 2 * M), WIDE),
            f"{PREFIX}blocks": (sizes(weights, f"{PREFIX}blocks", 1), WIDE),
            f"{PREFIX}own": ((M, 2), NARROW),
            f"{PREFIX}table": ((scales, scale_shifts.REACH), WIDE),
            f"{PREFIX}mixture": ((scales, scales), WIDE),
        }
    if f"{Z_DISTRIBUTIONS}prior" in weights:
        groups = N // sizes(weights, f"{Z_DISTRIBUTIONS}h_a.layers.0.weight", 3)[1]
        own |= _distributions(weights, Z_DISTRIBUTIONS, K, N, groups)
    return own


def _module(prefix: str, module: nn.Module, kind: str = FLOATS) -> Tensors:
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
            f"{prefix}.{i}.weight": ((rows, columns), WIDE),
            f"{prefix}.{i}.bias": ((layer.out_channels,), WIDEST),
            f"{prefix}.{i}.shift": ((layer.out_channels,), WIDE),
            f"{prefix}.{i}.limit": ((2,), WIDE),
        }
    return own


def _z_bins(weights: Weights, prefix: str) -> int:
    """Entries of the tables of ẑ: as many on either side of 0, 0 itself, and the escape."""
    bins = sizes(weights, f"{prefix}z_prior", 3)[2]
    if bins % 2 == 0 or not 3 <= bins <= _MOST_Z_ENTRIES:
        raise ValueError(f"{prefix}z_prior has tables of {bins} entries")
    return bins


def _values(weights: Weights, tensors: Tensors) -> Values:
    if "scales" in tensors:
        scales = weights["scales"]
        yield "scales", rises(scales) and 0 < scales[0] and scales[-1] <= _LARGEST_SCALE
        yield "scale_thresholds", rises(weights["scale_thresholds"])
    if "z_median" in tensors:
        yield "z_median", within(weights["z_median"], LARGEST_MEDIAN)
    yield from _integer_nets(weights, tensors)
    for name in ("context.order", f"{PREFIX}order"):
        if name in tensors:
            order = weights[name]
            yield name, np.array_equal(np.sort(order), np.arange(len(order)))
    if "context.order" in tensors:
        check_exact(weights["context.weights"])
    if f"{PREFIX}order" in tensors:
        yield from _scale_shifts(weights)


def _integer_nets(weights: Weights, tensors: Tensors) -> Values:
    if "integer.context.0.weight" in tensors:
        last = max(name for name in tensors if re.fullmatch(r"integer\.h_s\.\d\.limit", name))
        yield last, within(weights[last], _NARROW_LIMIT)
    for name in tensors:
        values = weights[name]
        if name.endswith(".shift"):
            yield name, within(values, _LARGEST_SHIFT)
        elif name.endswith(".limit"):
            yield name, bool(values[0] <= values[1]) and within(values, LARGEST_LIMIT)


def _scale_shifts(weights: Weights) -> Values:
    blocks, near = weights[f"{PREFIX}blocks"], weights[f"{PREFIX}own"][:, 0]
    yield f"{PREFIX}blocks", blocks.min() > 0 and blocks.sum(dtype=np.int64) == len(near)
    first = scale_shifts.starts(blocks)
    check_exact(weights[f"{PREFIX}weights"], scale_shifts.LARGEST, near, first)
    yield f"{PREFIX}table", within(weights[f"{PREFIX}table"], scale_shifts.LARGEST)
    shares = weights[f"{PREFIX}mixture"].astype(np.int64)
    is_whole = (shares >= 0).all() and (shares.sum(1) == MIXTURE_TOTAL).all()
    yield f"{PREFIX}mixture", bool(is_whole)
