"""Every knob of a training run, read from one TOML file."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licodec.architectures import BY_NAME, HYPERPRIOR, TABLE, Architecture
from licodec.errors import LicodecError, UsageError
from licodec.io import files
from licodec.options import DEVICES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""The customary anchors: weight of the mean squared error on 0…255 against bits per pixel."""

TRAINED = tuple(a.name for a in TABLE if not a.sends_distributions)
"""What is trained; `adaptive` comes of later stages of `factorized`."""

_FORMER_KEYS = {"echo": "back_projection"}
"""Of configs that were written before, and recipes."""


HISTOGRAM_KERNELS = ("uniform", "triangular", "epanechnikov", "gaussian")


@dataclass
class Data:
    path: str = ""
    """A folder of images, or of tar shards of images."""
    images: int = 0
    """Use so many of the training images, evenly spread; 0 for all."""
    holdout: int = 32
    """The last images, in name order, are for validation only."""
    patch: int = 128
    scale: tuple[float, ...] = ()
    """Shrink each lossy image once by a factor of this range (two numbers, or one)."""
    graphics: float = 0.0
    """Share of the crops that are drawn by the loader: text, flat areas, line art."""
    batch: int = 8
    """Patches a step and process; a multiple of the number of lambdas but in stage distributions."""


@dataclass
class Model:
    arch: str = "factorized"
    """everyday, factorized (the adaptive codec's too), scale-hyperprior, hyperprior, autoregressive or
    attention."""
    N: int = 128
    M: int = 192
    lambdas: tuple[float, ...] = LAMBDAS
    """One value trains a fixed-rate model."""
    fine: int = 3
    coarse: int = 2
    """Blocks of everyday's transforms, at an eighth and a sixteenth of the resolution."""
    encoder_fine: int = 0
    encoder_coarse: int = 0
    """Blocks that its g_a has beyond those: they cost encoders time, and decoders nothing."""
    width: int = 96
    """Inner channels of h_a and h_s."""
    z_channels: int = 16
    groups: int = 8
    kernel_size: int = 15
    classes: int = 4
    """Distributions a channel, chosen by context for each latent; 1 is paper 1 alone."""

    @property
    def architecture(self) -> Architecture:
        return BY_NAME[self.arch]


@dataclass
class Train:
    stage: str = "transforms"
    """transforms: g_a, g_s and static bottlenecks, or a codec with a hyperprior whole; rate: such a
    codec without g_a, g_s and gains, which stay as they are; distributions: h_a and h_s on frozen
    transforms, or those over ẑ's distributions on a frozen codec with a hyperprior; joint:
    everything, with the rate of the adaptive distributions."""
    init: str = "klt"
    """klt, fresh (random; with a hyperprior only), or a safetensors file or checkpoint to start from."""
    surrogate: str = "round"
    """What stands for rounding with a hyperprior: round (straight through, for the distortion; noise
    for the rate), or noise (for both, as CompressAI trains)."""
    steps: int = 0
    """Stop after this many; 0 leaves it to `minutes`."""
    minutes: float = 0.0
    """Stop after this much training time, resumed runs included."""
    cooldown: float = 0.4
    """The last fraction of the run in which the learning rate falls linearly to 0."""
    warmup: int = 100
    lr: float = 3e-4
    """Adam's, for all but gains and bottlenecks."""
    bottleneck_lr: float = 3e-3
    beta2: float = 0.999
    clip: float = 1.0
    ema: float = 0.999
    rate_balance: float = 0.4
    """The loss at each lambda is divided by lambda to this power."""
    back_projection: tuple[float, ...] = ()
    """How much of y's back-projection the encoder is to add at each lambda, as stage (b) chose it for earlier
    weights; none in a first run of the factorized transforms."""
    histogram_kernel: str = "triangular"
    """One of HISTOGRAM_KERNELS."""
    precision: str = "auto"
    """float32, bf16, or auto: bf16 where the processor has it; emulated, it is ten times slower."""
    device: str = "auto"
    seed: int = 0
    out: str = "runs/default"
    checkpoint_s: float = 60.0
    validate_s: float = 300.0
    keep_every: int = 0
    """Validate after every so many steps too, and keep the averaged weights of then; 0 for never."""


@dataclass
class RegularizerSettings:
    alpha: float = 0.0
    """Weight of H_q(X|X̂) in bits per pixel; where it is not given, paper 2's for the codec."""
    lr: float = 1e-3
    """Of q's own Adam, the same throughout."""
    width: int = 16
    """Inner channels of q."""
    levels: int = 1
    """1: q is integrated over unit bins of images in 0 … 1; 255: over levels of 0 … 255."""


