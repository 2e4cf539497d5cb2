"""A checkpoint of the everyday codec as integers: ranges, tables of classes and qualities by photographs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.entropy.quadtree import Quadtree, count_classes
from licodec.networks.everyday import LATENT_UNIT, EverydayTransforms
from licodec.training.codecs.everyday import Everyday
from licodec.training.config import Config
from licodec.training.convert import quality_axis
from licodec.training.convert.quantize_everyday import class_tables, quantized
from licodec.training.data import Images
from licodec.training.fit.class_directions import fit_directions
from licodec.training.fit.everyday_back_projection import anchors
from licodec.training.graphics import drawn
from licodec.weights.file import ARITHMETIC, BACK_PROJECTION, STEPS

Array = NDArray[Any]

_RANGES, _GRAPHICS, _MEASURED = 24, 4, 12
"""Photographs and drawings that set the ranges of activations, and photographs coded at every anchor."""
_RANGE_SIZE, _SIZE = 256, 512


def everyday_tensors(
    config: Config, ema: dict[str, Tensor], photographs: str
) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors of a weights file, and metadata of its own.

    Args:
        photographs: a folder of them, or of shards.

    Raises:
        UsageError: there are none.
    """
    net = Everyday.of(config.model)
    net.load_state_dict(ema)
    net.eval()
    data = config.data
    images = Images(photographs, 0, _RANGE_SIZE, torch.device("cpu"), scale=data.scale).train
    tensors = quantized(net, _ranging(images))
    middles = [
        image[:, :_SIZE, :_SIZE].permute(1, 2, 0).numpy() for image in _spread(images, _MEASURED)
    ]
    counts = _counts(tensors, middles)
    rates = np.arange(len(config.model.lambdas))
    by_anchor = [sum(c for k, c in counts if k == anchor) for anchor in rates]
    tensors["class_prior"] = class_tables(np.stack(by_anchor))
    tensors |= fit_directions(tensors["class_prior"], counts)
    held_out = quality_axis.photographs(photographs)
    tensors[BACK_PROJECTION], psnr = anchors(tensors, list(config.model.lambdas), held_out)
    tensors["positions"] = quality_axis.positions(psnr, rates * STEPS)
    return tensors, {"arch": config.model.arch, "arithmetic": ARITHMETIC}


def _spread(images: list[Tensor], count: int) -> list[Tensor]:
    """So many of them, evenly chosen; all where there are fewer."""
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]


def _ranging(photographs: list[Tensor]) -> Iterator[Tensor]:
    for image in _spread(photographs, _RANGES):
        yield image[:, :_RANGE_SIZE, :_RANGE_SIZE].permute(1, 2, 0).float() / 255
    for seed in range(_GRAPHICS):
        picture = drawn(np.random.default_rng(seed), _RANGE_SIZE)
        yield torch.from_numpy(picture.copy()).float() / 255


def _counts(
    tensors: dict[str, Array], images: list[NDArray[np.uint8]]
) -> list[tuple[int, NDArray[np.int64]]]:
    """The anchor and how often each class has each bin (CLASSES, BINS + 1), for each image at each anchor."""
    transforms, model = EverydayTransforms(tensors), Quadtree(tensors)
    counts = []
    for k in range(len(tensors["log_gain"])):
        gain = np.exp(tensors["log_gain"][k]) * np.float32(LATENT_UNIT)
        for x in images:
            side = model.side_information(transforms.analyze(x, gain), k * STEPS)
            counts.append((k, count_classes(side.symbols)))
    return counts
