"""licodec's networks as modules whose work can be counted."""

from __future__ import annotations

from typing import Any

import torch

from licodec.bench.complexity import Complexity, count
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.pdf_transform import SIDE_LENGTH, PdfAnalysis, PdfSynthesis
from licodec.entropy.quadtree import GROUPS
from licodec.entropy.tables import BINS
from licodec.networks.hyper import HYPER_STRIDE, HyperNetworks
from licodec.open_codec import open_codec
from licodec.options import EncodeOptions
from licodec.tiles import positions
from licodec.weights.file import Weights


def decoder_complexity(model: str, width: int, height: int) -> Complexity:
    """g_s on the latents of one image, and every network that decides a probability."""
    codec, _ = open_codec(EncodeOptions(model=model, device="cpu"))
    if codec.architecture.is_exact:
        return everyday(codec.weights, width, height)
    y_hat = torch.zeros(1, codec.transforms.M, *positions(height, width))
    transforms: Any = codec.transforms
    total = count(transforms.network("g_s"), y_hat)
    if codec.architecture.sends_distributions:
        total += pdf_transforms(codec.weights)[1]
    if isinstance(codec.entropy_model, Hyperprior):
        total += _hyperprior(codec.entropy_model, *y_hat.shape[2:])
    return total


def everyday(weights: Weights, width: int, height: int) -> Complexity:
    """g_s, h_s and the quadtree's steps, by the shapes of their weights: all are matrix products."""
    total = Complexity(0, 0)
    for prefix, side in _PIXELS.items():
        positions = -(-width // side) * -(-height // side)
        for name, tensor in weights.tensors(prefix).items():
            if name.endswith(".weight"):
                biases = len(tensor)
                total += Complexity(tensor.size * positions, tensor.size + biases)
    return total


_PIXELS = {
    "g_s.fine.": 8, "g_s.patch.": 8, "g_s.coarse.": 16, "g_s.cell.": 16,
    "h_s.leave.": 16, "h_s.second.": 16, "h_s.grow.": 32, "h_s.first.": 32, "h_s.enter.": 64,
    **{f"steps.{i}.{part}": side for i in range(GROUPS)
       for part, side in (("enter.", 16), ("block.", 16), ("heads.", 32))},
}  # fmt: skip
"""Side of the square of pixels that has one position of each layer; a head sees a quarter of the latents."""


def _hyperprior(model: Hyperprior, h: int, w: int) -> Complexity:
    """h_s, context and entropy parameters, rebuilt from their sizes, since they run on integers."""
    networks = HyperNetworks(model.architecture, model.N, model.M)
    z_hat = torch.zeros(1, model.N, -(-h // HYPER_STRIDE), -(-w // HYPER_STRIDE))
    total = count(networks.h_s, z_hat)
    if model.architecture.has_context:
        context = networks.context_prediction
        taps = Complexity(h * w * model.M * context.out_channels * context.TAPS, 0)
        parameters = sum(p.numel() for p in context.parameters())
        total += taps + Complexity(0, parameters)
        total += count(networks.entropy_parameters, torch.zeros(1, 4 * model.M, h, w))
    return total


def pdf_transforms(weights: Weights) -> tuple[Complexity, Complexity]:
    """h_a and h_s of the encoding distributions: once an image, whatever its size.

    They are rebuilt from the shapes of the weights, since h_s runs on integers outside any module.
    """
    M = weights.numpy("prior").shape[1]
    groups = int(weights.metadata["groups"])
    width, _, K = weights.numpy("h_s.0.weight").shape
    Z = weights.numpy("h_a.layers.4.weight").shape[0]
    h_a = PdfAnalysis(M, width, Z, groups, K)
    h_s = PdfSynthesis(M, width, Z, groups, K)
    analysis = count(h_a, torch.zeros(1, M, BINS))
    return analysis, count(h_s, torch.zeros(1, Z, SIDE_LENGTH), torch.zeros(1))
