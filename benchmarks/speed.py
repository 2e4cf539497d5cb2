"""Speed beside CompressAI and beside `import torch`, in one run on one machine.

    python benchmarks/speed.py IMAGE... [--threads 2] [--context] [--json OUT]

Prints seconds and their ratios. Within a process every figure is the median of warm calls; of several images,
the median ratio counts, since CompressAI's time differs much between them. A process is timed whole, as a
user's shell sees it, and is the fastest of several; it and contexts take the first image.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import licodec
from licodec.codec import verify_latents
from licodec.container import MAX_PIXELS
from licodec.io.files import open_image
from licodec.training.codecs import compressai_layers  # noqa: F401  (makes compressai importable)


def median_s(work: Callable[[], object], repeats: int) -> float:
    return statistics.median([seconds(work) for _ in range(-1, repeats)][1:])  # the first warms up


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def processes_s(commands: dict[str, list[str]], repeats: int) -> dict[str, float]:
    """The fastest of several runs of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, arguments in commands.items():
            run = partial(
                subprocess.run, [sys.executable, *arguments], check=True, capture_output=True
            )
            times[name].append(seconds(run))
    return {f"{name}_process_s": min(of_one) for name, of_one in times.items()}


def licodec_works(image: Image.Image) -> dict[str, Callable[[], object]]:
    data = licodec.encode(image, quality=50)
    return {
        "encode": lambda: licodec.encode(image, quality=50),
        "decode": lambda: licodec.decode(data),
    }


def compressai_works(image: Image.Image) -> dict[str, Callable[[], object]]:
    """FactorizedPrior(128, 192), whose speed needs no trained weights."""
    from compressai.models import FactorizedPrior

    torch.manual_seed(0)
    model = FactorizedPrior(128, 192).eval()
    model.update(force=True)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        out = model.compress(x)
    return {
        "encode": torch.no_grad()(lambda: model.compress(x)),
        "decode": torch.no_grad()(lambda: model.decompress(out["strings"], out["shape"])),
    }


CODECS = {"licodec": licodec_works, "compressai": compressai_works}


def serve(codec: str, image: Image.Image, threads: int, orders: Connection) -> None:
    """A warm process of one codec: the seconds of each work that it is asked for."""
    torch.set_num_threads(threads)
    works = CODECS[codec](image)
    for work in works.values():
        work()
    while True:
        orders.send(seconds(works[orders.recv()]))


def codecs(image: Image.Image, threads: int, repeats: int) -> dict[str, float]:
    """Medians of both codecs, each in a warm process of its own, where neither's memory is in the other's
    way; their calls take turns, so that whatever else the machine does meets them alike."""
    context = multiprocessing.get_context("spawn")
    lines, servers = {}, []
    for codec in CODECS:
        lines[codec], far = context.Pipe()
        server = context.Process(target=serve, args=(codec, image, threads, far), daemon=True)
        server.start()
        servers.append(server)
    times: dict[str, list[float]] = {}
    for repeat in range(-1, repeats):  # the first turn warms up
        for work in ("encode", "decode"):
            for codec, line in lines.items():
                line.send(work)
                took = line.recv()
                if repeat >= 0:
                    times.setdefault(f"{codec}_{work}_s", []).append(took)
    for server in servers:
        server.terminate()
    return {name: statistics.median(seen) for name, seen in times.items()}


CONTEXT_MODELS = {"mbt2018": (128, 192), "cheng2020-attn": (192,)}
"""Architectures whose entropy part CompressAI decodes pixel by pixel, with their sizes here."""


