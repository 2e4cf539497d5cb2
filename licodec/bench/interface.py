"""A codec as the benchmark sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import Image

from licodec.bench.complexity import Complexity

MOST_QUALITY = 100
"""Of any codec, whatever its units."""


@dataclass(frozen=True)
class Settings:
    """What every adapter of a run shares; it travels to the worker processes.

    Attributes:
        threads: that an encoder or decoder may use.
        device: auto, cpu or cuda, for codecs that are networks.
        checkpoints: (CompressAI architecture, file), in order of quality 1, 2, …
    """

    threads: int = 1
    device: str = "auto"
    checkpoints: tuple[tuple[str, Path], ...] = ()


class Peer(ABC):
    """A codec as the benchmark sees it."""

    name: str
    description: str
    qualities: tuple[float, ...]
    """From worst to best; in the codec's own units."""

    quality_step: float | None = 1
    """How finely the codec's quality may be set; None where there is nothing between qualities."""

    media_type: str | None = None
    """Of its files, where browsers show them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def encode(self, image: Image.Image, quality: float) -> bytes:
        """An RGB image to a whole file."""

    @abstractmethod
    def decode(self, data: bytes) -> Image.Image:
        """A file to an image of the same size."""

    def missing(self) -> str | None:
        """Why this codec cannot run here, if it cannot."""
        return None

    @abstractmethod
    def version(self) -> str:
        """What must be the same for two runs to measure the same codec."""

    def streams(self, data: bytes) -> dict[str, int]:
        """Bytes of each part of a file, where the codec tells."""
        return {}

    def decoder_complexity(self, width: int, height: int) -> Complexity | None:
        """Of decoding one image, where the decoder is a network."""
        return None


def package_version(name: str) -> str | None:
    """Of an installed distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
