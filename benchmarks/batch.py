"""A hundred photographs in one process against a hundred processes.

    python benchmarks/batch.py [--photographs 100] [--side 256] [--jobs 1 2]

The photographs are crops of skimage's. One process encodes them all (`--output-dir`, for each -j), then
a process is started for each; the files must be the same. Seconds are of the clock, and of the processor.
Writes benchmarks/batch.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

HERE = Path(__file__).resolve().parent
DEVICE = ["--device", "cpu", "--precision", "float32", "--quiet"]


def crops(count: int, side: int, folder: Path) -> list[str]:
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    random = np.random.default_rng(0)
    paths = []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        top, left = (random.integers(0, s - side + 1) for s in photograph.shape[:2])
        path = folder / f"{i:03}.png"
        Image.fromarray(photograph[top : top + side, left : left + side]).save(path)
        paths.append(str(path))
    return paths


def timed(commands: list[list[str]]) -> dict[str, float]:
    """Seconds of licodec commands, one after another."""

    def processor() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    began, before = time.perf_counter(), processor()
    for command in commands:
        subprocess.run([sys.executable, "-m", "licodec", *command], check=True)
    return {
        "clock_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(processor() - before, 1),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.lic"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=100)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = crops(arguments.photographs, arguments.side, folder)
        for jobs in arguments.jobs:
            out = str(folder / f"jobs{jobs}")
            command = ["encode", *paths, "--output-dir", out, "-j", str(jobs), *DEVICE]
            rows[f"one process, -j {jobs}"] = timed([command])
        singly = folder / "singly"
        singly.mkdir()
        rows[f"{arguments.photographs} processes"] = timed(
            [["encode", p, "-o", str(singly / f"{Path(p).stem}.lic"), *DEVICE] for p in paths]
        )
        same = all(
            contents(folder / f"jobs{jobs}") == contents(singly) != {} for jobs in arguments.jobs
        )
    single, many = (list(rows.values())[i] for i in (0, -1))
    ratios = {key: round(many[key] / single[key], 1) for key in single}
    result = {
        "photographs": arguments.photographs, "side": arguments.side,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads, torch {torch.__version__}",
        "rows": rows, "times as long in as many processes": ratios, "same files": same,
    }  # fmt: skip
    (HERE / "batch.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
