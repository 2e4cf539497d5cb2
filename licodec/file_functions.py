"""encode_file and decode_file: from file to file, as the command line does it."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image, PngImagePlugin

from licodec import codec
from licodec.errors import FileAccessError, UsageError, one_family
from licodec.info import describe
from licodec.io import files
from licodec.io.image import from_pillow
from licodec.io.output import check_quality, contradicts, output_format, to_file
from licodec.options import DecodeOptions, EncodeOptions
from licodec.weights import catalogue

File = str | os.PathLike[str] | IO[bytes]


def encode_file(
    source: File, target: File, *, overwrite: bool = False, check: bool = True, **options: Any
) -> dict[str, Any]:
    """Encode an image file to a .lic file.

    Args:
        source: path or binary file of the image.
        target: path or binary file of the .lic file; a path is written whole or not at all.
        overwrite: replace a target that exists.
        check: note where the file is far worse than its quality promises, or a lossless one is smaller.
        options: as `encode` takes them.

    Returns:
        What `info` says of the file, and `notes`: what was converted or left out.

    Raises:
        LicodecError: as `encode`, or a file cannot be read or written.
    """
    chosen = EncodeOptions(**options)
    model = catalogue.choose(chosen).name
    _check(source, target, overwrite)
    with _pillow(), _opened(source, chosen.max_pixels) as image, one_family():
        picture = from_pillow(image, chosen.strip, chosen.max_error is not None)
    if check:
        data, found = codec.encode_checked(picture, chosen)
    else:
        data, found = codec.encode_picture(picture, chosen), []
    _write(target, data, overwrite)
    row = {**describe(data, chosen.max_pixels), "model": model}
    return {**row, "notes": [*picture.notes, *found]}


def decode_file(
    source: File,
    target: File,
    *,
    format: str | None = None,
    format_quality: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Decode a .lic file to an image file.

    Args:
        source: path or binary file of the .lic file.
        target: path or binary file of the image; a path is written whole or not at all.
        format: png, jpeg, webp, ppm or tiff; by default the target's suffix decides, else png.
        format_quality: 1 … 100, of JPEG and WebP; by default 95, and lossless.
        overwrite: replace a target that exists.
        options: as `decode` takes them.

    Returns:
        `bytes`, `width`, `height`, `mode`, `format`, and `notes` of what the format has no place for.

    Raises:
        LicodecError: as `decode`, or a file cannot be read or written.
    """
    chosen = DecodeOptions(**options)
    _check(source, target, overwrite)
    suffix = Path(_name(target)).suffix if _is_path(target) else ""
    name = suffix if format is None else format
    output_format(name)  # an unknown one is refused before the work
    check_quality(name, format_quality)
    if contradicts(suffix, name):
        raise UsageError(f"the format {name} and the name {target} contradict each other")
    if _is_path(source):
        data = files.read(_name(source), chosen.max_pixels)
    else:
        data = files.read_stream(source, chosen.max_pixels)  # type: ignore[arg-type]
    image = codec.decode_file(data, chosen)
    content, notes = to_file(image, name, format_quality)
    _write(target, content, overwrite)
    return {
        "bytes": len(content),
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "format": output_format(name),
        "notes": notes,
    }


def _is_path(file: File) -> bool:
    return isinstance(file, (str, os.PathLike))


def _name(path: File) -> str:
    """A path as `files` takes it, for which - is no file."""
    name = os.fsdecode(path)  # type: ignore[arg-type]
    return os.path.join(os.curdir, name) if name == files.STANDARD else name


def _check(source: File, target: File, overwrite: bool) -> None:
    if not _is_path(source):
        _check_open(source, "read", "readable")
    if not _is_path(target):
        _check_open(target, "write", "writable")
        return
    name = _name(target)
    files.check_output(name, _name(source) if _is_path(source) else None)
    if not overwrite and os.path.lexists(name):
        raise FileAccessError(f"{name} exists; overwrite=True replaces it")


def _check_open(file: object, does: str, able: str) -> None:
    """Hold an argument that is no path against a binary file that is open."""
    if not callable(getattr(file, does, None)):
        hint = _INSTEAD.get(type(file).__name__, "")
        hint = _INSTEAD["Image"] if isinstance(file, Image.Image) else hint
        raise UsageError(f"a path or a binary file is wanted, not {type(file).__name__}{hint}")
    if isinstance(file, io.TextIOBase):
        raise UsageError("a binary file is wanted, not one of text; open it with 'b' in its mode")
    if getattr(file, "closed", False):
        raise UsageError("the file is closed")
    if isinstance(file, io.IOBase) and not getattr(file, able)():
        raise UsageError(f"the file is not {able}; open it in another mode")


_INSTEAD = {
    "bytes": "; io.BytesIO makes one of bytes",
    "Image": "; licodec.encode takes images",
    "ndarray": "; licodec.encode takes arrays",
}


def _opened(source: File, max_pixels: int) -> Any:
    if _is_path(source):
        return files.open_image(_name(source), max_pixels)
    return files.open_stream(source, max_pixels)  # type: ignore[arg-type]


_users = 0
_before = contextlib.ExitStack()
_counting = threading.Lock()


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Pillow's limits are set for a call; they are the program's own again after the last one at a time."""
    global _users
    with _counting:
        if not _users:
            _before.enter_context(warnings.catch_warnings())
            _before.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            text = PngImagePlugin.MAX_TEXT_CHUNK
            _before.callback(setattr, PngImagePlugin, "MAX_TEXT_CHUNK", text)
        _users += 1
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            if not _users:
                _before.close()


def _write(target: File, data: bytes, overwrite: bool) -> None:
    if _is_path(target):
        files.write(_name(target), data, overwrite)
    else:
        try:
            files.write_all(target, data)  # type: ignore[arg-type]
        except OSError as error:
            raise FileAccessError(f"cannot write: {error.strerror or error}") from error
