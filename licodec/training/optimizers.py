"""Muon for the convolutions, next to Adam for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(matrix: Tensor) -> Tensor:
    """U Vᵀ of matrix = U S Vᵀ, roughly: singular values come out between 0.7 and 1.2.

    Newton-Schulz of order five as in Muon (Jordan et al. 2024), but iterated on the small Gram
    matrix, so that the wide factor is multiplied twice instead of ten times.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    gram = x @ x.T
    eye = torch.eye(len(gram), device=gram.device)
    total = eye
    for _ in range(5):
        step = 3.4445 * eye - 4.7750 * gram + 2.0315 * gram @ gram
        total = step @ total
        gram = step @ gram @ step
        gram = (gram + gram.T) / 2
    out: Tensor = total @ x
    return out if matrix.shape[0] <= matrix.shape[1] else out.T


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized per weight and scaled so that Adam's learning rates fit.

    Takes weights of two or more dimensions; a kernel (a, b, kh, kw) counts as a matrix (a, b·kh·kw).
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["momentum"] = torch.zeros_like(param)
                buffer = state["momentum"].lerp_(param.grad, 1 - group["momentum"])
                update = param.grad.lerp(buffer, group["momentum"])
                matrix = orthogonalize(update.reshape(len(param), -1).float())
                scale = 0.2 * max(matrix.shape) ** 0.5
                param.add_(matrix.reshape(param.shape), alpha=-group["lr"] * scale)
