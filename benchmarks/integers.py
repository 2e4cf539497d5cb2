"""What it costs that integers decide the probabilities: real files against the trained floats' likelihoods.

    python benchmarks/integers.py EXPORT WEIGHTS --images kodak/ [--json OUT]

EXPORT is what `licodec export` made of a run with a hyperprior, WEIGHTS what `licodec import` made of EXPORT.
The floats are CompressAI's forward pass, which counts bits without coding any. A file's bytes are all of
it: header, tables of 64 scales, the range coder's end. The encoder's echo, its search and the surprises are
left out, ẑ is the nearest step, and transforms run in float32 on both sides. Weights with surprises are
measured with them as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import licodec
from licodec.architectures import BY_COMPRESSAI
from licodec.bench import datasets, metrics
from licodec.bench.bdrate import bd_rate
from licodec.bench.provenance import provenance
from licodec.entropy import hyperprior
from licodec.training.codecs.hyperprior import Hyperprior
from licodec.training.convert.export import write_weights
from licodec.training.start.klt import read_state
from licodec.weights.file import Weights


def floats(export: Path, arch: str) -> Hyperprior:
    """The network that was trained."""
    state, lambdas = read_state(str(export))
    N, M = len(state["g_a.0.weight"]), state["log_gain"].shape[1]
    model = Hyperprior(arch, N, M, lambdas)
    # All but the tables that CompressAI's coder would use.
    own = {n: state[n].float() for n, v in model.state_dict().items() if n in state and v.numel()}
    model.load_state_dict(own, strict=False)
    return model.eval()


def without(weights: Weights, left_out: tuple[str, ...], folder: str, name: str) -> Path:
    """A copy of a weights file, less the tensors whose names start so."""
    every = weights.tensors("")
    tensors = {k: tensor for k, tensor in every.items() if not k.startswith(left_out)}
    return write_weights(folder, name, tensors, weights.metadata, {})


def coded(image: Image.Image, quality: float, weights: Path) -> tuple[float, float]:
    """bpp and PSNR in dB of a file, whose latents are g_a's own."""
    data = licodec.encode(image, quality, weights=weights, precision="float32", effort=0)
    decoded = licodec.decode(data, weights=weights, precision="float32")
    psnr = metrics.psnr_rgb(np.asarray(image), np.asarray(decoded))
    return metrics.bpp(len(data), image.width, image.height), psnr


def measure(
    model: Hyperprior, files: dict[str, Path], images: list[Image.Image]
) -> list[dict[str, float]]:
    """A row of figures for each lambda: of the floats, and of files by each of some weights."""
    last = len(model.lambdas) - 1
    rows = []
    for k, lmbda in enumerate(model.lambdas):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("floats", *files)}
        for image in images:
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
            bpp, mse = model.evaluate(x, k)
            found["floats"].append((float(bpp), -10 * float(torch.log10(mse))))
            for name, weights in files.items():
                found[name].append(coded(image, 100 * k / max(1, last), weights))
        row = {"lmbda": lmbda}
        for name, pairs in found.items():
            bpp, psnr = (statistics.fmean(column) for column in zip(*pairs, strict=True))
            row |= {f"{name}_bpp": round(bpp, 5), f"{name}_psnr": round(psnr, 4)}
        for name in files:
            row[f"{name}_%"] = round(100 * (row[f"{name}_bpp"] / row["floats_bpp"] - 1), 3)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    hyperprior.Z_CURVATURE = 1e9  # the nearest step is then the best
    weights = Weights(arguments.weights)
    model = floats(arguments.export, BY_COMPRESSAI[weights.metadata["arch"]].name)
    images = [datasets.load(path) for path in datasets.collect([arguments.images])]
    with tempfile.TemporaryDirectory() as folder:
        files = {"files": without(weights, ("echo", "surprises."), folder, "plain")}
        if "surprises.order" in weights:
            files["surprises"] = without(weights, ("echo",), folder, "surprises")
        rows = measure(model, files, images)
    curves = {
        name: tuple([row[f"{name}_{axis}"] for row in rows] for axis in ("bpp", "psnr"))
        for name in ("floats", *files)
    }
    rates = {name: round(bd_rate(curves["floats"], curves[name]), 3) for name in files}
    result = {"images": len(images), "weights": arguments.weights.name, "rates": rows,
              "bd_rate_%": rates, "meta": provenance()}  # fmt: skip
    print("BD-rate against the floats", rates)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
