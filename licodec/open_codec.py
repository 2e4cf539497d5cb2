"""An opened codec: the parts of an architecture over one weights file, and what they do at each quality."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec import interface, memory
from licodec.architectures import BY_NAME, Architecture
from licodec.container import Container, refuse_sparse
from licodec.entropy.tables import exp2, interpolate
from licodec.entropy.threads import take_share
from licodec.errors import DamagedFileError, ModelMissingError
from licodec.interface import EntropyModel, Transforms
from licodec.io import alpha
from licodec.io.image import Picture
from licodec.options import DecodeOptions, EncodeOptions
from licodec.rangecoder import LATENTS_PER_BYTE
from licodec.tiles import STRIDE, positions
from licodec.weights import catalogue
from licodec.weights import file as weights_file
from licodec.weights.file import Weights

Latents = NDArray[np.int32]

_PRECISE_FROM = 140


def is_precise(quality_step: int) -> bool:
    """Whether bf16 transforms would show: they cost 0.012 dB at quality 70 of 100, 0.026 at the best."""
    return quality_step > _PRECISE_FROM


@dataclass(frozen=True)
class Codec:
    """An architecture's parts over one weights file, ready to code pictures."""

    architecture: Architecture
    weights: Weights
    transforms: Transforms
    entropy_model: EntropyModel
    adaptive_z: bool = False

    def analyze(self, picture: Picture, quality_step: int) -> Latents:
        """y (M, h, w), in 1/latent_unit."""
        share = self.back_projection(quality_step)
        precise = is_precise(quality_step)
        return self.transforms.analyze(picture.color, self.gain(quality_step), precise, share)

    def search(
        self,
        picture: Picture,
        analyze: Callable[[], Latents],
        quality_step: int,
        rounds: int,
    ) -> tuple[Latents, Any]:
        """y after a search, and the side information that it was made for, which is None where none was made.

        Args:
            analyze: makes y (M, h, w), in 1/latent_unit. Nobody else shall hold it: it is large.
            rounds: of the search; 0 for none.
        """
        if not rounds:
            return analyze(), None
        search: Any = interface.named(self.architecture.search)
        found: tuple[Latents, Any] = search(self, picture, analyze, quality_step, rounds)
        return found

    def synthesize(
        self, y_hat: Latents, height: int, width: int, mode: str, quality_step: int
    ) -> NDArray[np.uint8]:
        """The pixels (height, width, 1 or 3) that ŷ stands for.

        Args:
            y_hat: (M, h, w), in 1/latent_unit.
            height, width: of the picture.
            mode: one of container.MODES.
        """
        channels = 3 if mode.startswith("RGB") else 1
        is_exact = self.architecture.is_exact
        gain: Any = self.exact_unit(quality_step) if is_exact else self.gain(quality_step)
        precise = is_precise(quality_step)
        return self.transforms.synthesize(y_hat, gain, height, width, channels, precise)

    def position(self, quality_step: int) -> int:
        """On the rate axis of the weights."""
        return self.weights.position(quality_step)

    def lmbda(self, quality_step: int) -> float:
        """λ, or 0 where the weights do not tell."""
        return self.weights.lmbda(self.position(quality_step))

    def gain(self, quality_step: int) -> NDArray[np.float32]:
        """(M,) what y is multiplied by before rounding."""
        gain = self.weights.gain(self.position(quality_step))
        return gain * np.float32(self.architecture.latent_unit)

    def back_projection(self, quality_step: int) -> float:
        """How much of y's back-projection is added to it."""
        return self.weights.back_projection(self.position(quality_step))

    def visible(self, opacity: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
        """The latent positions (h, w) that reach a visible pixel; None stands for all."""
        if opacity is None or opacity.all():
            return None
        return alpha.visible_positions(opacity, STRIDE, self.transforms.halo)

    def least_bytes(self, height: int, width: int) -> int:
        """Of the payload of so many pixels."""
        h, w = positions(height, width)
        return self.transforms.M * h * w // LATENTS_PER_BYTE

    def refuse_short(self, container: Container) -> None:
        """Hold a file's payload against its latents.

        Raises:
            DamagedFileError: it is too short for so many.
        """
        if len(container.payload) < self.least_bytes(container.height, container.width):
            raise DamagedFileError(
                f"{len(container.payload)} bytes cannot hold {container.width}x{container.height} pixels"
            )

    def exact_unit(self, quality_step: int) -> NDArray[np.float64]:
        """(M,) what a unit of ŷ is in an exact g_s."""
        steps = self.weights["log2_step"]
        return exp2(interpolate(steps, self.position(quality_step), weights_file.STEPS))


def open_codec(options: EncodeOptions) -> tuple[Codec, int]:
    """The codec that options name, and the rounds of its search.

    Raises:
        ModelMissingError: the weights are not installed, or not what their model needs.
        UsageError: the options ask for what the model, its weights or the machine have not.
    """
    choice = catalogue.choose(options)
    model = choice.path, choice.name, choice.adaptive_z
    with _LOADING:
        return _codec(*model, options.device, options.precision), choice.rounds


def codec_of(container: Container, options: DecodeOptions) -> Codec:
    """The codec that a file needs.

    Raises:
        ModelMissingError, UsageError
        DamagedFileError: its weights do not offer what its header says, or its payload is too short.
        TooLargeError: few bytes ask for much work.
    """
    with _LOADING:
        path = weights_file.by_hash(container.model_hash, options.weights_path).path
        name, adaptive_z = catalogue.coded_by(path, container.adaptive)
        if name is None:
            raise DamagedFileError("a flag in the header does not suit the weights")
        codec = _codec(path, name, adaptive_z, options.device, options.precision)
    codec.refuse_short(container)
    refuse_sparse(container, options.max_pixels)
    return codec


_LOADING = threading.Lock()
"""Threads of a batch share codecs, each loaded once."""


def _after_fork() -> None:
    """A forked process would wait for ever for a thread of its parent that is loading."""
    global _LOADING
    _LOADING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=4)
def _transforms(path: Path, device: str, precision: str) -> tuple[Weights, Transforms]:
    """Checked weights, and g_a and g_s, which all models of a file share."""
    weights = weights_file.load(path)
    architecture = BY_NAME[catalogue.models(path)[0]]
    if not architecture.is_exact:
        memory.need_libraries()
    interface.check(architecture, weights)
    take_share()
    return weights, interface.transforms(architecture, weights, device, precision)


@lru_cache(maxsize=8)
def _codec(path: Path, name: str, adaptive_z: bool, device: str, precision: str) -> Codec:
    weights, transforms = _transforms(path, device, precision)
    try:
        model = interface.entropy_model(BY_NAME[name], weights, adaptive_z)
    except ValueError as error:  # sums that would not be exact
        raise ModelMissingError(f"{path}: {error}") from error
    return Codec(BY_NAME[name], weights, transforms, model, adaptive_z)
