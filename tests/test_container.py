import dataclasses
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licodec.container import (
    ALPHA,
    EXIF,
    HEADER_BYTES,
    ICC,
    MODES,
    SIGNATURE,
    XMP,
    Container,
    pack,
    unpack,
    unpack_header,
)
from licodec.errors import DamagedFileError, LicodecError


def container(**changes):
    values = dict(
        width=768, height=512, mode="RGB", adaptive=True, model_hash=b"\x12\x34\x56\x78",
        quality_step=100, side_bytes=3, latents_crc32=0xDEADBEEF, payload=b"payload", chunks={},
    )  # fmt: skip
    return Container(**{**values, **changes})


def resealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


@given(
    width=st.integers(1, 2**20), height=st.integers(1, 2**7), mode=st.sampled_from(MODES),
    adaptive=st.booleans(), quality=st.integers(0, 200), payload=st.binary(min_size=4, max_size=50),
    side_bytes=st.integers(0, 4), crc=st.integers(0, 2**32 - 1),
    chunks=st.dictionaries(st.sampled_from([ICC, EXIF, XMP]), st.binary(max_size=300)),
)  # fmt: skip
def test_what_goes_in_comes_out(
    width, height, mode, adaptive, quality, payload, side_bytes, crc, chunks
):
    if mode.endswith("A"):
        chunks = {**chunks, ALPHA: b"\3\xff"}
    original = container(
        width=width, height=height, mode=mode, adaptive=adaptive, quality_step=quality,
        payload=payload, side_bytes=side_bytes, latents_crc32=crc, chunks=chunks,
    )  # fmt: skip
    data = pack(original)
    assert unpack(data) == original
    header = unpack_header(data[:HEADER_BYTES])
    assert (header.width, header.height, header.mode) == (width, height, mode)


def test_framing_takes_24_bytes():
    c = container()
    assert len(pack(c)) - len(c.payload) == 24


def test_golden_bytes():
    """The worked example of docs/format.md."""
    assert pack(container()).hex(" ") == (
        "89 4c 49 43 0a 31 ff 05 ff 03 12 34 56 78 64 03 ef be ad de 70 61 79 6c 6f 61 64 "
        + pack(container())[-4:].hex(" ")
    )
    assert zlib.crc32(pack(container())[:-4]) == struct.unpack("<I", pack(container())[-4:])[0]


def test_every_prefix_and_every_flipped_bit_is_refused():
    data = pack(container(chunks={ICC: b"profile" * 9, XMP: b"<x/>"}))
    for end in range(len(data)):
        with pytest.raises(DamagedFileError):
            unpack(data[:end])
    for i in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[i] ^= 1 << bit
            with pytest.raises(LicodecError):
                unpack(bytes(broken))


def test_text_mode_transfer_is_noticed():
    data = pack(container())
    with pytest.raises(DamagedFileError):
        unpack(data.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (SIGNATURE + bytes([2]) + bytes(20), "version 2"),
        (SIGNATURE + bytes([1 | 128]) + bytes(20), "flag"),
        (SIGNATURE + bytes([17]) + b"\xff\xff\xff\xff\xff\xff" + bytes(20), "absurd"),
        (SIGNATURE + bytes([17]) + b"\xff\xff\x03" * 2 + bytes(20), "pixels"),
        (SIGNATURE + bytes([17, 0, 0]) + bytes(4) + bytes([201]) + bytes(9), "quality"),
        (SIGNATURE + bytes([17, 0, 0]) + bytes(4) + bytes([200, 99]) + bytes(9), "side stream"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"Z\x02a\0", "chunk Z"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"5\x02a\0", "not legal"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"i\xfe\x02a\0", "cut short"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"i\x05ab\0", "inflate"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"i\x02ai\x02a\0", "twice"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"q\x02aq\x02a\0", "twice"),
        (SIGNATURE + bytes([17 | 64, 0, 0]) + bytes(10) + b"i\x02a", "cut short"),
        (b"GIF89a" + bytes(30), "not a .lic"),
        (b"", "cut short|not a .lic"),
    ],
)
def test_must_fail(body, reason):
    with pytest.raises(LicodecError, match=reason):
        unpack(resealed(body))


def test_unknown_ancillary_chunk_is_skipped():
    data = pack(container(chunks={ICC: b"kept"}))
    at = data.index(b"i\x08kept")
    extended = data[:at] + b"q\x06new" + data[at:-4]
    assert unpack(resealed(extended)).chunks == {ICC: b"kept"}


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_chunk_cannot_inflate_beyond_its_limit(monkeypatch, beyond):
    monkeypatch.setattr("licodec.container.MAX_METADATA", 10**6)
    data = pack(container(chunks={ICC: bytes(10**6 + beyond)}))
    if not beyond:
        assert len(unpack(data).chunks[ICC]) == 10**6
        return
    with pytest.raises(DamagedFileError, match="longer"):
        unpack(data)


@pytest.mark.parametrize(("mode", "chunks"), [("RGB", {ALPHA: b"\3\xff"}), ("RGBA", {})])
def test_alpha_goes_with_the_mode(mode, chunks):
    with pytest.raises(DamagedFileError, match="alpha chunk"):
        unpack(pack(container(mode=mode, chunks=chunks)))


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_the_one_error(data):
    for candidate in (data, resealed(SIGNATURE + data), resealed(SIGNATURE + b"\x51" + data)):
        try:
            parsed = unpack(candidate)
        except LicodecError:
            continue
        assert dataclasses.is_dataclass(parsed)
