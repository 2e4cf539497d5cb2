"""A batch on a local Ray cluster against the same without one, and what that makes of many machines.

    python benchmarks/ray_batch.py [--images 2000] [--side 512] [--jobs 2] [--rounds 1] [--price 0.09]

An image is four crops of skimage's photographs. Both ways take turns, and their files must be the same. Rates
are counted from the first file to the last, by the times at which they were written; what goes before, Ray's
start above all, is told beside them. The price is that of a machine with this one's
processors, in dollars an hour. Writes benchmarks/experiments/ray.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
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
MANY = 10**8


def images(count: int, side: int, folder: Path) -> None:
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    random = np.random.default_rng(0)
    half = side // 2
    for i in range(count):
        crops = []
        for photograph in photographs:
            top, left = (random.integers(0, s - half + 1) for s in photograph.shape[:2])
            crops.append(photograph[top : top + half, left : left + half])
        pixels = np.vstack([np.hstack(crops[:2]), np.hstack(crops[2:])])
        Image.fromarray(pixels).save(folder / f"{i:05}.png")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.lic")}


def run(folder: Path, out: Path, options: list[str]) -> dict[str, float]:
    """Images a second, and seconds before the first one."""
    command = [
        sys.executable,
        "-m",
        "licodec",
        "encode",
        "-r",
        str(folder),
        "--output-dir",
        str(out),
    ]
    began = time.time()
    subprocess.run([*command, "--device", "cpu", "--quiet", *options], check=True)
    times = sorted(path.stat().st_mtime for path in out.glob("*.lic"))
    return {
        "images_per_s": round((len(times) - 1) / (times[-1] - times[0]), 3),
        "start_s": round(times[0] - began, 1),
        "all_s": round(time.time() - began, 1),
    }


def arithmetic(rate: float, price: float) -> dict[str, dict[str, float]]:
    """Days and dollars of MANY images by the number of machines."""
    hours = MANY / rate / 3600
    return {
        f"{machines} machines": {
            "days": round(hours / machines / 24, 2), "dollars": round(hours * price),
        }
        for machines in (1, 10, 100)
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--price", type=float, default=0.09)
    arguments = parser.parse_args()
    jobs = ["-j", str(arguments.jobs)]
    ways = {"-j": jobs, "--ray": ["--ray", *jobs]}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    same = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        images(arguments.images, arguments.side, folder)
        for i in range(arguments.rounds):
            outs = [Path(name) / f"{way.strip('-')}{i}" for way in ways]
            for out, (way, options) in zip(outs, ways.items(), strict=True):
                runs[way].append(run(folder, out, options))
            same = same and contents(outs[0]) == contents(outs[1]) != {}
    rates = {
        way: statistics.median(r["images_per_s"] for r in found) for way, found in runs.items()
    }
    result = {
        "images": arguments.images, "side": arguments.side, "jobs": arguments.jobs,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, torch {torch.__version__}",
        "runs": runs, "--ray as a share of -j": round(rates["--ray"] / rates["-j"], 3), "same files": same,
        "dollars an hour": arguments.price, f"{MANY:,} images": arithmetic(rates["--ray"], arguments.price),
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    (HERE / "experiments" / "ray.json").write_text(text + "\n")
    print(text)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
