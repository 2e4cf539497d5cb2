"""Rate-distortion optimized quantization: an encoder's choice of ŷ by what it costs and by how pixels change.

Rounding y takes no account of g_s. Here latents move part of the way from ŷ to where λD is least by its
slope, and are then rounded to the values that cost least in bits and loss. g_s mixes neighbours, so that a
move of all latents at once must be short; further ones start from what the last has come to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from licodec.distortion import squared_error
from licodec.entropy.quadtree import Side
from licodec.networks.everyday import LATENT_LIMIT, LATENT_UNIT
from licodec.networks.everyday_slope import Slope

if TYPE_CHECKING:
    from licodec.entropy.quadtree import Quadtree
    from licodec.io.image import Picture
    from licodec.open_codec import Codec

_SHARE = 0.5
"""Of y itself in where latents go. It falls from move to move."""


def _curvature(share: float) -> float:
    """Of λD over a latent, in bits by a square step, with what neighbours that move alike add."""
    return 22.5 - 5 * share


def _step_bits(share: float) -> float:
    """What a square step of loss is worth in rounding, in bits."""
    return 10 + 12 * share


def search(
    codec: Codec,
    picture: Picture,
    analyze: Callable[[], NDArray[Any]],
    quality_step: int,
    rounds: int,
) -> tuple[NDArray[Any], Side | None]:
    """ŷ of the least R + λD that was met, with side information; y itself without any, where no move serves.

    Args:
        analyze: makes y (M, h, w), in 1/LATENT_UNIT.
        rounds: how often ŷ moves.
    """
    trials = _Trials(codec, picture, analyze(), quality_step)
    if trials.side.z is None:
        return trials.y, trials.side
    for i in range(rounds):
        trials.move(_SHARE * (1 - i / rounds), is_last=i == rounds - 1)
    side = trials.best()
    # What was first is not kept: large pictures have little memory for what is seldom asked for.
    return (analyze(), None) if side is None else (side.y_hat, side)


class _Trials:
    """ŷ as it moves.

    Attributes:
        y: where it came from; gone with the last move.
        side: the present ŷ, and how it is coded.
        cheapest: the cost of the cheapest ŷ so far, and how it is coded, or None for y itself.
    """

    def __init__(self, codec: Codec, picture: Picture, y: NDArray[Any], quality_step: int) -> None:
        self.codec, self.picture, self.quality_step = codec, picture, quality_step
        self.model: Quadtree = codec.entropy_model  # type: ignore[assignment]
        self.y = y
        self.position, self.lmbda = codec.position(quality_step), codec.lmbda(quality_step)
        self.visible = codec.visible(picture.alpha)
        self.shown = None if picture.alpha is None else picture.alpha > 0
        self.slope = Slope(codec.weights)
        self.side = self.model.side_information(y.copy(order="K"), self.position, self.visible)
        self.cheapest: tuple[float, Side | None] = (math.inf, None)

    def move(self, share: float, is_last: bool) -> None:
        """Latents to where λD is less, y having its share in it."""
        target = [self.y.astype(np.int16, copy=not is_last)]
        if is_last:
            del self.y
        self._keep(self._displace(target[0], share))
        z = self.side.z
        del self.side  # before the next needs as much
        self.side = self.model.side_information(
            target.pop(), self.position, self.visible, z, _step_bits(share)
        )

    def best(self) -> Side | None:
        """The cheapest, of the last one and those before; None for that of y itself."""
        height, width = self.picture.color.shape[:2]
        x_hat = self.codec.synthesize(
            self.side.y_hat, height, width, self.picture.mode, self.quality_step
        )
        self.side = self.side._replace(x_hat=x_hat)
        self._keep(squared_error(self.picture, x_hat)[0] / x_hat.shape[2])
        return self.cheapest[1]

    def _displace(self, y: NDArray[np.int16], share: float) -> float:
        """Let y, not yet rounded, be where latents go; Σ (x̂ - x)² where they are, a mean over channels."""
        y_hat, target = (plane.transpose(1, 2, 0) for plane in (self.side.y_hat, y))
        way = np.float32(self.lmbda * LATENT_UNIT**2 / _curvature(share))
        unit = self.codec.exact_unit(self.quality_step)
        error = 0.0
        for box, slope, squared in self.slope(y_hat, unit, self.picture.color, self.shown):
            top, bottom, left, right = box
            known, wanted = (plane[top:bottom, left:right] for plane in (y_hat, target))
            found = share * wanted + (1 - share) * (known - way * slope)
            wanted[:] = np.clip(np.rint(found, out=found), -LATENT_LIMIT, LATENT_LIMIT)
            error += squared
        return error

    def _keep(self, error: float) -> None:
        """The present one, if it is the cheapest so far.

        Args:
            error: Σ (x̂ - x)² over pixels, a mean over channels.
        """
        cost = self.model.bits(self.side, self.position) + self.lmbda * error
        if self.cheapest[0] == math.inf:
            self.cheapest = cost, None
        elif cost < self.cheapest[0]:
            self.cheapest = cost, self.side
