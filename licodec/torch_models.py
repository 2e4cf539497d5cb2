"""The transforms of a weights file as a PyTorch module, for research."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from licodec.architectures import BY_NAME, Architecture
from licodec.container import QUALITY_STEPS
from licodec.entropy.float_nets import float_state
from licodec.errors import ModelMissingError, UsageError
from licodec.interface import check, transforms
from licodec.networks.build import built
from licodec.networks.everyday import blocks_of
from licodec.networks.hyper import HyperNetworks
from licodec.training.codecs.everyday import Z_UNIT, Everyday, between
from licodec.training.convert.quantize_everyday import dequantized
from licodec.weights import catalogue
from licodec.weights.file import STEPS, Weights, load


class TorchModel(nn.Module):
    """Float transforms, between x (B, 3, H, W) in 0 … 1, y (B, M, H/16, W/16) and z (B, N, H/64, W/64).

    The codec rounds `y * gain(quality)`, and makes x̂ of `ŷ * inverse_gain(quality)`:

        y = model.g_a(x)
        y_hat = (y * model.gain(50)).round()
        x_hat = model.g_s(y_hat * model.inverse_gain(50)).clamp(0, 1)

    What decides probabilities or exact pixels is integers in a weights file. Here it is floats, which agree
    but for rounding.

    Attributes:
        architecture: as `licodec.architectures` has it.
        g_a, g_s: x to y, about M = len(gain) channels; ŷ to x̂, which is not clamped.
        h_a, h_s: of a hyperprior alone. h_a takes y in steps, its magnitude where h_s gives no means, to z in
            steps. h_s takes ẑ to what the entropy model goes on with: with `hyperprior` scales of y in
            steps, then means.
        context_prediction, entropy_parameters: of a context alone, as CompressAI has them.
    """

    log_gain: Tensor
    log_inverse_gain: Tensor

    def __init__(
        self, architecture: Architecture, nets: nn.Module, log_gain: Tensor,
        log_inverse_gain: Tensor, weights: Weights,
    ) -> None:  # fmt: skip
        super().__init__()
        self.architecture = architecture
        for name, net in nets.named_children():
            if name in _NETS:
                self.add_module(name, net)
        self.register_buffer("log_gain", log_gain.detach())
        self.register_buffer("log_inverse_gain", log_inverse_gain.detach())
        self._weights = weights

    def gain(self, quality: float) -> Tensor:
        """(M, 1, 1) what y is multiplied by before it is rounded.

        Raises:
            UsageError: the quality is not in 0 … 100.
        """
        return self._at(self.log_gain, quality)

    def inverse_gain(self, quality: float) -> Tensor:
        """(M, 1, 1) what ŷ is multiplied by before g_s; UsageError as `gain`."""
        return self._at(self.log_inverse_gain, quality)

    def _at(self, table: Tensor, quality: float) -> Tensor:
        if not 0 <= quality <= 100:
            raise UsageError(f"quality is 0 … 100, not {quality!r}")
        position = self._weights.position(round(quality * QUALITY_STEPS / 100))
        t = torch.tensor([position / STEPS], device=table.device)
        return between(table, t).reshape(-1, 1, 1).exp()


_NETS = ("g_a", "g_s", "h_a", "h_s", "context_prediction", "entropy_parameters")


def torch_model(model: str | None = None, *, weights: str | Path | None = None) -> TorchModel:
    """The transforms of a model, in float32, on the CPU, for evaluation, and with gradients.

    Args:
        model, weights: as `licodec.encode` takes them.

    Raises:
        LicodecError: there is no such model, or its weights cannot be used.
    """
    name, path = catalogue.resolve(model, None if weights is None else Path(weights))
    found, architecture = load(path), BY_NAME[name]
    check(architecture, found)
    log_gain = torch.from_numpy(found["log_gain"]).float()
    log_inverse_gain = -log_gain
    with torch.device("cpu"):
        nets: nn.Module
        if architecture.is_exact:
            nets = _everyday(found)
            log_inverse_gain = nets.log_inverse_gain
            nets = nn.ModuleDict(
                {part: _Planes(getattr(nets, part), *about) for part, about in _ABOUT.items()}
            )
        elif architecture.has_hyperprior:
            nets = _hyper(architecture, found)
        else:
            nets = _plain(architecture, found)
    return TorchModel(architecture, nets.float(), log_gain, log_inverse_gain, found).eval()


def _plain(architecture: Architecture, weights: Weights) -> nn.ModuleDict:
    states = {part: weights.torch(f"{part}.") for part in ("g_a", "g_s")}
    tiled: Any = transforms(architecture, weights, "cpu", "float32")
    *makes, _ = tiled.networks(states["g_a"])
    pairs = zip(states.items(), makes, strict=True)
    return nn.ModuleDict({part: built(make, state) for (part, state), make in pairs})


def _hyper(architecture: Architecture, weights: Weights) -> HyperNetworks:
    N, M = len(weights["z_median"]), weights["log_gain"].shape[1]
    nets = HyperNetworks(architecture, N, M)
    state = float_state(nets, weights)
    for part in ("g_a.", "g_s.", "h_a."):
        state |= {part + name: value for name, value in weights.torch(part).items()}
    nets.load_state_dict(state)
    return nets


def _everyday(weights: Weights) -> Everyday:
    C, hyper_width, width = (
        len(weights[f"{name}.bias"]) for name in ("g_a.patch", "h_a.enter", "steps.0.enter")
    )
    fine, coarse = (blocks_of(weights, f"g_s.{part}") for part in ("fine", "coarse"))
    further = (blocks_of(weights, f"g_a.{part}") for part in ("fine", "coarse"))
    M, z_channels = weights["log_gain"].shape[1], weights["z_prior"].shape[1]
    net = Everyday(
        C, M, fine, coarse, weights.lambdas, next(further) - fine, next(further) - coarse,
        hyper_width, z_channels, width,
    )  # fmt: skip
    try:
        net.load_state_dict(dequantized(net, weights.tensors("")))
    except (KeyError, RuntimeError) as error:
        raise ModelMissingError(
            f"{weights.path}: made without what floats need ({error})"
        ) from error
    return net


class _Planes(nn.Module):
    """A net of `Everyday` on planes (B, C, h, w): of x · scale + offset, its outputs likewise."""

    def __init__(
        self, net: nn.Module, scale: float, offset: float, then: float, plus: float
    ) -> None:
        super().__init__()
        self.net = net
        self.scale, self.offset, self.then, self.plus = scale, offset, then, plus

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * self.scale + self.offset).permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2) * self.then + self.plus


_ABOUT = {
    "g_a": (1, -0.5, 1, 0),
    "g_s": (1, 0, 1, 0.5),
    "h_a": (1, 0, Z_UNIT, 0),
    "h_s": (1 / Z_UNIT, 0, 1, 0),
}
