"""How far a file is: a bar on a terminal for what takes over two seconds, and the way to stop it.

Long loops run through `track`; whoever wants to know listens by `watching`. A loop of another thread
than the listener's is not heard.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Listener = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 … 1. It may raise, to stop."""

PATIENCE = 2.0
"""Seconds before a bar is shown."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def track(items: Sequence[T], stage: str) -> Iterator[T]:
    """The items; before each, the listener hears how many are done."""
    listener = _listener.get()
    for i, item in enumerate(items):
        if listener:
            listener(stage, i / len(items))
        yield item


@contextlib.contextmanager
def watching(listener: Listener) -> Iterator[None]:
    """Let listener hear every `track` of this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def say(message: str) -> None:
    """A line on standard error; where that takes none, the work goes on all the same."""
    with contextlib.suppress(OSError):
        sys.stderr.write(message + "\n")


class Bar:
    """A bar on standard error, where that is a terminal, once PATIENCE is over."""

    def __init__(self, verb: str, quiet: bool = False) -> None:
        self._description, self._share = verb, 0.0
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True
        self._wanted = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Bar:
        if self._wanted:
            self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._wanted = False
            if self._progress:
                self._progress.stop()

    def update(self, description: str, share: float) -> None:
        """What is being done, and the share of it that is; from any thread."""
        with self._lock:
            self._description, self._share = description, share
            if self._progress:
                task = self._progress.task_ids[0]
                self._progress.update(task, description=description, completed=share)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )  # fmt: skip
        with self._lock:
            if self._wanted:
                self._progress = Progress(
                    *columns, console=Console(stderr=True), transient=True, redirect_stderr=False
                )
                task = self._progress.add_task(self._description, total=1.0)
                self._progress.update(task, completed=self._share)
                self._progress.start()

    def print(self, line: str) -> None:
        """A line above the bar, or just a line."""
        with self._lock:
            if self._progress:
                self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                say(line)
