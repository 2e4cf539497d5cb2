"""More latent channels for trained transforms: what limits them at high rates is often how few there are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from licodec.errors import UsageError
from licodec.training.codecs.factorized import Factorized
from licodec.training.data import Images


def start_latents(model: Factorized, count: int, images: Images, seed: int) -> None:
    """Give the last `count` latent channels of trained transforms a start, the others as they are.

    With S what g_s's first layer gives, and h what g_a's last layer sees: the channels are those
    `count` linear functions of h, 2x2 positions of it, that tell best by which S ought to change, one
    preconditioned step against the gradient of the squared error (a reduced-rank regression).

    Raises:
        UsageError: there are fewer such functions.
    """
    N = model.g_s[0].get_parameter("weight").shape[1]
    if count > 4 * N:
        raise UsageError(f"train.init has {count} latent channels too few; {4 * N} can be added")
    rng = np.random.default_rng(seed)
    head, last = model.g_a[:-1], model.g_a[-1]
    first, rest = model.g_s[0], model.g_s[1:]
    inputs, wanted = [], []
    for _ in range(8):
        x = images.crops(rng, 40, 128).float().cpu() / 255
        with torch.no_grad():
            h = head(x)
            S = first(last(h))
        S.requires_grad_(True)
        ((rest(S) - x) ** 2).sum().backward()
        assert S.grad is not None
        inputs.append(_blocks(h).double())
        wanted.append(-_blocks(S.grad).double())
    H, G = torch.cat(inputs), torch.cat(wanted)
    mean = H.mean(0)
    H -= mean
    with torch.no_grad():
        few = S[:4].detach()
        curvature = []
        for channel in range(few.shape[1]):
            noise = torch.randn(few[:, channel].shape) * 0.05 * few[:, channel].std()
            moved = few.clone()
            moved[:, channel] += noise
            changed = rest(moved) - rest(few.clone())
            curvature.append((changed**2).sum() / (noise**2).sum())
        J = torch.stack(curvature).double()
        weight = (J + 0.1 * J.median()).repeat_interleave(4)[:, None]
        covariance = H.T @ H / len(H)
        ridge = 1e-3 * float(covariance.trace()) / len(covariance)
        covariance += ridge * torch.eye(len(covariance))
        step = (G.T @ H / len(H)) @ torch.linalg.inv(covariance) / weight
        U, _, _ = torch.linalg.svd(weight.sqrt() * step @ torch.linalg.cholesky(covariance))
        columns = U[:, :count] / weight.sqrt()
        rows = U[:, :count].T @ (weight.sqrt() * step)
        spread = (rows @ covariance * rows).sum(1).sqrt()
        rows, columns = rows / spread[:, None], columns * spread
        last.get_parameter("weight")[-count:, :, 2:4, 2:4] = rows.reshape(count, -1, 2, 2).float()
        last.get_parameter("bias")[-count:] = -(rows @ mean).float()
        first.get_parameter("weight")[-count:, :, 2:4, 2:4] = (
            0.05 * columns.T.reshape(count, -1, 2, 2).float()
        )
        # Rounded to 0 everywhere, they would never be used: 0.7 steps of standard deviation at the top.
        lambdas = torch.tensor(model.lambdas)
        model.log_gain[:, -count:] = (0.7 * (lambdas / lambdas.max()).sqrt()).log()[:, None]


def _blocks(features: Tensor) -> Tensor:
    """(B, C, H, W) to (B·H/2·W/2, 4C): 2x2 positions each."""
    C = features.shape[1]
    return torch.nn.functional.unfold(features, 2, stride=2).transpose(1, 2).reshape(-1, 4 * C)
