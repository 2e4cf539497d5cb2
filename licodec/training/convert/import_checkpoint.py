"""`licodec import`: a CompressAI checkpoint as a weights file, its entropy path in integers."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.architectures import BY_COMPRESSAI, Architecture
from licodec.entropy.gaussian import SCALE_UNIT
from licodec.entropy.hyperprior import (
    OUTPUT_LIMIT,
    SCALE_THRESHOLD_UNIT,
    Z_LIMIT,
    Z_UNIT,
    output_units,
    synthesis_layers,
)
from licodec.entropy.wavefronts import CONTEXT_LIMIT, PARAMETERS, PREDICTION
from licodec.errors import UsageError, mismatch
from licodec.networks.hyper import HYPER_STRIDE, HyperNetworks, MaskedConv
from licodec.networks.tiled import has_native_bf16
from licodec.tiles import STRIDE
from licodec.training.checkpoint import load, refuse_endless, stages_beside
from licodec.training.codecs.compressai_layers import EntropyBottleneck
from licodec.training.convert.export import check_name, log2_integers, write_weights
from licodec.training.convert.quantize_nets import ACTIVATION_LIMIT, Inputs, quantize_net
from licodec.training.data import Images, central
from licodec.training.fit import scale_shifts
from licodec.training.fit.back_projection import middles, strengths
from licodec.weights.catalogue import Z_DISTRIBUTIONS
from licodec.weights.file import ARITHMETIC, BACK_PROJECTION, parsed
from licodec.weights.file import load as load_weights
from licodec.weights.schema import LARGEST_MEDIAN

Z_BINS = 128
"""Bins of ẑ's tables, centred on the median; an escape follows."""

SCALES = np.exp(np.linspace(np.log(0.11), np.log(256), 64))
"""The standard deviations of the tables, CompressAI's."""

_IMAGES = 480
_CALIBRATION_IMAGES = 24
_CALIBRATION_SIDE = 384


@dataclass(frozen=True)
class Checkpoint:
    """What is imported.

    Attributes:
        state: of CompressAI's class; and what `licodec export` has added for ẑ.
        log_gain: (K, M) what y is multiplied by, in log; None for one rate.
        lambdas: of the K rates.
    """

    state: dict[str, Tensor]
    log_gain: Tensor | None
    lambdas: list[float]


def import_checkpoint(
    path: str | Path,
    arch: str,
    calibrate: str | Path | None,
    folder: str | Path,
    name: str,
    share: str | Path | None = None,
) -> Path:
    """Write a weights file from a checkpoint of CompressAI's class for `arch`.

    Args:
        path: a state dict, as PyTorch or safetensors saves it (`licodec export` among them), or a dict
            that holds it as `state_dict`, `network` or `model_state_dict`; either may hold `log_gain`
            and `lambdas`.
        calibrate: a folder of images on which activations are measured, and which choose the
            back-projection where the checkpoint tells its lambdas, and from which
            scale shifts are learnt where there is no context and they are enough; without it, smooth
            noise, no back-projection and no scale shifts.
        share: a weights file: tensors that are the same there are left to it. Both files must then be
            there to code with.

    Raises:
        ModelMissingError: share is no weights file.
        UsageError: no such architecture, no checkpoint of it, or its weights cannot be made integers.
    """
    check_name(name)
    if arch not in BY_COMPRESSAI:
        raise UsageError(f"no architecture {arch!r}; there are {', '.join(BY_COMPRESSAI)}")
    base = None if share is None else load_weights(Path(share))
    architecture, checkpoint = BY_COMPRESSAI[arch], read(path)
    photographs = _photographs(calibrate)
    images = _middles(photographs)
    try:
        tensors = weights_of(checkpoint, architecture, images)
        if photographs:
            tensors |= _learnt(checkpoint, architecture, tensors, images, photographs)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    metadata = {
        "name": name,
        "arithmetic": ARITHMETIC,
        "arch": arch,
        "lambdas": json.dumps(checkpoint.lambdas),
    }
    recipe = {
        "checkpoint": Path(path).name,
        "checkpoint_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "calibration": "smooth noise" if calibrate is None else Path(calibrate).name,
        "calibration_images": len(images),
        "photographs": len(photographs),
    }
    if stages := stages_beside(path):
        recipe["stages"] = stages
    return write_weights(folder, name, tensors, metadata, recipe, base)


