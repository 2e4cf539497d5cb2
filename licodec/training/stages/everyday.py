"""Training of the everyday codec: every image of a batch at a rate of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from licodec.progress import track
from licodec.training.codecs.everyday import Everyday, KnownTransforms
from licodec.training.config import Config
from licodec.training.data import Images, central
from licodec.training.objective import balanced, rate_distortion
from licodec.training.regularizer import Regularizer
from licodec.training.stages.stage import precision, rounded
from licodec.training.start.everyday import initialize

_GRAPHICS_WEIGHT = 0.25
"""Of a drawn crop's loss: its gradients are several times as large as a photograph's."""


class EverydayStage:
    """All of the codec on R + λD, balanced over the rates."""

    regularizer: Regularizer | None = None
    codec: type[Everyday] = Everyday
    model: Everyday

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.images, self.device = config, images, device
        model = self.codec.of(config.model)
        initialize(model, config, images)
        self.model = model.to(device)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        data = self.config.data
        crops, is_drawn = self.images.marked_crops(rng, data.batch, data.patch)
        x = crops.float().permute(0, 2, 3, 1) / 255
        t = self.rates(len(x), rng)
        lmbda = self.model.lmbda(t)
        with precision(self.config, self.device):
            bpp, costs = self.costs(network, x, t, lmbda)
        weight = torch.from_numpy(np.where(is_drawn, _GRAPHICS_WEIGHT, 1.0)).to(lmbda)
        loss: Tensor = balanced(weight * costs, lmbda, self.config.train.rate_balance)
        return loss, {"bpp": round(float(bpp.detach().mean()), 3)}

    def costs(
        self, network: nn.Module, x: Tensor, t: Tensor, lmbda: Tensor
    ) -> tuple[Tensor, Tensor]:
        """bpp (B,) of images (B, H, W, 3) at rates t (B,), and what is to be small."""
        bpp, mse, _ = network(x, t)
        return bpp, rate_distortion(bpp, mse, lmbda)

    def rates(self, count: int, rng: np.random.Generator) -> Tensor:
        """(count,) places on the rate axis, evenly spread; each batch has other ones."""
        shares = (rng.permutation(count) + rng.random(count)) / count
        last = len(self.config.model.lambdas) - 1
        return torch.from_numpy(shares * last).float().to(self.device)

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """bpp (likelihoods) and mean PSNR per λ on the held-out images' central 384 squares."""
        K = len(self.config.model.lambdas)
        bpp, psnr = np.zeros(K), np.zeros(K)
        for image in track(self.images.validation, "validating"):
            x = central(image, 384, 64).float().permute(1, 2, 0)[None] / 255
            for k in range(K):
                with precision(self.config, self.device):
                    bits, _, x_hat = self.model.code(
                        x, torch.tensor([float(k)], device=x.device), False
                    )
                error = (x_hat.clamp(0, 1) * 255).round() / 255 - x
                bpp[k] += float(bits) / len(self.images.validation)
                psnr[k] -= 10 * float(error.square().mean().log10()) / len(self.images.validation)
        lambdas = np.array(self.config.model.lambdas)
        costs = rate_distortion(bpp, 10 ** (-psnr / 10), lambdas)
        objective = balanced(costs, lambdas, self.config.train.rate_balance)
        return {
            "val_objective": round(float(objective), 4),
            "val_bpp": rounded(bpp, 4),
            "val_psnr": rounded(psnr, 3),
        }


class EverydayRateStage(EverydayStage):
    """All that decides the rate, transforms and gains as they are: a crop takes a quarter of the time."""

    codec = KnownTransforms

    def costs(
        self, network: nn.Module, x: Tensor, t: Tensor, lmbda: Tensor
    ) -> tuple[Tensor, Tensor]:
        bpp = network(x, t)
        return bpp, bpp
