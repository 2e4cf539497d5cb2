"""The .lic container, version 1: header, optional chunks, payload, checksum.

docs/format.md is the normative text; the field names are the same. This file imports neither torch nor
the range coder, so that `licodec info` and the Pillow plugin start fast.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field
from numbers import Real

from licodec.errors import DamagedFileError, NewerFileError, TooLargeError, UsageError

# The high bit shows a 7-bit transfer, the newline a text-mode one, as in PNG.
SIGNATURE = b"\x89LIC\n"
VERSION = 1
MODES = ("L", "LA", "RGB", "RGBA")
MAX_PIXELS = 2**28
"""Default limit on an image, see `refuse_large`; the work of a decoder follows the declared pixels."""
_LEAST_SIDE = 16
"""Pixels that a side counts as, at least: a latent position has so many, be they there or not."""

_FREE_PIXELS = 2**20
_PIXELS_PER_BYTE = 2**12
_LEAST_COUNTED_SIDE = 64
"""Of a strip, which takes longer than its pixels do: hyper-latents cover so many a side."""

QUALITY_STEPS = 200
"""Quality travels as an integer 0 … 200, in halves of a point of 0 … 100."""

# A chunk whose type is a lower-case letter may be skipped by a decoder that does not know it.
ALPHA, ICC, EXIF, XMP = b"A", b"i", b"e", b"x"
_END = b"\0"
_METADATA = {ICC, EXIF, XMP}
_KNOWN = {ALPHA, *_METADATA}
HEADER_BYTES = 32
MAX_METADATA = 2**26
"""Bytes that an unpacked metadata chunk may have."""
MAX_OVERHEAD = 2**28
MAX_BYTES_PER_PIXEL = 16
"""No file is longer than MAX_OVERHEAD + MAX_BYTES_PER_PIXEL · pixels: three full metadata chunks fit
into the one, alpha that does not deflate and nothing but escapes into the other."""


@dataclass(frozen=True)
class Header:
    """The fixed fields at the start of a file.

    Attributes:
        width, height: pixels, at least 1.
        mode: one of MODES.
        adaptive: whether the payload starts with a side stream of encoding distributions.
        model_hash: first 4 bytes of the SHA-256 of the weights that must decode it.
        quality_step: 0 … QUALITY_STEPS.
        side_bytes: how much of the payload the side stream takes, rounded up.
        latents_crc32: CRC-32 of ŷ or, of a model that is exact to the pixel, of the pixels.
    """

    width: int
    height: int
    mode: str
    adaptive: bool
    model_hash: bytes
    quality_step: int
    side_bytes: int
    latents_crc32: int


@dataclass(frozen=True)
class Container(Header):
    """What a .lic file says before any network runs.

    Attributes:
        payload: the range coder's stream: side information, then latents.
        chunks: type byte to unpacked content.
        packed_chunk_bytes: type byte to the chunk's size in the file, set by `unpack`.
    """

    payload: bytes = field(repr=False)
    chunks: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    packed_chunk_bytes: dict[bytes, int] = field(default_factory=dict, compare=False)


def pack(container: Container) -> bytes:
    """The file's bytes."""
    c = container
    flags = VERSION | MODES.index(c.mode) << 3 | c.adaptive << 5 | bool(c.chunks) << 6
    out = [
        SIGNATURE,
        bytes([flags]),
        _varint(c.width - 1),
        _varint(c.height - 1),
        c.model_hash,
        bytes([c.quality_step]),
        _varint(c.side_bytes),
        struct.pack("<I", c.latents_crc32),
    ]
    body = b"".join([*out, pack_chunks(c.chunks), c.payload])
    return body + struct.pack("<I", zlib.crc32(body))


def pack_chunks(chunks: dict[bytes, bytes]) -> bytes:
    """The chunks and the end of their list; nothing at all for none."""
    packed = [_pack_chunk(kind, content) for kind, content in sorted(chunks.items())]
    return b"".join([*packed, _END]) if packed else b""


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> Container:
    """Parse and check a whole file.

    Raises:
        DamagedFileError: not a .lic file, cut short, or altered.
        NewerFileError: of a later version, or with an unknown critical chunk.
        TooLargeError: more than max_pixels, or more bytes than its pixels can need.
    """
    try:
        header, has_chunks, at = _unpack_header(data, max_pixels)
    except TooLargeError:
        if not is_intact(data):
            raise DamagedFileError("the file is damaged or cut short") from None
        raise
    if len(data) > most_bytes(header):
        raise TooLargeError("the file has more bytes than its pixels can need")
    end = len(data) - 4
    if end < at:
        raise DamagedFileError("the file is cut short")
    if not is_intact(data):
        raise DamagedFileError("checksum mismatch: the file is damaged or cut short")
    chunks: dict[bytes, bytes] = {}
    sizes: dict[bytes, int] = {}
    seen = set()
    while has_chunks:
        kind, content, following = _unpack_chunk(data, at, end)
        if kind in seen:
            raise DamagedFileError(f"chunk {kind.decode()} stands twice")
        seen.add(kind)
        if kind in _KNOWN:
            chunks[kind] = content
            sizes[kind] = following - at
        at = following
        has_chunks = kind != _END
    if (ALPHA in chunks) != header.mode.endswith("A"):
        raise DamagedFileError("the alpha chunk does not go with the mode of the image")
    payload = data[at:end]
    if header.side_bytes > len(payload):
        raise DamagedFileError("the side stream is longer than the file")
    return Container(**vars(header), payload=payload, chunks=chunks, packed_chunk_bytes=sizes)


