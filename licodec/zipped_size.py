"""How large a picture is without loss, roughly and at once: what tells drawings from photographs."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_BANDS, _BAND = 4, 16
"""Rows that are looked at."""


def zipped_size(samples: NDArray[np.uint8]) -> float:
    """Bytes that zlib makes of changes from pixel to pixel, by some rows."""
    height = len(samples)
    tops = range(0, height, _BAND)
    tops = tops[:: max(1, len(tops) // _BANDS)]
    packed = rows = 0
    for top in tops:
        band = samples[top : top + _BAND]
        change = np.diff(band, axis=1, prepend=np.zeros_like(band[:, :1]))
        packed += len(zlib.compress(change.tobytes(), 1))
        rows += len(band)
    return packed * height / rows
