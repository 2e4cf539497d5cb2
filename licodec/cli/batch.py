"""Many files through one process: doing a plan on several threads, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from licodec import memory
from licodec.cli.plan import Job, Plan
from licodec.errors import FileAccessError, LicodecError, UsageError, family
from licodec.io import files
from licodec.io.files import STANDARD
from licodec.progress import Bar, plain, watching

_MOST_NOTES = 3
"""That are spelled out at the end of a batch."""


@dataclass(frozen=True)
class Result:
    """What work made of a source.

    Attributes:
        data: the output.
        line: on it, for a person.
        row: the same for a program.
        notes: on what was converted.
    """

    data: bytes = field(repr=False)
    line: str
    row: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Work = Callable[[Job], Result]
Line = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Telling:
    """What is told: a line for each file that worked, each file's notes, and JSON on standard output."""

    lines: bool = True
    verbose: bool = False
    as_json: bool = False


_current = threading.local()


def take_warning(message: str) -> bool:
    """Make a library's warning a note of the file that this thread is at; the first one is enough.

    Returns:
        Whether there is such a file.
    """
    heard: list[str] | None = getattr(_current, "warnings", None)
    if heard == []:
        heard.append(message)
    return heard is not None


class Batch:
    """Runs a plan; a failing file is reported and the rest go on.

    Args:
        verb: encode or decode, for the bar.
    """

    def __init__(self, verb: str, plan: Plan, telling: Telling) -> None:
        self.plan, self.telling = plan, telling
        self.bar = Bar(verb, quiet=not telling.lines)
        self.counts = dict.fromkeys(("done", "skipped", "failed"), 0)
        self._notes: Counter[str] = Counter()
        self._rows: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, check: Callable[[str], None], work: Work, workers: int) -> None:
        """Do every job.

        Args:
            check: raises where a source is plainly none; called before its output is looked at.
            work: called with a job; may run on several threads at once.

        Raises:
            LicodecError: the lone file failed, or some of several did.
        """
        self.check, self.work = check, work
        numbers = range(len(self.plan.jobs))
        with self._conducted():
            if workers == 1 or len(numbers) < 2:
                for number in numbers:
                    self._one(number)
            else:
                self._threads(workers)

    def gather(self, rows: Iterable[tuple[int, dict[str, Any]]], line: Line) -> None:
        """The same where the work is done elsewhere: jobs' numbers and rows as they come.

        Args:
            rows: with `ok`, and `skipped` or `error`.
            line: on a row, for a person.
        """
        with self._conducted():
            for number, row in rows:
                self._take(number, row, line)

    @contextlib.contextmanager
    def _conducted(self) -> Iterator[None]:
        """The bar while the work is done, and afterwards what came of it."""
        if self.telling.as_json and any(job.target == STANDARD for job in self.plan.jobs):
            raise UsageError("--json and the output itself cannot both go to standard output")
        try:
            with self.bar:
                yield
        finally:
            if self.telling.as_json and len(self._rows) == len(self.plan.jobs):
                rows = [self._rows[number] for number in range(len(self.plan.jobs))]
                click.echo(json.dumps(rows[0] if len(rows) == 1 else rows))
        if self.plan.lone:
            return
        self._tell_notes()
        summary = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        if self.counts["skipped"]:
            summary += (
                "; the skipped have an output already: --output-dir names another place, "
                "-f makes them anew"
            )
        if self.counts["failed"]:
            raise LicodecError(summary)
        if self.telling.lines:
            self._print(summary)

    def _threads(self, workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            try:
                numbers = range(len(self.plan.jobs))
                for future in as_completed([pool.submit(self._one, n) for n in numbers]):
                    future.result()
            except BaseException:  # ctrl-C, above all: threads end at their next step
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, number: int) -> None:
        job = self.plan.jobs[number]
        source = "standard input" if job.source == STANDARD else plain(job.source) or "''"
        row: dict[str, Any] = {"file": job.source}
        _current.warnings = []
        try:
            with watching(lambda stage, share: self._heard(source, stage, share)):
                outcome = self._do(job, source, row)
        except BrokenPipeError:
            raise  # the reader has seen enough; click ends quietly
        except Exception as error:
            failure = family(error)
            self._rows[number] = {**row, "ok": False, "error": str(failure)}
            failure.args = (f"{source}: {failure}",)
            if self.plan.lone:
                raise failure from error
            outcome = "failed"
            self._print(str(failure))
        else:
            self._rows[number] = row
        finally:
            _current.warnings = None
        self._count(outcome)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.counts[outcome] += 1
            finished = sum(self.counts.values())
        if not self.plan.lone:
            self.bar.update(f"{finished} of {len(self.plan.jobs)}", finished / len(self.plan.jobs))

    def _take(self, number: int, row: dict[str, Any], line: Line) -> None:
        job = self.plan.jobs[number]
        source = plain(job.source) or "''"
        self._rows[number] = {"file": job.source, "output": job.target, **row}
        if not row["ok"]:
            outcome = "failed"
            self._print(f"{source}: {row['error']}")
        elif row["skipped"]:
            outcome = "skipped"
            self._tell_skipped(source, job.target)
        else:
            outcome = "done"
            self._tell_done(source, job.target, line(row), row.get("notes", []))
        self._count(outcome)

    def _tell_skipped(self, source: str, target: str) -> None:
        if self.telling.verbose:
            self._print(f"{source}: skipped, {target} exists")

    def _tell_done(self, source: str, target: str, line: str, notes: list[str]) -> None:
        self._note(source, notes)
        if self.telling.lines and target != STANDARD:
            self.bar.print(f"{source} -> {plain(target)}: {line}")

    def _do(self, job: Job, source: str, row: dict[str, Any]) -> str:
        """The outcome, done or skipped, whose row is filled."""
        if job.problem:
            raise job.problem
        self.check(job.source)
        target = Path(job.target)
        row["output"] = job.target
        if job.target != STANDARD and not job.replace and os.path.isfile(target):
            if self.plan.lone:
                files.check_output(job.target, job.source)
                raise FileAccessError(f"{target} exists; {job.way_out}")
            self._tell_skipped(source, job.target)
            row |= {"ok": True, "skipped": True}
            return "skipped"
        if not self.plan.lone:
            _make_folder(target.parent)
        files.check_output(job.target, job.source)
        memory.need_numpy()
        result = self.work(job)
        self._heard(source, "writing", 1.0)
        files.write(job.target, result.data, job.replace)
        notes = [*result.notes, *_current.warnings]
        row |= {"ok": True, "skipped": False, **result.row, "notes": notes}
        self._tell_done(source, job.target, result.line, notes)
        return "done"

    def _note(self, source: str, notes: list[str]) -> None:
        """Tell notes of a file, or keep them for the end."""
        if not self.telling.lines:
            return
        if self.plan.lone or self.telling.verbose:
            for note in notes:
                self._print(f"{source}: note: {note}")
        else:
            with self._lock:
                self._notes.update(set(notes))

    def _tell_notes(self) -> None:
        """One line on what befell many files."""
        if not self._notes:
            return
        told = [
            f"{note} ({count} file{'s' * (count > 1)})"
            for note, count in self._notes.most_common(_MOST_NOTES)
        ]
        if len(self._notes) > _MOST_NOTES:
            told.append("and more")
        self._print(f"note: {'; '.join(told)}; -v tells of which")

    def _heard(self, source: str, stage: str, share: float) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        if self.plan.lone:
            self.bar.update(f"{source}: {stage}", share)

    def _print(self, message: str) -> None:
        self.bar.print(_one_line(f"licodec: {message}"))


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(f"cannot make {folder}: {error.strerror or error}") from error
