"""What `-q` means: the PSNR of photographs, so that one quality is alike in every model.

PSNR at all rates ─► where on the rate axis each quality's is reached ─► `positions` of a weights file
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from licodec.container import QUALITY_STEPS
from licodec.distortion import psnr_db
from licodec.errors import UsageError
from licodec.io.image import from_pillow
from licodec.open_codec import Codec, open_codec
from licodec.options import EncodeOptions
from licodec.progress import track
from licodec.training.checkpoint import recipe_beside
from licodec.training.convert.export import check_name, write_weights
from licodec.training.data import Images, central
from licodec.training.fit.everyday_back_projection import MOST_DB, anchors
from licodec.weights.file import BACK_PROJECTION, STEPS, Weights

WORST, BEST = 28.5, 43.0
"""dB at quality 0 and 100; evenly between. A model that does not reach as far stays at its own end."""
_QUALITIES = 20
_RATES = 10
_LAST, _MEASURED, _SIZE = 32, 12, 512
"""Of a folder's images, those kept for validation; so many of them, their middles."""

Pixels = NDArray[np.uint8]


def photographs(folder: str | Path) -> list[Pixels]:
    """Middles (H, W, 3) of held-out images.

    Raises:
        UsageError: there are none.
    """
    images = Images(folder, 0, 64, torch.device("cpu")).train[-_LAST:]
    count = min(_MEASURED, len(images))
    chosen = (images[i * len(images) // count] for i in range(count))
    return [central(image, _SIZE).permute(1, 2, 0).contiguous().numpy() for image in chosen]


def positions(psnr: NDArray[np.float64], rates: NDArray[np.int64]) -> NDArray[np.int32]:
    """Rate positions of evenly spaced qualities, as `Weights.position` takes them.

    Args:
        psnr: (n,) dB of the photographs.
        rates: (n,) rising rate positions that have it.
    """
    wanted = np.linspace(WORST, BEST, _QUALITIES + 1)
    found = np.rint(np.interp(wanted, np.maximum.accumulate(psnr), rates)).astype(np.int32)
    return np.maximum.accumulate(found)


def with_qualities(
    path: str | Path, folder: str | Path, out: str | Path, share: str | Path | None = None
) -> Path:
    """Write a weights file anew, with the positions that its own qualities have by photographs; of an exact
    architecture also with how much of its back-projection its encoder adds to y.

    Args:
        path: the weights file.
        folder: of photographs.
        out: the folder to write it to.
        share: weights to leave equal tensors to.

    Raises:
        ModelMissingError: either is no weights file.
        UsageError: it has one rate alone, or there are no photographs.
    """
    weights, base = Weights(Path(path)), None if share is None else Weights(Path(share))
    name = weights.metadata.get("name", "")
    check_name(name)
    if Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"{out}: not a folder")
    recipe = recipe_beside(path)
    codec, _ = open_codec(EncodeOptions(weights=path, effort=0))
    if len(weights["log_gain"]) == 1:
        raise UsageError(f"{path}: has one rate alone, so that every quality is the same")
    codec = replace(codec, weights=weights.without("positions"))
    tensors, images = dict(weights.tensors("")), photographs(folder)
    if codec.architecture.is_exact:
        tensors[BACK_PROJECTION], found = anchors(tensors, weights.lambdas, images)
        rates = np.arange(len(found)) * STEPS
    else:
        steps = (np.arange(_RATES + 1) * QUALITY_STEPS // _RATES).tolist()
        found = _measured(codec, images, steps)
        rates = np.array([codec.position(step) for step in steps])
    tensors["positions"] = positions(found, rates)
    recipe.pop("sha256", None)
    recipe["qualities"] = {"photographs": Path(folder).name, "psnr": found.round(2).tolist()}
    return write_weights(out, name, tensors, weights.metadata, recipe, base)


def _measured(codec: Codec, images: list[Pixels], steps: list[int]) -> NDArray[np.float64]:
    """Mean PSNR at each of some quality steps, without a search."""
    total = np.zeros(len(steps))
    for x in track(images, "measuring qualities"):
        picture, (height, width) = from_pillow(Image.fromarray(x)), x.shape[:2]
        for i, step in enumerate(steps):
            y = codec.analyze(picture, step)
            y_hat = codec.entropy_model.quantize(y, None, codec.position(step))
            x_hat = codec.synthesize(y_hat, height, width, picture.mode, step)
            total[i] += min(MOST_DB, psnr_db(picture, x_hat))
    found: NDArray[np.float64] = total / len(images)
    return found
