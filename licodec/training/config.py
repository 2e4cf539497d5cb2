"""Every knob of a training run, read from one TOML file."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licodec.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""The customary anchors: weight of the mean squared error on 0…255 against bits per pixel."""

ALPHAS = {"scale-hyperprior": 0.1, "hyperprior": 0.1, "autoregressive": 1.0, "attention": 1.0}
"""The regularizer's weight by architecture: paper 2's, whose 0.1 serves scale-hyperprior too."""


_FORMER_KEYS = {"echo": "back_projection"}
"""Of configs that were written before, and recipes."""


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
    width: int = 96
    """Inner channels of h_a and h_s."""
    z_channels: int = 16
    groups: int = 8
    kernel_size: int = 15
    classes: int = 4
    """Distributions a channel, chosen by context for each latent; 1 is paper 1 alone."""


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
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
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
                value = tuple(float(v) for v in value)
            elif isinstance(default, float) and isinstance(value, int):
                value = float(value)
            if type(value) is not type(default):
                raise UsageError(f"{name}: {section}.{key} must be {type(default).__name__}")
            setattr(target, key, value)
    if config.regularizer and "alpha" not in raw["regularizer"]:
        config.regularizer.alpha = ALPHAS.get(config.model.arch, 0.0)
    check(config, name)
    return config


def check(config: Config, name: str = "config") -> None:
    """Refuse combinations that cannot run, before anything is loaded."""
    data, model, train = config.data, config.model, config.train
    if train.stage not in ("transforms", "rate", "distributions", "joint"):
        raise UsageError(f"{name}: train.stage is transforms, rate, distributions or joint")
    if train.precision not in ("auto", "float32", "bf16"):
        raise UsageError(f"{name}: train.precision is auto, float32 or bf16")
    if train.steps <= 0 and train.minutes <= 0:
        raise UsageError(f"{name}: set train.steps or train.minutes")
    if model.classes < 1:
        raise UsageError(f"{name}: model.classes must be at least 1")
    if train.stage == "joint" and model.classes > 1:
        raise UsageError(
            f"{name}: the joint stage needs model.classes = 1 (distributions come after)"
        )
    if not model.lambdas or sorted(set(model.lambdas)) != list(model.lambdas):
        raise UsageError(f"{name}: model.lambdas must rise")
    if model.lambdas[0] <= 0:
        raise UsageError(f"{name}: model.lambdas must be positive")
    if data.scale and not (len(data.scale) <= 2 and 0 < data.scale[0] <= data.scale[-1] <= 1):
        raise UsageError(f"{name}: data.scale is one or two rising numbers up to 1")
    if not 0 <= data.graphics <= 1:
        raise UsageError(f"{name}: data.graphics is a share, 0 … 1")
    if model.arch == "everyday":
        _check_everyday(config, name)
        return
    if train.stage != "distributions" and data.batch % len(model.lambdas):
        raise UsageError(f"{name}: data.batch must be a multiple of {len(model.lambdas)} lambdas")
    if data.patch < 64 or data.patch % 16:
        raise UsageError(f"{name}: data.patch must be a multiple of 16, at least 64")
    if train.stage in ("distributions", "joint"):
        _check_distributions(config, name)
    if train.back_projection and (train.stage != "transforms" or model.arch != "factorized"):
        raise UsageError(f"{name}: train.back_projection is for the factorized transforms")
    if train.back_projection and len(train.back_projection) != len(model.lambdas):
        raise UsageError(f"{name}: train.back_projection needs a value for each of model.lambdas")
    if model.arch != "factorized":
        _check_hyperprior(config, name)
    elif train.stage == "rate":
        raise UsageError(f"{name}: stage rate is for a model.arch with a hyperprior")
    elif train.init == "fresh":
        raise UsageError(f"{name}: train.init is klt or a file for {model.arch}")
    elif config.regularizer:
        raise UsageError(f"{name}: [regularizer] needs a model.arch with a hyperprior")


def _check_everyday(config: Config, name: str) -> None:
    data, model, train = config.data, config.model, config.train
    if train.stage != "transforms" or config.regularizer:
        raise UsageError(f"{name}: everyday has the stage transforms alone, and no [regularizer]")
    if data.patch < 64 or data.patch % 64 or data.batch < 1:
        raise UsageError(f"{name}: data.patch must be a multiple of 64 for everyday")
    if model.M % 4 or min(model.N, model.M, model.fine, model.coarse) < 1 or model.N > 192:
        raise UsageError(f"{name}: everyday needs N up to 192, M a multiple of 4, and blocks")
    if len(model.lambdas) < 2 or train.init == "fresh":
        raise UsageError(f"{name}: everyday needs two lambdas or more, and klt or a file in init")


def _check_distributions(config: Config, name: str) -> None:
    model = config.model
    channels = model.M if model.arch == "factorized" else model.N
    if model.groups < 1 or model.width < 1 or channels % model.groups or model.width % model.groups:
        raise UsageError(f"{name}: model.groups must divide {channels} channels and model.width")
    if model.z_channels < 1 or model.kernel_size < 1 or model.kernel_size % 2 == 0:
        raise UsageError(f"{name}: model.z_channels must be positive, and model.kernel_size odd")


def _check_hyperprior(config: Config, name: str) -> None:
    data, model, train = config.data, config.model, config.train
    if model.arch not in ALPHAS:
        raise UsageError(f"{name}: model.arch is factorized, {', '.join(ALPHAS)}")
    if train.stage == "joint":
        raise UsageError(f"{name}: {model.arch} has no joint stage")
    if train.stage != "transforms" and train.init in ("klt", "fresh"):
        known = "transforms" if train.stage == "rate" else model.arch
        raise UsageError(f"{name}: stage {train.stage} needs a trained {known} in train.init")
    if train.stage != "transforms" and config.regularizer:
        raise UsageError(f"{name}: [regularizer] is for the stage transforms")
    if train.surrogate not in ("round", "noise"):
        raise UsageError(f"{name}: train.surrogate is round or noise")
    if data.patch % 64:
        raise UsageError(f"{name}: data.patch must be a multiple of 64 for {model.arch}")
    if model.arch == "attention" and model.M != model.N:
        raise UsageError(f"{name}: attention has as many latent channels M as N")
    if model.arch == "attention" and train.init == "klt":
        raise UsageError(f'{name}: attention has no such start: train.init = "fresh", or a file')
    if config.regularizer and (config.regularizer.alpha < 0 or config.regularizer.lr <= 0):
        raise UsageError(f"{name}: regularizer.alpha must not be negative, and lr positive")
    if config.regularizer and config.regularizer.width < 2:
        raise UsageError(f"{name}: regularizer.width must be at least 2")


def to_dict(config: Config) -> dict[str, Any]:
    raw = dataclasses.asdict(config)
    raw["model"]["lambdas"] = list(config.model.lambdas)
    if config.regularizer is None:
        del raw["regularizer"]
    return raw
