"""Lack of memory, told before it meets a library that cannot bear it.

Where a process may map no more, PyTorch ends it while it loads, and OpenBLAS asks for its buffer again and
again, for ever. So what they are about to map is asked for first, and given back.
"""

from __future__ import annotations

import ctypes
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


_BLOCK = 2 * 2**20
_M_MMAP_THRESHOLD = -3


def give_back_blocks() -> None:
    """Have memory in blocks of 2 MiB and more go back to the system once it is freed; for a process that is
    licodec's own.

    By itself glibc does so until the first is freed. From then on it keeps them among smaller ones that are
    still in use, which is half of what an image of 8 megapixels takes.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _BLOCK)


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
