"""The codecs with a hyperprior as they are trained: CompressAI's classes, for one rate or several.

    x ─ g_a ─► y ─ ·gain ─► u ─ h_a ─► z ─┬─ + noise ─► entropy_bottleneck ─► rate of z
                            │             └─ round ─ h_s ─► scales (and means)
                            ├─ + noise ─► Gaussian conditional ─► rate of y
                            └─ round about the mean ─ /gain ─ g_s ─► x̂ ─► distortion

With a context model (autoregressive, attention) scales and means also see the causal neighbours of
u + noise. Ballé et al. 2018, Minnen et al. 2018, Cheng et al. 2020, as CompressAI defines them: the
state dict is that of its class, and `log_gain`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.architectures import BY_COMPRESSAI
from licodec.entropy.hyperprior import Z_UNIT
from licodec.errors import UsageError
from licodec.networks.transforms import analysis, synthesis
from licodec.tiles import STRIDE
from licodec.training.codecs.compressai_layers import (
    Cheng2020Attention,
    EntropyBottleneck,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from licodec.training.codecs.factorized import DistributionNets, round_ste
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.training.start import klt
from licodec.training.start.dequantize import balance, restore
from licodec.weights.catalogue import Z_DISTRIBUTIONS, header, models
from licodec.weights.file import Weights, load
from licodec.weights.schema import check

_NETWORKS: dict[str, type[Any]] = {
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
    "mbt2018": JointAutoregressiveHierarchicalPriors,
    "cheng2020-attn": Cheng2020Attention,
}

CLASSES = {a.name: (name, _NETWORKS[name]) for name, a in BY_COMPRESSAI.items()}
"""What each model is in CompressAI: the architecture's name, and its class."""

_TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
"""Buffers that CompressAI makes from the weights; they have no size before it does."""

_LEAST_UNIT = 0.1
_Z_SPREAD = 0.6
"""Steps that are the standard deviation of z where its training begins. With 3, h_s's first layer takes
strides too long; with 0.3, high rates wait for z."""

_MULTIPLE = 64
"""Pixels per position of z, in each direction."""


def compressai_class(arch: str, N: int, M: int) -> Any:
    """CompressAI's own network, not trained."""
    network = CLASSES[arch][1]
    return network(N) if arch == "attention" else network(N, M)


class Patches(NamedTuple):
    """What became of each patch of a batch: bits per pixel (B,), mse (B,), and x̂ (B, 3, H, W)."""

    bpp: Tensor
    mse: Tensor
    x_hat: Tensor


