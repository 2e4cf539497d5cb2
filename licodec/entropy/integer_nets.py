"""Networks that decide probabilities, in exact integer arithmetic (Ballé et al. 2019, "Integer networks").

A layer multiplies integer activations with integer weights, adds a bias, applies its activation,
scales each output by a power of two, rounds and clamps:

    a' = clamp(⌊leaky(Σ w·a + b) / 2^shift + ½⌋, low, high)

Integers travel in float32 tensors where no sum can leave ±2^24, in float64 ones elsewhere. Both hold
the same integers exactly, in any order of summation, so the choice is one of speed alone. Every
layer is a matrix product over gathered columns: nothing here may pick a Winograd or an FFT kernel, and
`exact_products` keeps reduced precision out.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

FLOAT32_SUMS = 2**24
FLOAT64_SUMS = 2**44
"""Sums stay below this, so that the leaky slope's product with one is exact in float64 too."""

LEAKY_NUMERATOR, LEAKY_DENOMINATOR = 164, 2**14
"""The slope of leaky ReLU below 0: 0.01001 for CompressAI's 0.01."""

_HALF = torch.tensor(0.5, dtype=torch.float64, device="cpu")

PARTS = ("weight", "bias", "shift", "limit")
"""The tensors of a layer."""


_lock = threading.Lock()
_inside: list[bool] = []
"""One entry a thread within `exact_products` while oneDNN is off; the first says whether it was on."""


