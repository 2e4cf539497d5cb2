"""Better latents by descent: what an encoder finds by searching, and no decoder notices.

g_a is one for all images and rates. Each image's latents can be better than what it makes of it: a descent
on R + λD moves them, D by its gradient through g_s, R by the Gaussians that they are coded with. Rounding
is softened, less with each round, so that latents end where rounding them changes little.

Campos et al. 2019, "Content adaptive optimization for neural image compression"; the soft rounding
is that of Agustsson and Theis 2020, "Universally quantized neural compression".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from licodec.entropy.gaussian import Forecast
from licodec.entropy.hyperprior import Hyperprior
from licodec.io.image import Picture
from licodec.open_codec import Codec, is_precise
from licodec.progress import track
from licodec.tiles import STRIDE, Box, cut, tiles

Integers = NDArray[np.int32]
Mask = NDArray[np.bool_]

_STEP = 0.15
"""Of the way to where a latent's own curvature says that the cost is least: latents move all at once, and
g_s mixes them. It falls to 0 over the rounds."""
_LARGEST_STEP = 0.3
_SHARPNESS = (1.0, 8.0)
"""Of the soft rounding, in the first round and in the last."""
_LEAST_VARIANCE = 0.02
_LEAST_MASS = 1e-30


class Searchable(Protocol):
    """Transforms with a slope.

    Attributes:
        curvature: of λD over a latent, in bits by a square step: gains make it much the same for all channels
            and rates (where high-rate theory has 6/ln 2 · 2 = 17).
    """

    tile: int
    halo: int
    curvature: float

    def slope(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> Tensor:
        """How Σ weight · (x̂ - x)² changes with y (M, h, w)."""

    def distortion(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> float:
        """Σ weight · (x̂ - x)²."""


class Rate(NamedTuple):
    """What a search weighs, and in which units.

    Attributes:
        lmbda: weight of the mean squared error on 0 … 255 against bits per pixel.
        unit: latents are in this fraction of a step.
        gain: (M,) what g_s's latents are multiplied by, to be in steps.
        precise: compute in float32.
    """

    lmbda: float
    unit: int
    gain: NDArray[np.float32]
    precise: bool


def search(
    codec: Codec,
    picture: Picture,
    analyze: Callable[[], Integers],
    quality_step: int,
    rounds: int,
) -> tuple[Integers, Any]:
    """y (M, h, w) after so many rounds, and the side information that it was made for; `analyze` makes y."""
    y = analyze()
    model = cast(Hyperprior, codec.entropy_model)
    position, unit = codec.position(quality_step), codec.architecture.latent_unit
    side = model.side_information(y, position)
    gain, precise = codec.weights.gain(position), is_precise(quality_step)
    rate = Rate(codec.lmbda(quality_step), unit, gain, precise)
    transforms = cast(Searchable, codec.transforms)
    found = descend(
        transforms, picture, y, lambda y: model.forecast(y, side, position), rate, rounds
    )
    return found, side


@torch.inference_mode(False)  # a caller's own would leave no way back through g_s
def descend(
    transforms: Searchable,
    picture: Picture,
    y: Integers,
    forecast: Callable[[Integers], Forecast],
    rate: Rate,
    rounds: int,
) -> Integers:
    """Latents of less R + λ·255²·mse than y; all (M, h, w), in 1/unit of a step, not rounded to steps.

    Each tile sees what the tiles before it have become. It stays as it was where it comes out worse.

    Args:
        picture: what alpha hides of it does not count.
        forecast: what latents would be coded with; asked again when they have moved.
        rounds: steps of the descent, each of which goes through g_s forth and back.
    """
    _, h, w = y.shape
    boxes = tiles(h, w, transforms.tile, 2 * transforms.halo)
    ticks = track(range(len(boxes) * rounds), "search")
    halfway = (rounds + 1) // 2
    found = y
    for part in filter(None, (range(halfway), range(halfway, rounds))):
        known = forecast(found)
        found = found.copy()
        for inner, outer in boxes:
            tile = _Tile(transforms, picture, outer, known, rate)
            d = tile.steps(found)
            for i, _ in zip(part, ticks, strict=False):
                progress = i / max(1, rounds - 1)
                tile.descend(d, 1 - i / rounds, float(np.interp(progress, (0, 1), _SHARPNESS)))
            latents = tile.latents(d).round().int()
            if part.stop == rounds and tile.cost(d) >= tile.cost(tile.steps(y)):
                latents = torch.from_numpy(y[tile.box])
            top, bottom, left, right = inner
            found[:, top:bottom, left:right] = cut(latents, inner, outer, 1).numpy()
    return found


class _Tile:
    """A part of an image, and the latents that it is made of.

    Attributes:
        box: where the latents are.
        mean, sigma: of the Gaussians that they are coded with, in steps.
        x: pixels (C, H, W) in 0 … 1.
        weight: (H, W) bits that a squared error of 1 is worth; 0 where nobody sees it: beyond the image's
            border, and where it is transparent.
    """

    def __init__(
        self, transforms: Searchable, picture: Picture, outer: Box, forecast: Forecast, rate: Rate
    ) -> None:
        self.transforms, self.precise, self.unit = transforms, rate.precise, rate.unit
        self.gain = torch.from_numpy(rate.gain)[:, None, None]
        top, bottom, left, right = outer
        self.box = np.s_[:, top:bottom, left:right]
        self.mean = torch.from_numpy(forecast.means[self.box]).float() / rate.unit
        self.sigma = torch.from_numpy(forecast.scales[forecast.indices[self.box]])
        top, bottom, left, right = (side * STRIDE for side in outer)
        x = torch.from_numpy(picture.color[top:bottom, left:right]).permute(2, 0, 1).float() / 255
        weight = torch.full_like(x[0], rate.lmbda * 255**2 / len(x))
        if picture.alpha is not None:
            weight *= torch.from_numpy(picture.alpha[top:bottom, left:right] > 0)
        missing = (0, right - left - x.shape[2], 0, bottom - top - x.shape[1])
        self.x, self.weight = F.pad(x, missing), F.pad(weight, missing)

    def steps(self, y: NDArray[Any]) -> Tensor:
        """What a whole image's latents are here, in steps from their means."""
        return torch.from_numpy(y[self.box]).float() / self.unit - self.mean

    def latents(self, d: Tensor) -> Tensor:
        """These in 1/unit again."""
        return (d + self.mean) * self.unit

    def descend(self, d: Tensor, pace: float, sharpness: float) -> None:
        """One step of the descent, in place; pace falls from 1."""
        v, slope_of_v = soft_round(d, sharpness)
        slope = self.transforms.slope(self._y(v), self.x, self.weight, self.precise) / self.gain
        slope += rate_slope(v, self.sigma)
        curvature = self.transforms.curvature + 1 / (
            math.log(2) * (self.sigma**2 + _LEAST_VARIANCE)
        )
        change = _STEP * pace * slope_of_v * slope / curvature
        change.clamp_(-_LARGEST_STEP, _LARGEST_STEP)
        d -= change

    def cost(self, d: Tensor) -> float:
        """R + λD in bits, once d is rounded."""
        v = d.round()
        distortion = self.transforms.distortion(self._y(v), self.x, self.weight, self.precise)
        return distortion + float(bits(v, self.sigma).sum(dtype=torch.float64))

    def _y(self, v: Tensor) -> Tensor:
        """What g_s takes."""
        return (v + self.mean) / self.gain


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
