"""Lack of memory, told before it meets a library that cannot bear it.

Where a process may map no more, PyTorch ends it while it loads, and OpenBLAS asks for its buffer again and
again, for ever. So what they are about to map is asked for first, and given back.
"""

from __future__ import annotations

import mmap
import os
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


NUMPY = 128 * 2**20
"""Bytes that NumPy maps when it is loaded, and at its first product of matrices, with one thread."""

_THREAD = 144 * 2**20
"""Bytes that each further thread of OpenBLAS maps: a stack, an arena and a buffer."""


def need_numpy() -> None:
    """See that NumPy can be loaded, if it is not yet; with one thread where there is no room for more.

    A thread of OpenBLAS that gets no buffer asks for ever, and keeps the process from ending.

    Raises:
        OutOfMemoryError: it cannot.
    """
    if "numpy" in sys.modules:
        return
    try:
        need(NUMPY)
    except MemoryError as error:
        raise OutOfMemoryError("not enough memory to load NumPy") from error
    try:
        need(NUMPY + _is_limited() * _THREAD * ((os.cpu_count() or 1) - 1))
    except MemoryError:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"


def _is_limited() -> bool:
    """Whether the process may map no more than so much."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


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
