"""Learning how a latent's scale heeds the channels before (`entropy.scale_shifts`), for trained networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licodec.entropy.classes import Features, check_exact
from licodec.entropy.gaussian import MEAN_UNIT, MIXTURE_TOTAL, choose_steps
from licodec.entropy.scale_shifts import (
    LARGEST,
    NEAR_BITS,
    NEAR_LIMIT,
    PREFIX,
    REACH,
    SHIFT_UNIT,
    chessboard,
    four,
    moved,
    score,
    starts,
)
from licodec.networks.hyper import HYPER_STRIDE, HyperNetworks
from licodec.progress import track
from licodec.tiles import STRIDE
from licodec.training.data import central

LEAST = 2**14
"""Fewer samples say too little about so many weights."""
_SIDE, _RATES, _EACH = 256, 3, 160
"""Of each image: its middle's pixels a side, the rates drawn, and positions of each."""
_UNIT = LARGEST / 4
"""Of scores: one is this much."""
_BINS = 512
"""Magnitudes that are told apart; the last stands for all beyond."""
_FURTHEST = 2**15 - 1
_ALONE, _TOGETHER = 64, 8
"""Channels that are coded alone, in two halves: those with the most bits; and how many of the others
are at once, for time's sake."""
_STEPS, _BATCH, _RATE = 150, 4000, 0.02
_ROUNDS = 100
_DOUBT = 500
"""Cases in which a scale is what it says, beside those seen."""


class Samples(NamedTuple):
    """Latents of n positions of images and rates drawn at random."""

    residual: NDArray[np.int16]
    """(M, n) what is left of them when the mean is taken off, in 1/MEAN_UNIT."""
    scale: NDArray[np.uint8]
    """(M, n) indices."""
    features: NDArray[np.int16]
    """(M, 2, n) what each channel shows, as `classes.Features` has it."""
    near: NDArray[np.int16]
    """(M, 2, n) sums of the scores of its four neighbours and of their values, where it is of a
    chessboard's second half; else 0."""

    def ordered(self, order: NDArray[np.int16]) -> Samples:
        """The channels in that order."""
        return Samples(
            self.residual[order], self.scale[order], self.features[order], self.near[order]
        )

    def magnitude(self, own: NDArray[np.int64]) -> NDArray[np.int16]:
        """(M, n) of the steps that are coded, below _BINS, when the values of neighbours weigh own (M,)."""
        shift = own[:, None] * self.near[:, 1] >> NEAR_BITS
        steps = choose_steps((self.residual - shift).astype(np.int32))
        return np.minimum(np.abs(steps), _BINS - 1).astype(np.int16)


