"""Stages (b) and (c): encoding distributions over given transforms, and everything together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.entropy.tables import count_channels
from licodec.progress import track
from licodec.training import distributed
from licodec.training.codecs.factorized import (
    Z_BINS,
    AdaptiveNetwork,
    DistributionNets,
    normalized_log2,
    shares,
)
from licodec.training.codecs.hyperprior import HyperpriorNetwork, ZDistributions
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.training.fit import classes
from licodec.training.fit.back_projection import middles, strengths
from licodec.training.fit.counts import (
    Counts,
    best_average,
    collect,
    collect_z,
    latents,
    log2_average,
)
from licodec.training.regularizer import Regularizer
from licodec.training.stages.stage import precision, rounded
from licodec.training.start import hyperprior, klt


class DistributionsStage:
    """Stage (b): h_a and h_s on frozen transforms, from cached counts of whole images."""

    regularizer: Regularizer | None = None
    model: nn.Module
    nets: DistributionNets

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.device = config, device
        model = AdaptiveNetwork(config.model)
        klt.initialize(model, config, images)
        model = model.to(device)
        for frozen in (*model.g_a.parameters(), *model.g_s.parameters(), model.log_gain):
            frozen.requires_grad_(False)
        self.model = self.nets = model

        rng = np.random.default_rng(config.train.seed)
        if not model.prior.any():
            self._choose_back_projection(model, images)
        train, held_out = self._latents(model, images)
        if not model.prior.any():
            self._fit_classes(model, train, rng)
        self._count(lambda y, rates: collect(model, y, rates), train, held_out, rng)
        if not model.prior.any():
            tables = [best_average(self.counts, k) for k in range(len(config.model.lambdas))]
            model.prior.copy_(torch.stack([prior for prior, _ in tables]))
            model.class_prior.copy_(torch.stack([classes for _, classes in tables]))

    def _choose_back_projection(self, model: AdaptiveNetwork, images: Images) -> None:
        x = middles(images.train).float() / 255
        with precision(self.config, self.device):
            model.back_projection.copy_(strengths(model, model.lambdas, model.log_gain, x))
        distributed.share([model.back_projection])

    def _latents(
        self, model: AdaptiveNetwork | HyperpriorNetwork, images: Images, multiple: int = 16
    ) -> tuple[list[Tensor], list[Tensor]]:
        """y of the training and of the held-out images, cut to multiples of so many pixels; and its
        back-projection if need be."""
        with precision(self.config, self.device):
            train, held_out = (
                latents(model, part, self.device, multiple)
                for part in (images.train, images.validation)
            )
        return train, held_out

    def _count(
        self,
        count: Callable[[list[Tensor], list[list[float]]], Counts],
        train: list[Tensor],
        held_out: list[Tensor],
        rng: np.random.Generator,
    ) -> None:
        """Two in three of the anchors for each training image, and two rates between them; all anchors
        for those held out."""
        K = len(self.config.model.lambdas)
        anchors = [float(k) for k in range(K)]
        rates = [
            [
                *rng.permutation(anchors)[: (2 * K + 2) // 3],
                *rng.uniform(0, K - 1, 2 if K > 1 else 0),
            ]
            for _ in train
        ]
        self.counts = count(train, rates)
        self.held_out = count(held_out, [anchors] * len(held_out))

    def _fit_classes(
        self, model: AdaptiveNetwork, train: list[Tensor], rng: np.random.Generator
    ) -> None:
        K, C = len(self.config.model.lambdas), self.config.model.classes
        gains = model.log_gain.detach().exp().cpu()
        order = classes.busiest_first([y[0] for y in train], gains[K // 2])
        model.context_order.copy_(torch.from_numpy(order))
        # Every process draws from its own images; all must sort into the same classes.
        distributed.share([model.context_order])
        order = model.context_order.cpu().numpy().astype(np.int16)
        sample = classes.sample(train, gains, model.back_projection.cpu(), order, rng)
        rows = classes.fit(*sample, K, rng, *distributed.place())
        model.context_weights.copy_(torch.from_numpy(rows))
        distributed.add_up(model.context_weights)
        weights = model.context_weights.cpu().numpy().astype(np.int16)
        thresholds = classes.thresholds(weights, *sample, K, C)
        model.context_thresholds.copy_(torch.from_numpy(thresholds))
        distributed.share([model.context_thresholds])

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        rows = torch.from_numpy(rng.integers(len(self.counts.rate), size=self.config.data.batch))
        counts = self.counts.values[rows].to(self.device).float()
        loss, figures = network("rates", counts, self.counts.rate[rows].to(self.device))
        static, adaptive, side = (float(f) for f in figures)
        return loss, {
            "gain_%": round(100 * ((adaptive + side) / static - 1), 3),
            "side_bytes": side / 8,
        }

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Tables for ẑ from the training images; then, on the held-out ones, the rate of the real
        side stream and p̂ against the best average distribution, per lambda, in percent; and what
        the classes alone give, and one ideal distribution a channel (paper 1's bound)."""
        K = len(self.config.model.lambdas)
        z_hat = torch.cat([self._z_hat(c, rate) for c, rate in self._batches(self.counts)])
        for k in range(K):
            near = (self.counts.rate - k).abs() < 0.5
            self.nets.z_prior[k] = log2_average(_z_counts(z_hat[near]))
        static, classes, adaptive, side, ideal = (np.zeros(K) for _ in range(5))
        for counts, rate in self._batches(self.held_out):
            log_prior = self.nets.prior_at(rate)
            log_classes = self.nets.class_prior_at(rate)
            z_hat = self._z_hat(counts, rate)
            total = counts.sum(2)
            p = total / total.sum(-1, keepdim=True)
            bits_ideal = -(total * p.clamp(min=1e-12).log2()).sum((1, 2))
            bits_static = -(total * log_prior).sum((1, 2))
            bits_classes = -(counts * log_classes).sum((1, 2, 3))
            bits_adaptive = self.nets.bits(counts, z_hat, rate)
            for i, k in enumerate(rate.long().tolist()):
                static[k] += float(bits_static[i])
                classes[k] += float(bits_classes[i])
                adaptive[k] += float(bits_adaptive[i])
                side[k] += self._side_bits(z_hat[i], k)
                ideal[k] += float(bits_ideal[i])
        images = len(self.held_out.rate) / K
        return {
            "val_gain_%": rounded(100 * ((adaptive + side) / static - 1), 2),
            "val_classes_%": rounded(100 * (classes / static - 1), 2),
            "val_ideal_%": rounded(100 * (ideal / static - 1), 2),
            "val_side_bytes": rounded(side / images / 8, 1),
            "val_mean_gain_%": round(float((100 * ((adaptive + side) / static - 1)).mean()), 3),
        }

    def _batches(self, counts: Counts) -> Iterator[tuple[Tensor, Tensor]]:
        for i in track(range(0, len(counts.rate), 32), "validating"):
            yield (
                counts.values[i : i + 32].to(self.device).float(),
                counts.rate[i : i + 32].to(self.device),
            )

    def _z_hat(self, counts: Tensor, rate: Tensor) -> Tensor:
        return self.nets.latents_of(shares(counts), rate)[0].round()

    def _side_bits(self, z_hat: Tensor, k: int) -> float:
        log_prior = normalized_log2(self.nets.z_prior[k]).double().cpu().numpy()
        return -float((_z_counts(z_hat[None]) * log_prior).sum())


