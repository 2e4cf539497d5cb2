"""Files and pipes as the command line sees them: safe in, atomic out."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from licodec import signals
from licodec.container import (
    HEADER_BYTES,
    MAX_BYTES_PER_PIXEL,
    MAX_METADATA,
    MAX_OVERHEAD,
    MAX_PIXELS,
    SIGNATURE,
    is_intact,
    most_bytes,
    refuse_large,
    unpack_header,
)
from licodec.errors import (
    DamagedFileError,
    FileAccessError,
    LicodecError,
    TooLargeError,
    UnsupportedImageError,
    UsageError,
    said,
)
from licodec.io import libtiff
from licodec.io.exif import refuse_bombs

STANDARD = "-"

# Pillow knows more; but some start a program (EPS), and some recognise anything.
FORMATS = tuple("PNG JPEG WEBP AVIF TIFF GIF BMP DIB PPM JPEG2000 TGA PCX ICO SGI QOI PSD".split())

_CHUNK = 2**20

MOST_BYTES = 2**30
"""Bytes that are read of a .lic file, and of a piped image that does not begin with its size: as much as
MAX_PIXELS take when they are not compressed at all."""

_SMALL = 2**24
"""Bytes of a file of too many pixels that are read to tell damage from size."""


def read(path: str, max_pixels: int) -> bytes:
    """All bytes of a .lic file, or of standard input for `-`; no more than its header accounts for, nor
    than MOST_BYTES.

    Raises:
        FileAccessError: it cannot be read.
        DamagedFileError, NewerFileError, TooLargeError: its header says so already.
    """
    with _opened(path) as file:
        return read_stream(file, max_pixels)


def read_stream(file: IO[bytes], max_pixels: int) -> bytes:
    """The same of a file that is open."""
    head = _taken(file, HEADER_BYTES)
    try:
        most = most_bytes(unpack_header(head, max_pixels))
    except TooLargeError:
        # A flipped bit may say so; whether it did, the checksum knows.
        rest = _taken(file, _SMALL)
        if len(rest) < _SMALL and not is_intact(head + rest):
            raise DamagedFileError("the file is damaged or cut short") from None
        raise
    return _rest(file, head, min(most, MOST_BYTES)).getvalue()


def read_all(path: str) -> bytes:
    """All bytes of a file, or of standard input for `-`, up to MOST_BYTES.

    Raises:
        FileAccessError: it cannot be read.
        TooLargeError: it is longer.
    """
    with _opened(path) as file:
        return _rest(file, b"", MOST_BYTES).getvalue()


def open_image(path: str, max_pixels: int, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """An image file, or standard input for `-`, its pixels not yet decoded.

    Args:
        formats: Pillow's names of those that are recognized.

    Raises:
        FileAccessError: it cannot be read.
        UnsupportedImageError: no image of these formats.
        TooLargeError: too many pixels.
    """
    if path == STANDARD or _is_pipe(path):
        with _opened(path) as file:
            return open_stream(file, max_pixels, formats)
    with _one_family(max_pixels):
        return _open(path, max_pixels, formats)


def open_any(path: str, max_pixels: int) -> Image.Image | bytes:
    """An image as `open_image` gives it, or the bytes of a .lic file."""
    if path != STANDARD and not _is_pipe(path):
        return read(path, max_pixels) if begins_as_lic(path) else open_image(path, max_pixels)
    with _opened(path) as file:
        head = _taken(file, len(SIGNATURE))
        begun = cast("IO[bytes]", _Begun(head, file))
        if head == SIGNATURE:
            return read_stream(begun, max_pixels)
        return open_stream(begun, max_pixels)


@dataclass
class _Begun:
    """A file of which the head was read already, as if it were not."""

    head: bytes
    file: IO[bytes]

    def read(self, count: int) -> bytes:
        given, self.head = self.head[:count], self.head[count:]
        return given or self.file.read(count)


def open_stream(
    file: IO[bytes], max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """The same of a file that is open, and read from where it is."""
    with _one_family(max_pixels):
        return _open(_pipe(file, max_pixels), max_pixels, formats)


def image_of(
    data: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """The same for the bytes of a file."""
    with _one_family(max_pixels):
        return _open(BytesIO(data), max_pixels, formats)


def _open(file: str | BytesIO, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """The only place that lets Pillow look at a file."""
    # Pillow refuses twice as many: an ICO file may hold a larger image than it declares, and is decoded
    # as it is opened. What else there is to hold against the limit is done below.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_METADATA  # of profiles, too; Pillow's own is 1 MiB
    with open(file, "rb") if isinstance(file, str) else nullcontext(file) as head:
        start = head.read(_PREFIX)
        head.seek(0)
        refuse_bombs(head)
        head.seek(0)
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise _unread(start) from error
    refuse_large(image.width, image.height, max_pixels)
    if image.format == "TIFF":
        libtiff.silence()
    return image


_PREFIX = 32
_UNREAD = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
    b"%!": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
}
"""How files begin of formats that people have images in, and that are not read."""
_UNREAD_BRANDS = {
    **dict.fromkeys(b"heic heix heim heis hevc mif1 msf1".split(), "HEIC"),
    **dict.fromkeys(b"avif avis".split(), "AVIF"),
    b"crx ": "raw CR3",
}
"""The same of those whose fifth to eighth bytes are ftyp: what stands there next."""


def _unread(start: bytes) -> UnsupportedImageError:
    """Why an image is none, by its first bytes."""
    if not start:
        return UnsupportedImageError("not an image that can be read: the file is empty")
    if start.startswith(SIGNATURE):
        return UnsupportedImageError("is a .lic file already")
    names = [name for begin, name in _UNREAD.items() if start.startswith(begin)]
    if start[4:8] == b"ftyp" and start[8:12] in _UNREAD_BRANDS:
        names = [_UNREAD_BRANDS[start[8:12]]]
    known = f": {names[0]} is none of the formats here; convert it to PNG first" if names else ""
    return UnsupportedImageError(f"not an image that can be read{known}")


@contextlib.contextmanager
def _one_family(max_pixels: int) -> Iterator[None]:
    """Whatever Pillow raises of a file as one of licodec's own errors."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"it has more than {max_pixels} pixels (--max-pixels)") from error
    except (LicodecError, MemoryError):
        raise
    except OSError as error:
        raise FileAccessError(error.strerror or str(error)) from error
    except Exception as error:  # foreign decoders raise anything at all
        raise UnsupportedImageError(f"not an image that can be read{said(error)}") from error


