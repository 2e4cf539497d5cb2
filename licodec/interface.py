"""What the codec asks of an architecture: its transforms and its entropy model, and how they are found.

    pixels ─ Transforms.analyze ─► y ─ EntropyModel.code_latents(Encoder) ─► stream
    pixels ◄─ Transforms.synthesize ─ ŷ ◄─ EntropyModel.code_latents(Decoder) ─ stream

`position` is the place on a weights file's rate axis, 0 … (K-1)·STEPS; `visible` (h, w) are the latents that
reach a visible pixel, None standing for all. y and ŷ are integers in 1/latent_unit of a step.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from licodec.errors import ModelMissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from licodec.architectures import Architecture
    from licodec.rangecoder import Coder
    from licodec.weights.file import Weights

    Pixels = NDArray[np.uint8]
    Integers = NDArray[np.int32]
    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]


class Transforms(Protocol):
    """g_a and g_s, between pixels (H, W, 1 or 3) and y (M, h, w); one channel stands for three alike.

    Attributes:
        M: channels of y.
        halo: latent positions around one that its pixels depend on.
    """

    M: int
    halo: int

    def analyze(
        self, color: Pixels, gain: Floats, precise: bool = ..., back_projection: float = ...
    ) -> Integers:
        """y times gain (M,), with so much of its back-projection, rounded; in bounded memory."""

    def features(self, color: Pixels, precise: bool = ..., back_projection: bool = ...) -> Floats:
        """y (1, M, h, w) before gain and rounding, or with its back-projection (2, M, h, w); for whoever
        tries several gains."""

    def synthesize(
        self, y: Integers, gain: Floats, height: int, width: int, channels: int, precise: bool = ...
    ) -> Pixels:
        """The pixels (height, width, channels) of ŷ; of an exact architecture, gain is what a unit of ŷ is in
        g_s."""

    def is_reduced(self, precise: bool) -> bool:
        """Whether `precise` makes these compute in less than float32."""


class EntropyModel(Protocol):
    """What codes y: one traversal for both directions, and what the encoder chooses before it."""

    def side_information(self, y: Integers, position: int, visible: Mask | None = None) -> Any:
        """The encoder's choice of what goes ahead of y, which may be overwritten."""

    def side_bits(self, side: Any, position: int) -> float:
        """Information of the side stream under its tables."""

    def quantize(self, y: Integers, side: Any, position: int) -> Integers:
        """ŷ as a decoder would get it for y and its side information, which is found out where it is None."""

    def code_latents(
        self,
        coder: Coder,
        position: int,
        h: int,
        w: int,
        y: Integers | None = None,
        side: Any = None,
        visible: Mask | None = None,
    ) -> Integers:
        """Code side stream and latents, and return ŷ; the decoder passes neither y nor side.

        Latents that are not visible do not matter: a model may leave them out, and return 0.
        """


def check(architecture: Architecture, weights: Weights) -> None:
    """Hold a weights file against what its architecture needs.

    Raises:
        ModelMissingError: something is missing or is not what it must be.
    """
    named(architecture.schema)(weights)


def transforms(
    architecture: Architecture, weights: Weights, device: str, precision: str
) -> Transforms:
    """The architecture's g_a and g_s.

    Args:
        device: auto, cpu or cuda.
        precision: auto, float32 or bf16.

    Raises:
        UsageError: there is no such device.
    """
    made: Transforms = named(architecture.transforms).of(weights, device, precision)
    return made


def entropy_model(architecture: Architecture, weights: Weights, adaptive_z: bool) -> EntropyModel:
    """The architecture's entropy model.

    Args:
        adaptive_z: code ẑ by the image's own distributions, which the weights must have.

    Raises:
        ValueError: it would not compute exactly.
    """
    kind = named(architecture.entropy_model)
    made: EntropyModel = kind(weights, True) if adaptive_z else kind(weights)
    return made


def named(place: str) -> Any:
    """What stands at `module:name`.

    Raises:
        ModelMissingError: it needs PyTorch, and that is not installed.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModelMissingError("this needs PyTorch: pip install torch") from error
