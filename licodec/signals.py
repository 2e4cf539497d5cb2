"""The process of the command line: its signals and its standard streams, from the first import on."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # typing's own would be its slow import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import TextIO

_running = False


def guard() -> None:
    """Let ctrl-C end a process that is licodec's own quietly; a program that imports licodec keeps its
    handlers. This is called before anything large is imported, which takes longer than most commands.
    """
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    module = name == "-m" and "licodec" in sys.orig_argv
    if not module and os.path.splitext(name)[0] != "licodec":
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the parent ignores it
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    if not _running or _is_importing(frame):
        # Modules that are half made, of compiled code above all, turn an exception into other ones.
        try:
            os.write(2, b"licodec: interrupted\n" if number == signal.SIGINT else b"")
        finally:
            os._exit(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def run(command: Callable[[], None]) -> None:
    """Call a command, and leave nothing to complain about to the interpreter's own end."""
    global _running
    _open_closed()
    _running = True
    try:
        command()
    except KeyboardInterrupt:  # a second one, while the first was reported
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except OSError:
                setattr(sys, name, _nowhere(os.O_WRONLY))


def _open_closed() -> None:
    """Take the numbers of closed descriptors, which the next file to be opened would get. What is
    written to a closed standard output fails; nobody misses what a closed standard error would say.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = _nowhere(os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _nowhere(os.O_WRONLY)


def _nowhere(flags: int) -> TextIO:
    return open(os.open(os.devnull, flags), "w", encoding="utf-8")
