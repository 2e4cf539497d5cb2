"""Paper 2's experiment from a trained start: what its regularizer is worth, with seeds and their spread.

    python benchmarks/regularizer_seeds.py WEIGHTS --data TRAIN --natural kodak/ --json OUT

Trains the codec of WEIGHTS on for a few hundred steps in five ways, each with several seeds. Within a seed
all see the same crops and the same noise. A way's BD-rate is against the plain run of its seed; beside
it stands that of plain runs against each other, which is what chance alone makes of it.

Rates are those of likelihoods, on the middle of each image. Runs that JSON holds already are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage import data
from torch import Tensor

from licodec.bench import datasets
from licodec.bench.bdrate import bd_rate
from licodec.bench.provenance import provenance
from licodec.errors import LicodecError
from licodec.training import config as configs
from licodec.training.data import Images, central
from licodec.training.graphics import drawn
from licodec.training.loop import Run, advance
from licodec.training.stages.stage import make_stage
from licodec.weights.file import load

CANCELLED = 4.83e-4
"""What lambda loses by alpha = 1 with levels of 1, where q's scale is at its bound: the slope of H_q in D."""
WAYS: dict[str, tuple[dict[str, float], float]] = {
    "plain": ({}, 0.0),
    "alpha 0.1": ({"alpha": 0.1, "levels": 1}, 0.0),
    "alpha 1": ({"alpha": 1.0, "levels": 1}, 0.0),
    "lambda lower": ({}, CANCELLED),
    "alpha 0.1, 255 levels": ({"alpha": 0.1, "levels": 255}, 0.0),
}
"""The [regularizer] of each, and by how much its lambdas are lower than those of plain."""
HELD_OUT = 16
DRAWN = {"pixel art": ("pixel art",), "screen": ("page", "window")}
"""Kinds of drawings that stand for two of the paper's other domains."""

Curves = dict[str, list[list[float]]]
"""Of each set of images, bpp and PSNR at each lambda."""


def image_sets(natural: Path, images: Images, size: int) -> dict[str, list[Tensor]]:
    """The middle of each image, (3, H, W) uint8."""
    tissue = torch.from_numpy(data.immunohistochemistry()).permute(2, 0, 1)
    corners = itertools.product((0, 256), (0, 256))
    sets = {
        "natural": [_tensor(datasets.load(p)) for p in datasets.collect([natural])],
        "held out": images.validation[:HELD_OUT],
        "pathology": [tissue[:, top : top + 256, left : left + 256] for top, left in corners],
    }
    for name, kinds in DRAWN.items():
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        pictures = [drawn(rng, size, kinds[i % len(kinds)]) for i, rng in enumerate(rngs)]
        sets[name] = [_tensor(picture) for picture in pictures]
    return {name: [central(x, size) for x in pictures] for name, pictures in sets.items()}