def unpack_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Parse the first bytes of a file; HEADER_BYTES of them are always enough.

    Raises:
        DamagedFileError: not a .lic file, or cut short.
        NewerFileError: of a later version.
        TooLargeError: more than max_pixels.
    """
    return _unpack_header(data, max_pixels)[0]


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Hold an image against the limit, a side under 16 pixels counting as 16.

    Otherwise a strip one pixel wide would take sixteen times the memory and the time of its pixels.

    Raises:
        TooLargeError: it is more than max_pixels.
        UsageError: max_pixels is no number.
    """
    if not isinstance(max_pixels, Real) or math.isnan(max_pixels):
        raise UsageError(f"max_pixels is a number of pixels, not {max_pixels!r}")
    if max(width, _LEAST_SIDE) * max(height, _LEAST_SIDE) <= max_pixels:
        return
    is_strip = width * height <= max_pixels
    strip = f" (a side under {_LEAST_SIDE} counts as {_LEAST_SIDE})" if is_strip else ""
    raise TooLargeError(f"{width}x{height} is more than {max_pixels} pixels (--max-pixels){strip}")


def least_payload(width: int, height: int) -> int:
    """Bytes of payload from which on a decoder asks no questions; an encoder leaves on zeros to have them."""
    counted = max(width, _LEAST_COUNTED_SIDE) * max(height, _LEAST_COUNTED_SIDE)
    return max(0, math.ceil((counted - _FREE_PIXELS) / _PIXELS_PER_BYTE))


def refuse_sparse(container: Container, max_pixels: int) -> None:
    """Hold the pixels of a file against its bytes, unless a limit of the caller's own says what it may cost.

    Raises:
        TooLargeError: few bytes ask for much work.
    """
    width, height, payload = container.width, container.height, container.payload
    if max_pixels != MAX_PIXELS or len(payload) >= least_payload(width, height):
        return
    enough = max(width, _LEAST_SIDE) * max(height, _LEAST_SIDE)
    raise TooLargeError(
        f"{len(payload)} bytes are few for {width}x{height} pixels, which take long to decode; "
        f"--max-pixels {enough + (enough == MAX_PIXELS)} does it all the same"
    )


def is_intact(data: bytes) -> bool:
    """Whether a file's last four bytes are the checksum of all before them."""
    return len(data) > 4 and zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0]


def most_bytes(header: Header) -> int:
    """The most bytes that a legal file of this header has."""
    return MAX_OVERHEAD + MAX_BYTES_PER_PIXEL * header.width * header.height


def _unpack_header(data: bytes, max_pixels: int) -> tuple[Header, bool, int]:
    """The fixed fields, whether chunks follow, and where they start."""
    if not data.startswith(SIGNATURE):
        if data and SIGNATURE.startswith(data[: len(SIGNATURE)]):
            raise DamagedFileError("the file is cut short")
        raise DamagedFileError("not a .lic file")
    reader = _Reader(data, len(SIGNATURE))
    flags = reader.byte()
    if flags & 7 != VERSION:
        raise NewerFileError(f"format version {flags & 7} is not known to this licodec")
    if flags & 128:
        raise DamagedFileError("the header has an unknown flag")
    width, height = reader.varint() + 1, reader.varint() + 1
    refuse_large(width, height, max_pixels)
    model_hash = reader.take(4)
    quality = reader.byte()
    if quality > QUALITY_STEPS:
        raise DamagedFileError(f"quality {quality} is out of range")
    side_bytes = reader.varint()
    (latents_crc32,) = struct.unpack("<I", reader.take(4))
    header = Header(
        width,
        height,
        MODES[flags >> 3 & 3],
        bool(flags & 32),
        model_hash,
        quality,
        side_bytes,
        latents_crc32,
    )
    return header, bool(flags & 64), reader.at


class _Reader:
    """A cursor that never reads past the end."""

    def __init__(self, data: bytes, at: int, end: int | None = None) -> None:
        self.data, self.at = data, at
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise DamagedFileError("the file is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 28:
                raise DamagedFileError("a length in the file is absurd")


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low bits first, at most five bytes."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _pack_chunk(kind: bytes, content: bytes) -> bytes:
    deflated = content if kind == ALPHA else zlib.compress(content, 9)
    small = len(deflated) < len(content)
    stored = deflated if small else content
    return kind + _varint(len(stored) << 1 | small) + stored


def _unpack_chunk(data: bytes, at: int, end: int) -> tuple[bytes, bytes, int]:
    """Type, unpacked content, and where the next chunk starts. Type 0 ends the list."""
    reader = _Reader(data, at, end)
    kind = reader.take(1)
    if kind == _END:
        return kind, b"", reader.at
    if not kind.isalpha():
        raise DamagedFileError(f"chunk type {kind!r} is not legal")
    if kind not in _KNOWN and kind.isupper():
        raise NewerFileError(f"chunk {kind.decode()} is not known to this licodec")
    length = reader.varint()
    content = reader.take(length >> 1)
    if length & 1 and kind in _KNOWN:
        content = _inflate(kind, content)
    if kind in _METADATA and len(content) > MAX_METADATA:
        raise DamagedFileError(f"chunk {kind.decode()} is longer than it may be")
    return kind, content, reader.at


def _inflate(kind: bytes, content: bytes) -> bytes:
    if kind == ALPHA:
        raise DamagedFileError("the alpha chunk is deflated, which it never is")
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(content, MAX_METADATA + 1)
    except zlib.error as error:
        raise DamagedFileError(f"chunk {kind.decode()} does not inflate") from error
    if len(inflated) > MAX_METADATA:
        raise DamagedFileError(f"chunk {kind.decode()} is longer than it may be")
    if not inflate.eof or inflate.unused_data:
        raise DamagedFileError(f"chunk {kind.decode()} does not inflate")
    return inflated
