"""One thread for NumPy's products of matrices.

OpenBLAS's pool waits for work by spinning, on the processors that PyTorch's pool is about to use: with two
of them, encoding and decoding a photograph took 5 to 10 % longer than with one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """For the whole process, while within."""
    limits: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limits
