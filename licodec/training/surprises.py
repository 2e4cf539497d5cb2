"""Learning how a latent's scale heeds the channels before (`licodec.surprises`), for trained networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.contexts import Features, check_exact
from licodec.gaussian import MIXTURE_TOTAL
from licodec.hyper_networks import HYPER_STRIDE, HyperNetworks
from licodec.surprises import LARGEST, REACH, SHIFT_UNIT, Surprises
from licodec.training.data import central
from licodec.transforms import STRIDE

LEAST = 2**14
"""Fewer samples say too little about so many weights."""
_SIDE, _RATES, _EACH = 256, 3, 160
"""Of each image: its middle's pixels a side, the rates drawn, and positions of each."""
_UNIT = LARGEST / 4
"""Of surprises: one is this much."""
_BINS = 512
"""Magnitudes that are told apart; the last stands for all beyond."""
_STEPS, _BATCH, _RATE = 150, 4000, 0.02
_ROUNDS = 100
_DOUBT = 500
"""Cases in which a scale is what it says, beside those seen."""


class Samples(NamedTuple):
    """Latents about their means at n positions of images and rates drawn at random."""

    magnitude: NDArray[np.int16]
    """(M, n) below _BINS."""
    scale: NDArray[np.uint8]
    """(M, n) indices of their scales."""
    features: NDArray[np.int16]
    """(M, 2, n) what each channel shows there, as `contexts.Features` has it."""

    def ordered(self, order: NDArray[np.int16]) -> Samples:
        """The channels in that order."""
        return Samples(self.magnitude[order], self.scale[order], self.features[order])


