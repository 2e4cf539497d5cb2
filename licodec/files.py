"""Files and pipes as the command line sees them: safe in, atomic out."""

from __future__ import annotations

import os
import secrets
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from licodec.errors import LicodecError, UnsupportedImageError, UsageError

STANDARD = "-"


def read(path: str) -> bytes:
    """All bytes of a file, or of standard input for `-`.

    Raises:
        LicodecError: it cannot be read.
    """
    if path == STANDARD:
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name a file or use a pipe")
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LicodecError(error.strerror or str(error)) from error


def open_image(path: str, max_pixels: int) -> Image.Image:
    """An image file, its pixels not yet decoded.

    Raises:
        LicodecError: it cannot be read.
        UnsupportedImageError: no image, or too many pixels.
    """
    Image.MAX_IMAGE_PIXELS = None  # max_pixels is checked here, before pixels are decoded
    try:
        image = Image.open(BytesIO(read(path)) if path == STANDARD else path)
    except UnidentifiedImageError as error:
        raise UnsupportedImageError("not an image that can be read") from error
    except LicodecError:
        raise
    except OSError as error:
        raise LicodecError(error.strerror or str(error)) from error
    except Exception as error:  # foreign decoders raise anything at all
        raise UnsupportedImageError(f"not an image that can be read ({error})") from error
    if image.width * image.height > max_pixels:
        raise UnsupportedImageError(
            f"{image.width}x{image.height} is more than {max_pixels} pixels (--max-pixels)"
        )
    return image


def check_output(path: str, force: bool, source: str | None = None) -> None:
    """Refuse before any work is done what `write` would refuse after it.

    Raises:
        LicodecError: the output exists and force is not set, is the input, or is a terminal.
    """
    if path == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("refusing to write binary data to a terminal; use -o or a pipe")
        return
    target = Path(path)
    if source and source != STANDARD and target.exists() and target.samefile(source):
        raise UsageError("the output is the input itself")
    if target.is_dir():
        raise LicodecError(f"{path} is a directory")
    if target.is_file() and not force:
        raise LicodecError(f"{path} exists; -f overwrites it")
    if not target.parent.is_dir():
        raise LicodecError(f"the folder {target.parent} does not exist")


def write(path: str, data: bytes) -> None:
    """Write a whole file or nothing: a temporary name beside it, then a rename.

    Raises:
        LicodecError: the file system refuses.
    """
    target = Path(path)
    try:
        if path == STANDARD:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if target.exists() and not target.is_file():  # a device or a named pipe
            target.write_bytes(data)
            return
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise  # the reader has seen enough; click ends quietly
    except OSError as error:
        raise LicodecError(f"cannot write {path}: {error.strerror or error}") from error
