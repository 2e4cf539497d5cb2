"""EXIF's first directory, read within bounds: a few bytes may claim to hold gigabytes, and Pillow believes
some of them. What is too large is found here, before Pillow looks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import IO, NamedTuple

from licodec.errors import UnsupportedImageError

MAX_BYTES = 2**16
"""Of EXIF that is taken over: what a JPEG holds in one piece."""

_HARMLESS = 2**20
"""Bytes of values that may overlap, as damage makes them, without an image being refused for it."""

PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112

DIRECTORIES = {34665, 34853, 40965}
"""EXIF, GPS and interoperability: tags whose value is where another directory is."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of a value of each TIFF type."""

_WHOLE = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}


class Entry(NamedTuple):
    """A tag as it stands in a directory.

    Attributes:
        size: bytes of its values; 0 where they lie beyond the end.
        value: those that stand in the directory itself, or where they are.
    """

    tag: int
    kind: int
    length: int
    size: int
    value: bytes


def entries(file: IO[bytes], at: int | None = None) -> tuple[str, list[Entry]]:
    """The byte order, < or >, and a directory of TIFF or EXIF; no entries where there is none.

    Args:
        file: without EXIF's prefix.
        at: where the directory is; the first one by default.
    """
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    kind = {b"*\0": "LHL4s", b"\0*": "LHL4s", b"+\0": "QQQ8s", b"\0+": "QQQ8s"}.get(head[2:4])
    if not order or kind is None:
        return "<", []
    pointer, number, layout = order + kind[0], order + kind[1], f"{order}HH{kind[2:]}"
    try:
        (first,) = struct.unpack_from(pointer, head, 4 if kind[0] == "L" else 8)
        end = file.seek(0, 2)
        file.seek(first if at is None else at)
        (count,) = struct.unpack(number, file.read(struct.calcsize(number)))
        raw = file.read(min(count, 2**16) * struct.calcsize(layout))
    except (struct.error, OSError, ValueError, OverflowError):
        return order, []
    raw = raw[: len(raw) // struct.calcsize(layout) * struct.calcsize(layout)]
    return order, list(_sized(pointer, end, struct.iter_unpack(layout, raw)))


def _sized(pointer: str, end: int, raw: Iterator[tuple[int, int, int, bytes]]) -> Iterator[Entry]:
    for tag, kind, count, value in raw:
        size = count * _SIZES.get(kind, 0)
        if size > len(value) and struct.unpack(pointer, value)[0] + size > end:
            size = 0
        yield Entry(tag, kind, count, size, value)


def _total(file: IO[bytes]) -> int:
    """Bytes of the values of the first directory and of those below it."""
    order, found = entries(file)
    below = [
        entries(file, struct.unpack_from(order + "L", entry.value)[0])[1]
        for entry in found
        if entry.tag in DIRECTORIES and entry.kind in (4, 13)
    ]
    return sum(entry.size for directory in (found, *below) for entry in directory)


def is_bounded(content: bytes) -> bool:
    """Whether an EXIF's values take no more bytes than it has: one that overlaps them can take thousands
    of times as many."""
    return _total(BytesIO(content)) <= len(content)


def orientation(content: bytes) -> int | None:
    """1 … 8; None where nothing is said, 1 where nothing sensible is. Only the beginning is read."""
    order, found = entries(BytesIO(content[:MAX_BYTES]))
    for entry in found:
        if entry.tag == ORIENTATION:
            if entry.length != 1 or entry.kind not in _WHOLE:
                return 1
            (value,) = struct.unpack_from(order + _WHOLE[entry.kind], entry.value)
            return int(value) if 1 <= value <= 8 else 1
    return None


def refuse_bombs(file: IO[bytes]) -> None:
    """Look at what Pillow reads of an image file as it opens it.

    Raises:
        UnsupportedImageError: more than there ought to be.
    """
    start = file.read(4)
    file.seek(0)
    if start[:2] in (b"II", b"MM"):
        turns = [entry.size for entry in entries(file)[1] if entry.tag == ORIENTATION]
        if _total(file) > max(file.seek(0, 2), _HARMLESS) or any(size > 8 for size in turns):
            raise UnsupportedImageError("its TIFF tags say to hold more bytes than the file has")
    elif start[:3] == b"\xff\xd8\xff":
        content = _jpeg_exif(file)
        if len(content) > MAX_BYTES or _total(BytesIO(content)) > _HARMLESS:
            raise UnsupportedImageError("its EXIF says to hold more bytes than it can have")


def _jpeg_exif(file: IO[bytes]) -> bytes:
    """The EXIF of a JPEG file, all of its pieces; no more than are needed to see that they are too many."""
    content = b""
    file.seek(2)
    while len(content) <= MAX_BYTES:
        head = file.read(4)
        marker = head[:2]
        if len(head) < 4 or marker[0] != 0xFF or marker in (b"\xff\xda", b"\xff\xd9"):
            break
        if marker[1] == 0xFF:  # a fill byte
            file.seek(-3, 1)
            continue
        length = int.from_bytes(head[2:], "big")
        if length < 2:
            break
        if marker == b"\xff\xe1":
            segment = file.read(length - 2)
            content += segment.removeprefix(PREFIX) if segment.startswith(PREFIX) else b""
        else:
            file.seek(length - 2, 1)
    return content
