"""How much of its back-projection everyday's encoder adds to y: what serves each anchor best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.distortion import in_db
from licodec.entropy.quadtree import Quadtree
from licodec.entropy.tables import exp2
from licodec.networks.everyday import LATENT_LIMIT, LATENT_UNIT, EverydayTransforms
from licodec.progress import track
from licodec.quantize import quantize
from licodec.rangecoder import Encoder
from licodec.weights.file import STEPS

_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_EVERY = 3
"""Of the photographs, one in so many tells how much of it serves."""
_WORTH = 0.004
"""What it must win of R + λD, for an encoder to take twice as long."""
MOST_DB = 78.0
"""A picture's PSNR at most, so that a mean exists."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def anchors(
    tensors: Mapping[str, NDArray[Any]], lambdas: list[float], photographs: list[Pixels]
) -> tuple[Floats, NDArray[np.float64]]:
    """(K,) strengths with the least R + λD at each anchor, 0 where that is not worth the time, and the mean
    PSNR of the photographs with them.

    Args:
        tensors: of a weights file of everyday.
        lambdas: (K,) of R in bits per pixel + λ · mse on 0 … 255.
        photographs: (H, W, 3) each.
    """
    codec = _Anchors(tensors, photographs)
    strengths, psnr = np.zeros(len(lambdas), np.float32), np.zeros(len(lambdas))
    some = range(0, len(photographs), _EVERY)
    for k, lmbda in track(list(enumerate(lambdas)), "back-projection"):
        costs = [sum(codec.cost(i, k, lmbda, 0.0) for i in some)]
        for strength in _STRENGTHS[1:]:
            costs.append(sum(codec.cost(i, k, lmbda, strength) for i in some))
            if costs[-1] > costs[-2]:
                break
        if min(costs) < (1 - _WORTH) * costs[0]:
            strengths[k] = _STRENGTHS[costs.index(min(costs))]
        for i, x in enumerate(photographs):
            psnr[k] += min(MOST_DB, in_db(codec.coded(i, k, strengths[k])[1], x.size))
    psnr /= len(photographs)
    return strengths, psnr


class _Anchors:
    """Photographs as they are coded at anchors."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], photographs: list[Pixels]) -> None:
        self.tensors, self.photographs = tensors, photographs
        self.transforms, self.model = EverydayTransforms(tensors), Quadtree(tensors)
        self.features = [self.transforms.features(x, True, True) for x in photographs]

    def cost(self, i: int, k: int, lmbda: float, strength: float) -> float:
        """R + λD of a photograph, in bits."""
        bits, error = self.coded(i, k, strength)
        return bits + lmbda * error / self.photographs[i].shape[2]

    def coded(self, i: int, k: int, strength: float) -> tuple[int, int]:
        """Its bits, and the sum of squared errors of its samples."""
        x = self.photographs[i]
        gain = np.exp(self.tensors["log_gain"][k].astype(np.float32)) * np.float32(LATENT_UNIT)
        y = quantize(self.features[i], gain, strength).clip(-LATENT_LIMIT, LATENT_LIMIT)
        side = self.model.side_information(y, k * STEPS)
        encoder, (_, h, w) = Encoder(), y.shape
        y_hat = self.model.code_latents(encoder, k * STEPS, h, w, y, side)
        step = exp2(self.tensors["log2_step"][k])
        x_hat = self.transforms.synthesize(y_hat, step, x.shape[0], x.shape[1], 3)
        error = int(np.square(x_hat.astype(np.int64) - x).sum())
        return 8 * len(encoder.finish()), error
