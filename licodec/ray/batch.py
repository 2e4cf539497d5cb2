"""Jobs through the workers of a Ray cluster, each of which loads the model once.

A job is a file and its output: an image, or a shard of many. Jobs go out in groups, one task each. A task
whose worker is lost is done again, without the outputs that are there already.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

from licodec.errors import FileAccessError, LicodecError, UsageError, family
from licodec.io.files import MOST_BYTES
from licodec.ray.coding import Coding
from licodec.ray.shards import SUFFIXES, convert
from licodec.ray.store import Store

RETRIES = 3
"""Of a task whose worker is lost; an image that ends every worker is given up after them."""

FAILED = "failed.jsonl"
"""Lists what failed: of a run in the folder of its outputs, of a shard beside it, after its name."""

_MOST_IN_GROUP = 16
_MOST_GROUPS = 20_000
_GROUPS_PER_WORKER = 8
_AHEAD = 4
"""Files of a group that are read and written while one is coded."""


@dataclass(frozen=True)
class Task:
    """One file in, one file out.

    Attributes:
        number: what its row is known by.
        source, target: paths in the stores of the run.
        replace: write over a target that is there.
    """

    number: int
    source: str
    target: str
    replace: bool = False

    @property
    def is_shard(self) -> bool:
        return self.source.lower().endswith(SUFFIXES)


Row = dict[str, Any]
"""What came of a task: number, ok, and skipped or error; of an image what `encode_file` says, of a shard
images, bytes and failed."""


class Worker:
    """What Ray Data keeps in a process of its own for each processor."""

    def __init__(self, coding: Coding, sources: Store, targets: Store) -> None:
        self.coding, self.sources, self.targets = coding, sources, targets
        self.lock = threading.Lock()
        coding.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows, in JSON, of groups of tasks, in JSON: names of files may be no text."""
        tasks = [Task(**task) for group in batch["tasks"] for task in json.loads(group)]
        with ThreadPoolExecutor(_AHEAD) as pool:
            return {"row": [json.dumps(row) for row in pool.map(self.row, tasks)]}

    def row(self, task: Task) -> Row:
        try:
            if not task.replace and self.targets.has(task.target):
                done = self._already(task)
            elif task.is_shard:
                done = self._shard(task)
            else:
                done = self._image(task)
        except Exception as error:
            done = {"ok": False, "error": str(family(error))}
        return {"number": task.number, **done}

    def _already(self, task: Task) -> Row:
        """Of an output that is there: a worker that was lost may have got so far."""
        told = f"{task.target}.{FAILED}"
        if task.is_shard and self.targets.has(told):
            return failed_before(self.targets, told)
        return {"ok": True, "skipped": True}

    def _image(self, task: Task) -> Row:
        with self.sources.open(task.source) as source:
            content = source.read(MOST_BYTES + 1)
        with self.lock:
            data, row = self.coding(BytesIO(content))
        self.targets.write(task.target, data, task.replace)
        return {"ok": True, "skipped": False, **row}

    def _shard(self, task: Task) -> Row:
        """A shard appears when all of it is there; what failed in it is told before."""
        with tempfile.TemporaryFile() as spool:
            with self.sources.open(task.source) as source, self.lock:
                images, failed = convert(task.source, source, spool, self.coding)
            spool.flush()
            lines = "".join(json.dumps(row) + "\n" for row in failed).encode()
            told = f"{task.target}.{FAILED}"
            self.targets.write(told, lines, True) if failed else self.targets.remove(told)
            with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self.targets.write(task.target, data, task.replace)
                size = len(data)
        row: Row = {"ok": not failed, "skipped": False, "images": images, "bytes": size}
        if failed:
            row |= {"error": f"{len(failed)} of {images} images failed", "failed": failed}
        return row


