"""What each choice of stage (b) is worth: nets trained alike on the same counts, on real files.

    python benchmarks/ablation.py CONFIG.toml --data DIR --init CHECKPOINT --images DIR [--steps 1500]

CONFIG is a stage (b) config, CHECKPOINT that of stage (a). Counts are made once and kept in --work; then
a process for each variant trains, exports and encodes the images at three qualities. All variants code
the same latents, so their sizes compare at equal pixels. Not the config's minutes but --steps count.
To choose by is the gain on the held-out training images; the others only show it on real files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

QUALITIES = (20, 50, 80)

VARIANTS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "width 32": {"width": 32},
    "width 64": {"width": 64},
    "width 192": {"width": 192},
    "kernel of 7": {"kernel_size": 7},
    "1 group": {"groups": 1},
    "16 groups": {"groups": 16},
    "8 side channels": {"z_channels": 8},
    "48 side channels": {"z_channels": 48},
    "soft histogram": {"soft": True},
    "input without the prior": {"plain": True},
    "128 bins": {"bins": 128},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--data", required=True)
    parser.add_argument("--init", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--work", default="runs/ablation")
    parser.add_argument("--json", default="benchmarks/ablation.json")
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help="this one alone, from counts at hand")
    options = parser.parse_args()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    if options.variant:
        row = run(options.variant, options, work)
        (work / f"{options.variant}.json").write_text(json.dumps(row))
        return
    if not (work / "counts.pt").exists():
        prepare(options, work)
    left = [name for name in VARIANTS if not (work / f"{name}.json").exists()]
    running: list[subprocess.Popen[bytes]] = []
    while left or running:
        running = [process for process in running if process.poll() is None]
        if left and len(running) < options.jobs:
            running.append(subprocess.Popen([sys.executable, *sys.argv, "--variant", left.pop(0)]))
        time.sleep(1)
    rows = {name: json.loads((work / f"{name}.json").read_text()) for name in VARIANTS}
    report(rows, options)


def configured(options: argparse.Namespace, **changes: Any) -> Any:
    from licodec.training import config as configs

    config = configs.load(Path(options.config))
    config.data.path = options.data
    config.train = dataclasses.replace(
        config.train, init=options.init, minutes=0.0, steps=options.steps
    )
    config.model = dataclasses.replace(config.model, **changes)
    return config


def prepare(options: argparse.Namespace, work: Path) -> None:
    """Counts of the training and held-out images, and the tables that stage (b) fits to them."""
    from licodec.training.data import Images
    from licodec.training.stages import Distributions

    config = configured(options)
    device = torch.device("cpu")
    torch.manual_seed(config.train.seed)
    images = Images(config.data.path, config.data.holdout, config.data.patch, device,
                    count=config.data.images)  # fmt: skip
    task = Distributions(config, images, device)
    frozen = {
        k: v for k, v in task.model.state_dict().items()
        if k.startswith(("g_", "log_gain", "prior", "class_prior", "context_", "echo"))
    }  # fmt: skip
    torch.save({"counts": task.counts.values, "t": task.counts.t,
                "held_out": task.held_out.values, "held_out_t": task.held_out.t,
                "state": frozen}, work / "counts.pt")  # fmt: skip


def run(name: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train, export and encode one variant."""
    changes = dict(VARIANTS[name])
    import licodec.entropy.tables

    bins = licodec.entropy.tables.BINS = changes.pop("bins", licodec.entropy.tables.BINS)
    from licodec.entropy import image_distributions
    from licodec.training import loop, stages
    from licodec.training.codecs import factorized
    from licodec.training.convert.export import export
    from licodec.training.fit.counts import Counts

    if changes.pop("soft", False):
        image_distributions.analysis_input = factorized.analysis_input = soft_input
    if changes.pop("plain", False):
        image_distributions.analysis_input = factorized.analysis_input = plain_input
    config = configured(options, **changes)
    out = work / name.replace(" ", "-")
    config.train = dataclasses.replace(config.train, out=str(out))
    kept = torch.load(work / "counts.pt", mmap=True, weights_only=True)
    state = {k: inner_log2(v, bins) if "prior" in k else v for k, v in kept["state"].items()}

    class Kept(stages.Distributions):
        def __init__(self, config: Any, device: torch.device) -> None:
            self.config, self.device = config, device
            m = config.model
            adaptive = factorized.Adaptive(m.N, m.M, m.lambdas, m.width, m.z_channels, m.groups,
                                      m.kernel_size, m.classes)  # fmt: skip
            adaptive.load_state_dict(state, strict=False)
            for key in state:
                if key.startswith(("g_", "log_gain")):
                    adaptive.get_parameter(key).requires_grad_(False)
            self.model = self.nets = adaptive
            self.counts = Counts(inner(kept["counts"], bins), kept["t"])
            self.held_out = Counts(inner(kept["held_out"], bins), kept["held_out_t"])

    class NoImages:
        sha256 = "of counts at hand"

        def __init__(self, *arguments: Any) -> None:
            pass

    loop.Images = NoImages
    loop.make_task = lambda config, images, device: Kept(config, device)
    began = time.monotonic()
    checkpoint = loop.train(config)
    seconds = time.monotonic() - began
    ended = torch.load(checkpoint, weights_only=True)
    return {
        "seconds": round(seconds),
        "held_out_percent": ended["history"][-1]["val_mean_gain_%"],
        "side_parameters": sum(
            p.numel() for k, p in ended["ema"].items()
            if k.startswith(("h_a", "h_s"))
        ),
        **encoded(export(checkpoint, out, "ablation"), options.images),
    }  # fmt: skip


