"""Cut-outs of decoded images, every codec at the rate of the first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from licodec.bench import metrics
from licodec.bench.datasets import Picture, load
from licodec.bench.evaluate import Plan
from licodec.bench.html import Crop
from licodec.bench.interface import Codec, Settings
from licodec.bench.measure import codec_of, workers
from licodec.bench.results import Curve

SIDE = 288
"""Pixels of a crop, each way; from the middle of the image."""


def matched_crops(plan: Plan, curves: Sequence[Curve], images: int = 3) -> dict[str, list[Crop]]:
    """Crops of a few images, spread over the data set, for every codec of the plan."""
    measured = [curve for curve in curves if curve.rows and curve.name in plan.qualities]
    if not measured:
        return {}
    step = max(1, len(plan.images) // images)
    out = {}
    with workers(plan.jobs, plan.settings) as pool:
        waiting = []
        for image in plan.images[::step][:images]:
            rows = [row for row in measured[0].rows if row["sha256"] == image.sha256]
            if rows:
                sizes = sorted(int(row["bytes"]) for row in rows)
                target = sizes[len(sizes) // 3]
                crops = [
                    pool.submit(_decoded_crop, curve.name, plan.settings, image, target)
                    for curve in measured
                ]
                waiting.append((image, crops))
        for image, crops in waiting:
            out[image.name] = [Crop("original", _cut(load(image.path)))]
            # A codec that fails on an image was named when it was measured.
            out[image.name] += [crop.result() for crop in crops if crop.exception() is None]
    return out


def match_rate(codec: Codec, image: Image.Image, target: int) -> tuple[float, bytes]:
    """The quality whose file is nearest to `target` bytes, and that file.

    Sizes are taken to grow with quality; where a codec disagrees, the file found is merely near.
    """

    @cache
    def encode(quality: float) -> bytes:
        return codec.encode(image, quality)

    low, high = codec.qualities[0], codec.qualities[-1]
    step = codec.quality_step
    if step is None:
        candidates = list(codec.qualities)
    else:
        candidates = [low + i * step for i in range(round((high - low) / step) + 1)]
    first, last = 0, len(candidates) - 1
    while last - first > 1:
        middle = (first + last) // 2
        if len(encode(candidates[middle])) < target:
            first = middle
        else:
            last = middle
    nearest = min(
        candidates[first : last + 1], key=lambda quality: abs(len(encode(quality)) - target)
    )
    return nearest, encode(nearest)


def _decoded_crop(name: str, settings: Settings, image: Picture, target: int) -> Crop:
    codec, original = codec_of(name, settings), load(image.path)
    quality, data = match_rate(codec, original, target)
    decoded = codec.decode(data).convert("RGB")
    bpp = metrics.bpp(len(data), image.width, image.height)
    psnr = metrics.psnr_rgb(np.asarray(original), np.asarray(decoded))
    return Crop(f"{name}, quality {quality:g}: {bpp:.3f} bpp, {psnr:.2f} dB", _cut(decoded))


def _cut(image: Image.Image) -> Image.Image:
    left, top = (max(0, (side - SIDE) // 2) for side in image.size)
    return image.crop((left, top, min(left + SIDE, image.width), min(top + SIDE, image.height)))
