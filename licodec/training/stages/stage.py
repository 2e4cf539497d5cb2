"""What a stage of training is, and how it is found by the table of architectures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from licodec.interface import named
from licodec.networks.tiled import has_native_bf16
from licodec.training.config import Config
from licodec.training.data import Images

if TYPE_CHECKING:
    from licodec.training.regularizer import Regularizer


class Stage(Protocol):
    """A model, its loss and its validation."""

    model: nn.Module
    regularizer: Regularizer | None
    """What learns beside the model and is part of a checkpoint, but not of the weights."""

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        """A step's loss, and figures for the log. `network` is the model, or DDP around it."""

    def validate(self) -> dict[str, Any]:
        """Figures on the held-out images."""


def make_stage(config: Config, images: Images, device: torch.device) -> Stage:
    """The stage that a config names, its model begun as `train.init` says.

    Raises:
        UsageError: the file that it starts from is missing or does not fit.
    """
    place = dict(config.model.architecture.stages)[config.train.stage]
    stage: Stage = named(f"licodec.training.stages.{place}")(config, images, device)
    return stage


def uses_bf16(config: Config, device: torch.device) -> bool:
    """What `auto` precision comes to on this device."""
    native = device.type == "cuda" or has_native_bf16()
    return {"bf16": True, "float32": False, "auto": native}[config.train.precision]


def precision(config: Config, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within it, nets compute in the precision that the config asks for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(config, device))


def rounded(values: Any, digits: int) -> list[float]:
    """A row of figures for the log."""
    return [round(float(v), digits) for v in values]
