"""y to integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quantize(
    features: NDArray[np.float32], gain: NDArray[np.float32], back_projection: float = 0.0
) -> NDArray[np.int32]:
    """y (M, h, w) times gain (M,), rounded half to even.

    Args:
        features: y alone (1, M, h, w), or with its back-projection (2, M, h, w).
        back_projection: how much of it is added to y.
    """
    out = np.empty(features.shape[1:], dtype=np.int32)
    some = max(1, 2**18 // out[0].size)  # channels at once: few of them, for large images
    for c in range(0, len(out), some):
        part = slice(c, c + some)
        y = features[0, part]
        if back_projection:
            y = y + np.float32(back_projection) * features[1, part]
        u = y * gain[part, None, None]
        out[part] = np.rint(u, out=u)
    return out
