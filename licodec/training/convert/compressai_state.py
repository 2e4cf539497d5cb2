"""A run's weights as the state dict of CompressAI's own class."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from licodec.architectures import Architecture
from licodec.errors import UsageError, mismatch
from licodec.networks.hyper import HyperNetworks
from licodec.training.codecs.compressai_layers import EntropyBottleneck, model_architectures
from licodec.training.codecs.hyperprior import take_units
from licodec.training.config import Config


def compressai_class(architecture: Architecture, N: int, M: int) -> Any:
    """CompressAI's own network, not trained.

    Its networks with attention have M = N; where M differs, ours stand for it, which have the same names.
    """
    network: Any = model_architectures[architecture.compressai]
    if not architecture.has_attention:
        return network(N, M)
    network = network(N)
    if M != N:
        ours = HyperNetworks(architecture, N, M)
        for name, part in ours.named_children():
            setattr(network, name, part)
    return network


def compressai_state(config: Config, ema: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full state of CompressAI's own class, in float32, and log_gain (K, M) and lambdas (K,); with
    several lambdas, the bottleneck has their K·N channels."""
    settings = config.model
    network = compressai_class(settings.architecture, settings.N, settings.M)
    network.entropy_bottleneck = EntropyBottleneck(len(settings.lambdas) * settings.N)
    state = {k: v for k, v in ema.items() if k not in ("log_gain", "unit")}
    try:
        missing, unexpected = nn.Module.load_state_dict(network, state, strict=False)
    except RuntimeError as error:
        raise UsageError(f"the checkpoint does not fit its config: {mismatch(error)}") from error
    if unexpected:
        raise UsageError(f"the checkpoint holds {unexpected[0]}, which {settings.arch} has not")
    learnt = {name for name, _ in network.named_parameters()} | {"unit", "log_gain"}
    if lacks := sorted(learnt & {*missing, *({"unit", "log_gain"} - ema.keys())}):
        raise UsageError(f"the checkpoint lacks {lacks[0]}")
    take_units(network, ema["unit"])
    _set_tails(network.entropy_bottleneck)
    network.update(force=True)
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64)
    return {**network.state_dict(), "log_gain": ema["log_gain"].float(), "lambdas": lambdas}


@torch.no_grad()
def _set_tails(bottleneck: Any, tail_mass: float = 1e-9) -> None:
    """Put the outer quantiles where the mass beyond them is tail_mass, at most 512 from the median.

    CompressAI makes its tables between them; it trains them with an optimizer of their own.
    """
    target = math.log(2 / tail_mass - 1)
    medians = bottleneck.quantiles[:, :, 1:2].clone()
    for side, sign in ((0, -1.0), (2, 1.0)):
        near, far = torch.zeros_like(medians), torch.full_like(medians, 512.0)
        for _ in range(32):
            middle = (near + far) / 2
            logits = bottleneck._logits_cumulative(medians + sign * middle, stop_gradient=True)
            inside = sign * logits < target
            near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        bottleneck.quantiles[:, :, side : side + 1] = medians + sign * far
