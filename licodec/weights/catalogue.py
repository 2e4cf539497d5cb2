"""Which weights there are and which models they offer, without loading a tensor.

A weights file is `NAME-HASH8.safetensors`; its metadata stand in a JSON header at its start. This file
imports neither torch nor numpy, so that `licodec info` and `licodec models` start fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from licodec.architectures import (
    ADAPTIVE,
    BY_ARCH,
    BY_COMPRESSAI,
    BY_NAME,
    EVERYDAY,
    FACTORIZED,
    TABLE,
)
from licodec.errors import ModelMissingError, UsageError, said
from licodec.options import EncodeOptions

Z_DISTRIBUTIONS = "z_distributions."
"""How the names start of what codes ẑ by the image's own distributions."""

SHARED = "shared"
"""The key of the metadata that tells which tensors are those of other files: a list of names by HASH8."""

RELEASED = ("68cca2a7", "dffe2b84", "bf65d149", "58abfd50", "e10303f4", "000da7ed")
"""Hashes of the weights that come with licodec; all others are the user's own."""

_MAX_HEADER = 2**24


def folders() -> list[Path]:
    """Where weights are looked for: LICODEC_WEIGHTS, the installed package, the checkout; those that can be
    looked into."""
    package = Path(__file__).resolve().parents[1]
    named = os.environ.get("LICODEC_WEIGHTS")
    places = [Path(named)] if named else []
    places += [package / "_weights", package.parent / "weights"]
    return [place for place in places if os.path.isdir(place)]


def looked() -> str:
    """Where weights were looked for, for a person."""
    named = os.environ.get("LICODEC_WEIGHTS")
    if named and not os.path.isdir(named):
        return "looked in the package; $LICODEC_WEIGHTS names no folder"
    return "looked in $LICODEC_WEIGHTS and the package" if named else "looked in the package"


def is_released(path: Path) -> bool:
    """Whether a weights file has the name of one that comes with licodec."""
    return path.stem.endswith(RELEASED)


def installed() -> list[Path]:
    """Every weights file there is, folder by folder; in each, released ones first, and by name. Of several
    with one name it is the first whose bytes have the hash in it."""
    found: dict[str, Path] = {}
    for folder in folders():
        with contextlib.suppress(OSError):
            inside = sorted(
                folder.glob("*.safetensors"), key=lambda p: (not is_released(p), p.name)
            )
            for path in filter(
                os.path.isfile, inside
            ):  # a named pipe would keep its reader waiting
                other = found.setdefault(path.name, path)
                if other is not path and not _is_intact(other) and _is_intact(path):
                    found[path.name] = path
    return list(found.values())


def _is_intact(path: Path) -> bool:
    try:
        status = path.stat()
        return _hash8(path, status.st_mtime_ns, status.st_size) == path.stem[-8:]
    except OSError:
        return False


@lru_cache(maxsize=64)
def _hash8(path: Path, time: int, size: int) -> str:
    """HASH8 of a file's bytes, which change with its time and its size."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def header(path: Path) -> dict[str, Any]:
    """The JSON header of a weights file: tensors' names, and `__metadata__`; its hash is not checked.

    Raises:
        ModelMissingError: it is no readable weights file.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("not a regular file")
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            found: dict[str, Any] = json.loads(file.read(length))
            if not isinstance(found, dict) or not isinstance(found.get("__metadata__"), dict):
                raise ValueError("its header says nothing of models")
            ends = [v["data_offsets"][1] for k, v in found.items() if k != "__metadata__"]
            if path.stat().st_size != 8 + length + max(ends, default=0):
                raise ValueError("it is cut short, or too long")
            return found
    except (OSError, struct.error, ValueError, RecursionError, LookupError, TypeError) as error:
        raise ModelMissingError(f"{path}: no readable weights file{said(error)}") from error


def _holds(found: dict[str, Any], name: str) -> bool:
    """Whether a file with this header has a tensor, its own or another file's."""
    try:
        shared = json.loads(found["__metadata__"].get(SHARED, "{}"))
        return name in found or any(name in names for names in shared.values())
    except (ValueError, TypeError, AttributeError, RecursionError):  # told when it is loaded
        return name in found


def models(path: Path) -> tuple[str, ...]:
    """The models that a weights file offers, its default first.

    Raises:
        ModelMissingError: it is no readable weights file, or of a later licodec.
    """
    found = header(path)
    arch = found["__metadata__"].get("arch")
    if arch is None:
        both = ADAPTIVE.name, FACTORIZED.name
        return both if _holds(found, "z_prior") else both[1:]
    if not isinstance(arch, str) or arch not in BY_ARCH:
        raise ModelMissingError(f"{path}: architecture {arch!r} is not known to this licodec")
    return (BY_ARCH[arch].name,)