def _z_counts(z_hat: Tensor) -> NDArray[np.int64]:
    """Counts (Z·32, Z_BINS + 1) of ẑ (n, Z, 32), the last for what lies outside the bins."""
    return count_channels(z_hat.flatten(1).T[..., None].int().cpu().numpy(), Z_BINS)


class ZDistributionsStage(DistributionsStage):
    """Stage (b) of a codec with a hyperprior: the same nets over the distributions of ẑ."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.device = config, device
        model = ZDistributions(config)
        hyperprior.initialize(model, config, images)
        self.model, self.nets = model.to(device), model.z_distributions
        train, held_out = self._latents(model, images, 64)
        rng = np.random.default_rng(config.train.seed)
        self._count(lambda y, rates: collect_z(model, y, rates), train, held_out, rng)
        if not self.nets.prior.any():
            anchors = range(len(config.model.lambdas))
            prior = torch.stack([best_average(self.counts, k)[0] for k in anchors])
            self.nets.prior.copy_(prior)
            self.nets.class_prior.copy_(prior[:, :, None])


class JointStage(DistributionsStage):
    """Stage (c): everything together, on R + λD with the rate of the adaptive distributions."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        self.images = images
        self.model.requires_grad_(True)
        self.nets.bottleneck.quantiles.requires_grad_(False)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        config = self.config
        x = self.images.crops(rng, config.data.batch, config.data.patch).float() / 255
        with precision(config, self.device):
            loss, (bpp, mse) = network(
                "joint",
                x.contiguous(memory_format=torch.channels_last),
                config.train.rate_balance,
                config.train.histogram_kernel,
            )
        return loss, {"bpp": rounded(bpp, 3), "psnr": rounded(-10 * torch.log10(mse), 2)}
