"""What a caller of `encode` and `decode` can choose, checked in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

from licodec.container import MAX_PIXELS
from licodec.errors import UsageError
from licodec.rate_control import Target, rate_control

MAX_EFFORT = 20
MAX_ERROR = 126
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bf16")
Z_TABLES = ("static", "adaptive")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How to decode, as `codec.decode` explains; what does not depend on the file is checked here.

    Raises:
        UsageError: a value is of the wrong type or out of range.
    """

    weights: str | Path | None = None
    device: str = "auto"
    precision: str = "auto"
    strip: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_one_of(self.device, "device", DEVICES)
        _check_one_of(self.precision, "precision", PRECISIONS)
        if not isinstance(self.max_pixels, Real):
            raise UsageError(f"max_pixels is a number of pixels, not {self.max_pixels!r}")
        if not isinstance(self.strip, int):
            raise UsageError(f"strip is true or false, not {self.strip!r}")
        if self.weights is None:
            return
        if not isinstance(self.weights, (str, os.PathLike)) or not str(self.weights):
            raise UsageError(f"weights are named by a path, not {self.weights!r}")

    @property
    def weights_path(self) -> Path | None:
        return None if self.weights is None else Path(os.fsdecode(self.weights))


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(DecodeOptions):
    """How to encode, as `codec.encode` explains; at most one of quality and the targets is set."""

    quality: float | None = None
    model: str | None = None
    target_size: float | None = None
    target_bpp: float | None = None
    target_psnr: float | None = None
    z_distributions: str = "static"
    effort: int | None = None
    max_error: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.rate is not None
        if not isinstance(self.model, (str, type(None))):
            raise UsageError(f"a model is named by a string, not {self.model!r}")
        _check_one_of(self.z_distributions, "z-distributions", Z_TABLES)
        if self.model == "":
            raise UsageError("a model needs a name")
        for name, value, most in (
            ("effort", self.effort, MAX_EFFORT),
            ("max_error", self.max_error, MAX_ERROR),
        ):
            if value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= most:
                raise UsageError(f"{name} is a whole number of 0 … {most}, not {value!r}")
            object.__setattr__(self, name, int(value))  # NumPy's own, too, which can overflow
        if self.max_error is not None and isinstance(self.rate, Target):
            raise UsageError("a largest error and a target exclude each other")
        if self.max_error is not None and self.effort:
            raise UsageError("a largest error and a search (effort) exclude each other")

    @property
    def rate(self) -> float | Target:
        """The quality or the target."""
        return rate_control(self.quality, self.target_size, self.target_bpp, self.target_psnr)


def _check_one_of(value: object, name: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        there = f"{', '.join(choices[:-1])} and {choices[-1]}"
        raise UsageError(f"no {name} {value!r}; there are {there}")
