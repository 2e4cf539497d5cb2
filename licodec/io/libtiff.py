"""Pillow's copy of libtiff."""

from __future__ import annotations

import contextlib
from functools import cache

from PIL import _imaging


@cache
def silence() -> None:
    """Lines of libtiff's own stand in the way of the one that Pillow's error makes."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # where it is not to be found, they stay
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
