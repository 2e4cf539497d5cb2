"""Checkpoints: weights, average, optimizer, config, counters; never code. And what is told beside others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from licodec.errors import UsageError

_FORMER_NAMES = {"echo": "back_projection"}
"""Of tensors in checkpoints that were written before."""
_RUN = {"ema", "config", "step", "seconds", "history", "provenance"}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it.

    Raises:
        UsageError: there is none, or it is none of ours.
    """
    try:
        state: dict[str, Any] = load(path)
    except (UsageError, MemoryError):
        raise
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'no readable checkpoint'}") from error
    except Exception as error:  # whose advice, to load what may run code, is not passed on
        raise UsageError(f"{path}: no readable checkpoint") from error
    if not (
        isinstance(state, dict) and _RUN <= state.keys() and _tells_of_training(state["config"])
    ):
        raise UsageError(f"{path}: not a licodec checkpoint")
    if not all(map(_is_run, [state, *_earlier(state)])):
        raise UsageError(f"{path}: not a licodec checkpoint")
    ema = state["ema"]
    if not (isinstance(ema, dict) and all(isinstance(v, torch.Tensor) for v in ema.values())):
        raise UsageError(f"{path}: not a licodec checkpoint")
    for part in (ema, state.get("model", {})):
        for name in part.keys() & _FORMER_NAMES.keys():
            part[_FORMER_NAMES[name]] = part.pop(name)
    for name, value in ema.items():
        if not torch.isfinite(value).all():
            raise UsageError(f"{path}: {name} is not finite")
    return state


def _earlier(state: dict[str, Any]) -> list[Any]:
    earlier = state.get("earlier", [])
    return earlier if isinstance(earlier, list) else [None]


def _is_run(run: Any) -> bool:
    """Whether a recipe can tell of it."""
    if not (isinstance(run, dict) and _RUN - {"ema"} <= run.keys()):
        return False
    try:
        json.dumps([run["history"], run["provenance"]])
    except (TypeError, ValueError, RecursionError):
        return False
    counts = all(isinstance(run[key], (int, float)) for key in ("step", "seconds"))
    return counts and _tells_of_training(run["config"])


def refuse_endless(path: str | Path) -> None:
    """Raises UsageError of a device or a pipe, of which nobody knows how much there is to read."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path}: not a regular file")


def load(path: str | Path) -> Any:
    """What PyTorch saved, without running anything in it.

    Raises:
        UsageError: it may have no end, or a tensor has fewer values than its shape says, and would ask for
            any amount of memory.
        Exception: of any type, it is no such file.
    """
    refuse_endless(path)
    saved = torch.load(path, map_location="cpu", weights_only=True)
    left, seen = [saved], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple)):
            left += value
        elif isinstance(value, torch.Tensor) and not _is_whole(value):
            raise UsageError(f"{path}: a tensor is larger than what is stored of it")
    return saved


def _is_whole(tensor: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tells_of_training(config: Any) -> bool:
    """Whether a config has what is read of it."""
    return (
        isinstance(config, dict)
        and all(isinstance(config.get(section), dict) for section in ("data", "model", "train"))
        and isinstance(config["data"].get("path"), str)
        and isinstance(config["model"].get("lambdas"), (list, tuple))
    )


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write beside, then rename: a stopped run leaves the last whole checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def recipe_beside(path: str | Path) -> dict[str, Any]:
    """The recipe beside a weights file or an exported state; {} where there is none."""
    beside = Path(path).with_suffix(".json")
    if Path(path).suffix != ".safetensors" or not beside.is_file():
        return {}
    try:
        recipe = json.loads(beside.read_bytes())
    except (ValueError, RecursionError):  # something else of that name
        return {}
    return recipe if isinstance(recipe, dict) else {}


def stages_beside(path: str | Path) -> list[dict[str, Any]]:
    """How a weights file or an exported state was trained, as the recipe beside it tells; [] where none
    does."""
    stages = recipe_beside(path).get("stages")
    return stages if isinstance(stages, list) and all(map(_is_stage, stages)) else []


def _is_stage(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and _RUN - {"ema", "step"} <= stage.keys()
        and _tells_of_training(stage["config"])
        and all(isinstance(stage.get(key), (int, float)) for key in ("steps", "seconds"))
    )
