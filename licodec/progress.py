"""How far a command is: one bar for all of them, and the lines that stand beside it.

Long loops run through `track`; whoever wants to know listens by `watching`. A loop of another thread
than the listener's is not heard.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from licodec import signals

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Listener = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 … 1. It may raise, to stop."""

PATIENCE = 2.0
"""Seconds before a bar is shown."""

_LEAST_SECONDS = 1.0
"""Of a stage, before the time that is left of it is estimated."""

_LONGEST_WAIT = 0.2
"""Seconds, for a thread that draws: none draws for so long but before a terminal that takes nothing."""

_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey rather than show: control characters, line separators, changes of the
direction of writing; and surrogates, which stand for bytes of file names that are no text."""

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


@contextlib.contextmanager
def trials(usual: int) -> Iterator[Callable[[], None]]:
    """A search by trial: the listener hears which trial each stage belongs to, and a share that only rises.

    Args:
        usual: how many trials there mostly are; there may be more.

    Yields:
        What begins the next trial.
    """
    outer, number, furthest = _listener.get(), 0, 0.0

    def begin() -> None:
        nonlocal number
        number += 1

    def heard(stage: str, share: float) -> None:
        nonlocal furthest
        furthest = max(furthest, 1 - (1 - 1 / usual) ** (max(number, 1) - 1 + share))
        if outer:
            outer(f"trial {max(number, 1)}, {stage}", furthest)

    with watching(heard):
        yield begin


def plain(text: str) -> str:
    """Text that is safe to show: `\\x1b`, `\\n` and `\\xff` instead of what they stand for.

    File names may hold anything. Bytes that are no text come as surrogates (PEP 383).
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def say(message: str) -> None:
    """A line on standard error; where that takes none, the work goes on all the same."""
    with contextlib.suppress(OSError):
        sys.stderr.write(plain(message) + "\n")


class Bar:
    """A bar on standard error, where that is a terminal, once PATIENCE is over.

    It shows what is done, how much of it, for how long, and how long it will still take. A share that falls
    begins a stage, whose time is counted anew.
    """

    def __init__(self, description: str, quiet: bool = False) -> None:
        self._description, self._share = description, 0.0
        self._began = self._stage_began = time.monotonic()
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True
        self._wanted = sys.stderr.isatty() and not quiet
        self._tidied = contextlib.ExitStack()

    def __enter__(self) -> Bar:
        if self._wanted:
            self._tidied.enter_context(signals.tidied(self._close))
            self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        self._close()
        self._tidied.close()

    def _close(self) -> None:
        if self._lock.acquire(timeout=_LONGEST_WAIT):
            try:
                self._wanted = False
                if self._progress:
                    self._progress.stop()
            finally:
                self._lock.release()

    def update(self, description: str, share: float) -> None:
        """What is being done, and the share of it that is, 0 … 1; from any thread."""
        with self._lock:
            if share < self._share:
                self._stage_began = time.monotonic()
            self._description, self._share = description, share
            if self._progress:
                task = self._progress.task_ids[0]
                self._progress.update(task, description=plain(description), completed=share)

    def count(self, done: int, total: int, what: str) -> None:
        """The same, for a number of things that are done out of so many."""
        self.update(f"{done} of {total}: {what}" if what else f"{done} of {total}", done / total)

    def print(self, line: str) -> None:
        """A line above the bar, or just a line."""
        with self._lock:
            if self._progress:
                console = self._progress.console
                console.print(plain(line), markup=False, highlight=False, soft_wrap=True)
            else:
                say(line)

    def _clock(self) -> str:
        now = time.monotonic()
        seconds, share = now - self._stage_began, self._share
        clock = duration(now - self._began)
        if share > 0 and seconds >= _LEAST_SECONDS:
            clock += f", about {duration(seconds * (1 - share) / share)} left"
        return clock

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.table import Column
        from rich.text import Text

        class Clock(ProgressColumn):
            def render(column, task: Task) -> Text:
                return Text(self._clock())

        name = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(20),
            TextColumn("{task.percentage:>3.0f} %"),
            Clock(table_column=Column(no_wrap=True)),
        )
        with self._lock:
            if self._wanted:
                self._progress = Progress(
                    *columns,
                    console=Console(stderr=True),
                    transient=True,
                    expand=True,
                    redirect_stderr=False,
                    redirect_stdout=False,
                )
                task = self._progress.add_task(plain(self._description), total=1.0)
                self._progress.update(task, completed=self._share)
                self._progress.start()


def duration(seconds: float) -> str:
    """5 s, 12 min or 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