def _learnt(
    checkpoint: Checkpoint,
    architecture: Architecture,
    tensors: dict[str, NDArray[Any]],
    images: list[Tensor],
    photographs: list[Tensor],
) -> dict[str, NDArray[Any]]:
    """The tensors that only photographs tell."""
    networks = HyperNetworks.from_state_dict(architecture, checkpoint.state)
    own: dict[str, NDArray[Any]] = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16()):
        if checkpoint.lambdas and checkpoint.log_gain is not None:
            shares = strengths(networks, checkpoint.lambdas, checkpoint.log_gain, middles(images))
            own[BACK_PROJECTION] = shares.numpy()
        if not architecture.has_context:
            median = torch.from_numpy(tensors["z_median"]).float() / Z_UNIT
            log_gain = torch.from_numpy(tensors["log_gain"])
            own |= scale_shifts.fit(networks, log_gain, median, photographs, SCALES)
    return own


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Raises:
        UsageError: it cannot be read, or holds no state dict.
    """
    saved = state = _saved(path)
    for key in ("state_dict", "network", "model_state_dict"):
        if isinstance(saved.get(key), dict):
            state = saved[key]
    tensors = {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
    log_gain = saved.get("log_gain", tensors.pop("log_gain", None))
    try:
        lambdas = [float(v) for v in saved.get("lambdas", [])]
        if log_gain is not None:
            tensors["log_gain"] = log_gain = torch.as_tensor(log_gain).float()
            if log_gain.shape[:-1] != (max(1, len(lambdas)),):
                rows = "x".join(map(str, log_gain.shape))
                raise ValueError(f"log_gain has {rows} rows and channels, lambdas {len(lambdas)}")
        odd = [k for k, v in tensors.items() if v.is_complex() or not torch.isfinite(v).all()]
        if odd:
            raise ValueError(f"{odd[0]} is not finite")
        rising = lambdas == sorted(set(lambdas)) and all(0 < lmbda < 2**64 for lmbda in lambdas)
        if not rising or (log_gain is None and len(lambdas) > 1):
            raise ValueError("lambdas are no rising positive numbers, one for each row of log_gain")
    except (TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).strip().splitlines()[:1])
        raise UsageError(f"{path}: no usable checkpoint ({first})") from error
    tensors.pop("log_gain", None)
    return Checkpoint({_current_name(k): v for k, v in tensors.items()}, log_gain, lambdas)


def _saved(path: str | Path) -> dict[str, Any]:
    """What a checkpoint or a safetensors file holds."""
    refuse_endless(path)
    try:
        if Path(path).suffix == ".safetensors":
            tensors = parsed(Path(path).read_bytes())[1]
            return {name: torch.from_numpy(v) for name, v in tensors.items()}
        saved = load(path)
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path}: holds more than tensors, or is damaged") from error
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # torch raises anything at all over foreign bytes
        raise UsageError(f"{path}: no readable checkpoint") from error
    if not isinstance(saved, dict):
        raise UsageError(f"{path}: not a checkpoint")
    if "ema" in saved and "config" in saved:
        raise UsageError(f"{path}: of a run; import what `licodec export` makes of it")
    return saved


def _current_name(key: str) -> str:
    """CompressAI has named some parameters otherwise before."""
    key = key.replace(".downsample.", ".skip.")
    for old, new in (("_matrix", "matrices"), ("_bias", "biases"), ("_factor", "factors")):
        key = re.sub(rf"^(entropy_bottleneck\.){old}(\d)$", rf"\1{new}.\2", key)
    for part in ("matrices", "biases", "factors"):
        key = re.sub(rf"^(entropy_bottleneck\.)_{part}\.", rf"\1{part}.", key)
    return key


def weights_of(
    checkpoint: Checkpoint, architecture: Architecture, images: list[Tensor]
) -> dict[str, NDArray[Any]]:
    """Every tensor of the weights file.

    Args:
        images: (3, H, W) in 0 … 1, sides multiples of 64.

    Raises:
        ValueError: the state is of another architecture, or no precision keeps the sums exact.
    """
    networks = HyperNetworks.from_state_dict(architecture, checkpoint.state)
    log_gain = checkpoint.log_gain
    if log_gain is None:
        log_gain = torch.zeros(1, networks.M)
    if log_gain.shape[1] != networks.M:
        raise ValueError(f"log_gain is for {log_gain.shape[1]} channels, not {networks.M}")
    z_prior, z_median = bottleneck_tables(checkpoint.state, networks.N)
    if len(z_prior) not in (1, len(log_gain)):
        raise ValueError(f"entropy bottleneck: for {len(z_prior)} rates, not {len(log_gain)}")
    tensors: dict[str, NDArray[Any]] = {
        k: v.half().numpy()
        for k, v in networks.state_dict().items()
        if k.startswith(("g_a.", "g_s.", "h_a."))
    }
    for name, value in networks.state_dict().items():
        if not torch.isfinite(value.half()).all():
            raise ValueError(f"{name} is not finite in float16")
    thresholds = np.sqrt(SCALES[:-1] * SCALES[1:]) * SCALE_THRESHOLD_UNIT
    tensors |= {
        "log_gain": log_gain.float().numpy(),
        "z_prior": z_prior,
        "z_median": z_median,
        "scales": np.round(SCALES * SCALE_UNIT).astype(np.int32),
        "scale_thresholds": np.round(thresholds).astype(np.int32),
    }
    own = {k: v for k, v in checkpoint.state.items() if k.startswith(Z_DISTRIBUTIONS)}
    prior = own.get(f"{Z_DISTRIBUTIONS}prior", torch.empty(0))
    if own and prior.shape[:2] != (len(log_gain), networks.N):
        raise ValueError("its z-distributions are not for these rates and channels")
    if any(v.dtype == torch.bfloat16 for v in own.values()):
        raise ValueError("its z-distributions are in bfloat16")
    z = {k: v.numpy() for k, v in own.items()}
    tensors |= z
    seen = _activations(networks, log_gain, torch.from_numpy(z_median).float() / Z_UNIT, images)
    return tensors | _integer_nets(networks, seen)


def bottleneck_tables(
    state: Mapping[str, Tensor], N: int
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """log2 tables (K, N, Z_BINS + 1) of ẑ's symbols, K being 1 if all rates share them, and medians (N,)
    in 1/Z_UNIT.

    Raises:
        ValueError: the state holds no entropy bottleneck of N or K·N channels, or its medians differ
            between rates.
    """
    prefix = "entropy_bottleneck."
    own = {
        k[len(prefix) :]: v
        for k, v in state.items()
        if k.startswith(prefix) and not k.startswith(prefix + "_") and k != prefix + "target"
    }
    quantiles = own.get("quantiles", torch.empty(0))
    K = max(1, quantiles.numel() // (3 * N))
    bottleneck = EntropyBottleneck(K * N)
    try:
        missing, unexpected = bottleneck.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise ValueError(f"entropy bottleneck: {mismatch(error)}") from error
    wrong = [k for k in (*missing, *unexpected) if not k.startswith("_") and k != "target"]
    if wrong:
        raise ValueError(f"entropy bottleneck: {wrong[0]} does not fit")
    with torch.no_grad():
        median = torch.round(bottleneck.quantiles[:, :, 1:2] * Z_UNIT)
        if median.abs().max() > LARGEST_MEDIAN:
            raise ValueError("entropy bottleneck: a median makes no sense")
        bins = torch.arange(Z_BINS) - Z_BINS // 2
        mass = bottleneck._likelihood(median / Z_UNIT + bins)[0][:, 0].double()
    escape = (1 - mass.sum(-1, keepdim=True)).clamp(min=2.0**-20)
    log2 = torch.cat([mass.clamp(min=2.0**-24), escape], -1).log2()
    medians = median.reshape(K, N).int().numpy()
    if (medians != medians[0]).any():
        raise ValueError("entropy bottleneck: its medians differ between rates")
    return log2_integers(log2.reshape(K, N, -1)), medians[0]


@dataclass
class _Seen:
    """What each net sees on the calibration images, (1, C, H, W) each."""

    z_hat: list[Tensor]
    columns: list[Tensor]


@torch.inference_mode()
def _activations(
    networks: HyperNetworks, log_gain: Tensor, median: Tensor, images: list[Tensor]
) -> _Seen:
    """ẑ and the context's columns, each image at one of the rates in turn."""
    seen = _Seen([], [])
    for i, x in enumerate(images):
        y = networks.g_a(x[None]) * log_gain[i % len(log_gain)].exp()[:, None, None]
        offset = median[:, None, None]
        seen.z_hat.append((networks.hyper_latents(y) - offset).round() + offset)
        if networks.architecture.has_context:
            y_hat = y.round().clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)
            taps = F.unfold(y_hat, 5, padding=2).reshape(networks.M, 25, *y.shape[2:])
            seen.columns.append(taps[:, : MaskedConv.TAPS].transpose(0, 1).flatten(0, 1)[None])
    return seen


