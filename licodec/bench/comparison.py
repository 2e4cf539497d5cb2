"""A few images by every codec at the same size, as a browser shows them.

Making these takes most of a page's time, so they are kept in a folder: one file each, a line of JSON
and the bytes that the browser is given.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from licodec.bench import measure, metrics
from licodec.bench.datasets import SourceImage, load
from licodec.bench.evaluate import BenchPlan
from licodec.bench.interface import Peer, Settings
from licodec.bench.matching import match_size
from licodec.bench.results import Curve
from licodec.io import files

VIEW = (1024, 768)
"""The most pixels of an image that are shown, from its middle."""


@dataclass(frozen=True)
class Facts:
    """What is known of one codec's file; of the original, its codec's name alone."""

    codec: str
    media_type: str
    quality: float | None = None
    bytes: int | None = None
    bpp: float | None = None
    scores: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Shown:
    """A file, and what the browser is given for it: the file itself where it can show that, else a
    lossless WebP of its pixels."""

    facts: Facts
    data: bytes


@dataclass(frozen=True)
class Comparison:
    """One image: the original first, and each codec's file of about the same size."""

    image: str
    shown: list[Shown]


def compare_images(
    plan: BenchPlan,
    curves: Sequence[Curve],
    kept: Path | None,
    progress: Callable[[int, int, str], None],
    images: int = 3,
) -> list[Comparison]:
    """A few images, spread over the data set, by every codec of the plan that has rows.

    Args:
        kept: folder of what earlier calls made; it is made where it is not there. None keeps nothing.
        progress: called with files done, files in all, and whose is next.
    """
    measured = [curve for curve in curves if curve.rows and curve.name in plan.qualities]
    step = max(1, len(plan.images) // images)
    chosen = [i for i in plan.images[::step][:images] if measured and _sizes(measured[0], i)]
    with measure.workers(plan.jobs, plan.settings) as pool:
        parts = [
            (
                image.name,
                task,
                (kept and _read(kept / task.file)) or pool.submit(task.make, *task.work),
            )
            for image in chosen
            for task in _tasks(plan, image, measured)
        ]
        out = {image.name: Comparison(image.name, []) for image in chosen}
        for done, (name, task, part) in enumerate(parts):
            progress(done, len(parts), f"{name} for the page, {task.key[0]}")
            shown = _collect(task, part, kept)
            if shown is not None:
                out[name].shown.append(shown)
    return list(out.values())


@dataclass(frozen=True)
class _Task:
    """What a worker makes, and all that it depends on as the key by which it is kept."""

    key: list[Any]
    make: Callable[..., Shown]
    work: tuple[Any, ...]

    @property
    def file(self) -> str:
        return hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:32]


def _collect(task: _Task, part: Shown | Future[Shown], kept: Path | None) -> Shown | None:
    """What was read, or what a worker makes, which is kept; None where that failed."""
    if isinstance(part, Shown):
        return part
    if part.exception() is not None:
        return None  # a codec that fails on an image was named when it was measured
    shown = part.result()
    if kept is not None:
        _keep(kept / task.file, shown)
    return shown


def _sizes(curve: Curve, image: SourceImage) -> dict[float, int]:
    """Bytes of an image's files by quality."""
    return {r["quality"]: int(r["bytes"]) for r in curve.rows if r["sha256"] == image.sha256}


def _tasks(plan: BenchPlan, image: SourceImage, curves: list[Curve]) -> list[_Task]:
    """The original, and every codec at the first one's size a third of the way from its smallest."""
    sizes = sorted(_sizes(curves[0], image).values())
    target = sizes[len(sizes) // 3]
    tasks = [_Task(["original", image.sha256], _original, (image,))]
    for curve in curves:
        key = [curve.name, curve.meta.get("codec.version"), image.sha256, target]
        work = (curve.name, plan.settings, image, target, _sizes(curve, image))
        tasks.append(_Task(key, _decoded, work))
    return tasks


def _read(path: Path) -> Shown | None:
    """What an earlier call kept; None where it did not."""
    try:
        head, _, data = path.read_bytes().partition(b"\n")
        return Shown(Facts(**json.loads(head)), data)
    except (OSError, ValueError, TypeError):  # not there, or not one of ours
        return None


def _keep(path: Path, shown: Shown) -> None:
    path.parent.mkdir(exist_ok=True)
    head = json.dumps(asdict(shown.facts)).encode()
    files.write(str(path), head + b"\n" + shown.data, force=True)


def _original(image: SourceImage) -> Shown:
    return Shown(Facts("original", "image/webp"), _lossless(load(image.path)))


def _decoded(
    name: str, settings: Settings, image: SourceImage, target: int, known: dict[float, int]
) -> Shown:
    codec, original = measure.codec_of(name, settings), load(image.path)
    facts, data, decoded = at_size(codec, original, target, known)
    if facts.media_type and _view(original) is original:
        return Shown(facts, data)
    return Shown(replace(facts, media_type="image/webp"), _lossless(decoded))


def at_size(
    codec: Peer, original: Image.Image, target: int, known: dict[float, int] | None = None
) -> tuple[Facts, bytes, Image.Image]:
    """A codec's file of about `target` bytes: what is known of it, the file, and its pixels.

    Args:
        known: see match_size.
    """
    quality, data = match_size(codec, original, target, known)
    decoded = codec.decode(data).convert("RGB")
    facts = Facts(
        codec.name,
        codec.media_type or "",
        quality,
        len(data),
        metrics.bpp(len(data), original.width, original.height),
        metrics.scores(np.asarray(original), np.asarray(decoded)),
    )
    return facts, data, decoded


def _lossless(image: Image.Image) -> bytes:
    file = io.BytesIO()
    _view(image).save(file, "WEBP", lossless=True)
    return file.getvalue()


def _view(image: Image.Image) -> Image.Image:
    """The middle of an image that is larger than VIEW; else the image itself."""
    width, height = VIEW
    if image.width < image.height:
        width, height = height, width
    if image.width <= width and image.height <= height:
        return image
    left, top = max(0, (image.width - width) // 2), max(0, (image.height - height) // 2)
    return image.crop((left, top, min(left + width, image.width), min(top + height, image.height)))
