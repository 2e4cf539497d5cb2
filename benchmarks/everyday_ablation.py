"""What parts of the everyday codec are worth: variants of it, each trained for about the same time.

    python benchmarks/everyday_ablation.py WEIGHTS --data TRAIN --json OUT

Shapes: the whole codec from a Karhunen-Loève start, with other widths and numbers of blocks. Contexts: the
networks of the entropy model alone, from nothing, on the transforms and with the scales of WEIGHTS; their
four steps see the latents of all steps before them, or those of a chessboard's other colour, or none.

A step's time is measured first, variants taking turns, and each then gets as many steps as fit: what else
the machine does during the training does not change them. All contexts get the steps of the first, since
they compute the same.

Rates are those of likelihoods, on the middle of held-out images. Each variant runs on one thread; variants
that JSON holds already are not repeated.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from licodec.bench.bdrate import bd_rate
from licodec.bench.provenance import provenance
from licodec.training import config as configs
from licodec.training.codecs.everyday import Everyday
from licodec.training.data import Images
from licodec.training.loop import Run, advance
from licodec.training.objective import balanced
from licodec.training.stages.everyday import EverydayStage
from licodec.weights.file import load

SHAPES = {
    "192 and 320 channels, 3 and 2 blocks": {"N": 192, "M": 320, "fine": 3, "coarse": 2},
    "128 and 192 channels, 3 and 2 blocks": {"N": 128, "M": 192, "fine": 3, "coarse": 2},
    "192 and 320 channels, 1 and 1 block": {"N": 192, "M": 320, "fine": 1, "coarse": 1},
    "192 and 320 channels, 5 and 3 blocks": {"N": 192, "M": 320, "fine": 5, "coarse": 3},
}
CONTEXTS = {
    "quadtree, four steps": (0, 1, 2, 3),
    "chessboard, two steps": (0, 0, 2, 2),
    "one shot": (0, 0, 0, 0),
}
"""How many steps each of the four sees the latents of."""
HELD_OUT = 16
TIMED_STEPS = 9


class Seeing(nn.Module):
    """A step of the context that sees what some steps have coded, not all before it."""

    def __init__(self, step: Any, earlier: int, known: list[Tensor]) -> None:
        super().__init__()
        self.step, self.earlier, self.known = step, earlier, known

    def forward(self, features: Tensor, y_hat: Tensor) -> Tensor:
        """As `Step`. `known` collects ŷ as it was before each step."""
        del self.known[self.step.index :]
        self.known.append(y_hat)
        out: Tensor = self.step(features, self.known[self.earlier])
        return out


class RateOnly(EverydayStage):
    """The entropy model's networks alone, from nothing, on transforms that stay."""

    def __init__(self, config: configs.Config, images: Images, seen: tuple[int, ...]) -> None:
        super().__init__(config, images, torch.device("cpu"))
        fresh, model = Everyday.of(config.model), self.model
        model.requires_grad_(False)
        model.h_a, model.h_s = fresh.h_a, fresh.h_s
        known: list[Tensor] = []
        steps = [Seeing(step, seen[i], known) for i, step in enumerate(fresh.steps)]
        model.steps = nn.ModuleList(steps)
        for name in ("rate_features", "log_z_scale"):
            setattr(model, name, nn.Parameter(getattr(fresh, name).detach().clone()))
        model.log_scale.requires_grad_(True)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        crops = self.images.crops(rng, self.config.data.batch, self.config.data.patch)
        x = crops.float().permute(0, 2, 3, 1) / 255
        t = self.rates(len(x), rng)
        y = self.model.analyze(x, t)
        z_bits, features = self.model.hyper(y, t, noise=True)
        y_bits, _ = self.model.latents(y, features, t, noise=True)
        bpp = (z_bits + y_bits) / (x.shape[1] * x.shape[2])
        rate: Tensor = balanced(bpp, self.model.lmbda(t), self.config.train.rate_balance)
        return rate, {}


