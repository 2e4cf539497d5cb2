"""Two trainings side by side: the BD-rate between them at every step whose weights both have kept.

    python benchmarks/checkpoints.py RUN RUN --images kodak/ [--crop 256] [--json OUT]

For runs of codecs with a hyperprior and `keep_every` in their configs, as in paper 2's figure 3. Rates are
those of the likelihoods. The held-out images' figures are those of the runs' own validation.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from licodec.bench import datasets
from licodec.bench.bdrate import bd_rate
from licodec.bench.provenance import provenance
from licodec.errors import LicodecError
from licodec.networks.tiled import has_native_bf16
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.hyperprior import Hyperprior
from licodec.training.data import central

Curve = dict[str, list[float]]


def on_images(state: dict[str, Any], images: list[torch.Tensor]) -> Curve:
    """Mean bpp and PSNR in dB at each lambda."""
    model_of = configs.from_dict(state["config"]).model
    model = Hyperprior(model_of.arch, model_of.N, model_of.M, model_of.lambdas).eval()
    model.load_state_dict(state["ema"])
    curve: Curve = {"bpp": [], "psnr": []}
    for k in range(len(model_of.lambdas)):
        with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16()):
            measured = [model.evaluate(x, k) for x in images]
        curve["bpp"].append(round(statistics.fmean(float(bpp) for bpp, _ in measured), 5))
        psnr = statistics.fmean(-10 * float(torch.log10(mse)) for _, mse in measured)
        curve["psnr"].append(round(psnr, 4))
    return curve


def held_out(state: dict[str, Any]) -> Curve:
    row = next(row for row in state["history"][::-1] if row["step"] == state["step"])
    return {"bpp": row["val_bpp"], "psnr": row["val_psnr"]}


def compare(a: Curve, b: Curve) -> float | str | None:
    """BD-rate of b against a in percent."""
    try:
        rate = bd_rate((a["bpp"], a["psnr"]), (b["bpp"], b["psnr"]))
    except LicodecError as error:
        return f"none: {error}"
    return rate if rate is None else round(rate, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--crop", type=int, default=0, help="measure the middle only; 0: all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = datasets.collect([arguments.images])
    pixels = [torch.from_numpy(np.array(datasets.load(path))).permute(2, 0, 1) for path in paths]
    images = [
        (central(x, arguments.crop) if arguments.crop else x)[None].float() / 255 for x in pixels
    ]
    rows = []
    for first in sorted(arguments.runs[0].glob("step-*.pt")):
        second = arguments.runs[1] / first.name
        if not second.exists():
            continue
        states = [load_checkpoint(path) for path in (first, second)]
        curves = {"images": [on_images(s, images) for s in states],
                  "held_out": [held_out(s) for s in states]}  # fmt: skip
        rates = {name: compare(*pair) for name, pair in curves.items()}
        rows.append({"step": states[0]["step"], "bd_rate_%": rates, "curves": curves})
        print(rows[-1]["step"], rates, flush=True)
    result = {"runs": [run.name for run in arguments.runs], "images": len(images),
              "crop": arguments.crop, "meta": provenance(), "steps": rows}  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
