"""Paper 2's experiment: what its regularizer is worth, and what it costs in training time.

    python benchmarks/regularizer.py --data TRAIN --natural kodak/ [--domain game=DIR …] --json OUT

Trains each codec with and without the regularizer, from one seed, on the same crops and for the same
number of steps, one network for each lambda; then compares their rate-distortion curves on natural
images and on any other domains given. Steps of both kinds are timed in turns, on a network of the size
that CompressAI gives the codec. Defaults are the paper's where it tells them, for a GPU; on a CPU make
it smaller (--N, --steps, --patch …), and read the result as what so short a training shows.

Rates are those of the likelihoods. With a context model they and the reconstructions are those of
CompressAI's forward pass, where the coder goes position by position: estimates, for both sides alike.
Finished runs are kept in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from licodec.bench import datasets
from licodec.bench.bdrate import bd_rate
from licodec.bench.provenance import provenance
from licodec.errors import LicodecError
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.hyperprior import HyperpriorNetwork
from licodec.training.data import Images, central
from licodec.training.loop import Run, advance, train
from licodec.training.stages.stage import make_stage

PAPER: dict[str, dict[str, float]] = {
    "hyperprior": {
        "natural": -0.88, "pixel": -2.20, "screen": -1.15, "game": -1.31, "pathology": -1.11,
        "step time": 119.5,
    },
    "autoregressive": {
        "natural": -0.92, "pixel": -1.96, "screen": -2.01, "game": -0.83, "pathology": -0.81,
        "step time": 111.3,
    },
    "attention": {
        "natural": -0.92, "pixel": -0.47, "screen": -0.69, "game": -0.82, "pathology": -2.38,
        "step time": 101.5,
    },
}  # fmt: skip
"""Its tables 1 and 2, in percent: BD-rate against the unregularized codec, training time."""

FULL_SIZE = {"hyperprior": (128, 192), "autoregressive": (192, 192), "attention": (128, 128)}
"""N and M of CompressAI's lower qualities."""

KINDS = ("plain", "regularized")


