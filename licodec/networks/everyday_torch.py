"""The everyday codec's g_s in PyTorch: with its rounding, the same integers as NumPy's; without, a function
with a slope for an encoder's search."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from licodec.errors import UsageError
from licodec.networks.everyday import CELL, PATCH, Array, EverydayTransforms, Synthesis, blocks_of
from licodec.networks.fixed_point import (
    FINE_LIMIT,
    FINE_SHIFT,
    LIMIT,
    STREAM_LIMIT,
    STREAM_SHIFT,
    Tensors,
)


class TorchSynthesis:
    """g_s from a stream to samples 0 … 255, both (h, w, channels).

    Args:
        rounding: as a decoder computes, in float64, in which all sums are exact; else smoothly, in float32.
    """

    def __init__(self, tensors: Tensors, device: torch.device, rounding: bool) -> None:
        self.tensors, self.device, self.rounding = tensors, device, rounding
        self.dtype = torch.float64 if rounding else torch.float32
        self._made: dict[str, tuple[Tensor, Tensor]] = {}
        self.blocks = {p: blocks_of(tensors, f"g_s.{p}") for p in ("coarse", "fine")}

    def __call__(self, stream: Tensor) -> Tensor:
        """Samples (16h, 16w, 3) of the first stream (h, w, M), not limited to 0 … 255."""
        s = self._limited(stream.to(self.device, self.dtype), STREAM_LIMIT)
        for i in range(self.blocks["coarse"]):
            s = self._block(f"g_s.coarse.{i}", s)
        s = self._limited(self._dense("g_s.cell", self._finely(s)), STREAM_LIMIT)
        s = _shuffle(s, CELL)
        for i in range(self.blocks["fine"]):
            s = self._block(f"g_s.fine.{i}", s)
        samples = self._dense("g_s.patch", self._finely(s))
        return _shuffle(samples.round() if self.rounding else samples, PATCH)

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias, scaled: with powers of two, which changes no sum's exactness."""
        if name not in self._made:
            scale = torch.from_numpy(2.0 ** -self.tensors[f"{name}.shift"].astype("float64"))
            weight, bias = (
                torch.from_numpy(self.tensors[f"{name}.{part}"].astype("float64"))
                for part in ("weight", "bias")
            )
            parts = (weight * scale[:, None], bias * scale)
            with torch.inference_mode(False):  # else no slope could go back through them
                made = [part.to(self.device, self.dtype).clone() for part in parts]
            self._made[name] = (made[0], made[1])
        return self._made[name]

    def _dense(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._layer(name)
        return F.linear(x, weight, bias)

    def _depthwise(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._layer(name)
        kernel = weight.reshape(-1, 1, 3, 3)
        out = F.conv2d(x.permute(2, 0, 1)[None], kernel, bias, padding=1, groups=len(kernel))
        return out[0].permute(1, 2, 0)

    def _block(self, name: str, s: Tensor) -> Tensor:
        mixed = self._leaky(self._dense(f"{name}.mix", self._enter(s)))
        joined = self._clipped(self._depthwise(f"{name}.depthwise", mixed))
        s = self._limited(s + self._round(self._dense(f"{name}.join", joined)), STREAM_LIMIT)
        widened = self._leaky(self._dense(f"{name}.widen", self._enter(s)))
        return self._limited(s + self._round(self._dense(f"{name}.narrow", widened)), STREAM_LIMIT)

    def _enter(self, s: Tensor) -> Tensor:
        return self._clipped(s * 2.0**-STREAM_SHIFT)

    def _finely(self, s: Tensor) -> Tensor:
        return self._limited(s * 2.0**-FINE_SHIFT, FINE_LIMIT)

    def _leaky(self, x: Tensor) -> Tensor:
        return self._clipped(torch.maximum(x, x * 0.125))

    def _clipped(self, x: Tensor) -> Tensor:
        return self._limited(x, LIMIT)

    def _round(self, x: Tensor) -> Tensor:
        return x.round() if self.rounding else x

    def _limited(self, x: Tensor, limit: int) -> Tensor:
        return x.round().clamp(-limit, limit) if self.rounding else x


def _shuffle(x: Tensor, r: int) -> Tensor:
    h, w, channels = x.shape
    C = channels // (r * r)
    return x.reshape(h, w, r, r, C).permute(0, 2, 1, 3, 4).reshape(h * r, w * r, C)


class CudaSynthesis(Synthesis):
    """g_s on a CUDA device, tile by tile."""

    device = "cuda"

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.exact = TorchSynthesis(tensors, torch.device(self.device), rounding=True)

    @torch.inference_mode()
    def _tile(self, y_hat: Array, multiplier: Array) -> NDArray[np.uint8]:
        stream = torch.from_numpy(np.rint(y_hat * multiplier))
        samples = self.exact(stream).clamp(0, 255).to(torch.uint8)
        pixels: NDArray[np.uint8] = samples.cpu().numpy()
        return pixels


def check_cuda() -> None:
    """Refuse a device that there is not.

    Raises:
        UsageError: there is none.
    """
    if not torch.cuda.is_available():
        raise UsageError("no CUDA device is available")


class Descent:
    """What `latent_search` asks of transforms: D and its slope.

    y is ŷ times what a unit of it is in the first stream.
    """

    tile = 64
    curvature = 20.0

    def __init__(self, transforms: EverydayTransforms) -> None:
        self.halo = transforms.halo
        self.g_s = TorchSynthesis(transforms.tensors, torch.device("cpu"), rounding=False)

    def _error(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """x̂ (1 or 3, H, W), and clamped x̂ - x without a way back."""
        x_hat = self.g_s(y.permute(1, 2, 0)).permute(2, 0, 1) / 255
        x_hat = x_hat.mean(0, keepdim=True) if len(x) == 1 else x_hat
        return x_hat, x_hat.detach().clamp(0, 1) - x

    def slope(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> Tensor:
        """How Σ weight · (x̂ - x)² changes with y (M, h, w); x and weight as `TiledTransforms.slope` has
        them."""
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            x_hat, error = self._error(y, x)
            found: tuple[Any, ...] = torch.autograd.grad(x_hat, y, 2 * weight * error)
        slope: Tensor = found[0]
        return slope

    @torch.inference_mode()
    def distortion(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> float:
        """Σ weight · (x̂ - x)²."""
        _, error = self._error(y, x)
        return float((weight * error**2).sum(dtype=torch.float64))