def _integer_nets(networks: HyperNetworks, seen: _Seen) -> dict[str, NDArray[Any]]:
    architecture, M = networks.architecture, networks.M
    outputs = output_units(architecture, M), OUTPUT_LIMIT
    inputs = Inputs(seen.z_hat, np.full(networks.N, 1 / Z_UNIT), Z_LIMIT)
    h_s = networks.h_s, synthesis_layers(architecture), "integer.h_s", inputs
    if not architecture.has_context:
        return quantize_net(*h_s, outputs)[0]
    tensors, hyper_units = quantize_net(*h_s)
    prediction = nn.Sequential(_over_columns(networks.context_prediction))
    inputs = Inputs(seen.columns, np.ones(MaskedConv.TAPS * M), CONTEXT_LIMIT)
    own, context_units = quantize_net(prediction, PREDICTION, "integer.context", inputs)
    with torch.inference_mode():
        joined = [
            torch.cat([networks.h_s(z_hat), prediction(columns)], 1)
            for z_hat, columns in zip(seen.z_hat, seen.columns, strict=True)
        ]
    inputs = Inputs(joined, np.concatenate([hyper_units, context_units]), ACTIVATION_LIMIT)
    last = networks.entropy_parameters, PARAMETERS, "integer.parameters", inputs
    return tensors | own | quantize_net(*last, outputs)[0]


