"""A checkpoint of `factorized` or `adaptive` as the tensors of a weights file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.entropy.classes import check_exact
from licodec.entropy.pdf_transform import quantize_synthesis
from licodec.entropy.tables import BINS
from licodec.errors import UsageError
from licodec.training.codecs.factorized import AdaptiveNetwork, DistributionNets, FactorizedNetwork
from licodec.training.config import Config
from licodec.training.convert.export import log2_integers
from licodec.weights.file import ARITHMETIC, BACK_PROJECTION


def factorized_tensors(
    config: Config, ema: dict[str, Tensor], photographs: str
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a weights file, and metadata of its own.

    A checkpoint of stage (a) gives static tables from its trained bottlenecks; one of stages (b) or
    (c) the best average tables, and the adaptive distributions.

    Raises:
        UsageError: its tables are not set yet.
    """
    tensors: dict[str, NDArray[Any]] = {
        k: v.half().numpy() for k, v in ema.items() if k.startswith(("g_a.", "g_s."))
    }
    tensors["log_gain"] = ema["log_gain"].float().numpy()
    if config.train.stage == "transforms":
        tensors["prior"] = log2_integers(trained_prior(config, ema))
    else:
        tensors |= _adaptive(config, ema)
    return tensors, {"arithmetic": ARITHMETIC, "groups": str(config.model.groups)}


def trained_prior(config: Config, ema: dict[str, Tensor]) -> Tensor:
    """log2 of the trained bottlenecks' mass in each bin: (K, M, BINS + 1)."""
    K, M = len(config.model.lambdas), config.model.M
    model = FactorizedNetwork(config.model.N, M, config.model.lambdas)
    model.load_state_dict(ema)
    bins = torch.arange(BINS, dtype=torch.float32) - BINS // 2
    with torch.no_grad():
        _, mass = model.bottleneck(bins.repeat(K * M, 1)[None], training=False)
    mass = mass.reshape(K, M, BINS).double()
    escape = (1 - mass.sum(-1, keepdim=True)).clamp(min=2.0**-20)
    return torch.cat([mass.clamp(min=2.0**-24), escape], -1).log2()


def _adaptive(config: Config, ema: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    model = AdaptiveNetwork(config.model)
    model.load_state_dict(ema)
    context_weights = ema["context_weights"].numpy().astype(np.int16)
    check_exact(context_weights)
    return {
        **distribution_tensors(model),
        "class_prior": log2_integers(ema["class_prior"]),
        "context.order": ema["context_order"].numpy().astype(np.int16),
        "context.weights": context_weights,
        "context.thresholds": ema["context_thresholds"].numpy(),
        BACK_PROJECTION: ema["back_projection"].float().numpy(),
    }


def distribution_tensors(nets: DistributionNets) -> dict[str, NDArray[Any]]:
    """As licodec.entropy.image_distributions reads them.

    Raises:
        UsageError: their tables are not set yet.
    """
    if not nets.z_prior.any():
        raise UsageError("the checkpoint has no tables yet: they are set at its first validation")
    return {
        "prior": log2_integers(nets.prior),
        "z_prior": log2_integers(nets.z_prior),
        **{f"h_a.{k}": v.half().numpy() for k, v in nets.h_a.state_dict().items()},
        **quantize_synthesis(nets.h_s),
    }
