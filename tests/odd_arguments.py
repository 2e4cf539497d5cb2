"""Calls of the Python API with arguments of any kind, chosen by bytes: for the fuzzer and for a test."""

from __future__ import annotations

import datetime
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import licodec
from licodec import codec

NUMBERS = (0, 1, -1, 2.5, 50, 100, 101, 2**70, -(2**70), math.nan, math.inf, -math.inf, True)
OTHERS = (
    None, "", "x", "cpu", "auto", "cuda", "float32", "bf16", "static", "adaptive", "a\nb", "\0", "\udcff",
    "x" * 5000, "/", "hyperprior@00000000", "@", b"", b"\x89LIC\n", [], {}, (), set(), object(), int, len,
    Path(), Path("/"), Path("nothing.safetensors"), np.float32(7), np.int64(3), np.zeros(0), np.zeros((2, 2)),
    1j, range(3), datetime.date(2000, 1, 1),
)  # fmt: skip


class _BytesPath:
    """A path, whose name is bytes."""

    def __fspath__(self) -> bytes:
        return b"nothing.safetensors"


VALUES = (*NUMBERS, *OTHERS, _BytesPath())

DECODING = ("weights", "device", "precision", "strip", "max_pixels")
ENCODING = (
    *DECODING, "quality", "model", "target_size", "target_bpp", "target_psnr", "z_distributions", "effort",
    "max_error",
)  # fmt: skip


def _images() -> list[Any]:
    small = [
        Image.new(mode, (3, 2)) for mode in ("RGB", "LA", "P", "1", "F", "I;16", "CMYK", "HSV")
    ]
    shapes = (2, 3), (2, 3, 3), (2, 3, 5), (0, 4)
    arrays = [np.zeros(shape, kind) for shape in shapes for kind in ("u1", "f4")]
    return [*small, Image.new("L", (0, 3)), *arrays]


PIXEL = b"P6 1 1 255\n123"


def _files(content: bytes) -> list[Any]:
    """Files that hold this, and what only looks like one."""
    closed = io.BytesIO(content)
    closed.close()
    return [io.BytesIO(content), io.BytesIO(content), closed, io.StringIO(), _Raw(content)]


class _Raw(io.RawIOBase):
    """A file without a buffer, that gives and takes a byte at a time."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        given, self.content = self.content[:1], self.content[1:]
        return given

    def write(self, data: Any) -> int:
        return 1


def call(data: bytes, encoded: bytes, **fixed: Any) -> None:
    """One call that the bytes choose.

    Args:
        encoded: a whole .lic file.
        fixed: arguments of encoding that stay as they are where the bytes do not set them.

    Raises:
        AssertionError: an error is not one line.
        Exception: anything but a LicodecError is a defect.
    """
    choices = iter(data)

    def choose(among: Any) -> Any:
        return among[next(choices, 0) % len(among)]

    def options(names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for _ in range(next(choices, 0) % 4):
            yield choose(names), choose(VALUES)

    what = choose(("encode", "encode", "decode", "info", "verify", "encode_file", "decode_file"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if what == "encode":
                image = choose((*_images(), *VALUES))
                licodec.encode(image, **{**fixed, **dict(options(ENCODING))})
                return
            if what.endswith("_file"):
                sources = (*_files(PIXEL), *_files(encoded), *_images(), *VALUES)
                targets = (*_files(b""), *(v for v in VALUES if not isinstance(v, (str, Path))))
                names = (*(ENCODING if what == "encode_file" else DECODING), "overwrite")
                names += ("check",) if what == "encode_file" else ("format", "format_quality")
                source, target = choose(sources), choose(targets)
                getattr(licodec, what)(source, target, **{**fixed, **dict(options(names))})
                return
            given = choose((encoded, encoded, encoded[:-1], bytearray(encoded), *VALUES))
            if what == "decode":
                licodec.decode(given, **{**fixed, **dict(options(DECODING))})
            elif what == "info":
                licodec.info(given, choose(VALUES))
            else:
                codec.verify_latents(given, choose(VALUES), **fixed)
    except licodec.LicodecError as error:
        assert str(error) and "\n" not in str(error), repr(str(error))
