"""Write the golden files of the everyday codec: `python tests/golden/make_everyday.py`, once a format."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from skimage import data

import licodec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import small_everyday  # noqa: E402

from licodec import payload  # noqa: E402
from licodec.container import pack  # noqa: E402
from licodec.entropy.corrections import CorrectionPlan  # noqa: E402
from licodec.entropy.quadtree import Quadtree, count_classes  # noqa: E402
from licodec.entropy.residual import ResidualPlan  # noqa: E402
from licodec.io.image import from_pillow  # noqa: E402
from licodec.open_codec import open_codec  # noqa: E402
from licodec.options import EncodeOptions  # noqa: E402
from licodec.payload import code  # noqa: E402
from licodec.rate_control import quality_step  # noqa: E402
from licodec.training.convert.export import write_weights  # noqa: E402
from licodec.training.fit.class_directions import fit_directions  # noqa: E402
from licodec.training.graphics import drawn  # noqa: E402
from licodec.weights.file import ARITHMETIC, STEPS  # noqa: E402

FOLDER = HERE / "everyday"


def make_weights() -> Path:
    tensors = dict(small_everyday.tensors())
    model = Quadtree(tensors)
    counts = []
    for seed in range(12):
        y = small_everyday.latents(16, 16, seed, largest=20.0 * (1 + seed))
        side = model.side_information(y, seed % 3 * STEPS)
        counts.append((seed % 3, count_classes(side.symbols)))
    tensors |= fit_directions(tensors["class_prior"], counts)
    tensors["positions"] = np.array([40, 200, 300, 512], np.int32)
    metadata = {
        "name": "small", "arch": "everyday", "arithmetic": ARITHMETIC,
        "lambdas": json.dumps(small_everyday.LAMBDAS),
    }  # fmt: skip
    return write_weights(FOLDER, "small", tensors, metadata, {})


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    weights = make_weights()
    weights.with_suffix(".json").unlink()
    photo = Image.fromarray(data.astronaut()[20:217, 180:371])
    alpha = photo.convert("RGBA").crop((0, 0, 90, 70))
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size).point(lambda v: max(0, v - 60)))
    with_latents = {
        "photo": (photo, 60, None),
        "grey": (photo.convert("L"), 20, None),
        "alpha": (alpha, 75, None),
        "near-lossless": (photo.crop((0, 0, 100, 80)), 50, 2),
    }
    # Of nets as small as these, the encoder itself would send residual tiles alone.
    codec, _ = open_codec(EncodeOptions(weights=weights))
    for name, (image, quality, max_error) in with_latents.items():
        picture, step = from_pillow(image), quality_step(quality)
        coded = code(codec, picture, codec.analyze(picture, step), step, None, max_error)
        write(name, pack(coded.with_chunks(picture.chunks).container), weights)
    make_corrections(photo, weights)
    for seed, name, options in (
        (5, "graphics", {"quality": 95}),
        (7, "lossless", {"max_error": 0}),
    ):
        image = Image.fromarray(drawn(np.random.default_rng(seed), 100))
        write(name, licodec.encode(image, weights=weights, **options), weights)


def make_corrections(photo: Image.Image, weights: Path) -> None:
    """Both kinds of tiles in one file."""
    codec, _ = open_codec(EncodeOptions(weights=weights))
    picture, step = from_pillow(photo), quality_step(70)
    chosen = np.indices((4, 3)).sum(0) % 3 == 0
    corrections = CorrectionPlan(15, ~chosen, np.full((4, 3), 24))
    plan = ResidualPlan(9, chosen, corrections)
    with patch.object(payload, "plan_tiles", return_value=plan):
        coded = code(codec, picture, codec.analyze(picture, step), step)
    write("corrections", pack(coded.container), weights)


def write(name: str, encoded: bytes, weights: Path) -> None:
    (FOLDER / f"{name}.lic").write_bytes(encoded)
    licodec.decode(encoded, weights=weights).save(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
