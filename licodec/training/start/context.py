"""Where a context begins: with a trained codec with a hyperprior, whose scales and means pass as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from licodec.architectures import HYPERPRIOR
from licodec.errors import UsageError, mismatch
from licodec.training.codecs.hyperprior import HyperpriorNetwork, KnownHyperprior, take_units
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.training.start import hyperprior
from licodec.training.start.dequantize import dequantize
from licodec.weights.catalogue import models
from licodec.weights.file import load
from licodec.weights.schema import check

_SLOPE = 0.01
"""Of leaky ReLU below 0."""
_REACH = 8.0
"""Standard deviations that a mean is lifted by, to stay above 0."""


def initialize(model: KnownHyperprior, config: Config, images: Images) -> None:
    """Set model's weights as config.train.init says: from weights of `hyperprior`, or from weights or a
    checkpoint of its own.

    Raises:
        UsageError: the named file is neither, or does not fit the model.
        ModelMissingError: it is a damaged weights file.
    """
    init = config.train.init
    known = models(Path(init)) if init.endswith(".safetensors") else [model.architecture.name]
    if model.architecture.name in known:
        hyperprior.initialize(model, config, images)
        return
    if HYPERPRIOR.name not in known:
        raise UsageError(f"train.init {init}: no weights of {HYPERPRIOR.name}")
    weights = load(Path(init))
    check(weights)
    if tuple(weights.lambdas) != model.lambdas:
        raise UsageError(f"train.init {init}: has model.lambdas {weights.lambdas}, which stay")
    start = HyperpriorNetwork(HYPERPRIOR, model.N, model.M, model.lambdas)
    try:
        start.load_state_dict(dequantize(start, weights))
    except RuntimeError as error:
        raise UsageError(
            f"train.init {init}: does not fit the model ({mismatch(error)})"
        ) from error
    hyperprior.find_units(start, images, config)
    take_units(start, 1 / start.unit)
    model.load_state_dict(start.state_dict(), strict=False)
    model.eval()
    _pass_on(model, _spread(model, images, config))


@torch.no_grad()
def _spread(model: KnownHyperprior, images: Images, config: Config) -> Tensor:
    """(M,) standard deviations of h_s's means, in units, over crops at all rates."""
    rng = np.random.default_rng(config.train.seed)
    x = images.crops(rng, 2 * len(model.log_gain), config.data.patch).float().cpu() / 255
    u = model.g_a(x) * model.log_gain.exp().repeat(2, 1)[:, :, None, None]
    z = model.hyper_latents(u)
    means: Tensor = model.h_s((z - model.medians).round() + model.medians)[:, model.M :]
    return means.std((0, 2, 3))


@torch.no_grad()
def _pass_on(model: KnownHyperprior, spread: Tensor) -> None:
    """Let the entropy parameters give the scales and means that they get, the latter with what the first
    half of the context adds, which is nothing yet.

    A mean passes leaky ReLUs as two values, it and its negative. The second layer has not as many outputs:
    means that vary least, in steps, pass it lifted above 0.
    """
    M = model.M
    _clear(model.context_prediction, M)
    layers: Any = model.entropy_parameters
    first, second, third = layers[0], layers[2], layers[4]
    eye = torch.eye(M)
    _clear(first, 3 * M)
    first.weight[:M, :M, 0, 0] = eye
    for k, sign in enumerate((1.0, -1.0)):
        rows = slice((k + 1) * M, (k + 2) * M)
        first.weight[rows, M : 2 * M, 0, 0] = sign * eye
        first.weight[rows, 2 * M : 3 * M, 0, 0] = sign * eye
    pairs = len(second.bias) - 2 * M
    order = (spread * model.unit).argsort(descending=True)
    is_pair = torch.zeros(M, dtype=torch.bool)
    is_pair[order[:pairs]] = True
    mean = eye / (1 + _SLOPE)
    _clear(second, 2 * M + pairs)
    second.weight[:M, :M, 0, 0] = eye
    for k, sign in enumerate((1.0, -1.0)):
        columns = slice((k + 1) * M, (k + 2) * M)
        second.weight[M : 2 * M, columns, 0, 0] = sign * mean
        second.weight[2 * M : 2 * M + pairs, columns, 0, 0] = -sign * mean[is_pair]
    lift = torch.where(is_pair, 0.0, _REACH * spread)
    second.bias[M : 2 * M] = lift
    _clear(third, 2 * M)
    third.weight[:M, :M, 0, 0] = eye
    third.weight[M:, M : 2 * M, 0, 0] = torch.where(is_pair, 1 / (1 + _SLOPE), 1.0).diag()
    third.weight[M:, 2 * M : 2 * M + pairs, 0, 0] = -mean[:, is_pair]
    third.bias[M:] = -lift


def _clear(layer: Any, rows: int) -> None:
    layer.weight[:rows].zero_()
    layer.bias[:rows].zero_()