def failed_before(targets: Store, told: str) -> Row:
    """Of a shard that is there without some of its images.

    Args:
        told: the list of these.
    """
    with targets.open(told) as file:
        failed = [json.loads(line) for line in file.read().splitlines()]
    error = f"{len(failed)} of its images failed before; -f tries them again"
    return {"ok": False, "error": error, "failed": failed}


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None, verbose: bool = False) -> Iterator[int]:
    """Be connected to a cluster: the one at an address, or one of this machine that is started and ended.

    What Ray says goes to standard error if verbose, else nowhere.

    Args:
        address: HOST:PORT, ray://HOST:PORT or auto; None for this machine.
        workers: how many there are to be; None for one a processor.

    Yields:
        How many workers there are to be.

    Raises:
        UsageError: Ray is not installed, or this is no address.
        FileAccessError: no cluster answers.
    """
    ray = imported()
    if address and address != "auto" and ":" not in address:
        raise UsageError(
            f"{address} is no address of a Ray cluster; HOST:PORT, ray://HOST:PORT and auto are "
            "(--ray without one stands last, or before another option)"
        )
    local: dict[str, Any] = {} if address else {
        "num_cpus": workers or os.cpu_count(), "include_dashboard": False,
        "object_store_memory": 2**27,
    }  # fmt: skip
    handled = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _hushed(verbose):
        try:
            with contextlib.nullcontext() if verbose else _deaf():
                ray.init(
                    address or "local",
                    log_to_driver=verbose,
                    logging_level=_level(verbose),
                    **local,
                )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise FileAccessError(
                f"no Ray cluster at {address or 'this machine'}: {error}"
            ) from error
        for number, handler in handled.items():
            signal.signal(number, handler)  # Ray's own ends in a core dump
        try:
            yield workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        finally:
            ray.shutdown()


def imported() -> Any:
    """Ray, with Ray Data.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f"this needs Ray ({error}): pip install 'licodec[ray]'") from error
    return ray


def _level(verbose: bool) -> int:
    return logging.INFO if verbose else logging.CRITICAL + 1


@contextlib.contextmanager
def _hushed(verbose: bool) -> Iterator[None]:
    """Ray writes to standard output, which belongs to the command."""
    names = "ray", "ray.data"
    before = {name: logging.getLogger(name).level for name in names}
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(sys.stderr if verbose else nowhere):
            try:
                if not verbose:
                    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
                for name in names:
                    logging.getLogger(name).setLevel(_level(verbose))
                yield
            finally:
                for name, level in before.items():
                    logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Nothing gets to standard error: compiled code tells there that it is to tell nothing."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def run(
    tasks: Sequence[Task], coding: Coding, sources: Store, targets: Store, workers: int
) -> Iterator[Row]:
    """Do tasks on the cluster that there is; their rows as they come.

    Raises:
        LicodecError: no worker can be started, or the cluster is lost.
    """
    left = {task.number: task for task in tasks}
    images = sum(not task.is_shard for task in tasks)
    most = max(
        min(_MOST_IN_GROUP, images // (workers * _GROUPS_PER_WORKER)), images // _MOST_GROUPS
    )
    # An image that ends its worker takes along what that worker has, so what is lost goes a second time:
    # each by itself, and no worker has two.
    for size, at_once in ((most, None), (1, 1)):
        groups = _groups(list(left.values()), size)
        for row in _rows(groups, coding, sources, targets, workers, at_once):
            if left.pop(row["number"], None):
                yield row
        if not left:
            return
    for number in left:
        yield {
            "number": number,
            "ok": False,
            "error": f"every worker was lost at it, {RETRIES + 1} of them",
        }


def _groups(tasks: list[Task], size: int) -> list[list[Task]]:
    """Shards each by itself, and images some together."""
    shards = [[task] for task in tasks if task.is_shard]
    images = [task for task in tasks if not task.is_shard]
    size = max(1, size)
    return shards + [images[i : i + size] for i in range(0, len(images), size)]


def _rows(
    groups: list[list[Task]], coding: Coding, sources: Store, targets: Store, workers: int,
    at_once: int | None,
) -> Iterator[Row]:  # fmt: skip
    """Rows of groups, of which a worker has so many at a time, or as many as Ray sees fit."""
    ray = imported()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    items = [{"tasks": json.dumps([asdict(task) for task in group])} for group in groups]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    workers = min(workers, len(items))
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=workers, max_tasks_in_flight_per_actor=at_once
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray will have retries elsewhere, some day
        dataset = dataset.map_batches(
            Worker, batch_size=None, fn_constructor_args=(coding, sources, targets), compute=pool,
            max_task_retries=RETRIES, **processors(coding),
        )  # fmt: skip
    try:
        for row in dataset.iter_rows():
            yield json.loads(row["row"])
    except ray.exceptions.RayError as error:
        raise LicodecError(f"Ray cannot go on: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """The last line of what Ray says, where the cause stands."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def processors(coding: Coding) -> dict[str, Any]:
    """What a worker takes of its machine."""
    return {"num_cpus": 1, "num_gpus": int(coding.options.get("device") == "cuda")}
