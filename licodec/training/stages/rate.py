"""The rate of a codec with a hyperprior whose transforms are known: a step is several times as fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from licodec.tiles import STRIDE
from licodec.training.codecs.hyperprior import (
    HyperpriorNetwork,
    KnownHyperprior,
    KnownTransforms,
)
from licodec.training.config import Config
from licodec.training.data import Images, window
from licodec.training.fit.counts import latents
from licodec.training.objective import balanced, by_rate
from licodec.training.stages.stage import precision, rounded
from licodec.training.stages.transforms import HyperpriorStage
from licodec.training.start import context, hyperprior


class RateStage(HyperpriorStage):
    """h_a, h_s and the rest that decides the rate, from cached latents of whole images."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        with precision(config, device):
            self.latents = latents(self.model, images.train, device)

    def _start(self) -> HyperpriorNetwork:
        settings = self.config.model
        model = KnownTransforms(settings.architecture, settings.N, settings.M, settings.lambdas)
        hyperprior.initialize(model, self.config, self.images)
        return model

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        data = self.config.data
        lambdas = torch.tensor(self.config.model.lambdas, device=self.device)
        some = self.images.choose(rng, data.batch)
        y = torch.stack([window(self.latents[i][0], data.patch // STRIDE, rng) for i in some])
        y = y.to(self.device, torch.float32).contiguous(memory_format=self.layout)
        with precision(self.config, self.device):
            bpp = by_rate(network(y), len(lambdas))
        loss: Tensor = balanced(bpp, lambdas, self.config.train.rate_balance)
        return loss, {"bpp": rounded(bpp.detach(), 3)}


class ContextStage(RateStage):
    """Context and entropy parameters on top of a trained codec with a hyperprior, which stays as it is."""

    def _start(self) -> HyperpriorNetwork:
        settings = self.config.model
        model = KnownHyperprior(settings.architecture, settings.N, settings.M, settings.lambdas)
        context.initialize(model, self.config, self.images)
        return model