class Choice(NamedTuple):
    """What options come to with the weights that there are.

    Attributes:
        name: of the model.
        path: of its weights.
        adaptive_z: whether ẑ is coded by the image's own distributions.
        rounds: of the search for better latents.
    """

    name: str
    path: Path
    adaptive_z: bool
    rounds: int


def choose(options: EncodeOptions) -> Choice:
    """The model and the weights that options name, and what of them is to be used.

    Raises:
        UsageError: the options ask for what the model or its weights have not.
        ModelMissingError: as `resolve`.
    """
    model = options.model
    if options.max_error is not None and model is None and options.weights is None:
        model = EVERYDAY.name
    name, path = resolve(model, options.weights_path)
    if options.max_error is not None and not BY_NAME[name].is_exact:
        raise UsageError(
            f"--lossless and --max-error need a model that is exact to the pixel, not {name}"
        )
    adaptive_z = options.z_distributions == "adaptive"
    if adaptive_z and not BY_NAME[name].has_hyperprior:
        raise UsageError(f"--z-distributions adaptive needs a model with a hyperprior, not {name}")
    if adaptive_z and not _holds(header(path), f"{Z_DISTRIBUTIONS}prior"):
        raise UsageError(f"{path.name} offers no --z-distributions but static")
    return Choice(name, path, adaptive_z, _rounds(options.effort, name, path))


def _rounds(effort: int | None, name: str, path: Path) -> int:
    """The rounds of search: what was asked for, else what is usual where the model can, else 0.

    Only with a hyperprior and without a context is it known beforehand what latents cost, and only some
    weights tell their lambdas.
    """
    has_search = bool(BY_NAME[name].search)
    lambdas = str(header(path)["__metadata__"].get("lambdas", "")) if has_search else ""
    can = lambdas.strip("[ ]") != ""
    if effort is None:
        return BY_NAME[name].usual_effort if can else 0
    if effort and not can:
        why = f"{path.name} was made without what it needs" if has_search else f"{name} has none"
        raise UsageError(f"--effort {effort} asks for a search, and {why}; --effort 0 goes without")
    return effort


def coded_by(path: Path, adaptive: bool) -> tuple[str | None, bool]:
    """The model that coded a file with these weights, and whether ẑ has the image's own distributions.

    Args:
        adaptive: as the file's header says. No name comes back where the weights do not go with it.

    Raises:
        ModelMissingError: as `models`.
    """
    offered = models(path)
    if not adaptive:
        return offered[-1], False
    if BY_NAME[offered[0]].sends_distributions:
        return offered[0], False
    has = _holds(header(path), f"{Z_DISTRIBUTIONS}prior")
    return (offered[0], True) if has else (None, False)


def by_hash(model_hash: bytes) -> Path | None:
    """The installed weights whose name carries this hash."""
    for path in installed():
        if path.stem.endswith("-" + model_hash.hex()):
            return path
    return None


def offered_models() -> Iterator[str]:
    """What the installed weights offer, those that can be read."""
    for path in installed():
        with contextlib.suppress(ModelMissingError):
            yield from models(path)


def resolve(model: str | None, file: Path | None = None) -> tuple[str, Path]:
    """A model argument as (model's name, weights file).

    Args:
        model: a name of the table, alone or with `@HASH8`; or the path of a weights file, whose default is
            meant; or None for the default.
        file: weights to use instead of the installed ones.

    Raises:
        UsageError: no such model, or not in that file.
        ModelMissingError: no installed weights offer it; those that cannot be read are passed over,
            unless `@HASH8` names them.
    """
    if model is not None and model.endswith(".safetensors"):
        if file is not None:
            raise UsageError("the model is a weights file already; --weights names another")
        path = Path(model)
        return models(path)[0], path
    if file is not None:
        offered = models(file)
        name, _, wanted = (model or offered[0]).partition("@")
        if name not in offered:
            raise UsageError(f"{file.name} offers {' and '.join(offered)}, not {name}")
        if not file.stem.endswith(wanted):
            raise UsageError(f"{file.name} is not {name}@{wanted}")
        return name, file
    name, _, wanted = (model or TABLE[0].name).partition("@")
    if name not in BY_NAME:
        there = ", ".join(dict.fromkeys(offered_models())) or "none"
        raise UsageError(f"no model named {name!r}; {there} are installed")
    for path in installed():
        try:
            if path.stem.endswith(wanted) and name in models(path):
                return name, path
        except ModelMissingError:
            if wanted:
                raise
    which = f"{name}@{wanted}" if wanted else name
    made = "`licodec import` makes them from a CompressAI checkpoint, "
    raise ModelMissingError(
        f"no weights for {which} are installed ({looked()}); "
        f"{made * (BY_NAME[name] in BY_COMPRESSAI.values())}--weights names a file"
    )
