"""Checkpoints: weights, average, optimizers, config, counters; never code. And what is told beside others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from licodec.errors import UsageError

_STAGE = {"config", "steps", "seconds", "history", "provenance"}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it.

    Raises:
        UsageError: there is none, or it is none of ours.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = " ".join(str(error).strip().splitlines()[:1])
        raise UsageError(f"{path}: no readable checkpoint ({first})") from error
    if not isinstance(state, dict) or "ema" not in state or "config" not in state:
        raise UsageError(f"{path}: not a licodec checkpoint")
    return state


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write beside, then rename: a stopped run leaves the last whole checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def stages_beside(path: str | Path) -> list[dict[str, Any]]:
    """How a weights file or an exported state was trained, as the recipe beside it tells; [] where none
    does."""
    beside = Path(path).with_suffix(".json")
    if Path(path).suffix != ".safetensors" or not beside.is_file():
        return []
    try:
        stages: list[dict[str, Any]] = json.loads(beside.read_bytes())["stages"]
        return stages if all(_STAGE <= stage.keys() for stage in stages) else []
    except (ValueError, TypeError, LookupError, AttributeError):  # something else of that name
        return []
