"""Weights files: found by name or by hash, checked, loaded without running anything.

A file is `NAME-HASH8.safetensors`, HASH8 being the first 8 hex digits of the SHA-256 of its bytes; a
.lic file names the weights that must decode it by those 4 bytes. A released file never changes.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from licodec.container import QUALITY_STEPS
from licodec.errors import ModelMissingError, UsageError

if TYPE_CHECKING:
    import torch

NAMES = ("adaptive", "factorized")

STEPS = 256
"""Rate positions from one anchor to the next."""

ARITHMETIC = "2"
"""Version of the integer arithmetic that tables and nets are made for."""


class Weights:
    """The tensors of one weights file.

    Attributes:
        hash: 4 bytes, as in a .lic header.
        metadata: strings: name, lambdas, groups, arithmetic, and how it was trained.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self.hash = hashlib.sha256(path.read_bytes()).digest()[:4]
            with safe_open(path, "np") as file:
                self.metadata: dict[str, str] = dict(file.metadata() or {})
                self._tensors: dict[str, NDArray[Any]] = {
                    name: file.get_tensor(name) for name in file.keys()
                }
        except (OSError, SafetensorError) as error:
            raise ModelMissingError(f"{path}: no readable weights file ({error})") from error
        stem = path.stem.rsplit("-", 1)
        if len(stem) != 2 or stem[1] != self.hash.hex():
            raise ModelMissingError(
                f"{path}: its bytes hash to {self.hash.hex()}, which is not in its name: "
                "the file is damaged or was altered"
            )
        if self.metadata.get("arithmetic") != ARITHMETIC:
            raise ModelMissingError(f"{path}: made for another version of licodec")
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def numpy(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Those whose name starts with prefix, under their full names."""
        return {k: v for k, v in self._tensors.items() if k.startswith(prefix)}

    def torch(self, prefix: str) -> dict[str, torch.Tensor]:
        """Those whose name starts with prefix, without it, in float32: a module's state."""
        import torch

        return {
            k[len(prefix) :]: torch.from_numpy(v.astype(np.float32))
            for k, v in self.tensors(prefix).items()
        }

    def position(self, quality: int) -> int:
        """Rate position of a header's quality, 0 … QUALITY_STEPS."""
        anchors = len(self._tensors["log_gain"])
        return quality * (anchors - 1) * STEPS // QUALITY_STEPS

    def gain(self, position: int) -> NDArray[np.float32]:
        """(M,) what y is multiplied by before rounding; linear in log between anchors."""
        log_gain = self._tensors["log_gain"].astype(np.float64)
        k = min(position // STEPS, max(0, len(log_gain) - 2))
        t = position / STEPS - k
        above = log_gain[min(k + 1, len(log_gain) - 1)]
        row: NDArray[np.float64] = (1 - t) * log_gain[k] + t * above
        gain: NDArray[np.float32] = np.exp(row).astype(np.float32)
        return gain


def folders() -> list[Path]:
    """Where weights are looked for: LICODEC_WEIGHTS, the installed package, the checkout."""
    here = Path(__file__).resolve().parent
    named = os.environ.get("LICODEC_WEIGHTS")
    places = [Path(named)] if named else []
    return [p for p in (*places, here / "_weights", here.parent / "weights") if p.is_dir()]


def installed() -> list[Path]:
    """Every weights file there is, folder by folder, in the order of names."""
    return [p for folder in folders() for p in sorted(folder.glob("*.safetensors"))]


@lru_cache(maxsize=2)
def load(path: Path) -> Weights:
    return Weights(path)


def by_hash(wanted: bytes) -> Weights:
    """The weights that a file names.

    Raises:
        ModelMissingError: they are not installed, or not intact.
    """
    for path in installed():
        if path.stem.endswith("-" + wanted.hex()):
            return load(path)
    raise ModelMissingError(
        f"needs the weights {wanted.hex()}, which are not installed "
        "(looked in $LICODEC_WEIGHTS and the package)"
    )


def resolve(model: str) -> tuple[str, Path]:
    """A model argument as (entropy model's name, weights file).

    Args:
        model: a name of NAMES, or the path of a weights file, whose adaptive model is meant.

    Raises:
        UsageError: no such model.
        ModelMissingError: no weights are installed.
    """
    if model.endswith(".safetensors"):
        return ("adaptive" if "z_prior" in load(Path(model)) else "factorized"), Path(model)
    if model not in NAMES:
        raise UsageError(f"no model named {model!r}; there are {', '.join(NAMES)}")
    found = installed()
    if not found:
        raise ModelMissingError(
            "no weights are installed (looked in $LICODEC_WEIGHTS and the package)"
        )
    return model, found[0]