def settings(
    arguments: argparse.Namespace, arch: str, lmbda: float, kind: str, size: tuple[int, int]
) -> configs.Config:
    start = "fresh" if arch == "attention" else arguments.init
    raw: dict[str, Any] = {
        "data": {
            "path": arguments.data, "holdout": arguments.holdout,
            "patch": arguments.patch, "batch": arguments.batch,
        },
        "model": {"arch": arch, "N": size[0], "M": size[1], "lambdas": [lmbda]},
        "train": {
            "steps": arguments.steps, "warmup": min(100, arguments.steps // 10),
            "init": start, "surrogate": arguments.surrogate, "lr": arguments.lr,
            "bottleneck_lr": arguments.bottleneck_lr, "ema": arguments.ema,
            "precision": arguments.precision, "device": arguments.device, "seed": arguments.seed,
            "validate_s": 1e9, "out": str(Path(arguments.runs) / f"{arch}-{lmbda:g}-{kind}"),
        },
    }  # fmt: skip
    if kind == "regularized":
        raw["regularizer"] = {"lr": arguments.q_lr}
        if arguments.alpha is not None:
            raw["regularizer"]["alpha"] = arguments.alpha
        raw["regularizer"]["levels"] = arguments.levels
    return configs.from_dict(raw)


def trained(config: configs.Config) -> dict[str, Any]:
    """The checkpoint of a finished run, trained now unless it was before."""
    path = Path(config.train.out) / "checkpoint.pt"
    if path.exists():
        state = load_checkpoint(path)
        kept, wanted = state["config"], configs.to_dict(config)
        kept["train"]["out"] = wanted["train"]["out"]
        if kept != wanted:
            raise LicodecError(f"{path}: made with other settings; choose another --runs")
        if state["step"] >= config.train.steps:
            return state
    return load_checkpoint(train(config, resume=path.exists()))


def measure(
    state: dict[str, Any], config: configs.Config, sets: dict[str, list[Path]], crop: int
) -> dict[str, tuple[float, float]]:
    """Mean bpp and PSNR in dB of the averaged weights on each set of images."""
    model = HyperpriorNetwork(
        config.model.architecture, config.model.N, config.model.M, config.model.lambdas
    ).eval()  # fmt: skip
    model.load_state_dict(state["ema"])
    device = "cuda" if torch.cuda.is_available() and config.train.device != "cpu" else "cpu"
    model.to(device)
    out = {}
    for name, paths in sets.items():
        bpps, psnrs = [], []
        for path in paths:
            pixels = torch.from_numpy(np.array(datasets.load(path))).permute(2, 0, 1)
            x = (central(pixels, crop) if crop else pixels)[None].to(device).float() / 255
            bpp, mse = model.evaluate(x, 0)
            bpps.append(float(bpp))
            psnrs.append(-10 * float(torch.log10(mse)))
        out[name] = statistics.fmean(bpps), statistics.fmean(psnrs)
    return out


def step_times(arguments: argparse.Namespace, arch: str) -> dict[str, Any]:
    """Seconds of a training step of each kind, in turns; medians, and the ratio in percent."""
    pixels = arguments.timing_patch
    small = argparse.Namespace(**{
        **vars(arguments), "patch": pixels, "batch": arguments.timing_batch, "init": "fresh",
    })  # fmt: skip
    runs: dict[str, Any] = {}
    for kind in KINDS:
        config = settings(small, arch, 0.013, kind, FULL_SIZE[arch])
        config.train.steps = 10**6
        torch.manual_seed(arguments.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if config.train.device != "auto":
            device = torch.device(config.train.device)
        images = Images(config.data.path, config.data.holdout, config.data.patch, device)
        stage = make_stage(config, images, device)
        runs[kind] = (Run(config, stage), stage, np.random.default_rng(0))
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(arguments.timing_steps + 1):
        for kind in KINDS if turn % 2 else KINDS[::-1]:
            run, stage, rng = runs[kind]
            began = time.perf_counter()
            advance(run, stage, stage.model, rng)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                times[kind].append(time.perf_counter() - began)
    medians = {kind: statistics.median(times[kind]) for kind in KINDS}
    N, M = FULL_SIZE[arch]
    return {
        "N": N, "M": M, "patch": pixels, "batch": arguments.timing_batch,
        "steps": arguments.timing_steps,
        **{f"{kind}_s": round(value, 4) for kind, value in medians.items()},
        "ratio_%": round(100 * medians["regularized"] / medians["plain"], 1),
        "paper_%": PAPER[arch]["step time"],
    }  # fmt: skip


def experiment(
    arguments: argparse.Namespace, arch: str, sets: dict[str, list[Path]]
) -> dict[str, Any]:
    curves: dict[str, Any] = {
        name: {kind: {"bpp": [], "psnr": []} for kind in KINDS} for name in sets
    }
    runs = []
    size = (arguments.N, arguments.N if arch == "attention" else arguments.M)
    if not arguments.N:
        size = FULL_SIZE[arch]
    for lmbda in arguments.lambdas:
        for kind in KINDS:
            config = settings(arguments, arch, lmbda, kind, size)
            state = trained(config)
            for name, (bpp, psnr) in measure(state, config, sets, arguments.crop).items():
                curves[name][kind]["bpp"].append(round(bpp, 5))
                curves[name][kind]["psnr"].append(round(psnr, 4))
                print(
                    f"{arch} {lmbda:g} {kind:12} {name:10} {bpp:.4f} bpp {psnr:.3f} dB", flush=True
                )
            last = state["history"][-1]
            runs.append({
                "lambda": lmbda, "kind": kind, "seconds": round(state["seconds"]),
                "val_bpp": last["val_bpp"][0], "val_psnr": last["val_psnr"][0],
                "H_q(X|X̂) bpp": last.get("conditional_bpp"),
                "data_sha256": state["provenance"]["data_sha256"],
            })  # fmt: skip
    rates: dict[str, Any] = {}
    for name, pair in curves.items():
        points = [(pair[kind]["bpp"], pair[kind]["psnr"]) for kind in KINDS]
        try:
            value = bd_rate(points[0], points[1])
            rates[name] = None if value is None else round(value, 3)
        except LicodecError as error:
            rates[name] = f"none: {error}"
    return {
        "N": size[0], "M": size[1], "alpha": config.regularizer.alpha if config.regularizer else 0,
        "bd_rate_%": rates,
        "paper_%": {name: PAPER[arch].get(name) for name in sets},
        "curves": curves, "runs": runs,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    lines = [f"{'codec':15} {'':12} {'here':>10} {'paper':>8}"]
    for arch, row in result["codecs"].items():
        for name, value in row.get("bd_rate_%", {}).items():
            paper = row["paper_%"][name]
            here = f"{value:+.2f} %" if isinstance(value, float) else str(value)
            there = "" if paper is None else f"{paper:+.2f} %"
            lines.append(f"{arch:15} {name:12} {here:>10} {there:>8}")
        if "step_time" in row:
            times = row["step_time"]
            lines.append(
                f"{arch:15} {'step time':12} {times['ratio_%']:8.1f} % {times['paper_%']:6.1f} %"
            )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="training images or tar shards")
    parser.add_argument("--natural", required=True, type=Path, help="images to measure on")
    parser.add_argument(
        "--domain",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="another: pixel, screen, game and pathology stand in the paper",
    )
    parser.add_argument("--arch", nargs="*", default=list(PAPER), choices=list(PAPER))
    parser.add_argument("--lambdas", nargs="+", type=float, default=[0.0018, 0.0035, 0.0067, 0.013])
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--holdout", type=int, default=32)
    parser.add_argument("--N", type=int, default=0, help="0: CompressAI's, as for --timing")
    parser.add_argument("--M", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--bottleneck-lr", type=float, default=1e-3)
    parser.add_argument("--q-lr", type=float, default=1e-3)
    parser.add_argument("--alpha", type=float, help="by default the paper's for each codec")
    parser.add_argument("--levels", type=int, default=1, choices=(1, 255), help="reading of q")
    parser.add_argument("--init", default="fresh", choices=["fresh", "klt"])
    parser.add_argument("--surrogate", default="noise", choices=["noise", "round"])
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crop", type=int, default=0, help="measure the middle only; 0: all")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--timing-steps", type=int, default=20, help="0: none")
    parser.add_argument("--timing-patch", type=int, default=256)
    parser.add_argument("--timing-batch", type=int, default=16)
    parser.add_argument("--timing-only", action="store_true")
    parser.add_argument("--runs", default="runs/regularizer")
    parser.add_argument("--json", type=Path)  # fmt: skip
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    sets = {"natural": datasets.collect([arguments.natural])}
    for domain in arguments.domain:
        name, _, folder = domain.partition("=")
        sets[name] = datasets.collect([Path(folder)])
    hidden = ("data", "natural", "domain", "runs", "json", "arch")
    result: dict[str, Any] = {
        "settings": {k: v for k, v in vars(arguments).items() if k not in hidden},
        "images": {name: len(paths) for name, paths in sets.items()},
        "meta": provenance(),
        "codecs": {},
    }
    result["meta"]["command"] = "benchmarks/regularizer.py"
    for arch in arguments.arch:
        row = {} if arguments.timing_only else experiment(arguments, arch, sets)
        if arguments.timing_steps:
            row["step_time"] = step_times(arguments, arch)
        result["codecs"][arch] = row
        if arguments.json:  # the old results stay until all of the new ones are there
            partial = arguments.json.with_suffix(".part.json")
            partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if arguments.json:
        partial.replace(arguments.json)
    print(table(result))


if __name__ == "__main__":
    main()
