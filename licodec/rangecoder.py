"""The range coder: the only file that knows constriction.

What is part of the format: float64 tables of integers, `perfect=False`, 32-bit words written
little-endian without their trailing zero bytes. constriction gives every symbol of a table at least
2^-24, so an entry of 0 is legal and merely dear.

Encoder and Decoder share one method: code(symbols, pmf) returns the symbols. The encoder
writes those it is given, the decoder ignores the argument and reads. A model states the order of
its symbols once, for both.
"""

from __future__ import annotations

from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from licodec.errors import DamagedFileError

LATENTS_PER_BYTE = 2**19
"""A payload has at least one byte for so many latents. Of 257 symbols with 2^-24 each or more, the
likeliest takes 2.2e-5 bits at least, that is, a byte for 363,000; the encoder leaves zero bytes on
where it would otherwise fall below, as with a hyperprior's tables of fewer symbols."""

Symbols = NDArray[np.int32]
Pmf = NDArray[np.int64]
Frequencies = NDArray[np.float64]
"""Integers all the same: the type that constriction takes."""


_FAMILY = constriction.stream.model.Categorical(perfect=False)


def _categorical(pmf: Pmf | Frequencies) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(pmf.astype(np.float64, copy=False), perfect=False)


class Coder(Protocol):
    """One direction of the range coder."""

    def code(self, symbols: Symbols | None, count: int, pmf: Pmf | Frequencies) -> Symbols:
        """Code `count` symbols in 0 … len(pmf)-1, all under one table of frequencies."""

    def code_each(self, symbols: Symbols | None, tables: Frequencies) -> Symbols:
        """Code len(tables) symbols, each under its own row of frequencies (n, bins)."""


class Encoder:
    """Writes symbols; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, symbols: Symbols | None, count: int, pmf: Pmf | Frequencies) -> Symbols:
        if symbols is None or len(symbols) != count:
            raise ValueError("an encoder needs the symbols")
        self._coder.encode(symbols, _categorical(pmf))
        return symbols

    def code_each(self, symbols: Symbols | None, tables: Frequencies) -> Symbols:
        if symbols is None or len(symbols) != len(tables):
            raise ValueError("an encoder needs the symbols")
        self._coder.encode(symbols, _FAMILY, tables)
        return symbols

    def finish(self, least: int = 0) -> bytes:
        """The stream, of at least so many bytes. A decoder reads zeros beyond its end."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0").ljust(least, b"\0")


class Decoder:
    """Reads the symbols that an Encoder wrote under the same tables in the same order.

    Args:
        strictly: count the bytes that are read, for `is_exhausted`.
    """

    def __init__(self, data: bytes, strictly: bool = False) -> None:
        data = data.rstrip(b"\0") if strictly else data
        # Two words of zeros stand for the stripped bytes; beyond the end, zeros are read as well.
        padded = data + bytes(-len(data) % 4 + (0 if strictly else 8))
        self._coder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, dtype="<u4").astype(np.uint32)
        )

    def is_exhausted(self) -> bool:
        """Whether a strict decoder has read all that it was given, but for the last two words, which may say
        anything."""
        return bool(self._coder.maybe_exhausted())

    def code(self, symbols: Symbols | None, count: int, pmf: Pmf | Frequencies) -> Symbols:
        try:
            decoded: Symbols = self._coder.decode(_categorical(pmf), count)
        except AssertionError as error:
            raise DamagedFileError("the latent bitstream is damaged") from error
        return decoded

    def code_each(self, symbols: Symbols | None, tables: Frequencies) -> Symbols:
        try:
            decoded: Symbols = self._coder.decode(_FAMILY, tables)
        except AssertionError as error:
            raise DamagedFileError("the latent bitstream is damaged") from error
        return decoded
