"""Stage (a): the transforms, and what goes with them, on R + λD."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from licodec.progress import track
from licodec.training.codecs.factorized import FactorizedNetwork
from licodec.training.codecs.hyperprior import HyperpriorNetwork
from licodec.training.config import Config
from licodec.training.data import Images, central
from licodec.training.objective import balanced, by_rate, rate_distortion
from licodec.training.regularizer import Regularizer
from licodec.training.stages.stage import precision, rounded
from licodec.training.start import hyperprior, klt


class TransformsStage:
    """g_a, g_s, gains and static bottlenecks."""

    regularizer: Regularizer | None = None

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.images, self.device = config, images, device
        self.model = self._start().to(device)
        self.layout = torch.channels_last
        if config.model.architecture.has_attention and device.type == "cpu":
            # In channels_last the gradient of its first 1x1 convolution with stride 2 (3 inputs)
            # writes beyond its memory: torch 2.13, CPU.
            self.layout = torch.contiguous_format
        self.model.to(memory_format=self.layout)  # type: ignore[call-overload]

    def _start(self) -> FactorizedNetwork | HyperpriorNetwork:
        settings, share = self.config.model, self.config.train.back_projection
        model = FactorizedNetwork(settings.N, settings.M, settings.lambdas, share)
        klt.initialize(model, self.config, self.images)
        return model

    def _crops(self, rng: np.random.Generator) -> Tensor:
        """A batch (R·K, 3, H, W) in [0, 1]."""
        data = self.config.data
        x = self.images.crops(rng, data.batch, data.patch).float() / 255
        return x.contiguous(memory_format=self.layout)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        with precision(self.config, self.device):
            loss, (bpp, mse) = network(self._crops(rng), self.config.train.rate_balance)
        return loss, {"bpp": rounded(bpp, 3), "psnr": rounded(-10 * torch.log10(mse), 2)}

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """bpp (likelihoods) and mean PSNR per lambda on the held-out images' central 256 squares."""
        K = len(self.config.model.lambdas)
        bpp, psnr, free = np.zeros(K), np.zeros(K), []
        for image in track(self.images.validation, "validating"):
            x = central(image, 256).float()[None] / 255
            x = x.contiguous(memory_format=self.layout)
            with precision(self.config, self.device):
                for k in range(K):
                    bits, mse = self.model.evaluate(x, k)
                    bpp[k] += float(bits) / len(self.images.validation)
                    psnr[k] += -10 * float(torch.log10(mse)) / len(self.images.validation)
                unquantized = self.model.g_s(self.model.g_a(x)).float().clamp(0, 1)
            free.append(-10 * float(torch.log10(((unquantized - x) ** 2).mean())))
        lambdas = np.array(self.config.model.lambdas)
        costs = rate_distortion(bpp, 10 ** (-psnr / 10), lambdas)
        return {
            "val_objective": round(float(balanced(costs, lambdas, 0.4)), 4),
            "val_bpp": rounded(bpp, 4),
            "val_psnr": rounded(psnr, 3),
            "val_psnr_unquantized": round(float(np.mean(free)), 2),
        }


class HyperpriorStage(TransformsStage):
    """The codecs with a hyperprior, whole, on R + λD − α H_q(X|X̂); α is 0 without a regularizer."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        if config.regularizer:
            architecture = config.model.architecture
            self.regularizer = Regularizer(architecture, config.regularizer, device)

    def _start(self) -> HyperpriorNetwork:
        settings, surrogate = self.config.model, self.config.train.surrogate
        model = HyperpriorNetwork(
            settings.architecture, settings.N, settings.M, settings.lambdas, surrogate
        )
        hyperprior.initialize(model, self.config, self.images)
        return model

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        """As any stage's. With a regularizer, q has made its update when this returns."""
        K = len(self.config.model.lambdas)
        lambdas = torch.tensor(self.config.model.lambdas, device=self.device)
        x = self._crops(rng)
        with precision(self.config, self.device):
            bpp, mse, x_hat = network(x)
        costs = by_rate(rate_distortion(bpp, mse, lambdas.repeat(len(x) // K)), K)
        bpp, mse = by_rate(bpp.detach(), K), by_rate(mse.detach(), K)
        figures: dict[str, Any] = {
            "bpp": rounded(bpp, 3),
            "psnr": rounded(-10 * torch.log10(mse), 2),
        }
        if self.regularizer:
            with precision(self.config, self.device):
                figures["conditional_bpp"] = round(float(self.regularizer.learn(x, x_hat)), 4)
                if self.regularizer.alpha:
                    costs = costs - by_rate(self.regularizer.reward(x, x_hat), K)
        return balanced(costs, lambdas, self.config.train.rate_balance), figures

    def validate(self) -> dict[str, Any]:
        """As in stage (a); and H_q(X|X̂) over the training steps since the last time."""
        figures = super().validate()
        return figures | (self.regularizer.figures() if self.regularizer else {})
