"""The process of the command line: its signals and its standard streams, from the first import on.

A signal ends the process within a moment, whatever it computes: a thread of its own waits for it, tidies
up and lets the signal do what it does by default, so that a shell's loop ends as well. Commands that have
more to put away than that ask for `gently`, and are interrupted as Python does it.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys

TYPE_CHECKING = False  # typing's own would be its slow import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import TextIO

_handled: set[signal.Signals] = set()
"""Signals that are dealt with here: none in a program that merely imports licodec."""

_tidying: list[Callable[[], None]] = []

_gentle = False
_received: int | None = None


def guard() -> None:
    """Let ctrl-C end a process that is licodec's own quietly; a program that imports licodec keeps its
    handlers. This is called before anything large is imported, which takes longer than most commands, and
    before there are threads: each has the mask of the one that started it.
    """
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    module = program == "-m" and "licodec" in sys.orig_argv
    worker = "--multiprocessing-fork" in sys.orig_argv  # its parent says when it ends
    if worker or (not module and os.path.splitext(program)[0] != "licodec"):
        return
    sys.excepthook = _last_words
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # as the parent wants it
            _handled.add(number)
    if not hasattr(signal, "sigwait"):
        for number in _handled:
            signal.signal(number, _interrupt)
        return
    for number in _handled:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _handled)
    _thread.start_new_thread(_watch, ())


def _last_words(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Of what keeps the command from being imported: too few files that may be open, for one."""
    if os.environ.get("LICODEC_DEBUG"):
        sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]
        return
    text = " ".join(f"licodec: cannot start: {kind.__name__}: {error}".split())
    os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")


def _watch() -> None:
    number = signal.sigwait(_handled)
    if _gentle:
        _thread.interrupt_main(signal.Signals(number))
    else:
        _end(number)


def _end(number: int) -> None:
    """Tidy up, and die of the signal."""
    for tidy in list(_tidying):
        with contextlib.suppress(Exception):
            tidy()
    if number == signal.SIGINT:
        with contextlib.suppress(OSError):
            os.write(2, b"licodec: interrupted\n")
    _die(number)


def _die(number: int) -> None:
    if hasattr(signal, "pthread_sigmask"):
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os._exit(128 + number)  # where that is no death


@contextlib.contextmanager
def tidied(tidy: Callable[[], None]) -> Iterator[None]:
    """Have this called when a signal ends the process meanwhile; from any thread, beside all others."""
    _tidying.append(tidy)
    try:
        yield
    finally:
        _tidying.remove(tidy)


def gently() -> None:
    """From now on a signal raises KeyboardInterrupt in the main thread, and `run` lets the process die of
    it afterwards: for commands with processes of their own or results to save. A second signal ends it.
    """
    global _gentle
    if not _handled or _gentle:
        return
    _gentle = True
    for number in _handled:
        signal.signal(number, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _handled)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None or _is_importing(frame):
        # Modules that are half made, of compiled code above all, turn an exception into other ones.
        signal.signal(number, signal.SIG_DFL)
        _end(number)
    _received = number
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def run(command: Callable[[], None]) -> None:
    """Call a command, and leave nothing to complain about to the interpreter's own end."""
    _open_closed()
    try:
        command()
    finally:
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except OSError:
                setattr(sys, name, _nowhere(os.O_WRONLY))
        if _gentle:
            for number in _handled:  # ctrl-C is of no use to the interpreter's end
                default = signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        if _received is not None:
            signal.signal(_received, signal.SIG_DFL)
            _die(_received)


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