class HyperpriorNetwork(nn.Module):
    """One of CompressAI's networks with a gain vector for each lambda.

    A batch of R·K patches carries the K lambdas in turn: patch i is coded at lambda i mod K. With one
    lambda the gains are 1 and stay there: CompressAI's plain network.
    """

    g_a: nn.Sequential
    g_s: nn.Sequential
    h_a: nn.Sequential
    h_s: nn.Sequential
    entropy_bottleneck: Any
    gaussian_conditional: Any
    context_prediction: nn.Module
    entropy_parameters: nn.Module

    def __init__(
        self, arch: str, N: int, M: int, lambdas: tuple[float, ...], surrogate: str = "round"
    ) -> None:
        super().__init__()
        for name, part in compressai_class(arch, N, M).named_children():
            self.add_module(name, part)
        if arch != "attention":
            # The same nets under the same names, with a GDN that is faster and that KLT knows.
            self.g_a, self.g_s = analysis(N, M), synthesis(N, M)
        # ẑ's distributions differ from rate to rate, as y's do.
        self.entropy_bottleneck = EntropyBottleneck(len(lambdas) * N)
        self.arch, self.N, self.M, self.lambdas, self.surrogate = arch, N, M, lambdas, surrogate
        gain = torch.zeros(len(lambdas))
        if len(lambdas) > 1:
            gain = torch.tensor([0.5 * math.log(lmbda / lambdas[-1]) for lmbda in lambdas])
        self.log_gain = nn.Parameter(gain[:, None].repeat(1, M), requires_grad=len(lambdas) > 1)
        # In units of each channel's own, steps of one size suit all weights of h_a and h_s.
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(M))
        # The medians stay where they are, fresh ones at 0: z is rounded about them.
        self.entropy_bottleneck.quantiles.requires_grad_(False)

    def forward(self, x: Tensor) -> Patches:
        """Code a batch (R·K, 3, H, W) in [0, 1]; H and W are multiples of 64.

        Training mode takes noise for rounding as `surrogate` says; evaluation mode rounds.
        """
        K = len(self.lambdas)
        return self.code(x, self.log_gain.exp().repeat(len(x) // K, 1)[:, :, None, None])

    def code(self, x: Tensor, gain: Tensor, index: int | None = None) -> Patches:
        """forward, with the gains (B or 1, M, 1, 1) given, and the index of their one lambda if it is one."""
        bits, y_hat = self.bits(self.g_a(x).float() * gain, index)
        x_hat = self.g_s(y_hat / gain).float()
        bpp = bits / (x.shape[2] * x.shape[3])
        return Patches(bpp, ((x_hat - x) ** 2).mean((1, 2, 3)), x_hat)

    def bits(self, u: Tensor, index: int | None = None) -> tuple[Tensor, Tensor]:
        """Bits (B,) of latents u (B, M, h, w), those of z with them, and ŷ."""
        z = self.hyper_latents(u)
        with torch.autocast(u.device.type, enabled=False):
            z_hat, z_likelihoods = self._bottleneck(z, index)
        straight = self.training and self.surrogate == "round"
        if straight:
            z_hat = round_ste(z - self.medians) + self.medians
        y_hat, y_likelihoods, means = self._latents(u, self.h_s(z_hat))
        if straight:
            y_hat = round_ste(u - means) + means
        parts = [-torch.log2(p).flatten(1).sum(1) for p in (y_likelihoods, z_likelihoods)]
        return parts[0] + parts[1], y_hat

    @property
    def medians(self) -> Tensor:
        """(N, 1, 1) what z is rounded about, at every rate."""
        medians: Tensor = self.entropy_bottleneck.quantiles[: self.N, :, 1:2]
        return medians

    def _bottleneck(self, z: Tensor, index: int | None) -> tuple[Tensor, Tensor]:
        """ẑ and likelihoods of z (B, N, h, w), by the bottlenecks of all lambdas in turn or of one."""
        K = len(self.lambdas)
        if index is None:
            of_all = self.entropy_bottleneck(z.reshape(-1, K * self.N, *z.shape[2:]))
            z_hat, likelihoods = (part.reshape(z.shape) for part in of_all)
        else:
            of_all = self.entropy_bottleneck(z.repeat(1, K, 1, 1))
            z_hat, likelihoods = (part.chunk(K, 1)[index] for part in of_all)
        return z_hat, likelihoods

    def hyper_latents(self, u: Tensor) -> Tensor:
        """z (B, N, h/4, w/4) of u (B, M, h, w)."""
        seen = u.abs() if self.arch == "scale-hyperprior" else u
        z: Tensor = self.h_a(seen / self.unit[:, None, None]).float()
        return z

    def _latents(self, u: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """ŷ and likelihoods as CompressAI's forward has them, and the means; all (B, M, h, w)."""
        if self.arch == "scale-hyperprior":
            with torch.autocast(u.device.type, enabled=False):
                scales = params.float() * self.unit[:, None, None]
                return (*self.conditional(u, scales, None), 0.0)
        y_hat = None
        if hasattr(self, "context_prediction"):
            y_hat = self.gaussian_conditional.quantize(
                u, "noise" if self.training else "dequantize"
            )
            params = torch.cat([params, self.context_prediction(y_hat)], 1)
            params = self.entropy_parameters(params)
        scales, means = (part * self.unit[:, None, None] for part in params.float().chunk(2, 1))
        with torch.autocast(u.device.type, enabled=False):
            rounded, likelihoods = self.conditional(u, scales, means)
        return rounded if y_hat is None else y_hat, likelihoods, means

    def conditional(self, u: Tensor, scales: Tensor, means: Tensor | None) -> tuple[Tensor, Tensor]:
        """u (B, M, h, w) quantized, and its likelihoods, as CompressAI has them."""
        y_hat, likelihoods = self.gaussian_conditional(u, scales, means=means)
        return y_hat, likelihoods

    @torch.no_grad()
    def evaluate(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """bpp by likelihoods, and mse of the clamped x̂, of images (B, 3, H, W) at one lambda.

        With a context model both are estimates, as CompressAI's own forward pass is: it rounds
        about 0 where the coder, going position by position, rounds about the mean.
        """
        height, width = x.shape[2:]
        pad = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        padded = F.pad(x, pad, mode="replicate")
        out = self.code(padded, self.log_gain[index].exp()[None, :, None, None], index)
        bpp = out.bpp.mean() * padded[0, 0].numel() / (height * width)
        x_hat = out.x_hat[:, :, :height, :width].clamp(0, 1)
        return bpp, ((x_hat - x) ** 2).mean()


class KnownTransforms(HyperpriorNetwork):
    """A network whose g_a, g_s and gains stay as they are, while the rest learns the rate of y."""

    def __init__(self, arch: str, N: int, M: int, lambdas: tuple[float, ...]) -> None:
        super().__init__(arch, N, M, lambdas)
        for part in (self.g_a, self.g_s):
            part.requires_grad_(False)
        self.log_gain.requires_grad_(False)

    def forward(self, y: Tensor) -> Tensor:  # type: ignore[override]
        """Bits per pixel (R·K,) of latents y (R·K, M, h, w), as g_a makes them; h and w are multiples
        of 4."""
        gain = self.log_gain.exp().repeat(len(y) // len(self.lambdas), 1)[:, :, None, None]
        return self.bits(y * gain)[0] / (y.shape[2] * y.shape[3] * STRIDE**2)

    def conditional(self, u: Tensor, scales: Tensor, means: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scales learn from rounded latents, as files have them: noise would make small ones dear. Means
        learn from noisy ones: what rounds to 0 is reconstructed as its mean, at whatever rate."""
        gaussians = self.gaussian_conditional
        known = None if means is None else means.detach()
        rounded = gaussians.quantize(u, "dequantize", known)
        likelihoods = gaussians.likelihood_lower_bound(
            gaussians._likelihood(rounded, scales, known)
        )
        if means is None:
            return rounded, likelihoods
        _, noisy = gaussians(u, scales.detach(), means=means)
        return rounded, likelihoods * noisy / noisy.detach()


class ZDistributions(HyperpriorNetwork):
    """A trained network, frozen, and the nets that code ẑ by the image's own distributions."""

    def __init__(self, config: Config) -> None:
        settings = config.model
        super().__init__(settings.arch, settings.N, settings.M, settings.lambdas)
        self.requires_grad_(False)
        self.z_distributions = DistributionNets(
            settings.N, settings.lambdas, settings.width, settings.z_channels, settings.groups,
            settings.kernel_size, classes=1,
        )  # fmt: skip

    def forward(self, loss: str, *args: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """DDP's one entrance, as that of AdaptiveNetwork."""
        return self.z_distributions.forward(loss, *args)

    def z_hat(self, y: Tensor) -> Tensor:
        """ẑ's symbols (N, h, w) of y (M, 4h, 4w) times its gain, about the medians that weights hold."""
        z = self.hyper_latents(y[None])[0]
        z_hat: Tensor = (z - torch.round(self.medians * Z_UNIT) / Z_UNIT).round()
        return z_hat


def z_distributions(config: Config, state: dict[str, Tensor]) -> DistributionNets | None:
    """The nets that code ẑ, of a run's state; None where it has none."""
    if not any(name.startswith(Z_DISTRIBUTIONS) for name in state):
        return None
    model = ZDistributions(config)
    own = {k: v for k, v in state.items() if k.startswith(Z_DISTRIBUTIONS)}
    model.load_state_dict(own, strict=False)
    return model.z_distributions


def initialize(model: HyperpriorNetwork, config: Config, images: Images) -> None:
    """Set model's weights as config.train.init says; hyperprior files and factorized ones both fit.

    From a factorized codec, or one of another architecture, come g_a and g_s, and its gains; the rest stays
    random. Where it has more latent channels, those that vary most at the highest rate are taken over.

    Raises:
        UsageError: the named file is missing or does not fit the model.
        ModelMissingError: it is a damaged weights file.
    """
    init = config.train.init
    if init == "fresh":
        return
    if init == "klt":
        klt.karhunen_loeve(model, images, config.train.seed)  # type: ignore[arg-type]
        gain = torch.tensor([5.7 * math.sqrt(lmbda / 0.013) for lmbda in model.lambdas])
        _set_gains(model, gain.log()[:, None].repeat(1, model.M))
        _start_rate(model, images, config)
        return
    state, lambdas = klt.read_state(init)
    if not lambdas:
        if len(model.lambdas) > 1:
            raise UsageError(
                f"train.init {init}: tells no lambda, so that model.lambdas can be one alone"
            )
        lambdas = model.lambdas
    released = _released(init, model)
    if released:
        state = restore(model, released)
    apart = (*_TABLES, "log_gain", "unit")
    known = {k: v for k, v in model.state_dict().items() if not k.endswith(apart)}
    if isinstance(model, ZDistributions):
        if "entropy_bottleneck.quantiles" not in state:
            raise UsageError(f"train.init {init}: no trained {model.arch}")
        if lambdas != model.lambdas:
            known_lambdas = ", ".join(f"{lmbda:g}" for lmbda in lambdas)
            raise UsageError(f"train.init {init}: has model.lambdas [{known_lambdas}], which stay")
        if f"{Z_DISTRIBUTIONS}prior" not in state or init.endswith(".safetensors"):
            known = {k: v for k, v in known.items() if not k.startswith(Z_DISTRIBUTIONS)}
    if "entropy_bottleneck.quantiles" not in state:
        known = {k: v for k, v in known.items() if k.startswith(("g_a.", "g_s."))}
        if model.arch != "attention" and model.M < len(state.get("g_a.6.bias", ())):
            state = _busiest(state, model, images, config.train.seed)
    else:
        state = _fit_bottlenecks(state, lambdas, model)
    for name, value in known.items():
        if name not in state or state[name].shape != value.shape:
            raise UsageError(f"train.init {init}: does not fit the model ({name})")
    gains = {"log_gain": state.get("log_gain", torch.zeros(len(lambdas), model.M))}
    log_gain = klt.fit_rates(gains, lambdas, model)["log_gain"]  # type: ignore[arg-type]
    model.load_state_dict({name: state[name].float() for name in known}, strict=False)
    _set_gains(model, log_gain.float())
    if released:
        _find_units(model, images, config)
        _take_units(model, 1 / model.unit)
        for net in ("h_s", "entropy_parameters"):
            if hasattr(model, net):
                balance(getattr(model, net))
    elif "entropy_bottleneck.quantiles" not in state:
        _start_rate(model, images, config)
    elif "unit" in state:
        model.unit.copy_(state["unit"])


def _released(path: str, model: HyperpriorNetwork) -> Weights | None:
    """Weights in integers, where they are of the model's architecture."""
    if not path.endswith(".safetensors") or "arithmetic" not in header(Path(path))["__metadata__"]:
        return None
    weights = load(Path(path))
    if model.arch not in models(weights.path):
        return None
    check(weights)
    return weights


def _fit_bottlenecks(
    state: dict[str, Tensor], lambdas: tuple[float, ...], model: HyperpriorNetwork
) -> dict[str, Tensor]:
    """A bottleneck for each of the model's lambdas: that of the nearest known one."""
    known = len(state["entropy_bottleneck.quantiles"]) // model.N
    rates = torch.tensor(lambdas[:known] or (1.0,), dtype=torch.float64).log()
    wanted = torch.tensor(model.lambdas, dtype=torch.float64).log()
    nearest = (wanted[:, None] - rates).abs().argmin(1)
    rows = (nearest[:, None] * model.N + torch.arange(model.N)).flatten()
    return {
        k: v[rows] if k.startswith("entropy_bottleneck.") and len(v) == known * model.N else v
        for k, v in state.items()
    }


@torch.no_grad()
def _start_rate(model: HyperpriorNetwork, images: Images, config: Config) -> None:
    """Units and fresh nets that suit latents of known transforms, at the middle rate: Gaussians as wide as
    each channel, and z that does not round to 0 throughout, which would tell h_s nothing."""
    u = _find_units(model, images, config)
    _tail(model).bias[: model.M].fill_(1.0)
    last: Any = model.h_a[-1]
    z = model.hyper_latents(u)
    scale = _Z_SPREAD / z.std((0, 2, 3)).clamp(min=1e-6)
    last.weight.mul_(scale[:, None, None, None])
    last.bias.sub_(z.mean((0, 2, 3))).mul_(scale)


@torch.no_grad()
def _find_units(model: HyperpriorNetwork, images: Images, config: Config) -> Tensor:
    """Set the units to the spread of latents u of some patches at the middle rate; these u."""
    rng = np.random.default_rng(config.train.seed)
    x = images.crops(rng, 16, config.data.patch).float().cpu() / 255
    u: Tensor = model.g_a(x) * model.log_gain[len(model.lambdas) // 2].exp()[:, None, None]
    model.unit.copy_(u.std((0, 2, 3)).clamp(min=_LEAST_UNIT))
    return u


def _tail(network: Any) -> Any:
    """The convolution that scales and means come from."""
    net = getattr(network, "entropy_parameters", network.h_s)
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1]


@torch.no_grad()
def _busiest(
    state: dict[str, Tensor], model: HyperpriorNetwork, images: Images, seed: int
) -> dict[str, Tensor]:
    """Factorized transforms and gains with as many latent channels as model has."""
    state = {k: v.float() for k, v in state.items() if k.startswith(("g_a.", "g_s.", "log_gain"))}
    g_a = analysis(len(state["g_a.0.bias"]), len(state["g_a.6.bias"]))
    g_a.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("g_a.")})
    rng = np.random.default_rng(seed)
    x = torch.cat([images.crops(rng, 8, 128).float().cpu() / 255 for _ in range(8)])
    spread = g_a(x).std((0, 2, 3)) * state["log_gain"][-1].exp()
    kept = spread.topk(model.M).indices.sort().values
    for name, axis in (
        ("g_a.6.weight", 0), ("g_a.6.bias", 0), ("g_s.0.weight", 0), ("log_gain", 1),
    ):  # fmt: skip
        state[name] = state[name].index_select(axis, kept)
    return state


@torch.no_grad()
def _set_gains(model: HyperpriorNetwork, log_gain: Tensor) -> None:
    """Gains (K, M); a single one goes into the last layer of g_a and the first of g_s."""
    if len(model.lambdas) > 1:
        model.log_gain.copy_(log_gain)
    elif log_gain.any():
        if model.arch == "attention":
            raise UsageError("attention's transforms cannot take over the gain of other weights")
        gain = log_gain[0].exp()
        last: Any = model.g_a[-1]
        first: Any = model.g_s[0]
        last.weight.mul_(gain[:, None, None, None])
        last.bias.mul_(gain)
        first.weight.div_(gain[:, None, None, None])


def compressai_state(config: Config, ema: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full state of CompressAI's own class, in float32, and log_gain (K, M) and lambdas (K,); with
    several lambdas, the bottleneck has their K·N channels."""
    settings = config.model
    network = compressai_class(settings.arch, settings.N, settings.M)
    network.entropy_bottleneck = EntropyBottleneck(len(settings.lambdas) * settings.N)
    state = {k: v for k, v in ema.items() if k not in ("log_gain", "unit")}
    try:
        missing, unexpected = nn.Module.load_state_dict(network, state, strict=False)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UsageError(f"the checkpoint does not fit its config: {first}") from error
    if unexpected:
        raise UsageError(f"the checkpoint holds {unexpected[0]}, which {settings.arch} has not")
    learnt = {name for name, _ in network.named_parameters()} | {"unit", "log_gain"}
    if lacks := sorted(learnt & {*missing, *({"unit", "log_gain"} - ema.keys())}):
        raise UsageError(f"the checkpoint lacks {lacks[0]}")
    _take_units(network, ema["unit"])
    _set_tails(network.entropy_bottleneck)
    network.update(force=True)
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64)
    return {**network.state_dict(), "log_gain": ema["log_gain"].float(), "lambdas": lambdas}


@torch.no_grad()
def _take_units(network: Any, unit: Tensor) -> None:
    """Let h_a and the last layer before the Gaussians do what units (M,) did."""
    network.h_a[0].weight.div_(unit[:, None, None])
    tail = _tail(network)
    rows = unit.repeat(len(tail.bias) // len(unit))
    tail.weight.mul_(rows[:, None, None, None])
    tail.bias.mul_(rows)


@torch.no_grad()
def _set_tails(bottleneck: Any, tail_mass: float = 1e-9) -> None:
    """Put the outer quantiles where the mass beyond them is tail_mass, at most 512 from the median.

    CompressAI makes its tables between them; it trains them with an optimizer of their own.
    """
    target = math.log(2 / tail_mass - 1)
    medians = bottleneck.quantiles[:, :, 1:2].clone()
    for side, sign in ((0, -1.0), (2, 1.0)):
        near, far = torch.zeros_like(medians), torch.full_like(medians, 512.0)
        for _ in range(32):
            middle = (near + far) / 2
            logits = bottleneck._logits_cumulative(medians + sign * middle, stop_gradient=True)
            inside = sign * logits < target
            near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        bottleneck.quantiles[:, :, side : side + 1] = medians + sign * far
