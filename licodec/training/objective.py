"""What all stages minimize: R + λD, summed over the rates."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_MIDDLE = 0.013
"""The λ whose loss is not scaled."""


def rate_distortion(bpp: Any, mse: Any, lambdas: Any) -> Any:
    """R + λD of bits per pixel and mean squared errors on 0 … 1; all of one shape."""
    return bpp + lambdas * 255**2 * mse


def balanced(costs: Any, lambdas: Any, rate_balance: float) -> Any:
    """The mean () of costs at lambdas, both (K,), each divided by its lambda to a power: high rates shall not
    outweigh the low ones."""
    return ((lambdas / _MIDDLE) ** -rate_balance * costs).mean()


def by_rate(values: Tensor, K: int) -> Tensor:
    """The means (K,) of what patches (R·K,) have come to, patch i being coded at rate i mod K."""
    return values.reshape(-1, K).mean(0)
