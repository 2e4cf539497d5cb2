"""Which images are measured: the files of folders and single files, read once to be sure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from licodec.container import MAX_PIXELS
from licodec.errors import LicodecError, UsageError
from licodec.io.files import FORMATS, has_image_suffix, open_image


class UnreadableImageError(LicodecError):
    """A file that is no image, or whose pixels are not plain 8-bit RGB."""


@dataclass(frozen=True)
class SourceImage:
    """An image that has been read: its file, and the name and pixels it goes by."""

    path: Path
    name: str
    sha256: str
    width: int
    height: int


def collect(paths: Iterable[Path]) -> list[Path]:
    """The files that were named, and the images (by suffix) of the folders that were named.

    Raises:
        UsageError: a path does not exist.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if _looks_like_image(p))
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))


def _looks_like_image(path: Path) -> bool:
    is_named_so = has_image_suffix(path) or path.suffix.lower() == ".jxl"
    return path.is_file() and is_named_so and not path.name.startswith(".")


def examine(path: Path) -> SourceImage:
    """Read a file to the last pixel.

    Raises:
        UnreadableImageError: see load.
    """
    image = load(path)
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    return SourceImage(path, path.name, digest, image.width, image.height)


@lru_cache(maxsize=2)
def load(path: Path) -> Image.Image:
    """The image as 8-bit RGB, without metadata, so that each codec is given the same.

    Raises:
        UnreadableImageError: no image, damaged, 16-bit, or with transparent pixels.
    """
    try:
        with open_image(str(path), MAX_PIXELS, formats()) as image:
            if image.mode.startswith(("I", "F")):
                raise UnreadableImageError(f"{path}: more than 8 bits a sample")
            if image.has_transparency_data and _transparent(image):
                raise UnreadableImageError(f"{path}: has transparent pixels; these codecs take RGB")
            pixels = np.asarray(image.convert("RGB"))
    except (LicodecError, OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        if isinstance(error, UnreadableImageError):
            raise
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        if str(path) not in message:
            message = f"{path}: {message}"
        raise UnreadableImageError(message) from error
    return Image.fromarray(pixels)


def formats() -> tuple[str, ...]:
    """Pillow's names of those that are read: JPEG XL as well, where its plugin is there."""
    return (*FORMATS, *({"JXL"} & set(Image.OPEN)))


def _transparent(image: Image.Image) -> bool:
    return int(np.asarray(image.convert("RGBA"))[..., 3].min()) < 255