def fit(
    networks: HyperNetworks, log_gain: Tensor, median: Tensor, images: list[Tensor],
    scales: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """The tensors `surprises.…` of a weights file; none if the images are too few.

    Args:
        log_gain: (K, M).
        median: (N,) what z is rounded about.
        images: uint8 (3, H, W), sides at least 64.
        scales: (S,) standard deviations.
    """
    table, shapes = _surprises(scales), _shapes(scales)
    samples = _sample(networks, log_gain, median, images, scales, table)
    if samples.scale.shape[1] < LEAST:
        return {}
    spread = -np.log2(shapes)[samples.scale, samples.magnitude].mean(1)
    order = np.argsort(-spread, kind="stable").astype(np.int16)
    samples = samples.ordered(order)
    bits = -np.log2(_mixture(samples.scale, samples.magnitude, shapes) / MIXTURE_TOTAL @ shapes)
    model = Surprises(order, _weights(samples, bits), table)
    moved = [
        model.moved(own, row @ samples.features.reshape(len(row), -1).astype(np.float32))
        for own, row in zip(samples.scale, model.weights, strict=True)
    ]
    return {
        "surprises.order": order,
        "surprises.weights": model.weights.astype(np.int16),
        "surprises.table": table,
        "surprises.mixture": _mixture(np.stack(moved), samples.magnitude, shapes),
    }


def _log_mass(scales: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(S, count) log probabilities of an integer 0, 1, … under Gaussians about 0."""
    x = torch.arange(count, dtype=torch.float64)
    sigma = torch.from_numpy(scales)[:, None]
    # The lower tail has all digits where the upper has lost them.
    mass = torch.special.ndtr((0.5 - x) / sigma) - torch.special.ndtr((-0.5 - x) / sigma)
    out: NDArray[np.float64] = mass.clamp(min=1e-12).log().numpy()
    return out


def _shapes(scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, _BINS) probabilities of magnitudes; the last is of all beyond, too. Of a magnitude's two signs one
    is meant."""
    mass = np.exp(_log_mass(scales, _BINS))
    mass[:, -1] = np.maximum((1 + mass[:, 0]) / 2 - mass[:, :-1].sum(1), 1e-12)
    return mass


def _surprises(scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """(S, REACH) ∂ log p/∂ log σ at each magnitude, in 1/_UNIT."""
    step = 0.02
    wider, narrower = (_log_mass(scales * np.exp(h), REACH) for h in (step, -step))
    slope = (wider - narrower) / (2 * step)
    table: NDArray[np.int8] = np.rint(_UNIT * slope).clip(-LARGEST, LARGEST).astype(np.int8)
    return table


@torch.inference_mode()
def _sample(
    networks: HyperNetworks, log_gain: Tensor, median: Tensor, images: list[Tensor],
    scales: NDArray[np.float64], table: NDArray[np.int8],
) -> Samples:  # fmt: skip
    rng = np.random.default_rng(0)
    model = Surprises(np.zeros(0, np.int16), np.zeros((0, 0), np.int16), table)
    thresholds = torch.from_numpy(np.sqrt(scales[:-1] * scales[1:])).float()
    offset = median[:, None, None]
    parts = []
    for image in images:
        x = central(image, _SIDE, STRIDE * HYPER_STRIDE)[None].float() / 255
        y = networks.g_a(x.contiguous(memory_format=torch.channels_last)).float()
        for k in rng.choice(len(log_gain), size=min(_RATES, len(log_gain)), replace=False):
            u = y * log_gain[k].exp()[:, None, None]
            z_hat = (networks.hyper_latents(u).float() - offset).round() + offset
            sigma, means = (part.float() for part in networks.parameters_of(z_hat, u))
            values = (u - means).round().int()[0].numpy()
            index = torch.bucketize(sigma[0].contiguous(), thresholds).byte().numpy()
            seen = Features(len(values), *values.shape[1:])
            seen.add(0, model.of(index, values))
            some = rng.permutation(values[0].size)[:_EACH]
            magnitude = np.minimum(np.abs(values), _BINS - 1).astype(np.int16)
            parts.append((
                magnitude.reshape(len(values), -1)[:, some],
                index.reshape(len(values), -1)[:, some],
                seen.rows[:, some].astype(np.int16).reshape(len(values), 2, -1),
            ))  # fmt: skip
    return Samples(*(np.concatenate(part, -1) for part in zip(*parts, strict=True)))


def _mixture(
    index: NDArray[np.uint8], magnitude: NDArray[np.int16], shapes: NDArray[np.float64]
) -> NDArray[np.int16]:
    """(S, S) shares of MIXTURE_TOTAL: of which scales latents of one index look, by expectation and
    maximization."""
    S = len(shapes)
    cells = index.astype(np.int64) * _BINS + magnitude
    counts = np.bincount(cells.reshape(-1), minlength=S * _BINS).reshape(S, _BINS)
    signs = np.where(np.arange(_BINS) == 0, 1, 2)
    cases = counts + _DOUBT * signs * shapes
    shares = np.full((S, S), 0.5 / S) + 0.5 * np.eye(S)
    for _ in range(_ROUNDS):
        shares *= cases / (shares @ shapes) @ shapes.T
        shares /= shares.sum(1, keepdims=True)
    whole: NDArray[np.int16] = np.floor(shares * MIXTURE_TOTAL).astype(np.int16)
    whole[np.arange(S), whole.argmax(1)] += (MIXTURE_TOTAL - whole.sum(1)).astype(np.int16)
    return whole


def _weights(samples: Samples, bits: NDArray[np.float64]) -> NDArray[np.int16]:
    """(M, 2M) weights, integers, by the bits (S, _BINS) that a latent costs with each index."""
    M, _, n = samples.features.shape
    cost = torch.from_numpy(bits).float()
    mask = torch.ones(M, M).tril(-1)[:, :, None].repeat(1, 1, 2).flatten(1)
    unit = torch.tensor([1.0, 9.0]).repeat(M)[:, None] * _UNIT
    weight = torch.zeros(M, 2 * M, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=_RATE)
    rng = np.random.default_rng(0)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * min(1, step / 10) * (1 - step / _STEPS)
        some = rng.integers(n, size=_BATCH)
        x = torch.from_numpy(samples.features[:, :, some]).reshape(2 * M, -1).float() / unit
        own, magnitude = (
            torch.from_numpy(part[:, some]).long() for part in (samples.scale, samples.magnitude)
        )
        moved = (own + (weight * mask) @ x).clamp(0, len(bits) - 1.001)
        # Between two scales, what lies between their costs: the slope that steps have not.
        below = moved.detach().long()
        low, high = cost[below, magnitude], cost[below + 1, magnitude]
        loss = (low + (high - low) * (moved - below)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    row = (weight.detach() * mask / unit.T * SHIFT_UNIT).double().numpy()
    largest = (np.abs(row) * LARGEST * np.tile([1, 9], M)).sum(1, keepdims=True)
    row *= np.minimum(1, 2**23 / np.maximum(largest, 1))
    integers: NDArray[np.int16] = np.rint(row).clip(-(2**15), 2**15 - 1).astype(np.int16)
    check_exact(integers, LARGEST)
    return integers
