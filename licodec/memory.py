"""Lack of memory, told before it meets a library that cannot bear it.

Where a process may map no more, PyTorch ends it while it loads, and OpenBLAS asks for its buffer again and
again, for ever. So what they are about to map is asked for first, and given back.
"""

from __future__ import annotations

import mmap
import sys

from licodec.errors import OutOfMemoryError

LIBRARIES = 640 * 2**20
"""Bytes that PyTorch maps when it is loaded, and at its first product of matrices."""


def need(size: int) -> None:
    """See that the process may map so many bytes more.

    Raises:
        MemoryError: it may not.
    """
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise MemoryError from error


def need_libraries() -> None:
    """See that PyTorch can be loaded, if it is not yet.

    Raises:
        OutOfMemoryError: it cannot.
    """
    if "torch" in sys.modules:
        return
    try:
        need(LIBRARIES)
    except MemoryError as error:
        raise OutOfMemoryError("not enough memory to load PyTorch") from error
