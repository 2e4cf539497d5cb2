"""Paper 2's regularizer: while the codec learns, a model q of x given x̂ learns too, and is thrown away.

    L = R + λ D − α H_q(X|X̂),   H_q(X|X̂) = E[−log2 q(x|x̂)] in bits per pixel      (equation 12)

Each step has two updates (algorithm 1): q's, to maximize the likelihood of x with the codec frozen
(equation 13), then the codec's on L with q frozen.

q has the form of the codec's latent model: one Gaussian for each sample of each pixel, integrated over a unit
interval, with noise of ±½ on x in place of rounding. Images lie in 0 … 1 (levels = 1), as CompressAI has
them and as the paper most likely computed it. With levels = 255 the unit is a level of 0 … 255, x is not
noisy, and H_q is the information of the pixels. Codec → form (paper, section 9):

    scale-hyperprior    scale from x̂; the mean is x̂
    hyperprior          scale and mean from x̂
    autoregressive      scale and mean from x̂ and the pixels of x before this one
    attention           the same, with nets of that codec's shape

x̂ passes a net of the shape of the codec's hyper-synthesis, without its upsampling; the context is
CompressAI's masked convolution and entropy parameters, for 3 channels. Means are predicted as
differences from x̂: the same family of distributions, with a better start.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from licodec.architectures import Architecture
from licodec.networks.hyper import MaskedConv
from licodec.training import config as configs
from licodec.training.codecs.compressai_layers import GaussianConditional

_UNITS = {1: 0.5, 255: 16.0}
"""Levels for each 1 that the nets put out: their outputs stay near 1."""


class SourceEntropyModel(nn.Module):
    """q(x|x̂). Images are (B, 3, H, W) on 0 … 1, x in whole 255ths.

    Args:
        architecture: the codec whose form it takes.
        width: inner channels.
        levels: 1 or 255, what 0 … 1 is stretched to.
    """

    def __init__(self, architecture: Architecture, width: int, levels: int = 1) -> None:
        super().__init__()
        self.architecture, self.levels = architecture, levels
        self.h_s = _synthesis(architecture, width)
        last: Any = self.h_s[-1]
        if architecture.has_context:
            self.context_prediction = MaskedConv(3, 6)
            self.entropy_parameters = nn.Sequential(
                nn.Conv2d(12, 10, 1),
                nn.LeakyReLU(),
                nn.Conv2d(10, 8, 1),
                nn.LeakyReLU(),
                nn.Conv2d(8, 6, 1),
            )
            last = self.entropy_parameters[-1]
        # Scales, the first three outputs, start at 8 levels of 255, or at a quarter of one; means at x̂.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[:3], 0.5)
        self.conditional = GaussianConditional(None)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """−log2 q(x|x̂) of each image, in bits per pixel: (B,)."""
        noise = torch.rand_like(x) - 0.5 if self.levels == 1 else torch.zeros_like(x)
        return -torch.log2(self.likelihoods(x, x_hat, noise)).sum(1).mean((1, 2))

    def likelihoods(self, x: Tensor, x_hat: Tensor, noise: Tensor) -> Tensor:
        """q of each sample given x̂ and, where there is a context, the pixels of x before it; at least 1e-9.

        Args:
            noise: added to x, in levels.
        """
        x_hat = x_hat.contiguous(memory_format=torch.channels_last)
        params = self.h_s(x_hat - 0.5)
        if self.architecture.has_context:
            context = self.context_prediction(x - 0.5)
            params = self.entropy_parameters(torch.cat([params, context.to(params.dtype)], 1))
        params = _UNITS[self.levels] * params.float()
        scales, offsets = params[:, :3], params[:, 3:]
        means = self.levels * x_hat.float()
        if self.architecture.has_means:
            means = means + offsets
        with torch.autocast(x.device.type, enabled=False):
            value = (255 * x).round() if self.levels == 255 else x
            likelihoods: Tensor = self.conditional._likelihood(value + noise, scales, means)
            return self.conditional.likelihood_lower_bound(likelihoods)  # type: ignore[no-any-return]


def _synthesis(architecture: Architecture, width: int) -> nn.Sequential:
    """The codec's h_s at full resolution: x̂ (B, 3, H, W) to (B, 3 or 6, H, W)."""

    def conv(inputs: int, outputs: int, kernel_size: int = 5) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)

    wide = width * 3 // 2
    if not architecture.has_means:
        return nn.Sequential(
            conv(3, width), nn.ReLU(), conv(width, width), nn.ReLU(), conv(width, 3, 3)
        )
    if architecture.has_attention:
        return nn.Sequential(
            conv(3, width, 3),
            nn.LeakyReLU(),
            conv(width, width, 3),
            nn.LeakyReLU(),
            conv(width, wide, 3),
            nn.LeakyReLU(),
            conv(wide, wide, 3),
            nn.LeakyReLU(),
            conv(wide, 6, 3),
        )
    return nn.Sequential(
        conv(3, width), nn.LeakyReLU(), conv(width, wide), nn.LeakyReLU(), conv(wide, 6, 3)
    )


class Regularizer:
    """q and its own Adam, beside the codec and never part of it.

    Built after torchrun's processes have met, q is the same in all of them and stays so.
    """

    def __init__(
        self,
        architecture: Architecture,
        settings: configs.RegularizerSettings,
        device: torch.device,
    ) -> None:
        self.alpha = settings.alpha
        self.q = SourceEntropyModel(architecture, settings.width, settings.levels).to(device)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=settings.lr)
        self._network: nn.Module = self.q
        if dist.is_initialized():
            self._network = DistributedDataParallel(self.q, device_ids=None)
        self._bits, self._steps = 0.0, 0

    def learn(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """First update: q on reconstructions that it cannot change. Its H_q(X|X̂) before, ()."""
        bits: Tensor = self._network(x, x_hat.detach()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        bits.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.q.parameters() if p.grad is not None]
        if all(bool(torch.isfinite(g).all()) for g in gradients):
            self.optimizer.step()
        self._bits += float(bits.detach())
        self._steps += 1
        return bits.detach()

    def reward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Second update: α H_q(X|X̂) of each patch (B,), for the codec alone; q is frozen in it."""
        frozen = {name: value.detach() for name, value in self.q.state_dict().items()}
        bits: Tensor = torch.func.functional_call(self.q, frozen, (x, x_hat))
        return self.alpha * bits

    def figures(self) -> dict[str, float]:
        """H_q(X|X̂) over the steps since this was last asked, in bits per pixel."""
        mean = self._bits / max(1, self._steps)
        self._bits, self._steps = 0.0, 0
        return {"conditional_bpp": round(mean, 4)}

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q.load_state_dict(state["q"])
        self.optimizer.load_state_dict(state["optimizer"])