def _tensor(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def settings(arguments: argparse.Namespace, init: str, seed: int) -> configs.Config:
    weights = load(arguments.weights)
    raw: dict[str, Any] = {
        "data": {"path": arguments.data, "patch": arguments.patch, "batch": arguments.batch},
        "model": {
            "arch": weights.architecture.name,
            "N": arguments.N,
            "M": arguments.M,
            "lambdas": arguments.lambdas,
        },
        "train": {
            "init": init,
            "steps": arguments.steps,
            "warmup": arguments.steps // 20,
            "cooldown": 0.5,
            "lr": arguments.lr,
            "bottleneck_lr": arguments.bottleneck_lr,
            "clip": 10.0,
            "rate_balance": 0.3,
            "ema": 0.99,
            "precision": arguments.precision,
            "device": "cpu",
            "seed": seed,
        },
    }
    return configs.from_dict(raw)


def trained(config: configs.Config, images: Images, start: dict[str, Tensor], way: str) -> Any:
    """The stage after its steps, with averaged weights; and the seconds that they took."""
    regularizer, lower = WAYS[way]
    config = copy.deepcopy(config)
    config.model.lambdas = tuple(value - lower for value in config.model.lambdas)
    if regularizer:
        config.regularizer = configs.RegularizerSettings(**regularizer)  # type: ignore[arg-type]
    torch.manual_seed(config.train.seed)
    stage = make_stage(config, images, torch.device("cpu"))
    stage.model.load_state_dict(start)
    run = Run(config, stage)
    began = time.monotonic()
    for step in range(config.train.steps):
        torch.manual_seed(config.train.seed * config.train.steps + step)
        advance(run, stage, stage.model, np.random.default_rng([config.train.seed, step]))
    seconds = time.monotonic() - began
    stage.model.load_state_dict(run.ema)
    stage.model.eval()
    return stage.model, seconds


@torch.no_grad()
def measure(model: Any, sets: dict[str, list[Tensor]]) -> Curves:
    curves: Curves = {}
    for name, pictures in sets.items():
        points = []
        for k in range(len(model.lambdas)):
            both = [model.evaluate(x[None].float() / 255, k) for x in pictures]
            bpp = statistics.fmean(float(bits) for bits, _ in both)
            psnr = statistics.fmean(-10 * float(torch.log10(mse)) for _, mse in both)
            points.append((round(bpp, 5), round(psnr, 4)))
        curves[name] = [list(axis) for axis in zip(*points, strict=True)]
    return curves


def rate(anchor: list[list[float]], curve: list[list[float]]) -> float | None:
    try:
        value = bd_rate((anchor[0], anchor[1]), (curve[0], curve[1]))
    except LicodecError:
        return None
    return None if value is None else round(value, 3)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """BD-rates within seeds: of each way and set the mean, the deviation over seeds, and each one."""
    plain = {run["seed"]: run["curves"] for run in runs if run["way"] == "plain"}
    rates: dict[str, dict[str, list[float | None]]] = {}
    for run in runs:
        for name, curve in run["curves"].items():
            if run["way"] == "plain":
                others = [rate(c[name], curve) for s, c in plain.items() if s != run["seed"]]
                rates.setdefault("plain, other seeds", {}).setdefault(name, []).extend(others)
            elif run["seed"] in plain:
                values = rates.setdefault(run["way"], {}).setdefault(name, [])
                values.append(rate(plain[run["seed"]][name], curve))
    return {
        way: {name: _spread(values) for name, values in sets.items()} for way, sets in rates.items()
    }


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    out: dict[str, Any] = {"each": values}
    if known:
        out["mean"] = round(statistics.fmean(known), 3)
    if len(known) > 1:
        out["deviation"] = round(statistics.stdev(known), 3)
    return out


def table(rates: dict[str, Any]) -> str:
    lines = []
    for way, sets in rates.items():
        for name, value in sets.items():
            if "mean" in value:
                spread = f" ± {value['deviation']:.2f}" if "deviation" in value else ""
                lines.append(f"{way:24} {name:10} {value['mean']:+.2f} %{spread}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="shipped weights to start from")
    parser.add_argument("--data", required=True, help="training images or tar shards")
    parser.add_argument("--natural", required=True, type=Path, help="images to measure on")
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--lambdas", nargs="+", type=float, default=[0.0018, 0.0035, 0.0067, 0.013])
    parser.add_argument("--batch", type=int, default=4, help="a multiple of the lambdas")
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--M", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--bottleneck-lr", type=float, default=1e-3)
    parser.add_argument("--crop", type=int, default=256, help="measure so much of the middle")
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    device = torch.device("cpu")
    config = settings(arguments, str(arguments.weights), 0)
    images = Images(arguments.data, config.data.holdout, arguments.patch, device)
    sets = image_sets(arguments.natural, images, arguments.crop)
    result: dict[str, Any] = {"runs": []}
    if arguments.json.exists():
        result = json.loads(arguments.json.read_text())
    apart = ("weights", "data", "natural", "json", "ways", "seeds")
    result["settings"] = {k: v for k, v in vars(arguments).items() if k not in apart}
    result["weights"] = arguments.weights.name
    result["images"] = {name: len(pictures) for name, pictures in sets.items()}
    result["meta"] = provenance() | {"command": "benchmarks/regularizer_seeds.py"}
    begun = make_stage(config, images, device).model
    start = {name: value.clone() for name, value in begun.state_dict().items()}
    if "start" not in result:
        result["start"] = measure(begun.eval(), sets)
    known = {(run["seed"], run["way"]) for run in result["runs"]}
    for seed, way in itertools.product(arguments.seeds, arguments.ways):
        if (seed, way) in known:
            continue
        model, seconds = trained(settings(arguments, "fresh", seed), images, start, way)
        curves = measure(model, sets)
        result["runs"].append(
            {"seed": seed, "way": way, "seconds": round(seconds), "curves": curves}
        )
        result["bd_rate_%"] = summary(result["runs"])
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"seed {seed}, {way}: {seconds:.0f} s", flush=True)
    print(table(result["bd_rate_%"]))


if __name__ == "__main__":
    main()
