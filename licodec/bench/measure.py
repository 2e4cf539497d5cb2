"""What runs in worker processes: one image through one codec, warm or in a fresh process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from licodec.bench import metrics, peers
from licodec.bench.datasets import SourceImage, load
from licodec.bench.interface import Peer, Settings
from licodec.bench.results import Row
from licodec.errors import LicodecError


@contextmanager
def workers(jobs: int, settings: Settings) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters, since a fork of a process with threads may hang."""
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(settings,)
    )
    try:
        yield pool
    except KeyboardInterrupt:
        stop(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stop(pool: ProcessPoolExecutor) -> None:
    """End all workers at once, whatever they are at; finished futures keep their results."""
    for child in active_children():
        child.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _start(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's to handle
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(settings.threads)  # before anything imports torch
    threadpool_limits(settings.threads)  # of NumPy, which is loaded by now


def alone(settings: Settings, work: Callable[..., Any], *args: Any) -> tuple[Any, float, Any]:
    """Run `work` in a process of its own: its result, seconds from start to end, peak memory."""
    start = time.perf_counter()
    with workers(1, settings) as pool:
        result, peak = pool.submit(work, settings, *args).result()
    return result, time.perf_counter() - start, peak


@cache
def codec_of(name: str, settings: Settings) -> Peer:
    return peers.make(name, settings)


_warm: set[tuple[str, float | None]] = set()


def check(name: str, settings: Settings) -> None:
    peers.check(codec_of(name, settings))


def measure(name: str, settings: Settings, image: SourceImage, quality: float) -> Row:
    codec = codec_of(name, settings)
    original = load(image.path)
    network = name, None if codec.quality_step else quality
    if network not in _warm:
        codec.decode(codec.encode(original, quality))
        _warm.add(network)
    start = time.perf_counter()
    data = codec.encode(original, quality)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    if decoded.size != original.size:
        raise LicodecError(f"decoded to {decoded.size}, from {original.size}")
    x, x_hat = np.asarray(original), np.asarray(decoded.convert("RGB"))
    return {
        "image": image.name,
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "quality": quality,
        "bytes": len(data),
        "bpp": metrics.bpp(len(data), image.width, image.height),
        **metrics.scores(x, x_hat),
        "encoding_time": encoded - start,
        "decoding_time": end - encoded,
        **{f"{part}_bytes": size for part, size in codec.streams(data).items()},
    }


def encode_alone(
    settings: Settings, name: str, path: Path, quality: float
) -> tuple[bytes, int | None]:
    data = peers.make(name, settings).encode(load(path), quality)
    return data, peak_memory()


def decode_alone(settings: Settings, name: str, data: bytes) -> tuple[None, int | None]:
    peers.make(name, settings).decode(data)
    return None, peak_memory()


def decoder_complexity(name: str, settings: Settings, width: int, height: int) -> dict[str, Any]:
    complexity = codec_of(name, settings).decoder_complexity(width, height)
    if complexity is None:
        return {}
    return {
        "decoder.kmac_per_pixel": complexity.kmac_per_pixel(width * height),
        "decoder.parameters": complexity.parameters,
    }


def peak_memory() -> int | None:
    """Bytes this process held at most, its interpreter included; None where nothing tells.

    On Linux ru_maxrss also counts what the parent held before it started this program; VmHWM does
    not.
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
