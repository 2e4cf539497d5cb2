"""g_a and g_s over images of any size: tile by tile, in float32 or bf16, on the CPU or a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from licodec.errors import DamagedFileError, UsageError
from licodec.networks.build import built
from licodec.networks.transforms import analysis, as_subpixel, back_projection, synthesis
from licodec.progress import track
from licodec.quantize import quantize
from licodec.tiles import STRIDE, Box, cut, positions, tiles
from licodec.weights.file import Weights

if TYPE_CHECKING:
    from typing_extensions import Self

_TILE = 64
"""Latent positions a side of a tile; larger images go through in tiles of 1024 pixels."""
_HALO = 2
"""Latent positions around a tile that its result depends on: the receptive field of g_a is 30 pixels
to either side, that of g_s two positions. A back-projection passes g_a, g_s and g_a."""


def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32: by AMX, or by AVX512-BF16 where that is
    not Intel's, which takes a third longer than float32 does."""
    try:
        has = torch.cpu.get_capabilities()
    except AttributeError:  # an older torch
        return False
    return bool(
        has.get("amx_bf16")
        or (has.get("avx512_bf16") and not str(has.get("cpu_name")).startswith("Intel"))
    )


MakeNetwork = Callable[[], nn.Sequential]


class TiledTransforms:
    """g_a and g_s as the codec runs them: uint8 pixels on one side, integer latents on the other.

    Each is made when it is first used: a decoder needs no g_a.

    Args:
        g_a, g_s: their states.
        device: cpu or cuda.
        precision: float32, bf16, or auto: bf16 where it is fast, but for what is `precise`.
        tile: latent positions a side that are computed at once; bounds the memory.
    """

    halo = _HALO
    curvature = 12.0
    """As `latent_search.Searchable` has it: 7 to 25 were seen."""

    def __init__(
        self,
        g_a: dict[str, Tensor],
        g_s: dict[str, Tensor],
        device: str,
        precision: str,
        tile: int = _TILE,
    ) -> None:
        self.device = torch.device(device)
        self.chosen = precision != "auto"
        if not self.chosen:
            precision = "bf16" if device == "cuda" or has_native_bf16() else "float32"
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.tile = tile
        self._states = {"g_a": g_a, "g_s": g_s}
        make_g_a, make_g_s, self.M = self.networks(g_a)
        self._make = {"g_a": make_g_a, "g_s": make_g_s}
        self._made: dict[tuple[str, bool], nn.Sequential] = {}

    @classmethod
    def of(cls, weights: Weights, device: str, precision: str) -> Self:
        """Those of a weights file.

        Args:
            device: auto, cpu or cuda.
            precision: as above.

        Raises:
            UsageError: there is no such device.
        """
        # oneDNN would keep kernels for 1024 shapes: 0.9 MB for every new size of image in a long batch.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("no CUDA device is available")
        return cls(weights.torch("g_a."), weights.torch("g_s."), device, precision)

    def networks(self, g_a: dict[str, Tensor]) -> tuple[MakeNetwork, MakeNetwork, int]:
        """What makes g_a and g_s as the state of g_a has them, without their weights, and M."""
        N, M = len(g_a["0.bias"]), len(g_a["6.bias"])
        return partial(analysis, N, M), partial(synthesis, N, M), M

    def network(self, name: str, precise: bool = True) -> nn.Sequential:
        """g_a or g_s, ready to run; its convolutions have the precision that they are to run in."""
        reduced = self.is_reduced(precise)
        if (name, reduced) not in self._made:
            with torch.inference_mode(False):  # else `slope` could not go back through it
                self._made[name, reduced] = self._ready(name, reduced)
        return self._made[name, reduced]

    def _ready(self, name: str, reduced: bool) -> nn.Sequential:
        net = built(self._make[name], self._states[name])
        if isinstance(net[-1], nn.ConvTranspose2d):
            net[-1] = as_subpixel(net[-1])
        for layer in net.modules():
            if reduced and isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                layer.to(self.dtype)
        net.to(self.device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.requires_grad_(False)

    def _run(self, name: str, x: Tensor, precise: bool) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.is_reduced(precise)):
            out: Tensor = self.network(name, precise)(
                x.contiguous(memory_format=torch.channels_last)
            )
        return out

    def is_reduced(self, precise: bool) -> bool:
        """Whether bf16 it is; precise asks for float32, unless the precision was chosen by the user."""
        return self.dtype != torch.float32 and (self.chosen or not precise)

    def analyze(
        self,
        color: NDArray[np.uint8],
        gain: NDArray[np.float32],
        precise: bool = False,
        back_projection: float = 0.0,
    ) -> NDArray[np.int32]:
        """Pixels (H, W, 1 or 3) to y (M, h, w), with so much of its back-projection, times gain (M,),
        rounded; tile by tile."""
        y = np.empty((self.M, *positions(*color.shape[:2])), dtype=np.int32)
        for (top, bottom, left, right), part in self._features(color, precise, back_projection > 0):
            y[:, top:bottom, left:right] = quantize(part, gain, back_projection)
        return y

    def features(
        self, color: NDArray[np.uint8], precise: bool = False, back_projection: bool = False
    ) -> NDArray[np.float32]:
        """y (1, M, h, w) as floats, or with its back-projection (2, M, h, w), which takes twice as long, for
        whoever tries several gains.
        """
        out = np.empty((1 + back_projection, self.M, *positions(*color.shape[:2])), np.float32)
        for (top, bottom, left, right), part in self._features(color, precise, back_projection):
            out[:, :, top:bottom, left:right] = part
        return out

    def _features(
        self, color: NDArray[np.uint8], precise: bool, back_projected: bool
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """(box of latent positions, features there) of each tile.

        The image is continued by its border to multiples of 16.
        """
        h, w = positions(*color.shape[:2])
        halo = 3 * self.halo if back_projected else self.halo
        for inner, outer in track(tiles(h, w, self.tile, halo), "analysis"):
            (top, bottom, left, right) = (side * STRIDE for side in outer)
            pixels = color[top:bottom, left:right]
            missing = (bottom - top - pixels.shape[0], right - left - pixels.shape[1])
            if any(missing):
                pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
            x = torch.from_numpy(pixels.copy()).to(self.device).permute(2, 0, 1)[None]
            x = x.float().div_(255).expand(-1, 3, -1, -1)
            with torch.inference_mode():
                y = self._run("g_a", x, precise)
                if back_projected:
                    g_a, g_s = (partial(self._run, n, precise=precise) for n in ("g_a", "g_s"))
                    y = torch.cat([y, back_projection(g_a, g_s, y)])
            yield inner, cut(y.float(), inner, outer, 1).cpu().numpy()

    def misses(self, y: Tensor, x: Tensor, precise: bool) -> tuple[Tensor, Tensor]:
        """g_s's x̂ (1 or 3, 16h, 16w) of y (M, h, w), and clamped x̂ - x without a way back.

        Args:
            y: latents as g_s takes them.
            x: (1 or 3, 16h, 16w) in 0 … 1; one channel is the mean of three.
        """
        x_hat = self._run("g_s", y[None], precise)[0].float()
        x_hat = x_hat.mean(0, keepdim=True) if len(x) == 1 else x_hat
        return x_hat, x_hat.detach().clamp(0, 1) - x.to(self.device)

    def slope(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> Tensor:
        """How Σ weight · (x̂ - x)² changes with y, likewise (M, h, w): its gradient, x̂ being clamped.

        Args:
            y, x: as `misses` has them.
            weight: (16h, 16w).
        """
        with torch.enable_grad():
            y = y.detach().to(self.device).requires_grad_(True)
            # Clamped, but for the way back: an overflow that shows has to find a way down.
            x_hat, error = self.misses(y, x, precise)
            (found,) = torch.autograd.grad(x_hat, y, 2 * weight.to(self.device) * error)
        return found.cpu()

    @torch.inference_mode()
    def distortion(self, y: Tensor, x: Tensor, weight: Tensor, precise: bool) -> float:
        """Σ weight · (x̂ - x)², of what `slope` is the slope of."""
        _, error = self.misses(y.to(self.device), x, precise)
        return float((weight.to(self.device) * error**2).sum(dtype=torch.float64))

    @torch.inference_mode()
    def synthesize(
        self,
        y: NDArray[np.int32],
        gain: NDArray[np.float32],
        height: int,
        width: int,
        channels: int,
        precise: bool = False,
    ) -> NDArray[np.uint8]:
        """ŷ (M, h, w) to pixels (height, width, channels); one channel is the mean of three."""
        _, h, w = y.shape
        color = np.empty((height, width, channels), dtype=np.uint8)
        scale = torch.from_numpy(gain).to(self.device)[:, None, None]
        for inner, outer in track(tiles(h, w, self.tile, self.halo), "synthesis"):
            part = y[:, outer[0] : outer[1], outer[2] : outer[3]]
            y_hat = torch.from_numpy(np.ascontiguousarray(part)).to(self.device) / scale
            x_hat = self._run("g_s", y_hat[None], precise)[0]
            x_hat = cut(x_hat.float(), inner, outer, STRIDE)
            if channels == 1:
                x_hat = x_hat.mean(0, keepdim=True)
            if x_hat.isnan().any():
                raise DamagedFileError("the latents lead to no pixels: the transforms overflow")
            pixels = (
                x_hat.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            )
            top, left = inner[0] * STRIDE, inner[2] * STRIDE
            target = color[top : top + pixels.shape[0], left : left + pixels.shape[1]]
            target[:] = pixels[: target.shape[0], : target.shape[1]]
        return color
