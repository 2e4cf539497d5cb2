"""A small everyday codec: every kind of layer, in a moment."""

import json
from functools import cache

import numpy as np
import torch

from licodec.training.codecs.everyday import Everyday
from licodec.training.convert.export import write_weights
from licodec.training.convert.quantize_everyday import quantized
from licodec.weights.file import ARITHMETIC

LAMBDAS = (0.001, 0.008, 0.064)


@cache
def network() -> Everyday:
    """Random weights that do something in every layer, and latents that need every class."""
    torch.manual_seed(1)
    net = Everyday(8, 16, 1, 1, LAMBDAS, hyper_width=8, z_channels=4, width=12)
    for name, parameter in net.named_parameters():
        if "log_" not in name and parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        net.log_gain.copy_(torch.tensor([2.0, 3.0, 4.0])[:, None] + torch.linspace(-2, 2, 16))
        net.log_inverse_gain.copy_(-net.log_gain)
        net.log_scale.copy_(torch.tensor([-1.0, 0.0, 1.0])[:, None] + torch.linspace(-3, 4, 16))
        net.rate_features.normal_(std=0.1)
    return net.eval()


@cache
def tensors() -> dict:
    noise = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    return quantized(network(), noise)


@cache
def weights(folder, strengths=(0.0, 0.25, 0.5)):
    """A file of them, whose encoder adds so much of its back-projection at each anchor."""
    metadata = {
        "name": "small", "arch": "everyday", "arithmetic": ARITHMETIC,
        "lambdas": json.dumps(LAMBDAS),
    }  # fmt: skip
    own = {"echo": np.array(strengths, np.float32)} if strengths else {}
    return write_weights(folder, "small", tensors() | own, metadata, {})


def latents(h: int, w: int, seed: int = 0, largest: float = 200.0) -> np.ndarray:
    """(16, h, w) in sixteenths of a step, heavy in the tails."""
    rng = np.random.default_rng(seed)
    y = rng.laplace(size=(h, w, 16)) * np.geomspace(1, largest, 16)
    return np.clip(np.rint(y), -32767, 32767).astype(np.int16).transpose(2, 0, 1)