def prepared(arguments: argparse.Namespace, part: str, name: str, steps: int) -> tuple[Run, Any]:
    """A variant before its first step."""
    torch.set_num_threads(1)
    weights = load(arguments.weights)
    is_shape = part == "shapes"
    shape = SHAPES[name] if is_shape else next(iter(SHAPES.values()))
    deeper = {} if is_shape else {"encoder_fine": 1, "encoder_coarse": 1}
    config = configs.from_dict(
        {
            "data": {
                "path": arguments.data,
                "patch": arguments.patch,
                "batch": arguments.batch,
                "images": arguments.images,
                "scale": [0.5, 0.75],
                "graphics": 0.1,
            },
            "model": {
                "arch": "everyday",
                "lambdas": [float(value) for value in weights.lambdas],
                **shape,
                **deeper,
            },
            "train": {
                "init": "klt" if is_shape else str(arguments.weights),
                "steps": steps,
                "cooldown": 0.5,
                "lr": 1.2e-3,
                "bottleneck_lr": 3.6e-3,
                "beta2": 0.98,
                "ema": 0.99,
            },
        }
    )
    torch.manual_seed(0)
    data = config.data
    images = Images(
        data.path, data.holdout, data.patch, torch.device("cpu"), (0, 1),
        data.images, data.scale, data.graphics,
    )  # fmt: skip
    images.validation = images.validation[:HELD_OUT]
    stage: Any
    if is_shape:
        stage = EverydayStage(config, images, torch.device("cpu"))
    else:
        stage = RateOnly(config, images, CONTEXTS[name])
    return Run(config, stage), stage


def make_step(run: Run, stage: Any) -> float:
    """The seconds of a core that it takes."""
    began = time.process_time()
    torch.manual_seed(run.step)
    advance(run, stage, stage.model, np.random.default_rng([0, run.step]))
    return time.process_time() - began


def step_seconds(arguments: argparse.Namespace, part: str) -> dict[str, float]:
    """The median time of each variant's step; that of the first for all contexts."""
    names = list(SHAPES) if part == "shapes" else list(CONTEXTS)[:1]
    runs = [prepared(arguments, part, name, TIMED_STEPS) for name in names]
    times = [[make_step(*run) for run in runs] for _ in range(TIMED_STEPS)]
    medians = np.median(times, axis=0).round(3).tolist()
    return (
        dict(zip(names, medians, strict=True))
        if part == "shapes"
        else dict.fromkeys(CONTEXTS, medians[0])
    )


def trained(arguments: argparse.Namespace, part: str, name: str, steps: int) -> dict[str, Any]:
    """A variant's row: its figures on the held-out images after its steps."""
    run, stage = prepared(arguments, part, name, steps)
    seconds = sum(make_step(run, stage) for _ in range(steps))
    stage.model.load_state_dict(run.ema)
    figures: dict[str, Any] = stage.validate()
    return {"part": part, "name": name, "steps": run.step, "seconds": round(seconds), **figures}


def rated(rows: list[dict[str, Any]]) -> None:
    """Give each row its BD-rate against the first of its part."""
    for part in ("shapes", "contexts"):
        of_part = [row for row in rows if row["part"] == part]
        first = next(iter(SHAPES if part == "shapes" else CONTEXTS))
        anchor = next((row for row in of_part if row["name"] == first), None)
        for row in of_part:
            if anchor is not None:
                curves = [(r["val_bpp"], r["val_psnr"]) for r in (anchor, row)]
                row["bd_rate_%"] = bd_rate(*curves)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="shipped weights of everyday")
    parser.add_argument("--data", required=True, help="training images or tar shards")
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument(
        "--parts", nargs="+", default=["contexts", "shapes"], choices=["contexts", "shapes"]
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="of a core, for each, about")
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=0, help="train on so many; 0 for all")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="variants at once")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    result: dict[str, Any] = {"rows": []}
    if arguments.json.exists():
        result = json.loads(arguments.json.read_text())
    result |= {"weights": arguments.weights.name, "meta": provenance()}
    names: dict[str, list[str]] = {"shapes": list(SHAPES), "contexts": list(CONTEXTS)}
    known = {(row["part"], row["name"]) for row in result["rows"]}
    todo = [(part, name) for part in arguments.parts for name in names[part]]
    todo = [variant for variant in todo if variant not in known]
    times = result.setdefault("seconds_a_step", {})
    for part in sorted({part for part, _ in todo} - set(times)):
        times[part] = step_seconds(arguments, part)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        runs = [
            pool.submit(
                trained, arguments, part, name, round(60 * arguments.minutes / times[part][name])
            )
            for part, name in todo
        ]
        for done in concurrent.futures.as_completed(runs):
            result["rows"].append(done.result())
            rated(result["rows"])
            arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            print(done.result()["name"], done.result()["val_objective"], flush=True)


if __name__ == "__main__":
    main()
