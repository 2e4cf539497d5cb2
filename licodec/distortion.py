"""How far decoded pixels are from a picture's own."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from licodec.io.image import Picture


def squared_error(
    picture: Picture, decoded: NDArray[np.uint8], top: int = 0, left: int = 0
) -> tuple[int, int]:
    """The sum of squared errors, and the samples it is of: those that alpha does not hide.

    Args:
        decoded: (h, w, 1 or 3), the pixels from row `top` and column `left` on.
    """
    total = samples = 0
    for i, row in enumerate(decoded, top):
        place = i, slice(left, left + len(row))
        error = picture.color[place].astype(np.int32) - row
        if picture.alpha is not None:
            error = error[picture.alpha[place] > 0]
        total += int((error * error).sum(dtype=np.int64))
        samples += error.size
    return total, samples


def in_db(total: int, samples: int) -> float:
    """The PSNR of a sum of squared errors; infinite for none."""
    return 10 * math.log10(255**2 * samples / total) if total else math.inf


def psnr_db(picture: Picture, decoded: NDArray[np.uint8]) -> float:
    """Of decoded pixels (H, W, 1 or 3) against a picture's colours, where alpha does not hide them."""
    return in_db(*squared_error(picture, decoded))
