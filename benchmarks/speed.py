"""Speed beside CompressAI and beside `import torch`, in one run on one machine.

    python benchmarks/speed.py IMAGE [--threads 2] [--json OUT]

Prints seconds and their ratios. Within a process every figure is the median of warm calls; a process is
timed whole, as a user's shell sees it, and is the fastest of several.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import licodec
from licodec.training import compressai_layers  # noqa: F401  (makes compressai importable)


def median_s(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def process_s(arguments: list[str], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def compressai(image: Image.Image, repeats: int) -> tuple[float, float]:
    """Seconds of FactorizedPrior(128, 192).compress and decompress; its speed needs no trained weights."""
    from compressai.models import FactorizedPrior

    torch.manual_seed(0)
    model = FactorizedPrior(128, 192).eval()
    model.update(force=True)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        out = model.compress(x)
        return (
            median_s(lambda: model.compress(x), repeats),
            median_s(lambda: model.decompress(out["strings"], out["shape"]), repeats),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with Image.open(arguments.image) as opened:
        image = opened.convert("RGB")

    data = licodec.encode(image, quality=50)
    row: dict[str, float | str] = {}
    row["licodec_encode_s"] = median_s(lambda: licodec.encode(image, quality=50), arguments.repeats)
    row["licodec_decode_s"] = median_s(lambda: licodec.decode(data), arguments.repeats)
    row["compressai_encode_s"], row["compressai_decode_s"] = compressai(image, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.lic")
        Path(path).write_bytes(data)
        out = str(Path(folder) / "x.png")
        cli = ["-m", "licodec"]
        row["import_torch_s"] = process_s(["-c", "import torch"], arguments.repeats)
        row["decode_process_s"] = process_s(
            [*cli, "decode", path, "-o", out, "-f"], arguments.repeats
        )
        row["help_process_s"] = process_s([*cli, "--help"], arguments.repeats)
        row["info_process_s"] = process_s([*cli, "info", path], arguments.repeats)
    ratios = {
        "encode: times as fast as CompressAI (goal 3)": row["compressai_encode_s"]
        / row["licodec_encode_s"],
        "decode: times as fast as CompressAI (goal 3)": row["compressai_decode_s"]
        / row["licodec_decode_s"],
        "decode process / import torch (goal 1.4)": row["decode_process_s"] / row["import_torch_s"],
        "--help process / import torch (goal 0.25)": row["help_process_s"] / row["import_torch_s"],
        "info process / import torch (goal 0.25)": row["info_process_s"] / row["import_torch_s"],
    }
    for name, value in {**row, **ratios}.items():
        print(f"{name:48} {value:.3f}")
    if arguments.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        result = {"machine": machine, "threads": arguments.threads, **row, "ratios": ratios}
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
