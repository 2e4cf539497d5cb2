"""What each stage of training optimizes: its model, its loss and its validation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.networks.tiled import has_native_bf16
from licodec.tiles import STRIDE
from licodec.training import distributed
from licodec.training.codecs.factorized import (
    Z_BINS,
    AdaptiveNetwork,
    DistributionNets,
    FactorizedNetwork,
    normalized_log2,
    shares,
)
from licodec.training.codecs.hyperprior import HyperpriorNetwork, KnownTransforms, ZDistributions
from licodec.training.codecs.hyperprior import initialize as initialize_hyperprior
from licodec.training.config import Config
from licodec.training.data import Images, central, window
from licodec.training.everyday import WholeCodec
from licodec.training.fit import classes
from licodec.training.fit.back_projection import middles, strengths
from licodec.training.fit.counts import Counts, best_average, collect, collect_z, log2_average
from licodec.training.fit.counts import latents as collect_latents
from licodec.training.regularizer import Regularizer
from licodec.training.start.klt import initialize


class Task(Protocol):
    model: nn.Module
    regularizer: Regularizer | None
    """What learns beside the model and is part of a checkpoint, but not of the weights."""

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        """A step's loss, and figures for the log. `network` is the model, or DDP around it."""

    def validate(self) -> dict[str, Any]:
        """Figures on the held-out images."""


def make_task(config: Config, images: Images, device: torch.device) -> Task:
    stages: dict[str, Any] = {
        "transforms": Transforms, "distributions": Distributions, "joint": Joint,
    }  # fmt: skip
    if config.model.arch == "everyday":
        stages = {"transforms": WholeCodec}
    elif config.model.arch != "factorized":
        stages = {"transforms": Hyperpriors, "rate": Rate, "distributions": ZTables}
    task: Task = stages[config.train.stage](config, images, device)
    return task


def uses_bf16(config: Config, device: torch.device) -> bool:
    """What `auto` precision comes to on this device."""
    native = device.type == "cuda" or has_native_bf16()
    return {"bf16": True, "float32": False, "auto": native}[config.train.precision]


class Transforms:
    """Stage (a): g_a, g_s, gains and static bottlenecks, on R + λD."""

    regularizer: Regularizer | None = None

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.images, self.device = config, images, device
        self.model = self._start().to(device)
        self.layout = torch.channels_last
        if config.model.arch == "attention" and device.type == "cpu":
            # In channels_last the gradient of its first 1x1 convolution with stride 2 (3 inputs)
            # writes beyond its memory: torch 2.13, CPU.
            self.layout = torch.contiguous_format
        self.model.to(memory_format=self.layout)  # type: ignore[call-overload]

    def _start(self) -> FactorizedNetwork | HyperpriorNetwork:
        settings = self.config.model
        model = FactorizedNetwork(
            settings.N, settings.M, settings.lambdas, self.config.train.back_projection
        )
        initialize(model, self.config, self.images)
        return model

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bf16(self.config, self.device)
        )

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        data = self.config.data
        x = self.images.crops(rng, data.batch, data.patch).float() / 255
        x = x.contiguous(memory_format=self.layout)
        with self._precision():
            loss, figures = network(x, self.config.train.rate_balance)
        bpp, mse = figures
        psnr = -10 * torch.log10(mse)
        return loss, {"bpp": _row(bpp, 3), "psnr": _row(psnr, 2)}

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """bpp (likelihoods) and mean PSNR per lambda on the held-out images' central 256 squares."""
        K = len(self.config.model.lambdas)
        bpp, psnr, free = np.zeros(K), np.zeros(K), []
        for image in self.images.validation:
            x = central(image, 256).float()[None] / 255
            x = x.contiguous(memory_format=self.layout)
            with self._precision():
                for k in range(K):
                    bits, mse = self.model.evaluate(x, k)
                    bpp[k] += float(bits) / len(self.images.validation)
                    psnr[k] += -10 * float(torch.log10(mse)) / len(self.images.validation)
                unquantized = self.model.g_s(self.model.g_a(x)).float().clamp(0, 1)
            free.append(-10 * float(torch.log10(((unquantized - x) ** 2).mean())))
        lambdas = np.array(self.config.model.lambdas)
        objective = bpp + lambdas * 255**2 * 10 ** (-psnr / 10)
        return {
            "val_objective": round(float((objective * (lambdas / 0.013) ** -0.4).mean()), 4),
            "val_bpp": _row(bpp, 4),
            "val_psnr": _row(psnr, 3),
            "val_psnr_unquantized": round(float(np.mean(free)), 2),
        }


