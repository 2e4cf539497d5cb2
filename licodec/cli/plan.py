"""Which files a command works on, and where each output goes; decided before any work is done."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from licodec.errors import FileAccessError, LicodecError, UsageError
from licodec.io import files
from licodec.io.files import STANDARD
from licodec.progress import plain

_SPARE = ".decoded"
"""Stands before the suffix where the plain name is that of an image that was there before."""

_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


@dataclass(frozen=True)
class Source:
    """A file to read, or `-`.

    Attributes:
        inside: its folder below the folder that was named.
        problem: why it cannot be read.
    """

    path: str
    inside: str = ""
    problem: FileAccessError | None = None


@dataclass(frozen=True)
class Found:
    """The files that the arguments of a command come to.

    Attributes:
        sources: in the order of the arguments; folders sorted by name.
        notes: on what the folders hold and is not taken.
        lone: there is one, and it was named.
    """

    sources: list[Source]
    notes: list[str] = field(default_factory=list)
    lone: bool = True


def find(
    inputs: Sequence[str],
    recursive: bool,
    takes: Callable[[Path], bool],
    kind: str,
    listed: Sequence[str] = (),
) -> Found:
    """Look into the folders.

    Args:
        recursive: go into folders.
        takes: whether a file found in a folder is one for this command.
        kind: what such a file is.
        listed: more inputs, which stood in a file.

    Raises:
        UsageError: there are no inputs at all.
    """
    if not inputs and not listed:
        raise UsageError("name a file, or --filelist FILE")
    if [*inputs, *listed].count(STANDARD) > 1:
        raise UsageError("standard input is there once, and is named twice")
    sources: list[Source] = []
    notes, ignored, folders = [], 0, False
    for path in (*inputs, *listed):
        if not os.path.isdir(path):
            sources.append(Source(path))
            continue
        if not recursive:
            problem = FileAccessError("is a directory; -r goes into it")
            sources.append(Source(path, problem=problem))
            continue
        folders = True
        for inner in _walk(path, sources):
            if os.path.islink(inner) and os.path.isdir(inner):
                notes.append(f"{inner} is a link to a folder, and is not followed")
            elif _is_file(inner) and takes(inner):
                sources.append(Source(str(inner), str(inner.parent.relative_to(path))))
            else:
                ignored += 1
    if ignored:
        is_no = (
            f"file in folders is no {kind}" if ignored == 1 else f"files in folders are no {kind}s"
        )
        notes.append(f"{ignored} {is_no}")
    return Found(sources, notes, len(inputs) == 1 and not folders and not listed)


def _walk(folder: str, sources: list[Source]) -> Iterator[Path]:
    """The files of a folder but for hidden ones, and links to folders; a folder that cannot be read is a
    source that fails."""

    def refuse(error: OSError) -> None:
        problem = FileAccessError(f"cannot be read: {error.strerror}")
        sources.append(Source(str(error.filename), problem=problem))

    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
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


@dataclass(frozen=True)
class Outputs:
    """How a command names what it makes.

    Attributes:
        suffix: of outputs whose name is not given, with its dot.
        is_made: whether a path is named like an output.
        output, output_dir: as the user gave them.
        force: replace outputs that exist.
        spares: outputs beside their sources never replace a file that may be an original.
    """

    suffix: str
    is_made: Callable[[Path], bool]
    output: str | None = None
    output_dir: str | None = None
    force: bool = False
    spares: bool = False


@dataclass(frozen=True)
class Job:
    """One file in, one file out; paths, or `-`.

    Attributes:
        replace: whether the target may be written over.
        way_out: what the user can do where it exists and may not.
        problem: why there is no target.
    """

    source: str
    target: str
    replace: bool = False
    way_out: str = "-o names another output, -f overwrites it"
    problem: FileAccessError | None = None


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        jobs: in the order of the sources.
        notes: on inputs and outputs.
        lone: a single named file, whose failure or existing output is the failure of the command.
    """

    jobs: list[Job]
    notes: list[str] = field(default_factory=list)
    lone: bool = True


def pair(found: Found, outputs: Outputs) -> Plan:
    """Find an output for every source; no two have the same.

    Raises:
        UsageError: -o together with --output-dir, or for more than one file; or an output among the inputs.
    """
    output, output_dir = outputs.output, outputs.output_dir
    if "" in (output, output_dir):
        raise UsageError("an output needs a name")
    if output and output_dir:
        raise UsageError("-o and --output-dir exclude each other")
    if output and is_folder(output):
        output, output_dir = None, output
    if output and not found.lone:
        raise UsageError("-o takes one input; use --output-dir for several")
    if not output and not output_dir:
        _refuse_second_name(found.sources, outputs.is_made)
    if output:
        jobs = [
            Job(source.path, output, outputs.force, problem=source.problem)
            for source in found.sources
        ]
        return Plan(jobs, found.notes, found.lone)
    namer = _Namer(outputs, output_dir)
    jobs = [job for source in found.sources if (job := namer.job(source))]
    return Plan(jobs, [*found.notes, *namer.notes], found.lone and output_dir is None)


