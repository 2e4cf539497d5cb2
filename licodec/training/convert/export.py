"""`licodec export`: a checkpoint's averaged weights as a hashed file that the codec loads."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from licodec.entropy.tables import LOG2_UNIT
from licodec.errors import UsageError, mismatch
from licodec.interface import named
from licodec.io.files import write
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint
from licodec.weights.catalogue import SHARED
from licodec.weights.file import Weights, deflated

_LARGE = 10_000
"""Values of a tensor that is worth rounding: a layer's weights."""
_DROPPED = 3
"""Of the 10 bits of float16's mantissa."""
_HIGHEST = np.float16(65280)
"""The highest finite value without them."""


def export(
    checkpoint: str | Path, folder: str | Path | None, name: str, photographs: str | None = None
) -> Path:
    """Write `NAME-HASH8.safetensors`, and its recipe beside it as `NAME-HASH8.json`.

    What is in it the architecture's own export says. One with a hyperprior is a state of CompressAI's class:
    `licodec import` makes weights of it.

    Args:
        folder: by default `weights`; with a hyperprior the checkpoint's own, since a file that cannot
            decode yet has no place among the weights.
        photographs: a folder of them, by which everyday's networks become integers; by default what it
            was trained on.

    Raises:
        UsageError: no checkpoint, or one whose tables are not set yet; or no name for a file.
    """
    check_name(name)
    state = load_checkpoint(checkpoint)
    config = configs.from_dict(state["config"], str(checkpoint))
    ema: dict[str, Tensor] = state["ema"]
    metadata = {"name": name, "lambdas": json.dumps(list(config.model.lambdas))}
    make = named(f"licodec.training.convert.{config.model.architecture.export}")
    try:
        tensors, own = make(config, ema, photographs or config.data.path)
    except KeyError as error:
        raise UsageError(f"{checkpoint}: the checkpoint lacks {error.args[0]}") from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):  # lack of memory, above all
            raise
        raise UsageError(f"{checkpoint}: does not fit its config ({mismatch(error)})") from error
    recipe = {"stages": [_stage(s) for s in (*state.get("earlier", []), state)]}
    usual = "weights" if "arithmetic" in own else Path(checkpoint).parent
    return write_weights(folder or usual, name, tensors, metadata | own, recipe)


def _is_same(tensor: NDArray[Any], base: Weights, name: str) -> bool:
    if name not in base or base[name].dtype != tensor.dtype:
        return False
    return np.array_equal(base[name], tensor)


def check_name(name: str) -> None:
    """Refuse what would lead out of the folder that weights are written to."""
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise UsageError(
            f"{name!r} is no name for weights: up to 100 letters, digits, . _ and - are"
        )


def write_weights(
    folder: str | Path,
    name: str,
    tensors: Mapping[str, NDArray[Any]],
    metadata: dict[str, str],
    recipe: dict[str, Any],
    base: Weights | None = None,
) -> Path:
    """Write `NAME-HASH8.safetensors` and, with its hash, the recipe beside it, unless the same weights have
    one there.

    Args:
        metadata: with `arithmetic`, large float16 tensors lose three bits, and all are deflated, as only
            licodec reads them.
        base: weights to share tensors with: those that are the same there are left out.
    """
    check_name(name)
    own = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    if "arithmetic" in metadata:
        own = {k: shortened(v) if _is_large(v) else v for k, v in own.items()}
    if base is not None:
        same = sorted(k for k, v in own.items() if _is_same(v, base, k))
        if same:
            own = {k: v for k, v in own.items() if k not in same}
            metadata = {**metadata, SHARED: json.dumps({base.hash.hex(): same})}
    if "arithmetic" in metadata:
        own, told = deflated(own)
        metadata = metadata | told
    # safetensors writes the buffer as it lies, and channels_last tensors lie in another order.
    data = _sorted(save(own, metadata))
    digest = hashlib.sha256(data).hexdigest()
    path = Path(folder) / f"{name}-{digest[:8]}.safetensors"
    Path(folder).mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".json")
    is_known = path.exists() and beside.exists()
    write(str(path), data, True)
    if not is_known:  # the same weights: what is told of them already may be more
        recipe = {"sha256": digest, **recipe}
        write(str(beside), json.dumps(recipe, indent=1).encode(), True)
    return path


def _is_large(tensor: NDArray[Any]) -> bool:
    return tensor.dtype == np.float16 and tensor.size >= _LARGE


def shortened(tensor: NDArray[np.float16]) -> NDArray[np.float16]:
    """float16 values rounded to bfloat16's 7 bits of mantissa, ties to even: a fifth less to store. Kodak's
    PSNR moves by 0.01 dB at most."""
    # Below infinity: 16 bits hold what is added.
    bits = tensor.clip(-_HIGHEST, _HIGHEST).view(np.uint16)
    half = np.uint16((1 << (_DROPPED - 1)) - 1)
    nearest = (bits + half + ((bits >> _DROPPED) & 1)) >> _DROPPED << _DROPPED
    return nearest.astype(np.uint16).view(np.float16)


def _sorted(data: bytes) -> bytes:
    """A safetensors file with its metadata in order, which the library leaves to chance.

    The same tensors then give the same file, and so the same hash.
    """
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _stage(state: dict[str, Any]) -> dict[str, Any]:
    """One run as a recipe tells it: without the folders of the machine it ran on."""
    config = copy.deepcopy(state["config"])
    config["data"]["path"] = Path(config["data"]["path"]).name
    config["train"]["init"] = Path(config["train"].get("init", "")).name
    config["train"].pop("out", None)
    return {
        "config": config,
        "steps": state["step"],
        "seconds": round(state["seconds"]),
        "history": state["history"],
        "provenance": state["provenance"],
    }


def log2_integers(log2: Tensor) -> NDArray[Any]:
    return (log2.double() * LOG2_UNIT).round().clamp(-(2**15), 2**15 - 1).numpy().astype(np.int16)
