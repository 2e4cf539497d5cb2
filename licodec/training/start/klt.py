"""Where training starts: a layer-wise Karhunen-Loève transform, or earlier weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from licodec.errors import UsageError, mismatch, said
from licodec.networks.transforms import GDN
from licodec.training.checkpoint import load_checkpoint, refuse_endless
from licodec.training.codecs.factorized import AdaptiveNetwork, FactorizedNetwork, between
from licodec.training.codecs.hyperprior import HyperpriorNetwork
from licodec.training.config import Config
from licodec.training.data import Images
from licodec.weights.catalogue import SHARED
from licodec.weights.file import BACK_PROJECTION, load, parsed

TABLES = (
    "prior",
    "class_prior",
    "z_prior",
    "context_order",
    "context_weights",
    "context_thresholds",
    "back_projection",
)
"""What stage (b) sets from data, together."""


def initialize(model: FactorizedNetwork | AdaptiveNetwork, config: Config, images: Images) -> None:
    """Set model's weights as config.train.init says; an adaptive model may start from transforms alone,
    which is what a weights file gives it: nets and tables are integers there.

    Raises:
        UsageError: the named file is missing or does not fit the model.
    """
    if config.train.init == "klt":
        if isinstance(model, AdaptiveNetwork):
            raise UsageError(
                f"train.stage {config.train.stage} needs trained transforms in train.init"
            )
        karhunen_loeve(model, images, config.train.seed)
        return
    state, lambdas = read_state(config.train.init)
    if config.train.init.endswith(".safetensors"):
        state = {k: v for k, v in state.items() if not k.startswith(("h_a.", "h_s.", *TABLES))}
    state = fit_rates(state, lambdas, model.lambdas)
    if isinstance(model, AdaptiveNetwork):
        state = _fit_tables(state, model)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UsageError(f"train.init {config.train.init}: {mismatch(error)}") from error
    own = ("bottleneck.", "h_a.", "h_s.", *TABLES)
    wrong = [k for k in (*missing, *unexpected) if not k.startswith(own)]
    if wrong:
        raise UsageError(f"train.init {config.train.init}: does not fit the model ({wrong[0]})")
    if isinstance(model, FactorizedNetwork) and "bottleneck.matrices.0" in missing:
        fit_bottleneck(model, images, config.train.seed)


def fit_bottleneck(model: FactorizedNetwork, images: Images, seed: int, steps: int = 300) -> None:
    """Let the static bottlenecks learn the latents of given transforms before these move.

    Exported weights hold tables instead of bottlenecks; fresh ones would pull at the transforms.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        x = [images.crops(rng, 16, 128).float().cpu() / 255 for _ in range(8)]
        y = torch.cat([model.g_a(batch) for batch in x]).transpose(0, 1).flatten(1)
    optimizer = torch.optim.Adam(model.bottleneck.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        some = torch.from_numpy(rng.integers(y.shape[1], size=256))
        u = (y[:, some] * model.log_gain.detach().exp()[:, :, None]).flatten(0, 1)
        _, likelihoods = model.bottleneck(u[None], training=True)
        optimizer.zero_grad()
        (-torch.log2(likelihoods).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def read_state(path: str) -> tuple[dict[str, Tensor], tuple[float, ...]]:
    """Tensors and lambdas of a weights file, or a checkpoint's averaged weights and theirs.

    Raises:
        UsageError: neither.
    """
    if not path.endswith(".safetensors"):
        saved = load_checkpoint(path)
        return saved["ema"], tuple(saved["config"]["model"]["lambdas"])
    refuse_endless(path)
    try:
        metadata, tensors = parsed(Path(path).read_bytes())
        if SHARED in metadata:
            tensors = load(Path(path)).tensors("")
    except Exception as error:  # bytes that are none fail anywhere
        raise UsageError(f"train.init {path}: no readable weights{said(error)}") from error
    # Names that differ between weights files and models in training.
    state = {
        re.sub(r"^context\.", "context_", name): torch.from_numpy(t) for name, t in tensors.items()
    }
    if BACK_PROJECTION in state:
        state["back_projection"] = state.pop(BACK_PROJECTION)
    try:
        lambdas = tuple(float(lmbda) for lmbda in json.loads(metadata.get("lambdas", "")))
        if not all(0 < lmbda < math.inf for lmbda in lambdas):
            raise ValueError(lambdas)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"train.init {path}: its metadata tells no list of lambdas") from error
    return state, lambdas


def fit_rates(
    state: dict[str, Tensor], lambdas: tuple[float, ...], wanted: tuple[float, ...]
) -> dict[str, Tensor]:
    """Carry gains over to the wanted lambdas: from between the known ones, or with √λ from the outermost.
    Bottlenecks are left out, to be fitted anew."""
    if lambdas == wanted:
        return state
    known, goal = np.log(lambdas), np.log(wanted)
    within = np.clip(goal, known[0], known[-1])
    place = torch.from_numpy(np.interp(within, known, np.arange(len(known))))
    beyond = torch.from_numpy(0.5 * (goal - within)).float()
    stacked = len(known) * state["log_gain"].shape[1]
    out = {
        k: v for k, v in state.items() if not (k.startswith("bottleneck.") and len(v) == stacked)
    }
    out["log_gain"] = between(state["log_gain"], place.float()) + beyond[:, None]
    return out


def _fit_tables(state: dict[str, Tensor], model: AdaptiveNetwork) -> dict[str, Tensor]:
    """Without tables that are for another number of classes, or for transforms of stage (a) alone."""
    prior = state.get("class_prior")
    if prior is None:
        return {k: v for k, v in state.items() if not k.startswith(("bottleneck.", *TABLES))}
    if prior.shape == model.class_prior.shape:
        return state
    return {k: v for k, v in state.items() if k not in TABLES}


@torch.no_grad()
def karhunen_loeve(model: FactorizedNetwork | HyperpriorNetwork, images: Images, seed: int) -> None:
    """Principal components of 2x2 blocks, layer by layer; g_s gets the transposes.

    From noise, 3,000 steps at all rates are at 26 dB; from here, 400 steps are at 29 to 35 dB.
    """
    x = images.crops(np.random.default_rng(seed), 64, 128).float().cpu() / 255
    convs = [m for m in model.g_a if isinstance(m, nn.Conv2d)]
    deconvs = [m for m in model.g_s if isinstance(m, nn.ConvTranspose2d)][::-1]
    norms = [m for m in model.g_a if isinstance(m, GDN)]
    for norm in (*norms, *(m for m in model.g_s if isinstance(m, GDN))):
        norm.gamma.copy_(torch.sqrt(0.01 * torch.eye(len(norm.beta)) + 2.0**-36))
    for conv, deconv, following in zip(convs, deconvs, [*norms, None], strict=True):
        C = x.shape[1]
        blocks = torch.nn.functional.unfold(x, 2, stride=2).transpose(1, 2).reshape(-1, 4 * C)
        mean = blocks.mean(0)
        count = min(conv.out_channels, 4 * C)
        V = principal(blocks - mean, count).reshape(count, C, 2, 2)
        for layer, scale in ((conv, 0.05), (deconv, 0.05)):
            layer.weight.mul_(scale)
            layer.weight[:count].zero_()
            layer.weight[:count, :, 2:4, 2:4] = V
        offset = conv.get_parameter("bias").zero_()
        offset[:count] = -V.flatten(1) @ mean
        deconv.get_parameter("bias").copy_(mean.reshape(C, 4).mean(1))
        x = conv(x)
        if following is not None:
            x = following(x)


def principal(rows: Tensor, count: int) -> Tensor:
    """The strongest components (count, n) of rows (…, n) about 0."""
    centred = rows.double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    basis: Tensor = vectors.flip(1)[:, :count].T.float()
    return basis