def _over_columns(masked: MaskedConv) -> nn.Conv2d:
    """The context's convolution as a 1x1 one over its twelve taps, taps outermost."""
    weight = masked.weight.detach().flatten(2)[:, :, : MaskedConv.TAPS].transpose(1, 2).flatten(1)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.load_state_dict({"weight": weight[:, :, None, None], "bias": masked.bias})
    return conv


def _photographs(folder: str | Path | None) -> list[Tensor]:
    """Images uint8 (3, H, W), evenly spread over those that a folder has."""
    if folder is None:
        return []
    found = Images(folder, 0, STRIDE * HYPER_STRIDE, torch.device("cpu")).train
    return _spread(found, _IMAGES)


def _spread(images: list[Tensor], count: int) -> list[Tensor]:
    return images[:: max(1, len(images) // count)][:count]


def _middles(photographs: list[Tensor]) -> list[Tensor]:
    """Squares (3, H, W) in 0 … 1 for calibration, sides multiples of 64; noise where there is no
    photograph."""
    some = _spread(photographs, _CALIBRATION_IMAGES)
    multiple = STRIDE * HYPER_STRIDE
    return [central(image, _CALIBRATION_SIDE, multiple).float() / 255 for image in some] or [
        _smooth_noise(seed) for seed in range(8)
    ]


def _smooth_noise(seed: int) -> Tensor:
    """(3, H, W) in 0 … 1: noise whose amplitude falls with its frequency, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(1, 3, _CALIBRATION_SIDE, _CALIBRATION_SIDE)
    side = 3
    while side <= _CALIBRATION_SIDE:
        octave = torch.randn(1, 3, side, side, generator=generator)
        out += F.interpolate(octave, out.shape[2:], mode="bilinear") / side**0.5
        side *= 2
    return (0.5 + 0.25 * out[0] / out.std()).clamp(0, 1)
