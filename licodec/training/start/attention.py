"""Where attention's transforms begin: Karhunen-Loève transforms of 2x2 blocks, which all else lets pass.

    g_a: four times 2x2 blocks to their strongest components     g_s: four times back, by the same bases

Residual blocks and attention add next to nothing at first. On its way through g_a a component passes a leaky
ReLU, lifted above 0; g_s has a linear path, which takes it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.networks.attention import AttentionBlock, ResidualBlock, ResidualDown, ResidualUp
from licodec.networks.transforms import GDN
from licodec.training.codecs.hyperprior import HyperpriorNetwork
from licodec.training.data import Images
from licodec.training.start.klt import principal

_LIFT = 6.0
"""Standard deviations that a component is lifted by."""
_CLOSED = -4.0
"""What attention's gates start at, before their sigmoid."""
_GAMMA = 1e-3
"""Of GDN, which is to change little at first."""
_DEEPER = 0.3
"""Of the usual spread of fresh weights: what is left of those that a basis does not set."""


@torch.no_grad()
def karhunen_loeve(model: HyperpriorNetwork, images: Images, seed: int) -> None:
    """Set g_a and g_s of a model whose architecture has attention."""
    x = images.crops(np.random.default_rng(seed), 48, 128).float().cpu() / 255
    for module in (*model.g_a.modules(), *model.g_s.modules()):
        _calm(module)
    ups = [m for m in model.g_s if isinstance(m, (ResidualUp, nn.Sequential))][::-1]
    downs = [m for m in model.g_a if isinstance(m, (ResidualDown, nn.Conv2d))]
    for down, up in zip(downs, ups, strict=True):
        if isinstance(down, ResidualDown):
            basis, mean = _set_lifted(down, x)
        else:
            basis, mean, _ = _set_plain(down, x)
        _set_back(up.upsample if isinstance(up, ResidualUp) else up, basis, mean)
        x = down(x)


def _calm(module: nn.Module) -> None:
    """Let a block pass on what it gets."""
    last: Any = None
    if isinstance(module, ResidualBlock):
        last = module.conv2
    elif isinstance(module, ResidualUp):
        last = module.conv
    elif isinstance(module, AttentionBlock):
        last = module.conv_b[-1]
    elif isinstance(module, ResidualDown):
        last = module.skip
    elif isinstance(module, GDN):
        module.gamma.copy_(torch.sqrt(_GAMMA * torch.eye(len(module.beta)) + 2.0**-36))
    if last is not None:
        last.weight.zero_()
        last.bias.fill_(_CLOSED if isinstance(module, AttentionBlock) else 0.0)


def _blocks(x: Tensor) -> Tensor:
    """(n, 4C) of x (B, C, H, W): its 2x2 blocks, channel by channel."""
    return F.unfold(x, 2, stride=2).transpose(1, 2).reshape(-1, 4 * x.shape[1])


def _basis(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The strongest components (k, 4C) of x's blocks, their mean (4C,), and the components' spread (k,)."""
    blocks = _blocks(x)
    mean = blocks.mean(0)
    basis = principal(blocks - mean, min(count, blocks.shape[1]))
    return basis, mean, ((blocks - mean) @ basis.T).std(0)


def _set_plain(conv: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Let a 3x3 convolution of stride 2 give the components of x's blocks, about 0; what `_basis` tells."""
    basis, mean, spread = _basis(x, conv.out_channels)
    _write(conv, basis)
    conv.bias.zero_()
    conv.bias[: len(basis)] = -basis @ mean
    return basis, mean, spread


def _set_lifted(down: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Let a block's own path do that."""
    basis, mean, spread = _set_plain(down.conv1, x)
    lift = torch.zeros(len(down.conv1.bias))
    lift[: len(basis)] = _LIFT * spread
    down.conv1.bias.add_(lift)
    k = len(basis)
    down.conv2.weight.mul_(_DEEPER)
    down.conv2.weight[:k].zero_()
    down.conv2.weight[:k, :k, 1, 1] = torch.eye(k)
    down.conv2.bias.zero_()
    down.conv2.bias[:k] = -lift[:k]
    return basis, mean


def _write(conv: Any, basis: Tensor) -> None:
    """The taps of a block within 3x3 are the lower right four."""
    k, C = len(basis), basis.shape[1] // 4
    conv.weight.mul_(_DEEPER)
    conv.weight[:k].zero_()
    conv.weight[:k, :C, 1:, 1:] = basis.reshape(k, C, 2, 2)


def _set_back(subpixel: Any, basis: Tensor, mean: Tensor) -> None:
    """Let a sub-pixel convolution make blocks of components again."""
    conv = subpixel[0]
    k, rows = basis.shape
    conv.weight.mul_(_DEEPER)
    conv.bias.zero_()
    # PixelShuffle takes channel, row, column, as the blocks have them.
    conv.weight[:rows].zero_()
    conv.weight[:rows, :k, 1, 1] = basis.T
    conv.bias[:rows] = mean
