"""Codecs x qualities x images, each encoded to a file's bytes, decoded and compared.

A row's times are warm: a worker process has run that codec once before it measures it. What a user
waits for in a fresh process, and the memory that process takes, are measured apart, once a codec.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from licodec.bench import measure, peers
from licodec.bench.datasets import SourceImage
from licodec.bench.interface import Settings
from licodec.bench.provenance import provenance
from licodec.bench.results import Curve, Row, aggregate
from licodec.errors import LicodecError, UsageError

SAVE_EVERY = 5.0
"""Seconds of work that a crash may cost."""


@dataclass(frozen=True)
class BenchPlan:
    """What to measure. `qualities` names every codec of the run, in order."""

    images: list[SourceImage]
    qualities: dict[str, tuple[float, ...]]
    settings: Settings
    jobs: int
    dataset: str


@dataclass
class Outcome:
    """Curves, codecs that could not run (name: why), and measurements that failed."""

    curves: list[Curve]
    missing: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


def evaluate(
    plan: BenchPlan,
    previous: list[Curve],
    save: Callable[[list[Curve]], None],
    progress: Callable[[int, int, str], None],
) -> Outcome:
    """Measure what `previous` does not hold yet.

    Args:
        save: called every few seconds, and at the end, with all curves.
        progress: called with measurements done, measurements in all, and what is being measured.

    Raises:
        UsageError: `previous` was made from images that are not in the plan.
    """
    _same_images(plan, previous)
    outcome = Outcome(previous)
    saved = time.monotonic()
    futures: dict[Future[Row], tuple[Curve, str]] = {}
    curves: list[Curve] = []
    with measure.workers(plan.jobs, plan.settings) as pool:
        try:
            curves = _runnable(plan, _curves(plan, outcome), pool, outcome)
            for curve, image, quality in _pending(plan, curves):
                future = pool.submit(measure.measure, curve.name, plan.settings, image, quality)
                futures[future] = curve, f"{curve.name} q={quality:g} {image.name}"
            for done, future in enumerate(as_completed(futures), 1):
                curve, what = futures.pop(future)
                _collect(future, curve, what, outcome)
                progress(done, done + len(futures), what)
                if time.monotonic() - saved > SAVE_EVERY:
                    save(outcome.curves)
                    saved = time.monotonic()
            for curve in curves:
                progress(1, 1, f"{curve.name} in a fresh process")
                _once(plan, pool, curve, outcome)
        except KeyboardInterrupt:
            outcome.interrupted = True
            measure.stop(pool)
            for future, (curve, what) in futures.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    _collect(future, curve, what, outcome)
        except BrokenProcessPool:
            outcome.failures.append("a worker process died; is there enough memory for --jobs?")
    _drop_replaced(plan, curves, outcome)
    for curve in outcome.curves:
        if curve.rows:  # else it is one from elsewhere, which has no more than its results
            curve.results = aggregate(curve.rows, len(plan.images))
            curve.meta.update(dataset=plan.dataset, images=len(plan.images))
    save(outcome.curves)
    return outcome


def _same_images(plan: BenchPlan, previous: list[Curve]) -> None:
    here = {(image.name, image.sha256) for image in plan.images}
    there = {(row["image"], row["sha256"]) for curve in previous for row in curve.rows}
    if not there <= here:
        name = sorted(there - here)[0][0]
        raise UsageError(f"the results to continue hold other images ({name}); choose another -o")


def _curves(plan: BenchPlan, outcome: Outcome) -> list[Curve]:
    """The plan's curves of codecs that seem to run here; one of another version gets a curve of its own."""
    curves = []
    for name in plan.qualities:
        codec = peers.make(name, plan.settings)
        try:
            version = peers.version(codec)
        except LicodecError as error:
            outcome.missing[name] = str(error)
            continue
        same = (c for c in outcome.curves if c.name == name)
        curve = next((c for c in same if c.meta.get("codec.version", version) == version), None)
        curve = curve or Curve(name, codec.description)
        curve.meta["codec.version"] = version
        curves.append(curve)
    return curves


def _runnable(
    plan: BenchPlan, curves: list[Curve], pool: ProcessPoolExecutor, outcome: Outcome
) -> list[Curve]:
    """Those of the curves that are complete, or whose codec passes a round trip and may go on."""
    unfinished = [c for c in curves if any(_pending(plan, [c])) or "process.image" not in c.meta]
    checks = [(c, pool.submit(measure.check, c.name, plan.settings)) for c in unfinished]
    for curve, future in checks:
        try:
            future.result()
        except LicodecError as error:
            outcome.missing[curve.name] = str(error)
            curves = [c for c in curves if c is not curve]
            continue
        curve.meta |= {
            "jobs": plan.jobs,
            "threads": plan.settings.threads,
            "device": plan.settings.device,
            **provenance(),
        }
    outcome.curves += [curve for curve in curves if not any(c is curve for c in outcome.curves)]
    order = list(plan.qualities)
    outcome.curves.sort(key=lambda c: order.index(c.name) if c.name in order else len(order))
    return curves


def _drop_replaced(plan: BenchPlan, curves: list[Curve], outcome: Outcome) -> None:
    """Leave out what another version measured, once the curve that takes its place is complete."""
    complete = {curve.name: curve for curve in curves if not any(_pending(plan, [curve]))}
    outcome.curves = [c for c in outcome.curves if complete.get(c.name, c) is c]


def _pending(plan: BenchPlan, curves: list[Curve]) -> Iterator[tuple[Curve, SourceImage, float]]:
    for curve in curves:
        done = {(row["image"], row["sha256"], row["quality"]) for row in curve.rows}
        for image in plan.images:
            for quality in plan.qualities[curve.name]:
                if (image.name, image.sha256, quality) not in done:
                    yield curve, image, quality


def _collect(future: Future[Row], curve: Curve, what: str, outcome: Outcome) -> None:
    try:
        curve.rows.append(future.result())
    except BrokenProcessPool:
        raise
    except Exception as error:  # one codec failing on one image must not end the run
        outcome.failures.append(f"{what}: {error or type(error).__name__}")


def _once(plan: BenchPlan, pool: ProcessPoolExecutor, curve: Curve, outcome: Outcome) -> None:
    """What is measured once a codec, on the largest image: fresh processes, and complexity."""
    image = max(plan.images, key=lambda i: i.width * i.height)
    qualities = plan.qualities[curve.name]
    quality = qualities[len(qualities) // 2]
    if "process.image" in curve.meta or not curve.rows:
        return
    try:
        data, encoding_time, encoding_peak = measure.alone(
            plan.settings, measure.encode_alone, curve.name, image.path, quality
        )
        _, decoding_time, decoding_peak = measure.alone(
            plan.settings, measure.decode_alone, curve.name, data
        )
        complexity = pool.submit(
            measure.decoder_complexity, curve.name, plan.settings, image.width, image.height
        ).result()
    except Exception as error:  # the rows stand without it
        outcome.failures.append(f"{curve.name} in a fresh process: {error or type(error).__name__}")
        return
    curve.meta |= {
        "process.image": f"{image.name}, {image.width}x{image.height}, quality {quality:g}",
        "process.encoding_time": encoding_time,
        "process.decoding_time": decoding_time,
        "process.encoding_peak_bytes": encoding_peak,
        "process.decoding_peak_bytes": decoding_peak,
        **complexity,
    }
