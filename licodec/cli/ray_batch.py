"""The plan of `encode` and `decode` on a Ray cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from licodec import signals
from licodec.cli import batch, plan
from licodec.cli.plan import Found, Job, Outputs, Plan, Source
from licodec.errors import FileAccessError, UsageError
from licodec.progress import say
from licodec.ray.batch import FAILED, Task, cluster, failed_before, imported, run
from licodec.ray.coding import Coding
from licodec.ray.shards import SUFFIXES
from licodec.ray.store import Store, located

Rows = Iterator[tuple[int, dict[str, Any]]]


def code(
    verb: str, inputs: Sequence[str], listed: Sequence[str], coding: Coding,
    takes: Callable[[Path], bool], given: dict[str, Any],
) -> None:  # fmt: skip
    """Code images and shards, and list in the folder of the outputs what failed.

    Args:
        listed: more inputs, which stood in a file.
        takes: whether a file of a local folder is one to be coded.
        given: the options that `shared_options.coding` declares.

    Raises:
        LicodecError: some failed, or nothing could be begun.
    """
    if given["output"] or not given["output_dir"]:
        raise UsageError(
            "--ray writes into a folder: --output-dir names it, and -o does not go with it"
        )
    imported()
    signals.gently()  # before there are processes, which would block what this one blocks
    sources, found = _find(inputs, listed, given["recursive"], coding, takes)
    targets, folder = located(given["output_dir"])
    folder = folder.rstrip("/") if targets.system else given["output_dir"]
    todo = _pair(found, folder, coding.suffix, given["force"])
    for note in [] if given["quiet"] else todo.notes:
        say(f"licodec: note: {note}")
    failed: list[dict[str, Any]] = []
    telling = batch.Telling(not given["quiet"], given["verbose"], given["as_json"])
    there = targets.names(_full(targets, folder))
    try:
        rows = _rows(todo.jobs, there, coding, sources, targets, given)
        batch.Batch(verb, todo, telling).gather(_failures(rows, todo.jobs, failed), _line)
    finally:
        name = _full(targets, str(PurePosixPath(folder, FAILED)))
        if failed:
            lines = "".join(json.dumps(row) + "\n" for row in failed)
            targets.write(name, lines.encode(), True)
        elif name in there:
            targets.remove(name)


def _find(
    inputs: Sequence[str], listed: Sequence[str], recursive: bool, coding: Coding,
    takes: Callable[[Path], bool],
) -> tuple[Store, Found]:  # fmt: skip
    """The files that the arguments come to, images and shards, and where they lie."""
    placed = [located(name) for name in (*inputs, *listed)]
    stores = [store for store, _ in placed]
    if any(store != stores[0] for store in stores):
        raise UsageError("the inputs lie in several stores; name those of one at a time")
    kind = ".tar or .parquet file, or image" if coding.encodes else ".tar, .parquet or .lic file"
    if not stores or stores[0].system is None:
        names = [
            path if "://" in name else name
            for name, (_, path) in zip((*inputs, *listed), placed, strict=True)
        ]
        return Store(), plan.find(
            names, recursive, lambda path: _is_shard(path.name) or takes(path), kind
        )
    sources = [s for store, path in placed for s in _listed(store, path, recursive, coding)]
    return stores[0], Found(sources, lone=False)


def _is_shard(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _listed(store: Store, path: str, recursive: bool, coding: Coding) -> Iterator[Source]:
    """What a path in a store comes to."""
    path = path.rstrip("/")
    try:
        if not store.is_folder(path):
            yield Source(path)
            return
        if not recursive:
            raise FileAccessError("is a directory; -r goes into it")
        for name in sorted(store.names(path)):
            if _is_shard(name) or coding.takes(name):
                yield Source(name, str(PurePosixPath(name).parent.relative_to(path)))
    except FileAccessError as error:
        yield Source(path, problem=error)


def _pair(found: Found, folder: str, suffix: str, force: bool) -> Plan:
    """Outputs for all sources: shards keep their suffix."""
    jobs, notes = [], list(found.notes)
    for kind in ("", *SUFFIXES):
        sources = [
            source
            for source in found.sources
            if (source.path.lower().endswith(kind) if kind else not _is_shard(source.path))
        ]
        outputs = Outputs(kind or suffix, lambda path: False, None, folder, force)
        made = plan.pair(Found(sources, lone=False), outputs)
        jobs += made.jobs
        notes += made.notes
    return Plan(jobs, notes, lone=False)


def _full(store: Store, path: str) -> str:
    """A path as workers take it, wherever they run."""
    return path if store.system else os.path.abspath(path)


def _rows(
    jobs: list[Job], there: set[str], coding: Coding, sources: Store, targets: Store,
    given: dict[str, Any],
) -> Rows:  # fmt: skip
    """What is known beforehand, and then what the cluster does."""
    tasks = []
    for number, job in enumerate(jobs):
        source, target = _full(sources, job.source), _full(targets, job.target)
        if job.problem:
            yield number, {"ok": False, "error": str(job.problem)}
        elif source == target and sources == targets:
            yield number, {"ok": False, "error": "the output is the input itself"}
        elif job.replace or target not in there:
            tasks.append(Task(number, source, target, job.replace))
        elif f"{target}.{FAILED}" in there:
            yield number, failed_before(targets, f"{target}.{FAILED}")
        else:
            yield number, {"ok": True, "skipped": True}
    if not tasks:
        return
    address = None if given["ray"] == LOCAL else given["ray"]
    with cluster(address, given["jobs"], given["verbose"]) as workers:
        for row in run(tasks, coding, sources, targets, workers):
            yield row.pop("number"), row


LOCAL = "local"
"""Stands for no address."""


def _failures(rows: Rows, jobs: list[Job], failed: list[dict[str, Any]]) -> Rows:
    """Keep what failed, image by image."""
    for number, row in rows:
        if not row["ok"]:
            each = row.get("failed", [{"error": row["error"]}])
            failed += [{"file": jobs[number].source, **one} for one in each]
        yield number, row


def _line(row: dict[str, Any]) -> str:
    """On an image or a shard that was coded."""
    if "images" in row:
        return f"{row['images']:,} images, {row['bytes']:,} bytes"
    if "quality" not in row:
        return f"{row['width']}x{row['height']} {row['mode']}"
    return (
        f"{row['bytes']:,} bytes, {row['bpp']:.3f} bpp, {row['model']} q {row['quality']:g}, "
        f"{row['width']}x{row['height']}"
    )
