"""Rate control: the quality whose file has a wanted size, or whose decoded image a wanted PSNR."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from licodec.container import QUALITY_STEPS
from licodec.errors import UnreachableTargetError, UsageError

DEFAULT_QUALITY = 50.0

TOLERANCE = 0.02
"""A file that is this much smaller than wanted still counts as reaching it."""

_MOST = 1e300
"""Of a target: larger whole numbers are too large for arithmetic in floats."""

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "Ki": 2**10, "Mi": 2**20}


@dataclass(frozen=True)
class Target:
    """What a file shall come to, by one of three measures; exactly one is set.

    Attributes:
        size: bytes of the file, at most.
        bpp: bits of the file per pixel, at most.
        psnr: dB of the decoded image against the encoded one, at least.
    """

    size: float | None = None
    bpp: float | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        targets = {"size": self.size, "bpp": self.bpp, "PSNR": self.psnr}
        ((name, value),) = ((name, v) for name, v in targets.items() if v is not None)
        if not 0 < value <= _MOST:
            raise UsageError(f"a target {name} is a number above 0, not {value}")

    def bytes(self, pixels: int) -> float | None:
        """The size in bytes, for an image of so many pixels; None where the target is a PSNR."""
        return self.size if self.bpp is None else self.bpp * pixels / 8

    def notes(self, quality: float, size: int, pixels: int) -> list[str]:
        """What a person should know of the file: its quality, size in bytes, and pixels."""
        wanted = self.bytes(pixels)
        if wanted is None:
            return ["quality 0, the lowest, reaches the target already"] if quality == 0 else []
        if quality == 100 and size < wanted * (1 - TOLERANCE):
            return ["quality 100, the best, takes less than the target"]
        return []


def rate_control(
    quality: float | None, size: float | None, bpp: float | None, psnr: float | None
) -> float | Target:
    """The quality or the target that was given; quality 50 where none was.

    Raises:
        UsageError: more than one, or one out of range.
    """
    targets = [v for v in (size, bpp, psnr) if v is not None]
    for value in (quality, *targets):
        if value is not None and not isinstance(value, Real):
            raise UsageError(f"a quality or target is a number, not {value!r}")
    if len(targets) + (quality is not None) > 1:
        raise UsageError("quality, target size, target bpp and target PSNR exclude each other")
    if targets:
        return Target(size, bpp, psnr)
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 0 <= quality <= 100:
        raise UsageError(f"quality {quality} is not within 0 … 100")
    return quality


def quality_step(quality: float) -> int:
    """The header's quality 0 … QUALITY_STEPS for a user's 0 … 100."""
    return round(quality * QUALITY_STEPS / 100)


def parse_size(text: str) -> float:
    """Bytes of 60000, 60k (1000), 60Ki (1024), 1.5M or 1Mi, with or without a final B.

    Raises:
        UsageError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(Ki|Mi|k|M|)B?", text.strip())
    if not match:
        raise UsageError(f"{text!r} is no size; write 60000, 60k, 1.5M or 64Ki")
    return float(match[1]) * _SUFFIXES[match[2]]


def highest_within_size(size: Callable[[int], int], wanted: float) -> int:
    """The highest quality step whose file has at most so many bytes; the last where all have.

    Args:
        size: step, 0 … QUALITY_STEPS, to bytes; rising, but for local noise and, for flat or hidden
            images, at the lowest qualities.

    Raises:
        UnreachableTargetError: even the lowest steps have more.
    """
    low = 0
    while size(low) > wanted:
        higher = low + QUALITY_STEPS // 8
        if higher > QUALITY_STEPS or size(higher) >= size(low):
            raise UnreachableTargetError(
                f"{wanted:.0f} bytes cannot be reached: "
                f"quality {low * 100 / QUALITY_STEPS:g} takes {size(low)}"
            )
        low = higher
    return _last_up_to(lambda s: math.log(size(s)), math.log(wanted), low)


def lowest_with_psnr(psnr: Callable[[int], float], wanted: float) -> int:
    """The lowest quality step whose image has at least so many dB; 0 where all have.

    Args:
        psnr: step to dB; rising, but for local noise.

    Raises:
        UnreachableTargetError: the highest step has less.
    """
    step = _last_up_to(psnr, wanted)
    if step < 0:
        return 0
    if psnr(step) >= wanted:
        return step
    if step == QUALITY_STEPS:
        raise UnreachableTargetError(
            f"{wanted:g} dB cannot be reached: quality 100 gives {psnr(step):.2f} dB"
        )
    return step + 1


def _last_up_to(measure: Callable[[int], float], wanted: float, low: int = 0) -> int:
    """The last step from `low` on whose measure is at most wanted, or -1, by interpolation and bisection in
    turn: the one is close after a probe or two, the other moves the end that the first would leave alone.
    """
    high = QUALITY_STEPS
    at_low, at_high = measure(low), measure(high)
    if at_low > wanted:
        return -1
    if at_high <= wanted:
        return QUALITY_STEPS
    interpolate = True
    while high - low > 1:
        share = 0.5
        if interpolate and math.isfinite(at_high):
            share = (wanted - at_low) / (at_high - at_low)
        middle = min(high - 1, max(low + 1, low + round(share * (high - low))))
        value = measure(middle)
        if value <= wanted:
            low, at_low = middle, value
        else:
            high, at_high = middle, value
        interpolate = not interpolate
    return low
