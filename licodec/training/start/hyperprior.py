"""Where the training of a codec with a hyperprior starts: fresh, from a KLT, or from earlier weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from licodec.errors import UsageError
from licodec.networks.transforms import analysis
from licodec.training.codecs.factorized import first_log_gain
from licodec.training.codecs.hyperprior import (
    HyperpriorNetwork,
    ZDistributions,
    tail,
    take_units,
)
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.training.start import attention, klt
from licodec.training.start.dequantize import balance, dequantize
from licodec.weights.catalogue import Z_DISTRIBUTIONS, header, models
from licodec.weights.file import Weights, load
from licodec.weights.schema import check

_APART = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table", "log_gain", "unit")
"""What is not taken over as it is: buffers that CompressAI makes from the weights, and what is fitted."""

_LEAST_UNIT = 0.1
_Z_SPREAD = 0.6
"""Steps that are the standard deviation of z where its training begins. With 3, h_s's first layer takes
strides too long; with 0.3, high rates wait for z."""


def initialize(model: HyperpriorNetwork, config: Config, images: Images) -> None:
    """Set model's weights as config.train.init says; hyperprior files and factorized ones both fit.

    From a factorized codec, or one of another architecture, come g_a and g_s, and its gains; the rest stays
    random. Where it has more latent channels, those that vary most at the highest rate are taken over.

    Raises:
        UsageError: the named file is missing or does not fit the model.
        ModelMissingError: it is a damaged weights file.
    """
    init, seed = config.train.init, config.train.seed
    if init == "fresh":
        return
    if init == "klt":
        place = attention if model.architecture.has_attention else klt
        place.karhunen_loeve(model, images, seed)
        _set_gains(model, first_log_gain(model.lambdas, model.M))
        _start_rate(model, images, config)
        return
    state, lambdas = klt.read_state(init)
    if not lambdas and len(model.lambdas) > 1:
        only = "tells no lambda, so that model.lambdas can be one alone"
        raise UsageError(f"train.init {init}: {only}")
    lambdas = lambdas or model.lambdas
    released = _released(init, model)
    if released:
        state = dequantize(model, released)
    is_trained = "entropy_bottleneck.quantiles" in state
    if isinstance(model, ZDistributions):
        _check_z_distributions(model, init, lambdas, is_trained)
    known = _taken_over(model, state, init, is_trained)
    if is_trained:
        state = _fit_bottlenecks(state, lambdas, model)
    elif not model.architecture.has_attention and model.M < len(state.get("g_a.6.bias", ())):
        state = _busiest(state, model, images, seed)
    for name, value in known.items():
        if name not in state or state[name].shape != value.shape:
            raise UsageError(f"train.init {init}: does not fit the model ({name})")
    gains = {"log_gain": state.get("log_gain", torch.zeros(len(lambdas), model.M))}
    log_gain = klt.fit_rates(gains, lambdas, model.lambdas)["log_gain"]
    model.load_state_dict({name: state[name].float() for name in known}, strict=False)
    _set_gains(model, log_gain.float())
    if released:
        find_units(model, images, config)
        take_units(model, 1 / model.unit)
        for net in ("h_s", "entropy_parameters"):
            if hasattr(model, net):
                balance(getattr(model, net))
    elif not is_trained:
        _start_rate(model, images, config)
    elif "unit" in state:
        model.unit.copy_(state["unit"])


def _check_z_distributions(
    model: ZDistributions, init: str, lambdas: tuple[float, ...], is_trained: bool
) -> None:
    if not is_trained:
        raise UsageError(f"train.init {init}: no trained {model.architecture.name}")
    if lambdas != model.lambdas:
        known = ", ".join(f"{lmbda:g}" for lmbda in lambdas)
        raise UsageError(f"train.init {init}: has model.lambdas [{known}], which stay")


def _taken_over(
    model: HyperpriorNetwork, state: dict[str, Tensor], init: str, is_trained: bool
) -> dict[str, Tensor]:
    """What of the model's state comes from the file's."""
    known = {k: v for k, v in model.state_dict().items() if not k.endswith(_APART)}
    if not is_trained:
        return {k: v for k, v in known.items() if k.startswith(("g_a.", "g_s."))}
    if f"{Z_DISTRIBUTIONS}prior" not in state or init.endswith(".safetensors"):
        return {k: v for k, v in known.items() if not k.startswith(Z_DISTRIBUTIONS)}
    return known


def _released(path: str, model: HyperpriorNetwork) -> Weights | None:
    """Weights in integers, where they are of the model's architecture."""
    if not path.endswith(".safetensors") or "arithmetic" not in header(Path(path))["__metadata__"]:
        return None
    weights = load(Path(path))
    if model.architecture.name not in models(weights.path):
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
    u = find_units(model, images, config)
    tail(model).bias[: model.M].fill_(1.0)
    last: Any = model.h_a[-1]
    z = model.hyper_latents(u)
    scale = _Z_SPREAD / z.std((0, 2, 3)).clamp(min=1e-6)
    last.weight.mul_(scale[:, None, None, None])
    last.bias.sub_(z.mean((0, 2, 3))).mul_(scale)


@torch.no_grad()
def find_units(model: HyperpriorNetwork, images: Images, config: Config) -> Tensor:
    """Set the units to the spread of latents u of some patches at the middle rate; these u."""
    rng = np.random.default_rng(config.train.seed)
    x = images.crops(rng, 16, config.data.patch).float().cpu() / 255
    u: Tensor = model.g_a(x) * model.log_gain[len(model.lambdas) // 2].exp()[:, None, None]
    model.unit.copy_(u.std((0, 2, 3)).clamp(min=_LEAST_UNIT))
    return u


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
        ("g_a.6.weight", 0),
        ("g_a.6.bias", 0),
        ("g_s.0.weight", 0),
        ("log_gain", 1),
    ):
        state[name] = state[name].index_select(axis, kept)
    return state


@torch.no_grad()
def _set_gains(model: HyperpriorNetwork, log_gain: Tensor) -> None:
    """Gains (K, M); a single one goes into the last layer of g_a and the first of g_s."""
    if len(model.lambdas) > 1:
        model.log_gain.copy_(log_gain)
    elif log_gain.any():
        if model.architecture.has_attention:
            raise UsageError("attention's transforms cannot take over the gain of other weights")
        gain = log_gain[0].exp()
        last: Any = model.g_a[-1]
        first: Any = model.g_s[0]
        last.weight.mul_(gain[:, None, None, None])
        last.bias.mul_(gain)
        first.weight.div_(gain[:, None, None, None])
