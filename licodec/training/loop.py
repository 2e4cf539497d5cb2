"""`licodec train`: one readable loop.

licodec train configs/transforms.toml                       one process, CPU or GPU
licodec train configs/transforms.toml --resume              go on from its checkpoint
torchrun --nproc-per-node 2 -m licodec train CONFIG.toml    several processes (DDP)
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from licodec.errors import LicodecError, UsageError
from licodec.training import config as configs
from licodec.training import distributed
from licodec.training.checkpoint import load_checkpoint, save_checkpoint, stages_beside
from licodec.training.codecs.everyday import BY_RATE
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.training.stages.stage import Stage, make_stage

_MAX_BAD_STEPS = 20
"""A step without a finite gradient is left out; so many in a row mean that the run is lost."""


class Run:
    """The state that a checkpoint holds: weights, average, optimizer, counters."""

    def __init__(self, config: Config, stage: Stage) -> None:
        self.config = config
        self.model: nn.Module = stage.model
        self.ema = {k: v.detach().clone() for k, v in stage.model.state_dict().items()}
        self.optimizer = _optimizer(config, stage)
        self.regularizer = stage.regularizer
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.seconds = self.aside = 0.0
        self.bad_steps = 0
        self.history: list[dict[str, Any]] = []
        self.earlier: list[dict[str, Any]] = _earlier_runs(config)

    def progress(self) -> float:
        """Fraction of the planned steps or minutes, whichever is nearer its end. Of the minutes, what is done
        beside the steps, such as counting and validation, takes its part.
        """
        train = self.config.train
        left = max(60 * train.minutes - self.aside, 1e-9) if train.minutes else 0.0
        return max(
            self.step / train.steps if train.steps else 0.0,
            self.seconds / left if left else 0.0,
        )

    def schedule(self) -> None:
        """Warm up, stay, and cool down linearly to 0."""
        train = self.config.train
        factor = min(1.0, (self.step + 1) / max(1, train.warmup))
        if train.cooldown > 0:
            factor *= min(1.0, max(0.0, 1 - self.progress()) / train.cooldown)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    @torch.no_grad()
    def average(self) -> None:
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write all that it takes to go on."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.regularizer:
            state["regularizer"] = self.regularizer.state_dict()
        save_checkpoint({**self._averaged(provenance), **state}, path)

    def keep(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write the averaged weights as they are now, to export or to start from."""
        save_checkpoint(self._averaged(provenance), path)

    def _averaged(self, provenance: dict[str, Any]) -> dict[str, Any]:
        return {
            "config": configs.to_dict(self.config),
            "ema": self.ema,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "provenance": provenance,
            "earlier": self.earlier,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `save` wrote.

        Raises:
            UsageError: it holds averaged weights alone, as `keep` writes them.
        """
        if not {"model", "optimizer"} <= state.keys():
            raise UsageError("the checkpoint cannot be resumed; train.init starts from it")
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.history = state["history"]
        self.earlier = state.get("earlier", [])
        if self.regularizer and "regularizer" in state:
            self.regularizer.load_state_dict(state["regularizer"])


def _earlier_runs(config: Config) -> list[dict[str, Any]]:
    """What is known of the runs whose weights this one starts from, the first one first."""
    init = config.train.init
    if init in ("klt", "fresh"):
        return []
    if init.endswith(".safetensors"):
        return [{**stage, "step": stage["steps"]} for stage in stages_beside(init)]
    state = load_checkpoint(init)
    keys = ("config", "step", "seconds", "history", "provenance")
    return [*state.get("earlier", []), {key: state[key] for key in keys}]


def _optimizer(config: Config, stage: Stage) -> torch.optim.Optimizer:
    """Adam, with a learning rate of their own for gains and bottlenecks."""
    train = config.train
    others: list[Tensor] = []
    bottleneck: list[Tensor] = []
    for name, param in stage.model.named_parameters():
        if param.requires_grad:
            fast = "bottleneck" in name or name.startswith(BY_RATE)
            (bottleneck if fast else others).append(param)
    groups = [{"params": others, "lr": train.lr}, {"params": bottleneck, "lr": train.bottleneck_lr}]
    return torch.optim.Adam([g for g in groups if g["params"]], betas=(0.9, train.beta2))


def advance(
    run: Run, stage: Stage, network: nn.Module, rng: np.random.Generator
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """One step: loss, norm of its gradient, and the stage's figures.

    Raises:
        LicodecError: too many steps in a row had no finite gradient.
    """
    run.schedule()
    loss, figures = stage.loss(network, rng)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(stage.model.parameters(), run.config.train.clip)
    run.bad_steps = 0 if torch.isfinite(norm) else run.bad_steps + 1
    if run.bad_steps >= _MAX_BAD_STEPS:
        raise LicodecError(f"{run.bad_steps} steps in a row had no finite gradient; stopped")
    if not run.bad_steps:
        run.optimizer.step()
        run.average()
    run.step += 1
    return loss, norm, figures


def train(
    config: Config,
    resume: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Path:
    """Run the training that config describes; the checkpoint's path.

    A program of several processes ends with `distributed.leave()`.

    Args:
        resume: go on from config.train.out/checkpoint.pt.
        report: receives one dict per logged step or validation (first process only).

    Raises:
        UsageError: the config cannot run, or there is nothing to resume.
    """
    configs.check(config)
    settings = config.train
    device = distributed.pick_device(settings.device)
    started = time.monotonic()
    rank, processes = distributed.start(device)
    out = Path(settings.out)
    checkpoint = out / "checkpoint.pt"
    if out.exists() and not out.is_dir():
        raise UsageError(f"train.out {out}: not a folder")
    if checkpoint.exists() and not resume:
        raise UsageError(f"{checkpoint} exists: --resume goes on, another train.out starts anew")
    torch.manual_seed(settings.seed)
    images = Images(
        config.data.path,
        config.data.holdout,
        config.data.patch,
        device,
        (rank, processes),
        config.data.images,
        config.data.scale,
        config.data.graphics,
    )
    # A resumed stage starts where the run stopped; what it took to begin is not done again.
    start = dataclasses.replace(settings, init=str(checkpoint)) if resume else settings
    stage = make_stage(dataclasses.replace(config, train=start), images, device)
    run = Run(config, stage)
    out.mkdir(parents=True, exist_ok=True)
    if resume:
        run.restore(load_checkpoint(checkpoint))
        run.ema = {k: v.to(device) for k, v in run.ema.items()}
    network: nn.Module = stage.model
    if processes > 1:
        network = DistributedDataParallel(network, device_ids=None)
    provenance = {
        "data_sha256": images.sha256,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {device}",
        "torch": str(torch.__version__),
        "processes": processes,
    }

    before = run.seconds
    last_saved = last_validated = last_logged = time.monotonic()
    done = run.progress() >= 1
    while not done:
        began = time.monotonic()
        # A step's crops and noise depend on its number alone, however often the run was resumed.
        rng = np.random.default_rng([settings.seed, run.step, rank])
        torch.manual_seed(settings.seed + run.step * processes + rank)
        loss, norm, figures = advance(run, stage, network, rng)
        now = time.monotonic()
        run.seconds += now - began
        run.aside = now - started - (run.seconds - before)
        done = distributed.agree(run.progress() >= 1, device)
        if rank:
            continue
        if now - last_logged > 10 or done:
            last_logged = now
            report({"step": run.step, "seconds": round(run.seconds, 1), "loss": loss.item(),
                    "lr": run.optimizer.param_groups[0]["lr"], "norm": norm.item(),
                    "progress": run.progress(), **figures})  # fmt: skip
        keep = settings.keep_every > 0 and run.step % settings.keep_every == 0
        if now - last_validated > settings.validate_s or keep or done:
            row = {"step": run.step, "seconds": round(run.seconds, 1), **_validate(run, stage)}
            run.history.append(row)
            report(row)
            with (out / "history.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            last_validated = time.monotonic()
        if keep:
            run.keep(out / f"step-{run.step:07}.pt", provenance)
        if now - last_saved > settings.checkpoint_s or done:
            run.save(checkpoint, provenance)
            last_saved = time.monotonic()
    return checkpoint


def _validate(run: Run, stage: Stage) -> dict[str, Tensor | float]:
    """The averaged weights' figures on the held-out images."""
    current = {k: v.detach().clone() for k, v in stage.model.state_dict().items()}
    stage.model.load_state_dict(run.ema)
    stage.model.eval()
    try:
        figures = stage.validate()
        # Validation may have set tables among the buffers: they belong to the averaged weights.
        run.ema = {k: v.detach().clone() for k, v in stage.model.state_dict().items()}
        return figures
    finally:
        stage.model.load_state_dict(current)
        stage.model.train()
