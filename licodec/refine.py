"""Latents refined by descent: what an encoder finds by searching, and no decoder notices.

g_a is one for all images and rates. Each image's latents can be better than what it makes of it: a descent
on R + λD moves them, D by its gradient through g_s, R by the Gaussians that they are coded with. Rounding
is softened, less with each round, so that latents end where rounding them changes little.

Campos et al. 2019, "Content adaptive optimization for neural image compression"; the soft rounding
is that of Agustsson and Theis 2020, "Universally quantized neural compression".
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from licodec.gaussian import MEAN_UNIT, Forecast
from licodec.progress import track
from licodec.transforms import STRIDE, Box, Pair, cut, tiles

Integers = NDArray[np.int32]

_STEP = 0.15
"""Of the way to where a latent's own curvature says that the cost is least: latents move all at once, and
g_s mixes them. It falls to 0 over the rounds."""
_LARGEST_STEP = 0.3
_SHARPNESS = (1.0, 8.0)
"""Of the soft rounding, in the first round and in the last."""
_CURVATURE = 12.0
"""Of λD over a latent, in bits by a square step: gains make it much the same for all channels and rates (7
to 25, where high-rate theory has 6/ln 2 · 2 = 17)."""
_LEAST_VARIANCE = 0.02
_LEAST_MASS = 1e-30


@torch.inference_mode(False)  # a caller's own would leave no way back through g_s
def refine(
    pair: Pair, y: Integers, gain: NDArray[np.float32], forecast: Forecast, lmbda: float,
    color: NDArray[np.uint8], opacity: NDArray[np.uint8] | None, rounds: int, precise: bool,
) -> Integers:  # fmt: skip
    """Latents of less R + λ·255²·mse than y; all (M, h, w), in 1/MEAN_UNIT of a step, not rounded to steps.

    Each tile sees what the tiles before it have become, and stays as it is where it would come out worse.

    Args:
        gain: (M,) what g_a's latents are multiplied by, to be in steps.
        lmbda: weight of the mean squared error on 0 … 255 against bits per pixel.
        color: pixels (H, W, 1 or 3).
        opacity: (H, W) or None; what it hides does not count.
        rounds: steps of the descent, each of which goes through g_s forth and back.
    """
    y = y.copy()
    step = torch.from_numpy(gain)[:, None, None]
    _, h, w = y.shape
    boxes = tiles(h, w, pair.tile, 2 * pair.halo)
    ticks = track(range(len(boxes) * rounds), "refinement")
    for inner, outer in boxes:
        box = np.s_[:, outer[0] : outer[1], outer[2] : outer[3]]
        mean = torch.from_numpy(forecast.means[box]).float() / MEAN_UNIT
        sigma = torch.from_numpy(forecast.scales[forecast.indices[box]])
        curvature = _CURVATURE + 1 / (math.log(2) * (sigma**2 + _LEAST_VARIANCE))
        x, weight = _pixels(color, opacity, outer)
        weight *= lmbda * 255**2 / len(x)
        start = torch.from_numpy(y[box]).float() / MEAN_UNIT - mean
        d = start.clone()
        for i, _ in zip(range(rounds), ticks, strict=False):
            sharpness = float(np.interp(i / max(1, rounds - 1), (0, 1), _SHARPNESS))
            v, slope_of_v = soft_round(d, sharpness)
            slope = pair.slope((v + mean) / step, x, weight, precise) / step
            slope += rate_slope(v, sigma)
            change = _STEP * (1 - i / rounds) * slope_of_v * slope / curvature
            d -= change.clamp_(-_LARGEST_STEP, _LARGEST_STEP)
        costs = []
        for steps in (start.round(), d.round()):
            distortion = pair.distortion((steps + mean) / step, x, weight, precise)
            costs.append(distortion + float(bits(steps, sigma).sum(dtype=torch.float64)))
        if costs[1] < costs[0]:
            top, bottom, left, right = inner
            found = cut(torch.round((d + mean) * MEAN_UNIT), inner, outer, 1)
            y[:, top:bottom, left:right] = found.int().numpy()
    return y


def _pixels(
    color: NDArray[np.uint8], opacity: NDArray[np.uint8] | None, box: Box
) -> tuple[Tensor, Tensor]:
    """x (C, H, W) in 0 … 1 within a box of latent positions, and a weight (H, W) that is 0 where nobody
    sees it: beyond the image's border, and where it is transparent."""
    top, bottom, left, right = (side * STRIDE for side in box)
    x = torch.from_numpy(color[top:bottom, left:right]).permute(2, 0, 1).float() / 255
    weight = torch.ones(x.shape[1:])
    if opacity is not None:
        weight *= torch.from_numpy(opacity[top:bottom, left:right] > 0)
    missing = (0, right - left - x.shape[2], 0, bottom - top - x.shape[1])
    return F.pad(x, missing), F.pad(weight, missing)


def soft_round(d: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """d drawn towards whole numbers, and how that changes with d; both of its shape."""
    middle = d.floor() + 0.5
    t = torch.tanh(sharpness * (d - middle))
    half = 0.5 / math.tanh(sharpness / 2)
    return middle + half * t, half * sharpness * (1 - t * t)


def _mass(v: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ends of the step about |v|, in sigmas, and the mass of a Gaussian about 0 between them."""
    low, high = (v.abs() - 0.5) / sigma, (v.abs() + 0.5) / sigma
    return low, high, 0.5 * (torch.erfc(low * 0.5**0.5) - torch.erfc(high * 0.5**0.5))


def bits(v: Tensor, sigma: Tensor) -> Tensor:
    """The bits of v under a Gaussian about 0 integrated over a step."""
    return -_mass(v, sigma)[2].clamp(min=_LEAST_MASS).log2()


def rate_slope(v: Tensor, sigma: Tensor) -> Tensor:
    """How these bits change with v."""
    low, high, mass = _mass(v, sigma)
    density = torch.exp(-0.5 * low**2) - torch.exp(-0.5 * high**2)
    bits = density / (mass.clamp(min=_LEAST_MASS) * sigma * math.log(2) * math.sqrt(2 * math.pi))
    return torch.sign(v) * bits
