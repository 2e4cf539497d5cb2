"""Weights files: found by name or by hash, checked, loaded without running anything.

A file is `NAME-HASH8.safetensors`, HASH8 being the first 8 hex digits of the SHA-256 of its bytes; a
.lic file names the weights that must decode it by those 4 bytes. A released file never changes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from licodec.architectures import BY_ARCH, Architecture
from licodec.container import QUALITY_STEPS
from licodec.errors import ModelMissingError, said
from licodec.weights import catalogue
from licodec.weights.catalogue import SHARED
from licodec.weights.catalogue import installed as installed

if TYPE_CHECKING:
    import torch

STEPS = 256
"""Rate positions from one anchor to the next."""

BACK_PROJECTION = "echo"
"""The tensor, in weights files, of how much of its back-projection an encoder adds to y at each anchor."""

_DEFLATED = "deflated"
"""The key of the metadata that tells type and shape of each tensor that stands there deflated."""

ARITHMETIC = "2"
"""Version of the integer arithmetic that tables and nets are made for."""


class Weights:
    """The tensors of one weights file.

    Attributes:
        hash: 4 bytes, as in a .lic header.
        metadata: strings: name, lambdas, groups, arithmetic, and how it was trained.
    """

    def __init__(self, path: Path) -> None:
        if os.path.exists(path) and not os.path.isfile(path):  # a device may have no end
            raise ModelMissingError(f"{path}: not a regular file")
        try:
            data = path.read_bytes()
            self.hash = hashlib.sha256(data).digest()[:4]
            self.metadata, self._tensors = parsed(data)
            shared = json.loads(self.metadata.pop(SHARED, "{}"))
            wanted = {
                bytes.fromhex(hash8): list(map(str, names)) for hash8, names in shared.items()
            }
        except MemoryError:
            raise
        except Exception as error:  # bytes that are none fail anywhere
            raise ModelMissingError(f"{path}: no readable weights file{said(error)}") from error
        stem = path.stem.rsplit("-", 1)
        if len(stem) != 2 or stem[1] != self.hash.hex():
            raise ModelMissingError(
                f"{path}: its bytes hash to {self.hash.hex()}, which is not in its name: "
                "the file is damaged or was altered"
            )
        if self.metadata.get("arithmetic") != ARITHMETIC:
            if "arch" in self.metadata and "arithmetic" not in self.metadata:
                raise ModelMissingError(
                    f"{path}: a state dict; `licodec import` makes weights of it"
                )
            raise ModelMissingError(f"{path}: made for another version of licodec")
        self.path = path
        for other, names in wanted.items():
            self._take(other, names)

    def _take(self, other: bytes, names: list[str]) -> None:
        """Add tensors of another file, which lies beside this one or is installed.

        Raises:
            ModelMissingError: it is not there, not intact, or has no such tensor.
        """
        beside = sorted(self.path.parent.glob(f"*-{other.hex()}.safetensors"))
        source = by_hash(other, next(iter(beside), None))
        for name in names:
            if name not in source:
                raise ModelMissingError(f"{self.path}: {source.path.name} has no {name} to share")
            self._tensors[name] = source[name]

    @property
    def architecture(self) -> Architecture:
        """The one that the metadata name; weights of `adaptive` and `factorized` name none."""
        return BY_ARCH[self.metadata["arch"]]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def without(self, name: str) -> Weights:
        """The same, as if it had no such tensor."""
        other = copy.copy(self)
        other._tensors = {k: v for k, v in self._tensors.items() if k != name}
        return other

    def numpy(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Those whose name starts with prefix, under their full names."""
        return {k: v for k, v in self._tensors.items() if k.startswith(prefix)}

    def torch(self, prefix: str) -> dict[str, torch.Tensor]:
        """Those whose name starts with prefix, without it, in float32: a module's state."""
        import torch

        return {
            k[len(prefix) :]: torch.from_numpy(v.astype(np.float32))
            for k, v in self.tensors(prefix).items()
        }

    def position(self, quality_step: int) -> int:
        """Rate position of a header's quality step, 0 … QUALITY_STEPS."""
        if "positions" in self:
            positions = self._tensors["positions"].tolist()
            place = quality_step * (len(positions) - 1)
            low = min(place // QUALITY_STEPS, len(positions) - 2)
            rest = place - low * QUALITY_STEPS
            first, second = positions[low : low + 2]
            return int(first + (second - first) * rest // QUALITY_STEPS)
        anchors = len(self._tensors["log_gain"])
        return quality_step * (anchors - 1) * STEPS // QUALITY_STEPS

    def back_projection(self, position: int) -> float:
        """How much of its back-projection an encoder adds to y, between anchors linear."""
        if BACK_PROJECTION not in self:
            return 0.0
        shares = self._tensors[BACK_PROJECTION]
        return float(np.interp(position / STEPS, np.arange(len(shares)), shares))

    @property
    def lambdas(self) -> list[float]:
        """Those of the anchors, as far as the file tells.

        Raises:
            ValueError: it tells something else.
        """
        found = json.loads(self.metadata.get("lambdas", "[]"))
        if not isinstance(found, list) or not all(
            type(v) in (int, float) and abs(v) < 2**64 for v in found
        ):
            raise ValueError("lambdas is no list of numbers")
        return [float(v) for v in found]

    def lmbda(self, position: int) -> float:
        """λ of R + λ·255²·mse, R in bits per pixel, that a rate was trained for, between anchors linear in
        log; 0 where that is not known."""
        if not self.lambdas:
            return 0.0
        rates = np.arange(len(self.lambdas))
        return float(np.exp(np.interp(position / STEPS, rates, np.log(self.lambdas))))

    def gain(self, position: int) -> NDArray[np.float32]:
        """(M,) what y is multiplied by before rounding; linear in log between anchors."""
        log_gain = self._tensors["log_gain"].astype(np.float64)
        k = min(position // STEPS, max(0, len(log_gain) - 2))
        t = position / STEPS - k
        above = log_gain[min(k + 1, len(log_gain) - 1)]
        row: NDArray[np.float64] = (1 - t) * log_gain[k] + t * above
        gain: NDArray[np.float32] = np.exp(row).astype(np.float32)
        return gain


_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?", "BF16": "<u2",
}  # fmt: skip
"""Of safetensors to NumPy's; of bfloat16, its bits."""


def parsed(data: bytes) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The metadata and the tensors of a safetensors file; its own library ends in a panic where memory is
    short.

    Raises:
        Exception: of any type, where it is none.
    """
    (length,) = struct.unpack("<Q", data[:8])
    content = memoryview(data)[8 + length :]
    header = json.loads(data[8 : 8 + length])
    metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
    tensors, left = {}, len(content)
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        left -= end - first
        if not 0 <= first <= end <= len(content) or left < 0:
            raise ValueError(f"{name} lies outside of the file, or in another tensor")
        sizes = entry["shape"]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError(f"{name} has the shape {sizes}")
        flat: NDArray[Any] = np.frombuffer(content[first:end], _DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            flat = (flat.astype("<u4") << 16).view("<f4")
        tensors[name] = flat.reshape(sizes).astype(flat.dtype.newbyteorder("="))
    for name, (code, sizes) in json.loads(metadata.pop(_DEFLATED, "{}")).items():
        tensors[name] = _inflated(tensors[name].tobytes(), code, sizes)
    return metadata, tensors


_WORTHWHILE = 7 / 8
"""A plane of bytes is deflated where that leaves this share of them at most."""


def deflated(
    tensors: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors as a weights file holds them, and what its metadata say of it.

    The bytes of the values stand in planes, the lowest first, each a zlib stream. Integers are written in
    digits of -128 … 127: of small ones, the higher planes are 0.
    """
    stored, told = dict(tensors), {}
    for name, tensor in tensors.items():
        data = b"".join(map(_zlib, _planes(tensor)))
        if len(data) < _WORTHWHILE * tensor.nbytes:
            stored[name] = np.frombuffer(data, np.uint8)
            told[name] = tensor.dtype.str[1:], tensor.shape
    return stored, {_DEFLATED: json.dumps(told, separators=(",", ":"))} if told else {}


def _zlib(plane: NDArray[np.uint8]) -> bytes:
    data = plane.tobytes()
    streams = [zlib.compress(data, 0)]
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        squeezer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        streams.append(squeezer.compress(data) + squeezer.flush())
    shortest = min(streams, key=len)
    # What deflating hardly shortens would take its time at each load.
    return shortest if len(shortest) < _WORTHWHILE * len(data) else streams[0]


def _planes(tensor: NDArray[Any]) -> list[NDArray[np.uint8]]:
    size = tensor.itemsize
    rest = np.ascontiguousarray(tensor).reshape(-1).view(f"i{size}")
    if tensor.dtype.kind == "f":
        return list(rest.view(np.uint8).reshape(-1, size).T)
    planes = []
    for _ in range(size):
        digits = rest.astype(np.int8)
        planes.append(digits.view(np.uint8))
        rest = (rest - digits) >> 8
    return planes


def _inflated(data: bytes, code: str, shape: list[int]) -> NDArray[Any]:
    """A tensor of its planes.

    Raises:
        ValueError: they are not those of such a tensor.
        zlib.error: they are no zlib streams.
    """
    dtype, size = np.dtype(code), math.prod(shape)
    if dtype.kind not in "biuf" or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"a deflated tensor of type {code} and shape {shape}")
    planes: list[NDArray[Any]] = []
    for _ in range(dtype.itemsize):
        stream = zlib.decompressobj()
        plane = stream.decompress(data, size + 1)
        data = stream.unused_data
        if len(plane) != size or not stream.eof:
            raise ValueError("a plane of bytes is too short or too long")
        planes.append(np.frombuffer(plane, np.uint8 if dtype.kind == "f" else np.int8))
    if data:
        raise ValueError("bytes follow the last plane")
    bits = np.zeros(size, f"i{dtype.itemsize}")
    for digits in reversed(planes):
        np.left_shift(bits, 8, out=bits)
        np.add(bits, digits, out=bits)
    return bits.view(dtype).reshape(shape)


@lru_cache(maxsize=2)
def load(path: Path) -> Weights:
    return Weights(path)


def by_hash(wanted: bytes, file: Path | None = None) -> Weights:
    """The weights that a .lic file names.

    Args:
        wanted: the first 4 bytes of their SHA-256.
        file: where they are, if they are not installed.

    Raises:
        ModelMissingError: they are not installed, or not intact.
    """
    path = file or catalogue.by_hash(wanted)
    if path is None:
        raise ModelMissingError(
            f"needs the weights {wanted.hex()}, which are not installed "
            f"({catalogue.looked()}; --weights names a file)"
        )
    loaded = load(path)
    if loaded.hash != wanted:
        raise ModelMissingError(f"needs the weights {wanted.hex()}, not {path.name}")
    return loaded
