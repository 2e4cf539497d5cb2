"""How memory and time grow with the image: `licodec encode` and `decode`, a fresh process each.

    python benchmarks/memory.py [--megapixels 0.4 2 8 25 100] [--limit-gib 3]

Peak memory is the process's largest resident set, PNG in and PNG out included. Seconds are those of the
processor, so that they mean something on a machine that does other work as well. Rows that
benchmarks/memory.json holds already are measured anew only if their size is asked for. Exits with 1 where
a process takes more than the limit.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

import licodec

HERE = Path(__file__).resolve().parent
GIB = 2**30


def photograph(megapixels: float) -> Image.Image:
    """A mosaic of mirrored photographs, 4:3."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(megapixels * 1e6 / height)
    tiles = [a[:512, :512] for a in (data.astronaut(), np.rot90(data.astronaut()))]
    tiles += [np.pad(data.coffee(), ((0, 112), (0, 0), (0, 0)), mode="reflect")[:512, :512]]
    out = Image.new("RGB", (width, height))
    for i, top in enumerate(range(0, height, 512)):
        for j, left in enumerate(range(0, width, 512)):
            tile = tiles[(i + j) % 3][:: -1 if i % 2 else 1, :: -1 if j % 2 else 1]
            out.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top))
    return out


def measured(arguments: list[str]) -> tuple[float, float]:
    """Peak resident GiB and processor seconds of a licodec command, in a process of its own."""
    child = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'licodec', *sys.argv[1:]], check=True)\n"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(u.ru_maxrss, u.ru_utime + u.ru_stime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, *arguments], check=True, capture_output=True, text=True
    )
    kib, seconds = done.stdout.split()
    return int(kib) * 1024 / GIB, float(seconds)


def row(megapixels: float, folder: Path) -> dict[str, float]:
    png, lic, back = (str(folder / name) for name in ("in.png", "x.lic", "back.png"))
    image = photograph(megapixels)
    image.save(png, compress_level=1)
    size = image.size
    del image
    device = ["--device", "cpu", "--precision", "float32", "--quiet", "-f"]
    encode_gib, encode_s = measured(["encode", png, "-o", lic, *device])
    decode_gib, decode_s = measured(["decode", lic, "-o", back, *device])
    return {
        "megapixels": megapixels, "width": size[0], "height": size[1],
        "bytes": Path(lic).stat().st_size,
        "encode_gib": round(encode_gib, 3), "decode_gib": round(decode_gib, 3),
        "encode_cpu_s": round(encode_s, 2), "decode_cpu_s": round(decode_s, 2),
    }  # fmt: skip


def plot(rows: list[dict[str, float]], limit: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    x = [r["megapixels"] for r in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for verb, marker in (("encode", "o-"), ("decode", "s--")):
        left.plot(x, [r[f"{verb}_gib"] for r in rows], marker, label=verb)
        right.plot(x, [r[f"{verb}_cpu_s"] for r in rows], marker, label=verb)
    left.axhline(limit, color="grey", linewidth=0.8)
    left.set(xscale="log", xlabel="megapixels", ylabel="peak memory [GiB]", ylim=(0, limit * 1.1))
    right.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="processor time [s]")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.4, 2, 8, 25, 100])
    parser.add_argument("--limit-gib", type=float, default=3.0)
    arguments = parser.parse_args()
    path = HERE / "memory.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {r["megapixels"]: r for r in known}
    for megapixels in arguments.megapixels:
        with tempfile.TemporaryDirectory() as folder:
            rows[megapixels] = row(megapixels, Path(folder))
        print(rows[megapixels], file=sys.stderr)
        ordered = [rows[m] for m in sorted(rows)]
        machine = (
            f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads, "
            f"torch {torch.__version__}, licodec {licodec.__version__}"
        )
        path.write_text(json.dumps({"machine": machine, "rows": ordered}, indent=1) + "\n")
        plot(ordered, arguments.limit_gib, HERE / "memory.svg")
    worst = max(max(r["encode_gib"], r["decode_gib"]) for r in rows.values())
    print(f"worst {worst:.2f} GiB, limit {arguments.limit_gib:g} GiB")
    return int(worst >= arguments.limit_gib)


if __name__ == "__main__":
    sys.exit(main())