def _after_fork() -> None:
    """Forget the threads that a forked process does not have."""
    global _lock
    _lock = threading.Lock()
    if _inside:
        torch.backends.mkldnn.enabled = _inside[0]  # type: ignore[assignment]
        _inside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within it, float32 matrix products are float32 ones, whatever precision the program has allowed.

    Where it allows less, oneDNN is off until the last thread has left. That switch is the whole
    process's, and transforms of other threads then do without it, to another rounding.
    """
    with _lock:
        switched = bool(_inside) or not _is_exact()
        if switched:
            _inside.append(bool(torch.backends.mkldnn.enabled))
            torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        if switched:
            with _lock:
                before = _inside[0]
                _inside.pop()
                if not _inside:
                    torch.backends.mkldnn.enabled = before  # type: ignore[assignment]


def _is_exact() -> bool:
    """Whether the program leaves float32 products alone: by what it says, and by one that shows it."""
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return False
    except RuntimeError:  # it was said by `fp32_precision` of some backend
        return False
    odd, ones = (
        torch.full(shape, value, dtype=torch.float32, device="cpu")
        for shape, value in (((64, 256), 2.0**15 + 1), ((256, 64), 1.0))
    )
    with torch.autocast("cpu", enabled=False):
        return bool((odd @ ones == 256 * (2**15 + 1)).all())


@dataclass(frozen=True)
class LayerSpec:
    """What a layer is, apart from its numbers.

    Attributes:
        kind: conv (stride 1, padded to the same size), deconv (stride 2, doubling) or subpixel
            (conv, then each four channels become one of twice the size).
        kernel: taps a side; 1 also stands for layers over lists of positions.
        activation: none, relu or leaky.
    """

    kind: str
    kernel: int
    activation: str


class IntegerLayer:
    """One layer over rows or planes of activations.

    Args:
        tensors: `weight`, integers (O, K), K being inputs · taps, or (K, O · taps) for deconv, K being
            inputs; `bias` (O,) in units of a sum; `shift` (O,); `limit` (2,): low and high.
        spec: its kind.
        input_limit: the largest magnitude an input may have.

    Raises:
        ValueError: a sum could leave the integers that float64 holds exactly.
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], spec: LayerSpec, input_limit: int
    ) -> None:
        weight, bias = tensors["weight"], tensors["bias"]
        self.spec = spec
        self.outputs = len(bias)
        largest = largest_sum(weight, bias, spec, input_limit)
        if largest >= FLOAT64_SUMS:
            raise ValueError("an integer layer's weights are too large for exact sums")
        self.dtype = torch.float32 if largest < FLOAT32_SUMS else torch.float64
        columns = np.ascontiguousarray(weight.T)
        self.weight = torch.from_numpy(columns).to(self.dtype)
        self.bias = torch.from_numpy(bias).to(self.dtype)
        self.scale = torch.from_numpy(np.ldexp(1.0, -tensors["shift"].astype(np.int64)))
        self.low, self.high = (int(v) for v in tensors["limit"])
        self.limit = max(-self.low, self.high)

    def rows(self, x: Tensor) -> Tensor:
        """(n, K) integer activations to (n, O): a 1x1 layer, or one over gathered columns."""
        return self.finish(self.sums(x))

    def sums(self, x: Tensor, first: int = 0, others: Tensor | None = None) -> Tensor:
        """(n, O) of the inputs from `first` on that x (n, …) holds, with the bias or with the others' sums.

        Whatever is left out, a sum stays as small and as exact as the whole.
        """
        weight = self.weight[first : first + x.shape[1]]
        return torch.addmm(self.bias if others is None else others, x.to(self.dtype), weight)

    def plane(self, x: Tensor) -> Tensor:
        """(C, H, W) to (O, H, W), (O, 2H, 2W) or (O/4, 2H, 2W), as its kind says."""
        _, H, W = x.shape
        k = self.spec.kernel
        if self.spec.kind == "deconv":
            parts = torch.mm(self.weight, x.to(self.dtype).flatten(1))
            sums = F.fold(parts[None], (2 * H + k - 2, 2 * W + k - 2), k, stride=2)[0]
            sums = sums[:, k // 2 : k // 2 + 2 * H, k // 2 : k // 2 + 2 * W].flatten(1).T
            return self.finish(sums + self.bias).T.reshape(self.outputs, 2 * H, 2 * W)
        columns = F.unfold(x.to(self.dtype)[None], k, padding=k // 2)[0].T
        out = self.rows(columns).T.reshape(self.outputs, H, W)
        return F.pixel_shuffle(out, 2) if self.spec.kind == "subpixel" else out

    def finish(self, sums: Tensor) -> Tensor:
        """Activation, scaling, rounding and clamping of sums (n, O), exact in float64."""
        t = sums.double()
        if self.spec.activation == "leaky":
            t = F.leaky_relu_(t, LEAKY_NUMERATOR / LEAKY_DENOMINATOR)
        return torch.addcmul(_HALF, t, self.scale).floor_().clamp_(self.low, self.high).float()


def largest_sum(
    weight: NDArray[Any], bias: NDArray[Any], spec: LayerSpec, input_limit: int
) -> float:
    """The largest magnitude that a sum of the layer can reach, inputs being within ±input_limit."""
    magnitude = weight_magnitude(weight, len(bias), spec)
    return float((magnitude * input_limit + np.abs(bias.astype(np.float64))).max())


def weight_magnitude(weight: NDArray[Any], outputs: int, spec: LayerSpec) -> NDArray[np.float64]:
    """(O,) the largest sum of |weight| that meets in one output.

    The taps of a deconv that meet in one output are those of like parity.
    """
    magnitude: NDArray[np.float64] = np.abs(weight.astype(np.float64))
    if spec.kind != "deconv":
        per_output: NDArray[np.float64] = magnitude.sum(1)
        return per_output
    taps = magnitude.sum(0).reshape(outputs, spec.kernel, spec.kernel)
    phases = [taps[:, i::2, j::2].sum((1, 2)) for i in (0, 1) for j in (0, 1)]
    largest: NDArray[np.float64] = np.max(phases, axis=0)
    return largest


class IntegerNet:
    """Layers in a row.

    Args:
        tensors: `PREFIX.i.weight` … of each layer.
        specs: of each layer.
        input_limit: the largest magnitude an input may have.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        prefix: str,
        specs: Sequence[LayerSpec],
        input_limit: int,
    ) -> None:
        self.layers = []
        for i, spec in enumerate(specs):
            own = {part: tensors[f"{prefix}.{i}.{part}"] for part in PARTS}
            self.layers.append(IntegerLayer(own, spec, input_limit))
            input_limit = self.layers[-1].limit
        self.limit = input_limit

    def plane(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.plane(x)
        return x

    def rows(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.rows(x)
        return x
