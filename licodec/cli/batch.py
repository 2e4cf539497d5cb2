"""Many files through one process: what to do, doing it on several threads, and what came of it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from licodec.errors import FileAccessError, LicodecError, UsageError, family
from licodec.io import files
from licodec.io.files import STANDARD
from licodec.progress import Bar, watching


@dataclass(frozen=True)
class Job:
    """One file in, one file out; paths, or `-`. A problem is why there is no target."""

    source: str
    target: str
    problem: FileAccessError | None = None


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        jobs: in the order of the inputs; folders sorted by name.
        notes: on what the folders hold and is not done.
        lone: a single named file, whose failure or existing output is the failure of the command.
    """

    jobs: list[Job]
    notes: list[str] = field(default_factory=list)
    lone: bool = True


@dataclass(frozen=True)
class Result:
    """What work made of a source: the output's bytes, a line about it, and notes on what was converted."""

    data: bytes = field(repr=False)
    line: str
    notes: list[str] = field(default_factory=list)


Work = Callable[[Job], Result]


def plan(
    verb: str, inputs: Iterable[str], suffix: str, output: str | None, output_dir: str | None,
    recursive: bool, takes: Callable[[Path], bool],
) -> Plan:  # fmt: skip
    """Pair every input with its output.

    Args:
        verb: what is done, for the notes.
        suffix: of outputs whose name is not given, with its dot.
        recursive: go into folders; --output-dir then mirrors them.
        takes: whether a file found in a folder is one for this command.

    Raises:
        UsageError: -o together with --output-dir, or for more than one file.
    """
    inputs = list(inputs)
    folders = [source for source in inputs if recursive and os.path.isdir(source)]
    if "" in (output, output_dir):
        raise UsageError("an output needs a name")
    if output and output_dir:
        raise UsageError("-o and --output-dir exclude each other")
    if output and (len(inputs) > 1 or folders):
        raise UsageError("-o takes one input; use --output-dir for several")
    jobs: list[Job] = []
    notes, ignored = [], 0
    for source in inputs:
        if source not in folders:
            jobs.append(_job(source, "", output, output_dir, suffix))
            continue
        for path in _walk(source, jobs):
            if os.path.islink(path) and os.path.isdir(path):
                notes.append(f"{path} is a link to a folder, and is not followed")
            elif _is_file(path) and takes(path):
                inside = str(path.parent.relative_to(source))
                jobs.append(_job(str(path), inside, None, output_dir, suffix))
            else:
                ignored += 1
    if ignored:
        notes.append(f"{ignored} files in folders are not for {verb}")
    return Plan(jobs, notes, len(inputs) == 1 and not folders and output_dir is None)


def _walk(folder: str, jobs: list[Job]) -> Iterator[Path]:
    """The files of a folder, and links to folders; a folder that cannot be read is a job that fails."""

    def refuse(error: OSError) -> None:
        problem = FileAccessError(f"cannot be read: {error.strerror}")
        jobs.append(Job(str(error.filename), "", problem))

    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders.sort()
        links = [name for name in subfolders if os.path.islink(os.path.join(parent, name))]
        visible = [name for name in names if not name.startswith(".")]
        yield from (Path(parent) / name for name in sorted(links + visible))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # a link to nothing
        return False
    except OSError:
        return True  # taken, so that its error is reported


def _job(source: str, inside: str, output: str | None, output_dir: str | None, suffix: str) -> Job:
    try:
        return Job(source, output or _target(source, inside, output_dir, suffix))
    except FileAccessError as error:
        return Job(source, "", error)


def _target(source: str, inside: str, output_dir: str | None, suffix: str) -> str:
    if source == STANDARD:
        return STANDARD if output_dir is None else str(Path(output_dir) / f"stdin{suffix}")
    path = Path(source)
    if not source:
        raise FileAccessError("an empty name is no file")
    if not path.name:
        raise FileAccessError("is a directory; -r goes into it")
    path = path.with_suffix(suffix)
    return str(path if output_dir is None else Path(output_dir) / inside / path.name)


class Batch:
    """Runs a plan; a failing file is reported and the rest go on.

    Args:
        verb: encode or decode, for the bar.
        work: called with a job; may run on several threads at once.
        force: overwrite outputs; otherwise those that exist are skipped, as done before.
        say: whether a line is printed for each file that worked.
    """

    def __init__(self, verb: str, plan: Plan, work: Work, force: bool, say: bool) -> None:
        self.plan, self.work, self.force, self.say = plan, work, force, say
        self.bar = Bar(verb, quiet=not say)
        self.counts = dict.fromkeys(("done", "skipped", "failed"), 0)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._producer: dict[str, str] = {}
        for job in plan.jobs:
            self._producer.setdefault(job.target, job.source)

    def run(self, workers: int) -> None:
        """Do every job.

        Raises:
            LicodecError: the lone file failed, or some of several did.
        """
        jobs = self.plan.jobs
        with self.bar:
            if workers == 1 or len(jobs) < 2:
                for job in jobs:
                    self._one(job)
            else:
                self._threads(workers)
        if self.plan.lone:
            return
        summary = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        if self.counts["skipped"]:
            summary += "; the skipped have an output already, -f makes it anew"
        if self.counts["failed"]:
            raise LicodecError(summary)
        if self.say:
            self._print(summary)

    def _threads(self, workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in as_completed([pool.submit(self._one, job) for job in self.plan.jobs]):
                    future.result()
            except BaseException:  # ctrl-C, above all: threads end at their next step
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, job: Job) -> None:
        source = "standard input" if job.source == STANDARD else job.source or "''"
        try:
            with watching(lambda stage, share: self._heard(source, stage, share)):
                outcome = self._do(job, source)
        except BrokenPipeError:
            raise  # the reader has seen enough; click ends quietly
        except Exception as error:
            failure = family(error)
            failure.args = (f"{source}: {failure}",)
            if self.plan.lone:
                raise failure from error
            outcome = "failed"
            self._print(str(failure))
        with self._lock:
            self.counts[outcome] += 1
            finished = sum(self.counts.values())
        if not self.plan.lone:
            self.bar.update(f"{finished} of {len(self.plan.jobs)}", finished / len(self.plan.jobs))

    def _do(self, job: Job, source: str) -> str:
        """The outcome, done or skipped."""
        if job.problem:
            raise job.problem
        if self._producer[job.target] != job.source:
            raise FileAccessError(
                f"{job.target} is also the output of {self._producer[job.target]}"
            )
        target = Path(job.target)
        if job.target != STANDARD and not self.force and os.path.isfile(target):
            if self.plan.lone:
                raise FileAccessError(f"{target} exists; -f overwrites it")
            return "skipped"
        if not self.plan.lone:
            _make_folder(target.parent)
        files.check_output(job.target, job.source)
        result = self.work(job)
        self._heard(source, "writing", 1.0)
        files.write(job.target, result.data, self.force)
        for note in result.notes if self.say else ():
            self._print(f"{source}: note: {note}")
        if self.say and job.target != STANDARD:
            self.bar.print(_one_line(f"{source} -> {target}: {result.line}"))
        return "done"

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