class Hyperpriors(Transforms):
    """The codecs with a hyperprior, whole, on R + λD − α H_q(X|X̂); α is 0 without a regularizer."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        if config.regularizer:
            self.regularizer = Regularizer(config.model.arch, config.regularizer, device)

    def _start(self) -> FactorizedNetwork | HyperpriorNetwork:
        settings = self.config.model
        model = HyperpriorNetwork(
            settings.arch, settings.N, settings.M, settings.lambdas, self.config.train.surrogate
        )
        initialize_hyperprior(model, self.config, self.images)
        return model

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        """As any task's. With a regularizer, q has made its update when this returns."""
        data, K = self.config.data, len(self.config.model.lambdas)
        x = self.images.crops(rng, data.batch, data.patch).float() / 255
        x = x.contiguous(memory_format=self.layout)
        lambdas = torch.tensor(self.config.model.lambdas, device=self.device).repeat(len(x) // K)
        with self._precision():
            bpp, mse, x_hat = network(x)
        per_patch = bpp + lambdas * 255**2 * mse
        figures: dict[str, Any] = {
            "bpp": _row(bpp.detach().reshape(-1, K).mean(0), 3),
            "psnr": _row(-10 * torch.log10(mse.detach().reshape(-1, K).mean(0)), 2),
        }
        if self.regularizer:
            with self._precision():
                figures["conditional_bpp"] = round(float(self.regularizer.learn(x, x_hat)), 4)
                if self.regularizer.alpha:
                    per_patch = per_patch - self.regularizer.reward(x, x_hat)
        scale = (lambdas / 0.013) ** -self.config.train.rate_balance
        return (scale * per_patch).mean(), figures

    def validate(self) -> dict[str, Any]:
        """As in stage (a); and H_q(X|X̂) over the training steps since the last time."""
        figures = super().validate()
        return figures | (self.regularizer.figures() if self.regularizer else {})


class Rate(Hyperpriors):
    """The rate of a codec with a hyperprior whose transforms are known, from cached latents: a step is
    several times as fast as with them."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        precision = torch.bfloat16 if uses_bf16(config, device) else torch.float32
        assert isinstance(self.model, KnownTransforms)
        self.latents = collect_latents(self.model, images.train, precision, device)

    def _start(self) -> HyperpriorNetwork:
        settings = self.config.model
        model = KnownTransforms(settings.arch, settings.N, settings.M, settings.lambdas)
        initialize_hyperprior(model, self.config, self.images)
        return model

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        data = self.config.data
        lambdas = torch.tensor(self.config.model.lambdas, device=self.device)
        some = self.images.choose(rng, data.batch)
        y = torch.stack([window(self.latents[i][0], data.patch // STRIDE, rng) for i in some])
        y = y.to(self.device, torch.float32).contiguous(memory_format=self.layout)
        with self._precision():
            bpp = network(y).reshape(-1, len(lambdas)).mean(0)
        scale = (lambdas / 0.013) ** -self.config.train.rate_balance
        return (scale * bpp).mean(), {"bpp": _row(bpp.detach(), 3)}


class Distributions:
    """Stage (b): h_a and h_s on frozen transforms, from cached counts of whole images."""

    regularizer: Regularizer | None = None
    model: nn.Module
    nets: DistributionNets

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.device = config, device
        settings = config.model
        model = AdaptiveNetwork(
            settings.N, settings.M, settings.lambdas,
            settings.width, settings.z_channels, settings.groups, settings.kernel_size,
            settings.classes,
        )  # fmt: skip
        initialize(model, config, images)
        model = model.to(device)
        for frozen in (*model.g_a.parameters(), *model.g_s.parameters(), model.log_gain):
            frozen.requires_grad_(False)
        self.model = self.nets = model

        rng = np.random.default_rng(config.train.seed)
        if not model.prior.any():
            self._choose_back_projection(model, images)
        latents, held_out = self._latents(model, images)
        if not model.prior.any():
            self._fit_contexts(model, latents, rng)
        self._count(lambda y, rates: collect(model, y, rates), latents, held_out, rng)
        if not model.prior.any():
            tables = [best_average(self.counts, k) for k in range(len(settings.lambdas))]
            model.prior.copy_(torch.stack([prior for prior, _ in tables]))
            model.class_prior.copy_(torch.stack([classes for _, classes in tables]))

    def _choose_back_projection(self, model: AdaptiveNetwork, images: Images) -> None:
        x = middles(images.train).float() / 255
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bf16(self.config, self.device)
        ):
            model.back_projection.copy_(strengths(model, model.lambdas, model.log_gain, x))
        distributed.share([model.back_projection])

    def _latents(
        self, model: AdaptiveNetwork | ZDistributions, images: Images, multiple: int = 16
    ) -> tuple[list[Tensor], list[Tensor]]:
        """y of the training and of the held-out images, cut to multiples of so many pixels; and its
        back-projection if need be."""
        precision = torch.bfloat16 if uses_bf16(self.config, self.device) else torch.float32
        train, held_out = (
            collect_latents(model, part, precision, self.device, multiple)
            for part in (images.train, images.validation)
        )
        return train, held_out

    def _count(
        self, count: Callable[[list[Tensor], list[list[float]]], Counts],
        latents: list[Tensor], held_out: list[Tensor], rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Two in three of the anchors for each training image, and two rates between them; all anchors
        for those held out."""
        K = len(self.config.model.lambdas)
        anchors = [float(k) for k in range(K)]
        rates = [
            [
                *rng.permutation(anchors)[: (2 * K + 2) // 3],
                *rng.uniform(0, K - 1, 2 if K > 1 else 0),
            ]
            for _ in latents
        ]
        self.counts = count(latents, rates)
        self.held_out = count(held_out, [anchors] * len(held_out))

    def _fit_contexts(
        self, model: AdaptiveNetwork, latents: list[Tensor], rng: np.random.Generator
    ) -> None:
        K, C = len(self.config.model.lambdas), self.config.model.classes
        gains = model.log_gain.detach().exp().cpu()
        order = classes.busiest_first([y[0] for y in latents], gains[K // 2])
        model.context_order.copy_(torch.from_numpy(order))
        # Every process draws from its own images; all must sort into the same classes.
        distributed.share([model.context_order])
        order = model.context_order.cpu().numpy().astype(np.int16)
        sample = classes.sample(latents, gains, model.back_projection.cpu(), order, rng)
        rows = classes.fit(*sample, K, rng, *distributed.place())
        model.context_weights.copy_(torch.from_numpy(rows))
        distributed.add_up(model.context_weights)
        weights = model.context_weights.cpu().numpy().astype(np.int16)
        thresholds = classes.thresholds(weights, *sample, K, C)
        model.context_thresholds.copy_(torch.from_numpy(thresholds))
        distributed.share([model.context_thresholds])

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        rows = torch.from_numpy(rng.integers(len(self.counts.t), size=self.config.data.batch))
        counts = self.counts.values[rows].to(self.device).float()
        loss, figures = network("rates", counts, self.counts.t[rows].to(self.device))
        static, adaptive, side = (float(f) for f in figures)
        return loss, {
            "gain_%": round(100 * ((adaptive + side) / static - 1), 3), "side_bytes": side / 8,
        }  # fmt: skip

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Tables for ẑ from the training images; then, on the held-out ones, the rate of the real
        side stream and p̂ against the best average distribution, per lambda, in percent; and what
        the classes alone give, and one ideal distribution a channel (paper 1's bound)."""
        K = len(self.config.model.lambdas)
        z_hat = torch.cat([self._z_hat(c, t) for c, t in self._batches(self.counts)])
        for k in range(K):
            near = (self.counts.t - k).abs() < 0.5
            self.nets.z_prior[k] = log2_average(_z_counts(z_hat[near]))
        static, classes, adaptive, side, ideal = (np.zeros(K) for _ in range(5))
        for counts, t in self._batches(self.held_out):
            log_prior = self.nets.prior_at(t)
            log_classes = self.nets.class_prior_at(t)
            z_hat = self._z_hat(counts, t)
            total = counts.sum(2)
            p = total / total.sum(-1, keepdim=True)
            bits_ideal = -(total * p.clamp(min=1e-12).log2()).sum((1, 2))
            bits_static = -(total * log_prior).sum((1, 2))
            bits_classes = -(counts * log_classes).sum((1, 2, 3))
            bits_adaptive = self.nets.bits(counts, z_hat, t)
            for i, k in enumerate(t.long().tolist()):
                static[k] += float(bits_static[i])
                classes[k] += float(bits_classes[i])
                adaptive[k] += float(bits_adaptive[i])
                side[k] += self._side_bits(z_hat[i], k)
                ideal[k] += float(bits_ideal[i])
        images = len(self.held_out.t) / K
        return {
            "val_gain_%": _row(100 * ((adaptive + side) / static - 1), 2),
            "val_classes_%": _row(100 * (classes / static - 1), 2),
            "val_ideal_%": _row(100 * (ideal / static - 1), 2),
            "val_side_bytes": _row(side / images / 8, 1),
            "val_mean_gain_%": round(float((100 * ((adaptive + side) / static - 1)).mean()), 3),
        }

    def _batches(self, counts: Any) -> Any:
        for i in range(0, len(counts.t), 32):
            yield (
                counts.values[i : i + 32].to(self.device).float(),
                counts.t[i : i + 32].to(self.device),
            )

    def _z_hat(self, counts: Tensor, t: Tensor) -> Tensor:
        return self.nets.latents_of(shares(counts), t)[0].round()

    def _side_bits(self, z_hat: Tensor, k: int) -> float:
        symbols = (z_hat.flatten().long() + Z_BINS // 2).clamp(0, Z_BINS)[:, None]
        return -float(normalized_log2(self.nets.z_prior[k]).gather(1, symbols).sum())


def _z_counts(z_hat: Tensor) -> NDArray[Any]:
    """Counts (Z·32, Z_BINS + 1) of ẑ (n, Z, 32), the last for what lies outside the bins."""
    symbols = z_hat.flatten(1).long() + Z_BINS // 2
    symbols = torch.where((symbols < 0) | (symbols >= Z_BINS), Z_BINS, symbols)
    return torch.nn.functional.one_hot(symbols, Z_BINS + 1).sum(0).double().cpu().numpy()


class ZTables(Distributions):
    """Stage (b) of a codec with a hyperprior: the same nets over the distributions of ẑ."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.config, self.device = config, device
        model = ZDistributions(config)
        initialize_hyperprior(model, config, images)
        self.model, self.nets = model.to(device), model.z_distributions
        latents, held_out = self._latents(model, images, 64)
        rng = np.random.default_rng(config.train.seed)
        self._count(lambda y, rates: collect_z(model, y, rates), latents, held_out, rng)
        if not self.nets.prior.any():
            anchors = range(len(config.model.lambdas))
            prior = torch.stack([best_average(self.counts, k)[0] for k in anchors])
            self.nets.prior.copy_(prior)
            self.nets.class_prior.copy_(prior[:, :, None])


class Joint(Distributions):
    """Stage (c): everything together, on R + λD with the rate of the adaptive distributions."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        super().__init__(config, images, device)
        self.images = images
        self.model.requires_grad_(True)
        self.nets.bottleneck.quantiles.requires_grad_(False)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> tuple[Tensor, dict[str, Any]]:
        config = self.config
        x = self.images.crops(rng, config.data.batch, config.data.patch).float() / 255
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bf16(config, self.device)
        ):
            loss, (bpp, mse) = network(
                "joint", x.contiguous(memory_format=torch.channels_last), config.train.rate_balance,
                config.train.histogram_kernel,
            )  # fmt: skip
        return loss, {"bpp": _row(bpp, 3), "psnr": _row(-10 * torch.log10(mse), 2)}


def _row(values: Any, digits: int) -> list[float]:
    return [round(float(v), digits) for v in values]