def inner(values: Tensor, bins: int) -> Tensor:
    """Counts or shares (…, 257) in fewer bins, all others among the escapes."""
    outside = (values.shape[-1] - 1 - bins) // 2
    if not outside:
        return values
    escapes = values[..., :outside].sum(-1) + values[..., -outside - 1 :].sum(-1)
    kept = values[..., outside : -outside - 1]
    return torch.cat([kept, escapes[..., None].to(values.dtype)], dim=-1)


def inner_log2(values: Tensor, bins: int) -> Tensor:
    """The same for log2 shares."""
    if bins == values.shape[-1] - 1:
        return values
    return inner(values.double().exp2(), bins).log2().float()


def soft_input(p: Tensor, prior: Tensor) -> Tensor:
    """h_a sees the latents' kernel density estimate, of a Gaussian one bin wide."""
    t = torch.arange(-4.0, 5.0)
    kernel = torch.exp(-0.5 * t * t)
    kernel = (kernel / kernel.sum())[None, None]

    def smoothed(p: Tensor) -> Tensor:
        flat = p.reshape(-1, 1, p.shape[-1])
        return torch.nn.functional.conv1d(flat, kernel, padding=4).reshape(p.shape)

    q, prior = smoothed(p), smoothed(prior.float())
    return q.clamp(min=1e-12).sqrt() - (prior / prior.sum(-1, keepdim=True)).clamp(min=1e-12).sqrt()


def plain_input(p: Tensor, prior: Tensor) -> Tensor:
    """h_a sees √p alone."""
    return torch.where(p > 0, p.clamp(min=1e-12).sqrt(), 0.0)


def encoded(weights: Path, folder: str) -> dict[str, Any]:
    """Bytes over all images at each quality, and of the side stream for one image."""
    from PIL import Image

    from licodec.codec import open_codec
    from licodec.container import pack
    from licodec.io.image import from_pillow
    from licodec.options import EncodeOptions

    codecs = {
        model: open_codec(
            EncodeOptions(model=model, weights=weights, device="cpu", precision="float32")
        )[0]
        for model in ("factorized", "adaptive")
    }
    codec = codecs["adaptive"]
    sizes = {f"{model} {q}": 0 for model in ("factorized", "adaptive") for q in QUALITIES}
    sides = []
    for path in sorted(Path(folder).glob("*.png")):
        with Image.open(path) as image:
            picture = from_pillow(image)
        for q in QUALITIES:
            position = codec.weights.position(2 * q)
            gain, echo = codec.weights.gain(position), codec.weights.echo(position)
            y = codec.transforms.analyze(picture.color, gain, echo=echo)
            for model, codec in codecs.items():
                container = codec.code(picture, y, 2 * q)
                sizes[f"{model} {q}"] += len(pack(container))
            sides.append(container.side_bytes)
        codec.decode_latents(container)  # it is a file, not an estimate
    return {"side_bytes": round(sum(sides) / len(sides), 1), "bytes": sizes}


def report(rows: dict[str, Any], options: argparse.Namespace) -> None:
    static = rows["as configured"]["bytes"]
    at = f"at qualities {QUALITIES}"
    print(f"{'':26}{'held out %':>12}{'gain %':>8}{at:>28}  side bytes  parameters  seconds")
    for name, row in rows.items():
        gains = [
            100 * (row["bytes"][f"adaptive {q}"] / static[f"factorized {q}"] - 1) for q in QUALITIES
        ]
        row["gain_percent"] = round(sum(gains) / len(gains), 2)
        columns = " ".join(f"{g:8.2f}" for g in gains)
        print(f"{name:26}{row['held_out_percent']:12.2f}{row['gain_percent']:8.2f}{columns:>28}{row['side_bytes']:12.1f}"
              f"{row['side_parameters']:12}{row['seconds']:9}")  # fmt: skip
    Path(options.json).write_text(
        json.dumps(
            {"steps": options.steps, "qualities": QUALITIES, "machine": platform.machine(),
             "cores": os.cpu_count(), "variants": rows}, indent=1,
        ) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()
