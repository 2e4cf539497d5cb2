"""How far a run is, on standard error, where that is a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


class Bar:
    """Called with measurements done, measurements in all, and what is being measured."""

    def __enter__(self) -> Bar:
        console = Console(stderr=True)
        self._bar = Progress(
            *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task("starting", total=None)
        return self

    def __call__(self, done: int, total: int, what: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=what)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
