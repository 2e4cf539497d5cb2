"""Scales that heed the channels before: where these surprised, later ones are coded under wider Gaussians.

h_s tells a scale for every latent from ẑ alone. What is decoded since tells more: a latent that is larger
than its scale promised says that others around it will be, too, and a place that keeps still, that they
will not. Channels are coded one after another, in an order of their own:

    scale's index, latent of channels 0 … i-1 ─ table ─► surprise, at the place and over 3x3 around it
                                                 └─ weights ─► so many scales further up or down for channel i

A surprise is ∂ log p/∂ log σ of the latent under its Gaussian: above 0 where a larger scale would have suited
it better. All of it is integers, carried in float32 whose sums stay below 2^24 and so are exact in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from licodec.contexts import Features, Forecasts
from licodec.gaussian import Gaussians
from licodec.rangecoder import Coder

Integers = NDArray[np.int32]

LARGEST = 64
"""No surprise is larger, to either side."""
REACH = 128
"""Magnitudes from REACH - 1 on surprise alike."""
SHIFT_UNIT = 2**16
"""Forecasts are in this fraction of the way from one scale to the next."""


class Surprises(Forecasts):
    """The corrections of one weights file.

    Args:
        order: (M,) the channels in the order in which they are coded.
        weights: (M, 2M) integers, numbered by coding order; row i is zero from column 2i on.
        table: (scales, REACH) the surprise at a magnitude, by the scale's index.
    """

    def __init__(
        self, order: NDArray[np.int16], weights: NDArray[np.int16], table: NDArray[np.int8]
    ) -> None:
        super().__init__(weights)
        self.order = order.tolist()
        self.table = table

    def code(
        self, coder: Coder, gaussians: Gaussians, values: Integers | None,
        index: NDArray[np.uint8], height: int, width: int,
    ) -> Integers:  # fmt: skip
        """Code integers (M, height · width), however large, about their means.

        Args:
            values: or None when decoding.
            index: (M, height · width) of the scales that h_s tells.
        """
        features = Features(len(self.order), height, width)
        result = np.empty(index.shape, dtype=np.int32)
        for i, channel in enumerate(self.order):
            own = index[channel]
            known = None if values is None else values[channel]
            moved = self.moved(own, self.forecast(i, features))
            result[channel] = coded = gaussians.code(coder, known, moved, None)
            features.add(i, self.of(own, coded).reshape(1, height, width))
        return result

    def moved(self, index: NDArray[np.uint8], forecast: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The indices that latents are coded with, of h_s's own and of forecasts, all of one shape."""
        further = np.floor(forecast / SHIFT_UNIT + 0.5)
        moved: NDArray[np.uint8] = (index + further).clip(0, len(self.table) - 1).astype(np.uint8)
        return moved

    def of(self, index: NDArray[np.uint8], values: Integers) -> NDArray[np.int8]:
        """The surprise at each of values, of the shape of both."""
        # The least int32 has no magnitude among them, but has one as an unsigned integer.
        magnitude = np.minimum(np.abs(values).view(np.uint32), REACH - 1)
        found: NDArray[np.int8] = self.table[index, magnitude]
        return found
