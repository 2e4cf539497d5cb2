"""The everyday codec's g_s in PyTorch, for GPUs: the same integers as NumPy's."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from licodec.errors import UsageError
from licodec.networks.everyday import CELL, PATCH, Array, Synthesis, blocks_of
from licodec.networks.fixed_point import (
    FINE_LIMIT,
    FINE_SHIFT,
    LIMIT,
    STREAM_LIMIT,
    STREAM_SHIFT,
    Tensors,
)


class TorchSynthesis:
    """g_s from a stream to samples 0 … 255, both (h, w, channels); all sums are exact in float64."""

    def __init__(self, tensors: Tensors, device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self._made: dict[str, tuple[Tensor, Tensor]] = {}
        self.blocks = {p: blocks_of(tensors, f"g_s.{p}") for p in ("coarse", "fine")}

    def __call__(self, stream: Tensor) -> Tensor:
        """Samples (16h, 16w, 3) of the first stream (h, w, M), not limited to 0 … 255."""
        s = self._limited(stream.to(self.device, torch.float64), STREAM_LIMIT)
        for i in range(self.blocks["coarse"]):
            s = self._block(f"g_s.coarse.{i}", s)
        s = self._limited(self._dense("g_s.cell", self._finely(s)), STREAM_LIMIT)
        s = _shuffle(s, CELL)
        for i in range(self.blocks["fine"]):
            s = self._block(f"g_s.fine.{i}", s)
        samples = self._dense("g_s.patch", self._finely(s))
        return _shuffle(samples.round(), PATCH)

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias, scaled: with powers of two, which changes no sum's exactness."""
        if name not in self._made:
            scale = torch.from_numpy(2.0 ** -self.tensors[f"{name}.shift"].astype("float64"))
            weight, bias = (
                torch.from_numpy(self.tensors[f"{name}.{part}"].astype("float64"))
                for part in ("weight", "bias")
            )
            parts = (weight * scale[:, None], bias * scale)
            weight, bias = (part.to(self.device) for part in parts)
            self._made[name] = (weight, bias)
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
        s = self._limited(s + self._dense(f"{name}.join", joined).round(), STREAM_LIMIT)
        widened = self._leaky(self._dense(f"{name}.widen", self._enter(s)))
        return self._limited(s + self._dense(f"{name}.narrow", widened).round(), STREAM_LIMIT)

    def _enter(self, s: Tensor) -> Tensor:
        return self._clipped(s * 2.0**-STREAM_SHIFT)

    def _finely(self, s: Tensor) -> Tensor:
        return self._limited(s * 2.0**-FINE_SHIFT, FINE_LIMIT)

    def _leaky(self, x: Tensor) -> Tensor:
        return self._clipped(torch.maximum(x, x * 0.125))

    def _clipped(self, x: Tensor) -> Tensor:
        return self._limited(x, LIMIT)

    def _limited(self, x: Tensor, limit: int) -> Tensor:
        return x.round().clamp(-limit, limit)


def _shuffle(x: Tensor, r: int) -> Tensor:
    h, w, channels = x.shape
    C = channels // (r * r)
    return x.reshape(h, w, r, r, C).permute(0, 2, 1, 3, 4).reshape(h * r, w * r, C)


class CudaSynthesis(Synthesis):
    """g_s on a CUDA device, tile by tile."""

    device = "cuda"

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.exact = TorchSynthesis(tensors, torch.device(self.device))

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