def _opened(path: str) -> AbstractContextManager[IO[bytes]]:
    if path == STANDARD:
        if sys.stdin is None:
            raise FileAccessError("is closed")
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name a file or use a pipe")
        return nullcontext(sys.stdin.buffer)
    _is_pipe(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise FileAccessError(error.strerror or str(error)) from error


def _is_pipe(path: str) -> bool:
    """Whether this is a named pipe rather than a regular file; devices have no end and are refused."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise FileAccessError(error.strerror or str(error)) from error
    except ValueError as error:  # a zero byte in the name
        raise FileAccessError(str(error)) from error
    if stat.S_ISDIR(mode):
        raise FileAccessError("is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise FileAccessError("is a device, not a file")
    return stat.S_ISFIFO(mode)


def _taken(file: IO[bytes], count: int) -> bytes:
    """So many bytes of a file, and fewer at its end alone: one without a buffer gives what it has.

    Raises:
        FileAccessError: it cannot be read.
        UsageError: what it gives is no bytes.
    """
    pieces = []
    while count > 0:
        try:
            piece = file.read(count)
        except (OSError, ValueError) as error:  # ValueError of a file that is closed
            raise FileAccessError(getattr(error, "strerror", None) or str(error)) from error
        if not isinstance(piece, bytes):
            kind = type(piece).__name__
            raise UsageError(f"a file to read bytes from is wanted; this one gives {kind}")
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _rest(file: IO[bytes], head: bytes, limit: int) -> BytesIO:
    """A file whose head was read, piece by piece, so that an endless pipe stops at the limit."""
    whole = BytesIO(head)
    whole.seek(len(head))
    while piece := _taken(file, _CHUNK):
        if whole.tell() + len(piece) > limit:
            raise TooLargeError(f"has more bytes than such a file can need ({limit:,})")
        whole.write(piece)
    whole.seek(0)
    return whole


def _pipe(file: IO[bytes], max_pixels: int) -> BytesIO:
    """An image from a pipe; its head says how much of it is read, or that it is no image at all."""
    head = _taken(file, _CHUNK)
    limit = MOST_BYTES
    if len(head) == _CHUNK:
        if not _is_known(head[:16]):
            raise _unread(head[:_PREFIX])
        image = _begun(head, max_pixels)
        if image is not None:
            limit = MAX_OVERHEAD + MAX_BYTES_PER_PIXEL * image.width * image.height
    return _rest(file, head, limit)


def _begun(head: bytes, max_pixels: int) -> Image.Image | None:
    """An image that begins so; None for formats that tell no size before all of a file is there."""
    try:
        return _open(BytesIO(head), max_pixels, FORMATS)
    except (Image.DecompressionBombError, LicodecError) as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            return None
        raise
    except Exception:  # foreign decoders raise anything at all
        return None


def _is_known(prefix: bytes) -> bool:
    Image.init()
    accepts = [accept for name in FORMATS if (accept := Image.OPEN[name][1])]
    return any(accept(prefix) for accept in accepts)


def has_image_suffix(path: Path) -> bool:
    """Whether a file found in a folder is named like an image of FORMATS."""
    format = Image.registered_extensions().get(path.suffix.lower())
    return format == "MPO" or format in FORMATS  # MPO: several JPEGs in one file


def is_lic(path: Path) -> bool:
    """Whether a file begins as a .lic file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return True  # taken, so that its error is reported


def refuse_foreign(path: str) -> None:
    """Refuse what does not even begin as a .lic file does; a pipe is not looked into.

    Raises:
        FileAccessError, DamagedFileError, NewerFileError
    """
    if path == STANDARD or _is_pipe(path):
        return
    with _opened(path) as file, contextlib.suppress(TooLargeError):  # which may be damage
        unpack_header(_taken(file, HEADER_BYTES))


def begins_as_lic(path: str) -> bool:
    """Whether a file begins as a .lic file does; a pipe is not looked into.

    Raises:
        FileAccessError: it cannot be read.
    """
    if _is_pipe(path):
        return False
    with _opened(path) as file:
        return _taken(file, len(SIGNATURE)) == SIGNATURE


def refuse_coded(path: str) -> None:
    """Refuse a .lic file where an image is wanted; a pipe is not looked into.

    Raises:
        FileAccessError, UnsupportedImageError
    """
    if path != STANDARD and begins_as_lic(path):
        raise UnsupportedImageError("is a .lic file already")


def check_output(path: str, source: str | None = None) -> None:
    """Refuse before any work is done what `write` would refuse after it.

    Raises:
        UsageError: the output is a terminal or the input.
        FileAccessError: it cannot be written.
    """
    if path == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("refusing to write binary data to a terminal; use -o or a pipe")
        return
    target = Path(path)
    try:
        if source and source != STANDARD and target.exists() and target.samefile(source):
            raise UsageError("the output is the input itself")
        if target.is_dir():
            raise FileAccessError(
                f"{path} is a folder; {path}{os.sep} or --output-dir writes into it"
            )
        if not target.parent.is_dir():
            raise FileAccessError(f"the folder {target.parent} does not exist")
        real = Path(os.path.realpath(path))
        if real.is_symlink() or not real.parent.is_dir():
            raise FileAccessError(f"cannot write {path}: it is a link that leads nowhere")
        if not (real.exists() and not real.is_file()) and not os.access(real.parent, os.W_OK):
            raise FileAccessError(f"cannot write {path}: its folder cannot be written to")
    except OSError as error:
        raise FileAccessError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: str, data: bytes, force: bool) -> None:
    """Write a whole file or nothing: a temporary name beside it, then a rename.

    Args:
        force: overwrite a file that is there, even one that came up meanwhile.

    Raises:
        FileAccessError: the file system refuses, or the file exists.
        BrokenPipeError: the reader of standard output has seen enough.
    """
    target = Path(path)
    try:
        if path == STANDARD:
            write_all(sys.stdout.buffer, data)
            sys.stdout.buffer.flush()
        elif target.exists() and not target.is_file():  # a device or a named pipe
            target.write_bytes(data)
        else:  # through links: whoever made one wants the file that it stands for to be written
            _publish(Path(os.path.realpath(path)), data, force)
    except FileExistsError as error:
        raise FileAccessError(
            f"{path} exists; -o names another output, -f overwrites it"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileAccessError(f"cannot write {path}: {error.strerror or error}") from error


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all bytes to a file, which without a buffer takes as many as it likes.

    Raises:
        OSError: it takes no more.
    """
    written = 0
    while written < len(data):
        count = file.write(data[written:])
        if count is None and not isinstance(file, io.RawIOBase):
            return  # a class of the caller's own, which does not count
        if not count:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        written += count


_creating = threading.Lock()
"""Held while a temporary file comes to be; for ever, once a signal has removed it."""


def _publish(target: Path, data: bytes, force: bool) -> None:
    # The name of the target might leave no room for more characters.
    temporary = target.with_name(f".licodec-{secrets.token_hex(6)}.tmp")

    def remove() -> None:
        _creating.acquire(timeout=0.2)
        temporary.unlink(missing_ok=True)

    with signals.tidied(remove):
        try:
            with _creating:
                file = temporary.open("xb")
            with file:
                if force:
                    _take_mode(file, target)
                file.write(data)
                file.flush()
                os.fsync(
                    file.fileno()
                )  # a machine that loses power keeps the old file or has the new
            _rename(temporary, target, force)
        finally:
            temporary.unlink(missing_ok=True)


def _take_mode(file: IO[bytes], target: Path) -> None:
    """Whoever may read a file is not changed by writing it anew."""
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: where files have no modes
        os.fchmod(file.fileno(), target.stat().st_mode & 0o777)


def _rename(temporary: Path, target: Path, force: bool) -> None:
    if not force:
        try:
            os.link(temporary, target)  # which, unlike a rename, never replaces a file
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links: what is left is to look once more
            if os.path.lexists(target):
                raise FileExistsError from None
    os.replace(temporary, target)