def is_folder(output: str) -> bool:
    """Whether an output's name is that of a folder, as cp and mv see it."""
    return output.endswith(_SEPARATORS)


def _refuse_second_name(sources: list[Source], is_made: Callable[[Path], bool]) -> None:
    """`encode in.png out.lic`, as other programs have it, names an output in the place of an input."""
    if len(sources) != 2:
        return
    first, second = (Path(source.path) for source in sources)
    if is_made(second) and not is_made(first):
        raise UsageError(f"{second} is named like an output; did you mean -o {second}?")


class _Namer:
    """Names outputs, each of them once.

    Attributes:
        notes: on names that are not the usual ones.
    """

    def __init__(self, outputs: Outputs, folder: str | None) -> None:
        self.outputs, self.folder = outputs, folder
        self.notes: list[str] = []
        self._taken: dict[object, Source] = {}

    def job(self, source: Source) -> Job | None:
        """What to make of a source; None where it was named before."""
        if source.problem:
            return Job(source.path, "", problem=source.problem)
        try:
            return self._job(source)
        except FileAccessError as error:
            return Job(source.path, "", problem=error)

    def _job(self, source: Source) -> Job | None:
        if source.path == STANDARD and self.folder is None:
            return Job(STANDARD, STANDARD)
        path = Path("stdin" if source.path == STANDARD else source.path)
        if not source.path:
            raise FileAccessError("an empty name is no file")
        folder = path.parent if self.folder is None else Path(self.folder) / source.inside
        usual = folder / path.with_suffix(self.outputs.suffix).name
        job = self._replacing(source.path, usual)
        other = self._taken.setdefault(identity(job.target), source)
        if other is source:
            return job
        if identity(other.path) == identity(source.path):
            return None
        conflict = FileAccessError(f"{job.target} is also the output of {other.path}")
        if Path(other.path).name == path.name:
            raise conflict
        job = self._replacing(source.path, folder / (path.name + self.outputs.suffix))
        if self._taken.setdefault(identity(job.target), source) is not source:
            raise conflict
        self.notes.append(f"{source.path} becomes {job.target}; {usual} is that of {other.path}")
        return job

    def _replacing(self, source: str, target: Path) -> Job:
        """A job for this target, or for a spare one where an image is there that may be an original."""
        name, force = str(target), self.outputs.force
        beside = self.folder is None or identity(target.parent) == identity(Path(source).parent)
        if not (self.outputs.spares and beside and os.path.lexists(target)):
            # Had it been there, it would have been spared; if it comes up meanwhile, it is, too.
            return Job(source, name, force and not (self.outputs.spares and beside))
        spare = str(target.with_name(f"{target.stem}{_SPARE}{target.suffix}"))
        if not force and _modified(target) > _modified(Path(source)):  # decoded from it before
            return Job(source, name, False, f"-o names another output, -f makes {spare}")
        return Job(source, spare, force)


def identity(path: str | Path) -> object:
    """What two names of one file have in common, be it there or not."""
    try:
        found = os.stat(path) if os.path.exists(path) else None
        if found and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
            return found.st_dev, found.st_ino
        if os.path.islink(path):
            path = os.path.realpath(path)
        parent, name = os.path.split(path)
        folder = os.stat(parent or os.curdir)  # hard links are files of their own once written
        return folder.st_dev, folder.st_ino, name
    except (OSError, ValueError):
        return os.path.abspath(path)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


def read_list(name: str, inputs: Sequence[str]) -> list[str]:
    """The lines of a file, or of standard input for `-`: names of files.

    Args:
        inputs: what the command was given beside it.

    Raises:
        FileAccessError: it cannot be read.
        UsageError: it is no list, or standard input is an image as well.
    """
    if name == STANDARD in inputs:
        raise UsageError("standard input cannot be both an input and the list of inputs")
    try:
        content = files.read_all(name)
    except LicodecError as error:
        error.args = (f"--filelist {plain(name)}: {error}",)
        raise
    if b"\0" in content:
        raise UsageError(f"--filelist {plain(name)}: one name a line is wanted, and no zero bytes")
    # As Windows writes text: with a mark at its beginning, and two characters for the end of a line.
    text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]