def context_model(arch: str, image: Image.Image) -> dict[str, float]:
    """Seconds of decoding with a context: CompressAI's decompress, and licodec on the same weights.

    The weights are random, with a gain that spreads the latents over a step. `_g_s` is the time of the
    synthesis alone, so that the entropy part is the rest.
    """
    from compressai.models import Cheng2020Attention, JointAutoregressiveHierarchicalPriors

    from licodec.training.convert.import_checkpoint import import_checkpoint

    kinds = {"mbt2018": JointAutoregressiveHierarchicalPriors, "cheng2020-attn": Cheng2020Attention}
    torch.manual_seed(0)
    model = kinds[arch](*CONTEXT_MODELS[arch]).eval()
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    last = [m for m in model.entropy_parameters if isinstance(m, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias[: model.M].add_(1)
        model.update(force=True)
        gain = (1 / model.g_a(x).square().mean((0, 2, 3)).sqrt()).log()[None]
        out = model.compress(x)
        began = time.perf_counter()
        model.decompress(out["strings"], out["shape"])
        row = {f"compressai_{arch}_s": time.perf_counter() - began}
        y_hat = torch.zeros(1, model.M, -(-image.height // 16), -(-image.width // 16))
        row[f"compressai_{arch}_g_s_s"] = median_s(lambda: model.g_s(y_hat), 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pt"
        torch.save({"state_dict": model.state_dict(), "log_gain": gain, "lambdas": [0.01]}, path)
        weights = import_checkpoint(path, arch, None, folder, arch)
        data = licodec.encode(image, weights=weights)
        row[f"licodec_{arch}_s"] = median_s(lambda: licodec.decode(data, weights=weights), 5)
        latents = median_s(lambda: verify_latents(data, weights=weights), 5)
        row[f"licodec_{arch}_g_s_s"] = row[f"licodec_{arch}_s"] - latents
        row[f"licodec_{arch}_encode_s"] = median_s(
            lambda: licodec.encode(image, weights=weights), 3
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json")
    parser.add_argument("--context", action="store_true", help="autoregressive models as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    images = []
    for path in arguments.images:
        with open_image(path, MAX_PIXELS) as opened:
            images.append(opened.convert("RGB"))
    image = images[0]

    data = licodec.encode(image, quality=50)
    seen = [codecs(each, arguments.threads, arguments.repeats) for each in images]
    row = {name: statistics.median(times[name] for times in seen) for name in seen[0]}
    faster = {
        work: [times[f"compressai_{work}_s"] / times[f"licodec_{work}_s"] for times in seen]
        for work in ("encode", "decode")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.lic")
        Path(path).write_bytes(data)
        out = str(Path(folder) / "x.png")
        cli = ["-m", "licodec"]
        commands = {
            "import_torch": ["-c", "import torch"],
            "decode": [*cli, "decode", path, "-o", out, "-f"],
            "help": [*cli, "--help"],
            "info": [*cli, "info", path],
        }
        row |= processes_s(commands, arguments.repeats)
    ratios = {
        **{
            f"{work}: times as fast as CompressAI": statistics.median(of_images)
            for work, of_images in faster.items()
        },
        "decode process / import torch": row["decode_process_s"] / row["import_torch_process_s"],
        "--help process / import torch": row["help_process_s"] / row["import_torch_process_s"],
        "info process / import torch": row["info_process_s"] / row["import_torch_process_s"],
    }
    for arch in CONTEXT_MODELS if arguments.context else ():
        timed = context_model(arch, image)
        row |= timed
        whole, rest = (
            [timed[f"{codec}_{arch}_s"] - timed[f"{codec}_{arch}_g_s_s"] * part
             for codec in ("compressai", "licodec")]
            for part in (0, 1)
        )  # fmt: skip
        ratios[f"{arch}: decode, times as fast"] = whole[0] / whole[1]
        ratios[f"{arch}: its entropy part, times as fast"] = rest[0] / rest[1]
    for name, value in {**row, **ratios}.items():
        print(f"{name:48} {value:.3f}")
    for work, of_images in faster.items():
        print(f"{work}, image by image", *(f"{ratio:.2f}" for ratio in of_images))
    if arguments.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        result = {
            "machine": machine,
            "threads": arguments.threads,
            **row,
            "ratios": ratios,
            "by_image": faster,
        }
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