@dataclass
class Config:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    regularizer: RegularizerSettings | None = None
    """Only where the file has this section."""


def load(path: str | Path, **instead: dict[str, Any]) -> Config:
    """Read a config.

    Args:
        instead: of each section, values that stand in for the file's; None leaves these.

    Raises:
        UsageError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(files.read_all(str(path)).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no text, which TOML is") from error
    except (LicodecError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error
    for section, values in instead.items():
        given = {key: value for key, value in values.items() if value is not None}
        if isinstance(raw.setdefault(section, {}), dict):
            raw[section].update(given)
    return from_dict(raw, str(path))


def from_dict(raw: dict[str, Any], name: str = "config") -> Config:
    config = Config()
    for section, values in raw.items():
        if section not in ("data", "model", "train", "regularizer") or not isinstance(values, dict):
            raise UsageError(f"{name}: unknown section [{section}]")
        if section == "regularizer":
            config.regularizer = RegularizerSettings()
        target = getattr(config, section)
        known = {f.name: getattr(target, f.name) for f in dataclasses.fields(target)}
        for key, value in values.items():
            key = _FORMER_KEYS.get(key, key)
            if key not in known:
                raise UsageError(f"{name}: unknown key {section}.{key}")
            default = known[key]
            if isinstance(default, tuple) and isinstance(value, (list, tuple)):
                if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
                    raise UsageError(f"{name}: {section}.{key} must be a list of numbers")
                value = tuple(_float(v) for v in value)
            elif isinstance(default, float) and isinstance(value, int):
                value = _float(value)
            if type(value) is not type(default):
                raise UsageError(f"{name}: {section}.{key} must be {type(default).__name__}")
            setattr(target, key, value)
    if config.regularizer and "alpha" not in raw["regularizer"] and config.model.arch in TRAINED:
        config.regularizer.alpha = config.model.architecture.alpha
    check(config, name)
    return config


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check(config: Config, name: str = "config") -> None:
    """Refuse combinations that cannot run, before anything is loaded."""
    for is_wrong, reason in _rules(config):
        if is_wrong:
            raise UsageError(f"{name}: {reason}")


def _rules(config: Config) -> Iterator[tuple[bool, str]]:
    """(whether it is broken, what it says) of each rule; a later one may rely on those before."""
    data, model, train = config.data, config.model, config.train
    yield model.arch not in TRAINED, f"model.arch is {', '.join(TRAINED)}"
    architecture, stage = model.architecture, train.stage
    stages = dict(architecture.stages)
    yield stage not in stages, f"train.stage is {', '.join(stages)} for {model.arch}"
    narrow = 1 <= min(model.N, model.M) < architecture.least_channels
    yield narrow, f"model.N and model.M must be at least {architecture.least_channels}"
    precisions = ("auto", "float32", "bf16")
    yield train.precision not in precisions, "train.precision is auto, float32 or bf16"
    yield train.device not in DEVICES, f"train.device is {', '.join(DEVICES)}"
    odd = train.histogram_kernel not in HISTOGRAM_KERNELS
    yield odd, f"train.histogram_kernel is {', '.join(HISTOGRAM_KERNELS)}"
    yield from _number_rules(config)
    yield train.steps <= 0 and train.minutes <= 0, "set train.steps or train.minutes"
    yield "\0" in train.out or not train.out, "train.out is no name of a folder"
    yield model.classes < 1, "model.classes must be at least 1"
    one_class = stage != "joint" or model.classes == 1
    yield not one_class, "the joint stage needs model.classes = 1 (distributions come after)"
    rising = sorted(set(model.lambdas)) == list(model.lambdas) != []
    yield not rising, "model.lambdas must rise"
    yield model.lambdas[0] <= 0, "model.lambdas must be positive"
    scales = data.scale
    scaled = not scales or (len(scales) <= 2 and 0 < scales[0] <= scales[-1] <= 1)
    yield not scaled, "data.scale is one or two rising numbers up to 1"
    yield not 0 <= data.graphics <= 1, "data.graphics is a share, 0 … 1"
    yield from (_everyday_rules if architecture.is_exact else _customary_rules)(config)


_LEAST = {
    "data": {"images": 0, "holdout": 1, "batch": 1},
    "model": {"N": 1, "M": 1},
    "train": dict.fromkeys(
        "steps minutes cooldown warmup beta2 ema seed checkpoint_s validate_s keep_every".split(), 0
    ),
}
_MOST: dict[str, dict[str, float]] = {
    "data": {"batch": 2**16, "patch": 2**14},
    "train": {
        "cooldown": 1, "beta2": 1 - 1e-9, "ema": 1, "seed": 2**32 - 1, "lr": 1e3, "bottleneck_lr": 1e3
    },
    "regularizer": {"alpha": 1e6, "lr": 1e3},
}  # fmt: skip
_POSITIVE = {"train": ("lr", "bottleneck_lr", "clip")}


def _number_rules(config: Config) -> Iterator[tuple[bool, str]]:
    """What numbers are at all, each by itself."""
    for section, values in to_dict(config).items():
        for key, value in values.items():
            listed = value if isinstance(value, (list, tuple)) else [value]
            odd = any(isinstance(v, float) and not math.isfinite(v) for v in listed)
            yield odd, f"{section}.{key} must be finite"
        for key, least in _LEAST.get(section, {}).items():
            yield values[key] < least, f"{section}.{key} must be at least {least}"
        for key, most in _MOST.get(section, {}).items():
            yield values[key] > most, f"{section}.{key} must be at most {most}"
        for key in _POSITIVE.get(section, ()):
            yield values[key] <= 0, f"{section}.{key} must be positive"


def _everyday_rules(config: Config) -> Iterator[tuple[bool, str]]:
    data, model = config.data, config.model
    yield config.regularizer is not None, f"{model.arch} has no [regularizer]"
    patches = data.patch >= 64 and data.patch % 64 == 0 and data.batch > 0
    yield not patches, f"data.patch must be a multiple of 64 for {model.arch}"
    sizes = 0 < model.N <= 192 and model.M > 0 and model.M % 4 == 0
    blocks = min(model.fine, model.coarse) > 0
    blocks = blocks and min(model.encoder_fine, model.encoder_coarse) >= 0
    yield not (sizes and blocks), f"{model.arch} needs N up to 192, M a multiple of 4, and blocks"
    starts = len(model.lambdas) > 1 and config.train.init != "fresh"
    yield not starts, f"{model.arch} needs two lambdas or more, and klt or a file in init"


def _customary_rules(config: Config) -> Iterator[tuple[bool, str]]:
    data, model, train = config.data, config.model, config.train
    architecture, stage = model.architecture, train.stage
    K = len(model.lambdas)
    uneven = stage != "distributions" and data.batch % K > 0
    yield uneven, f"data.batch must be a multiple of {K} lambdas"
    small = data.patch < 64 or data.patch % 16 > 0
    yield small, "data.patch must be a multiple of 16, at least 64"
    if stage in ("distributions", "joint"):
        channels = model.N if architecture.has_hyperprior else model.M
        grouped = model.groups > 0 and model.width > 0
        grouped = grouped and not channels % model.groups and not model.width % model.groups
        yield not grouped, f"model.groups must divide {channels} channels and model.width"
        odd = model.z_channels > 0 and model.kernel_size > 0 and model.kernel_size % 2 == 1
        yield not odd, "model.z_channels must be positive, and model.kernel_size odd"
    if train.back_projection:
        other = stage != "transforms" or architecture.has_hyperprior
        yield other, "train.back_projection is for the factorized transforms"
        wanted = "train.back_projection needs a value for each of model.lambdas"
        yield len(train.back_projection) != K, wanted
    if architecture.has_hyperprior:
        yield from _hyperprior_rules(config)
    else:
        yield train.init == "fresh", f"train.init is klt or a file for {model.arch}"
        is_regularized = config.regularizer is not None
        yield is_regularized, "[regularizer] needs a model.arch with a hyperprior"


def _hyperprior_rules(config: Config) -> Iterator[tuple[bool, str]]:
    model, train = config.model, config.train
    if train.stage != "transforms":
        known = {"rate": "transforms", "context": HYPERPRIOR.name}.get(train.stage, model.arch)
        needs = f"stage {train.stage} needs a trained {known} in train.init"
        yield train.init in ("klt", "fresh"), needs
        yield config.regularizer is not None, "[regularizer] is for the stage transforms"
    yield train.surrogate not in ("round", "noise"), "train.surrogate is round or noise"
    yield config.data.patch % 64 > 0, f"data.patch must be a multiple of 64 for {model.arch}"
    if q := config.regularizer:
        negative = q.alpha < 0 or q.lr <= 0
        yield negative, "regularizer.alpha must not be negative, and lr positive"
        yield q.width < 2, "regularizer.width must be at least 2"
        yield q.levels not in (1, 255), "regularizer.levels is 1 or 255"


def to_dict(config: Config) -> dict[str, Any]:
    raw = dataclasses.asdict(config)
    raw["model"]["lambdas"] = list(config.model.lambdas)
    if config.regularizer is None:
        del raw["regularizer"]
    return raw
