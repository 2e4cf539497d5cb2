"""Weights of model adaptive, cut down from the shipped ones: for tests of form, not of quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from licodec.training.convert.export import write_weights
from licodec.weights import catalogue
from licodec.weights import file as weights_file


def small_weights(folder: Path) -> Path:
    """The shipped weights, each axis cut down: 8 channels of latents, 16 of everything else, two rates."""
    shipped = weights_file.load(catalogue.resolve("adaptive")[1])
    K, M = shipped.numpy("log_gain").shape
    sizes = {K: 2, M: 8, 2 * M: 16, M // 8: 8, 128: 16, 24: 8, 25: 9, 768: 256}
    tensors = {
        name: tensor[tuple(slice(sizes.get(size, size)) for size in tensor.shape)]
        for name, tensor in shipped.tensors("").items()
        if name != "positions"
    }
    tensors["context.order"] = np.arange(8, dtype=np.int16)
    told = {**shipped.metadata, "groups": "1", "lambdas": "[0.01, 0.1]"}
    return write_weights(folder, "small", tensors, told, {})
