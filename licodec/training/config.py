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


@dataclass
class Data:
    path: str = ""
    """A folder of images, or of tar shards of images."""
    images: int = 0
    """Use so many of the training images, evenly spread; 0 for all."""
    holdout: int = 32
    """The last images, in name order, are for validation only."""
    patch: int = 128
    batch: int = 8
    """Patches a step and process; a multiple of the number of lambdas in the transforms' stages."""


@dataclass
class Model:
    N: int = 128
    M: int = 192
    lambdas: tuple[float, ...] = LAMBDAS
    """One value trains a fixed-rate model."""
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
    """transforms: g_a, g_s and static bottlenecks; distributions: h_a and h_s on frozen
    transforms; joint: everything, with the rate of the adaptive distributions."""
    init: str = "klt"
    """klt, or a safetensors file or checkpoint to start from."""
    steps: int = 0
    """Stop after this many; 0 leaves it to `minutes`."""
    minutes: float = 0.0
    """Stop after this much training time, resumed runs included."""
    cooldown: float = 0.4
    """The last fraction of the run in which the learning rate falls linearly to 0."""
    warmup: int = 100
    optimizer: str = "adam"
    """adam, or muon for the convolutions' weights and adam for the rest."""
    lr: float = 3e-4
    bottleneck_lr: float = 3e-3
    clip: float = 1.0
    ema: float = 0.999
    high_rates_first: float = 0.0
    """Fraction of the run in which the upper rates weigh more (useful from a cold start)."""
    rate_balance: float = 0.4
    """The loss at each lambda is divided by lambda to this power."""
    histogram_kernel: str = "triangular"
    precision: str = "auto"
    """float32, bf16, or auto: bf16 where the processor has it; emulated, it is ten times slower."""
    device: str = "auto"
    seed: int = 0
    out: str = "runs/default"
    checkpoint_s: float = 60.0
    validate_s: float = 300.0


@dataclass
class Config:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)


def load(path: str | Path) -> Config:
    """Read a config.

    Raises:
        UsageError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    return from_dict(raw, str(path))


def from_dict(raw: dict[str, Any], name: str = "config") -> Config:
    config = Config()
    for section, values in raw.items():
        if section not in ("data", "model", "train") or not isinstance(values, dict):
            raise UsageError(f"{name}: unknown section [{section}]")
        target = getattr(config, section)
        known = {f.name: getattr(target, f.name) for f in dataclasses.fields(target)}
        for key, value in values.items():
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
    check(config, name)
    return config


def check(config: Config, name: str = "config") -> None:
    """Refuse combinations that cannot run, before anything is loaded."""
    data, model, train = config.data, config.model, config.train
    if train.stage not in ("transforms", "distributions", "joint"):
        raise UsageError(f"{name}: train.stage is transforms, distributions or joint")
    if train.optimizer not in ("adam", "muon"):
        raise UsageError(f"{name}: train.optimizer is adam or muon")
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
    if train.stage != "distributions" and data.batch % len(model.lambdas):
        raise UsageError(f"{name}: data.batch must be a multiple of {len(model.lambdas)} lambdas")
    if data.patch < 64 or data.patch % 16:
        raise UsageError(f"{name}: data.patch must be a multiple of 16, at least 64")


def to_dict(config: Config) -> dict[str, Any]:
    raw = dataclasses.asdict(config)
    raw["model"]["lambdas"] = list(config.model.lambdas)
    return raw