def fit(
    networks: HyperNetworks,
    log_gain: Tensor,
    median: Tensor,
    images: list[Tensor],
    scales: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """The tensors of scale shifts for a weights file; none if the images are too few.

    Args:
        log_gain: (K, M).
        median: (N,) what z is rounded about.
        images: uint8 (3, H, W), sides at least 64.
        scales: (S,) standard deviations.
    """
    table, shapes = of_magnitudes(scales), _shapes(scales)
    samples = _sample(networks, log_gain, median, images, scales, table)
    M, n = samples.scale.shape
    if n < LEAST:
        return {}
    whole = samples.magnitude(np.zeros(M, np.int64))
    spread = -np.log2(shapes)[samples.scale, whole].mean(1)
    order = np.argsort(-spread, kind="stable").astype(np.int16)
    samples = samples.ordered(order)
    own = np.zeros((M, 2), np.int16)
    own[:, 1] = _mean_weights(samples, scales)
    magnitude = samples.magnitude(own[:, 1].astype(np.int64))
    bits = -np.log2(_mixture(samples.scale, magnitude, shapes) / MIXTURE_TOTAL @ shapes)
    blocks = block_sizes(M)
    weights, own[:, 0] = _weights(samples, magnitude, bits, blocks)
    indices = []
    for part in np.array_split(np.arange(n), -(-n // _BATCH)):
        x = samples.features[..., part].reshape(2 * M, -1).astype(np.float32)
        forecast = weights.astype(np.float32) @ x
        forecast += own[:, :1].astype(np.float32) * samples.near[:, 0, part]
        indices.append(moved(samples.scale[:, part], forecast, len(scales)))
    return {
        f"{PREFIX}order": order,
        f"{PREFIX}blocks": blocks,
        f"{PREFIX}weights": weights,
        f"{PREFIX}own": own,
        f"{PREFIX}table": table,
        f"{PREFIX}mixture": _mixture(np.concatenate(indices, 1), magnitude, shapes),
    }


def block_sizes(M: int) -> NDArray[np.int16]:
    """(B,) the busiest channels alone, the others by eights."""
    alone = min(_ALONE, M)
    eights, others = divmod(M - alone, _TOGETHER)
    return np.array([1] * alone + [_TOGETHER] * eights + [others] * (others > 0), np.int16)


def _mean_weights(samples: Samples, scales: NDArray[np.float64]) -> NDArray[np.int16]:
    """(M,) of neighbours' values, by least squares in units of each latent's scale; 0 for channels that are
    coded whole."""
    out = np.zeros(len(samples.scale), np.int16)
    for i in range(min(_ALONE, len(out))):
        worth = 1 / (scales[samples.scale[i]] ** 2 + 1 / 12)
        near = samples.near[i, 1].astype(np.float64)
        slope = (worth * near * samples.residual[i]).sum() / max((worth * near**2).sum(), 1e-9)
        out[i] = np.rint(slope * 2**NEAR_BITS).clip(-(2**15), 2**15 - 1)
    return out


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


def of_magnitudes(scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """(S, REACH) ∂ log p/∂ log σ at each magnitude, in 1/_UNIT."""
    step = 0.02
    wider, narrower = (_log_mass(scales * np.exp(h), REACH) for h in (step, -step))
    slope = (wider - narrower) / (2 * step)
    table: NDArray[np.int8] = np.rint(_UNIT * slope).clip(-LARGEST, LARGEST).astype(np.int8)
    return table


@torch.inference_mode()
def _sample(
    networks: HyperNetworks,
    log_gain: Tensor,
    median: Tensor,
    images: list[Tensor],
    scales: NDArray[np.float64],
    table: NDArray[np.int8],
) -> Samples:
    rng = np.random.default_rng(0)
    thresholds = torch.from_numpy(np.sqrt(scales[:-1] * scales[1:])).float()
    offset = median[:, None, None]
    parts = []
    for image in track(images, "sampling latents"):
        x = central(image, _SIDE, STRIDE * HYPER_STRIDE)[None].float() / 255
        y = networks.g_a(x.contiguous(memory_format=torch.channels_last)).float()
        for k in rng.choice(len(log_gain), size=min(_RATES, len(log_gain)), replace=False):
            u = y * log_gain[k].exp()[:, None, None]
            z_hat = (networks.hyper_latents(u).float() - offset).round() + offset
            sigma, means = (part.float() for part in networks.parameters_of(z_hat, u))
            residual = (
                ((u - means) * MEAN_UNIT).round().clamp(-_FURTHEST, _FURTHEST)[0].int().numpy()
            )
            steps = choose_steps(residual)
            index = torch.bucketize(sigma[0].contiguous(), thresholds).byte().numpy()
            shown = score(table, index, steps)
            M, h, w = steps.shape
            features = Features(M, h, w)
            features.add(0, shown)
            near = np.stack([four(shown), four(steps.clip(-NEAR_LIMIT, NEAR_LIMIT))], 1)
            near[..., chessboard(h, w)[0]] = 0
            some = rng.permutation(h * w)[:_EACH]
            parts.append(
                (
                    residual.reshape(M, -1)[:, some].astype(np.int16),
                    index.reshape(M, -1)[:, some],
                    features.rows.reshape(M, 2, -1)[..., some].astype(np.int16),
                    near[..., some].astype(np.int16),
                )
            )
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


def _weights(
    samples: Samples,
    magnitude: NDArray[np.int16],
    bits: NDArray[np.float64],
    blocks: NDArray[np.int16],
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(M, 2M) weights and (M,) of the four neighbours, integers, by the bits (S, _BINS) that a latent costs
    with each index."""
    M, _, n = samples.features.shape
    cost = torch.from_numpy(bits).float()
    first = starts(blocks)
    mask = torch.from_numpy(np.arange(2 * M) // 2 < first[:, None]).float()
    halved = (torch.arange(M) < _ALONE).float()[:, None]
    unit = torch.tensor([1.0, 9.0]).repeat(M)[:, None] * _UNIT
    weight = torch.zeros(M, 2 * M, requires_grad=True)
    own = torch.zeros(M, 1, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [weight]}, {"params": [own]}], lr=_RATE)
    rng = np.random.default_rng(0)
    for step in track(range(_STEPS), "fitting scale shifts"):
        for group, rate in zip(optimizer.param_groups, (_RATE, 2 * _RATE), strict=True):
            group["lr"] = rate * min(1, step / 10) * (1 - step / _STEPS)
        some = rng.integers(n, size=_BATCH)
        x = torch.from_numpy(samples.features[:, :, some]).reshape(2 * M, -1).float() / unit
        near = torch.from_numpy(samples.near[:, 0, some]) / (4 * _UNIT)
        index, taken = (
            torch.from_numpy(part[:, some]).long() for part in (samples.scale, magnitude)
        )
        position = (index + (weight * mask) @ x + own * halved * near).clamp(0, len(bits) - 1.001)
        # Between two scales, what lies between their costs: the slope that steps have not.
        below = position.detach().long()
        low, high = cost[below, taken], cost[below + 1, taken]
        loss = (low + (high - low) * (position - below)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    row = (weight.detach() * mask / unit.T * SHIFT_UNIT).double().numpy()
    beside = (own.detach() * halved / (4 * _UNIT) * SHIFT_UNIT).double().numpy()
    largest = LARGEST * (
        (np.abs(row) * np.tile([1, 9], M)).sum(1, keepdims=True) + 4 * np.abs(beside)
    )
    fits = np.minimum(1, 2**23 / np.maximum(largest, 1))
    integers, near_integers = (
        np.rint(part * fits).clip(-(2**15), 2**15 - 1).astype(np.int16) for part in (row, beside)
    )
    check_exact(integers, LARGEST, near_integers[:, 0], first)
    return integers, near_integers[:, 0]
