"""What libraries' threads need around them: buffers, limits, and a forked process.

OpenBLAS's pool waits for work by spinning, on the processors that PyTorch's pool is about to use: with two
of them, encoding and decoding a photograph took 5 to 10 % longer than with one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product

import numpy as np

from licodec import memory

_BUFFER = 80 * 2**20
"""Bytes that OpenBLAS's buffer may take: 32 MiB with most builds, 64 with some."""


Pool = tuple[Callable[[], int], Callable[[int], None]]


def _loaded_pools() -> list[Pool]:
    """What tells and what sets the number of threads, for each OpenBLAS with threads of its own.

    Threadpoolctl finds them; it lets only one thread set what it leaves set, and here the last may not be
    the first.
    """
    from threadpoolctl import threadpool_info  # models without PyTorch do without it, too

    found: list[Pool] = []
    for library in threadpool_info():
        if library["internal_api"] == "openblas" and library["threading_layer"] == "pthreads":
            own = ctypes.CDLL(library["filepath"])
            for prefix, suffix in product(("", "scipy_"), ("", "64_", "_64")):
                names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
                if all(hasattr(own, name) for name in names):
                    found.append((getattr(own, names[0]), getattr(own, names[1])))
    return found


_pools = cache(_loaded_pools)


class _Limit:
    """The threads within `one_blas_thread`. The limit is the whole process's: the first sets it, and the last
    takes it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.before: list[int] = []

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = [get() for get, _ in _pools()]
                for _, limit in _pools():
                    limit(1)
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            if self.inside == 1:
                self.give_back()
            self.inside -= 1

    def give_back(self) -> None:
        for (_, limit), count in zip(_pools(), self.before, strict=True):
            limit(count)


class _Buffers:
    """The threads within `coding`, and the most that have been there at once: OpenBLAS has a buffer for each
    of these."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.taken = 0

    def enter(self) -> None:
        with self.lock:
            if self.inside == self.taken:
                _take_buffer()
                self.taken += 1
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1


def _take_buffer() -> None:
    """Have OpenBLAS take a buffer now: it keeps those that it has, and where it gets none it never ends.

    Raises:
        MemoryError: there is none to be had.
    """
    memory.need(_BUFFER)
    square = np.zeros((256, 256), dtype=np.float32)
    square @ square


_limit, _buffers = _Limit(), _Buffers()
_has_parents_torch = False


def _after_fork() -> None:
    """Forget the threads that a forked process does not have."""
    global _limit, _buffers, _has_parents_torch
    if _limit.inside:
        _limit.give_back()
    _limit, _buffers = _Limit(), _Buffers()
    _has_parents_torch = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def coding() -> Iterator[None]:
    """Around all that encodes or decodes.

    In a process that was forked after PyTorch was loaded, this leaves PyTorch with one thread: GNU's OpenMP
    would wait for others, which only the parent has.

    Raises:
        MemoryError: there is too little for a product of matrices.
    """
    global _has_parents_torch
    if _has_parents_torch:
        _has_parents_torch = False
        sys.modules["torch"].set_num_threads(1)
    buffers = _buffers
    buffers.enter()
    try:
        yield
    finally:
        buffers.leave()


_shares = 1
"""What PyTorch's threads are still to be divided by."""


def share_among(files: int) -> None:
    """Let each of so many files at once have its share of the threads of OpenBLAS, and of PyTorch's once that
    is loaded.

    OpenBLAS does one product on several threads at a time: files would wait for each other.
    """
    global _shares
    _shares = files
    with contextlib.suppress(ImportError):  # of threadpoolctl
        for count, limit in _loaded_pools():
            limit(max(1, count() // files))
    take_share()


def take_share() -> None:
    """Divide PyTorch's threads if it is loaded by now and that is still to be done."""
    global _shares
    if _shares > 1 and (torch := sys.modules.get("torch")):
        torch.set_num_threads(max(1, torch.get_num_threads() // _shares))
        _shares = 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """For the whole process, while any thread is within."""
    limit = _limit
    limit.enter()
    try:
        yield
    finally:
        limit.leave()
