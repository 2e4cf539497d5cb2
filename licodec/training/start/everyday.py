"""Where the everyday codec's training starts: a Karhunen-Loève transform, a checkpoint, or weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from licodec.errors import ModelMissingError, UsageError, mismatch, said
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.everyday import CELL, PATCH, Everyday, karhunen_loeve
from licodec.training.config import Config
from licodec.training.convert.quantize_everyday import dequantized
from licodec.training.data import Images
from licodec.weights.file import Weights

_CROPS = 96


def initialize(net: Everyday, config: Config, images: Images) -> None:
    """Set net's weights as config.train.init says.

    Raises:
        UsageError: the named file is missing or does not fit.
    """
    init = config.train.init
    if init == "klt":
        crops = images.crops(np.random.default_rng(config.train.seed), _CROPS, 32 * PATCH)
        side = crops.shape[-1] // (PATCH * CELL) * PATCH * CELL  # as small as the smallest image
        crops = crops[..., :side, :side]
        karhunen_loeve(net, crops.float().permute(0, 2, 3, 1).cpu() / 255)
        return
    state = (
        _of_weights(init, net) if init.endswith(".safetensors") else load_checkpoint(init)["ema"]
    )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(
            f"train.init {init}: does not fit the model ({mismatch(error)})"
        ) from error


def _of_weights(path: str, net: Everyday) -> dict[str, Tensor]:
    """The state of a weights file: its integer layers as floats again."""
    try:
        weights = Weights(Path(path))
        lambdas = tuple(weights.lambdas)
    except (ModelMissingError, ValueError) as error:
        raise UsageError(f"train.init {path}: {error}") from error
    if lambdas != net.lambdas:
        raise UsageError(f"train.init {path}: its lambdas are not those of the model")
    try:
        return dequantized(net, weights.tensors(""))
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"train.init {path}: does not fit the model{said(error)}") from error
