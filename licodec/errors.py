"""One error family, one class a cause; the exit code of each cause is the command line's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class LicodecError(Exception):
    """Anything that licodec refuses; str() is one line for a person."""

    exit_code = 1

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class UsageError(LicodecError):
    """Arguments or a config that make no sense together."""

    exit_code = 2


class DamagedFileError(LicodecError):
    """The file is no .lic file, or is not what its encoder wrote."""

    exit_code = 3


class NewerFileError(LicodecError):
    """The file is whole, but needs a later licodec: its version or a critical chunk is unknown."""

    exit_code = 3


class ModelMissingError(LicodecError):
    """The weights that a file or an argument names are not installed, or are not intact."""

    exit_code = 4


class TooLargeError(LicodecError):
    """More pixels or bytes than the limit; found before anything of that size is allocated."""


class UnsupportedImageError(LicodecError):
    """An input image that could not be kept without silent loss."""


class UnreachableTargetError(LicodecError):
    """No quality gives the size or the PSNR that was asked for."""


class FileAccessError(LicodecError):
    """The file system refuses to read or to write."""


class OutOfMemoryError(LicodecError):
    """The machine has too little memory for this image."""


def said(error: BaseException) -> str:
    """What a foreign error says, in parentheses; nothing where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return f" ({text})" if text else ""


class InternalError(LicodecError):
    """A defect of licodec itself, shown as one line; LICODEC_DEBUG=1 shows where."""


@contextlib.contextmanager
def one_family() -> Iterator[None]:
    """Turn a failed allocation inside into an OutOfMemoryError."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        # NumPy says of what cannot be loaded that it is installed wrongly; the loader said why before.
        text = f"{error} {error.__cause__ if isinstance(error, ImportError) else ''}"
        if not isinstance(error, MemoryError) and not any(s in text for s in _SAID):
            raise
        raise OutOfMemoryError(_NO_MEMORY) from error


_SAID = (
    "allocate memory",  # PyTorch on the CPU, and the loader of libraries
    "out of memory",  # CUDA
    "bad_alloc",
    "could not create a primitive",  # oneDNN, as are the next two
    "could not create a memory",
    "could not execute a primitive",
    "failed to map segment",  # the loader of libraries
    "can't start new thread",
)
"""What libraries say, in exceptions of many types, where they get no memory."""

_NO_MEMORY = "not enough memory for an image of this size"


def mismatch(error: RuntimeError) -> str:
    """The first thing that PyTorch finds wrong with a state dict."""
    lines = str(error).splitlines() or [""]
    first = lines[min(1, len(lines) - 1)].strip()
    return first if len(first) < 200 else f"{first[:200]} …"


def family(error: Exception) -> LicodecError:
    """Any exception as a member of the family, so that one handler can report them all."""
    try:
        with one_family():
            raise error
    except LicodecError as member:
        return member
    except OSError:  # of a disk or a network, in the middle of whatever it was
        said_so = getattr(error, "strerror", None) or str(error)
        return FileAccessError(
            ": ".join(str(s) for s in (getattr(error, "filename", None), said_so) if s)
        )
    except Exception:
        text = " ".join(str(error).split())
        return InternalError(f"internal error, please report it: {type(error).__name__}: {text}")
