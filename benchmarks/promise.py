"""What README promises of `everyday`, tried on pictures of all kinds: no image is ruined.

    python benchmarks/promise.py [FOLDER ...] [-j JOBS] [-o benchmarks/promise.json]

At `-q` 50, 90 and 100: PSNR beside that of the best JPEG 4:4:4 of at most the same size; from `-q` 90 on the
worst tile of 64x64, which is to have 36 dB; and how much larger residual tiles make the file. Pictures are
those of FOLDER, those that come with scikit-image, drawings, pure colours and noise. Exits with 1 where
a tile is worse.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data

from licodec import payload
from licodec.bench import datasets
from licodec.bench.metrics import psnr_rgb
from licodec.bench.provenance import provenance
from licodec.codec import decode_picture, encode_at
from licodec.container import pack, unpack
from licodec.io.files import image_of
from licodec.io.image import from_pillow
from licodec.open_codec import open_codec
from licodec.options import EncodeOptions
from licodec.rate_control import quality_step
from licodec.tile_plan import LEAST_FROM, LEAST_PSNR
from licodec.training.graphics import drawn

QUALITIES = (50, 90, 100)
PICTURES = (
    "astronaut", "brick", "camera", "cat", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket",
    "text",
)  # fmt: skip
"""Of scikit-image, as far as they are installed."""
PURE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))


def pictures(folders: list[Path]) -> Iterator[tuple[str, str, Image.Image]]:
    """Kind, name and picture."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in (".png", ".jpg", ".webp"):
                yield folder.name, path.stem, datasets.load(path)
    for name in PICTURES:
        try:
            pixels = getattr(data, name)()
        except (AttributeError, OSError, ModuleNotFoundError):
            continue
        yield "scikit-image", name, Image.fromarray(pixels).convert("RGB")
    for seed in range(20):
        yield "drawn", str(seed), Image.fromarray(drawn(np.random.default_rng(seed), 320))
    yield "drawn", "desktop", desktop()
    for size in (1, 2, 3, 6, 16, 40, 64):
        yield "pure", str(size), pure_colours(size)
    for deviation in (8, 64):
        noise = np.random.default_rng(deviation).normal(128, deviation, (160, 160, 3))
        yield "noise", str(deviation), Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def pure_colours(size: int) -> Image.Image:
    """Pixels or squares of colours as far apart as there are."""
    rng = np.random.default_rng(size)
    cells = np.array(PURE, np.uint8)[rng.integers(len(PURE), size=(-(-size // 2), -(-size // 2)))]
    return Image.fromarray(np.repeat(np.repeat(cells, 2, 0), 2, 1)[:size, :size])


def desktop() -> Image.Image:
    """Wallpaper, icons, two windows with text, a taskbar: 1280x800."""
    y, x = np.mgrid[:800, :1280]
    sky = np.stack([20 + x // 16, 60 + y // 8, 160 + (x + y) // 24], 2).clip(0, 255)
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for i in range(9):
        left, top = 24 + 90 * (i // 6), 20 + 100 * (i % 6)
        draw.rounded_rectangle((left, top, left + 48, top + 48), 8, PURE[i % 6], "white")
        draw.text((left, top + 54), f"Folder {i}", "white")
    for left, top, title in ((240, 90, "Notes"), (560, 260, "Report.txt")):
        draw.rectangle((left, top, left + 560, top + 400), "white", (0, 120, 215))
        draw.rectangle((left, top, left + 560, top + 30), (0, 120, 215))
        draw.text((left + 10, top + 9), title, "white")
        draw.rectangle((left + 520, top, left + 560, top + 30), (232, 17, 35))
        draw.line((left + 534, top + 10, left + 546, top + 20), "white")
        draw.line((left + 534, top + 20, left + 546, top + 10), "white")
        for row in range(22):
            text = (
                f"{row:2}  The quick brown fox jumps over the lazy dog, {row * row} times; {title}."
            )
            draw.text((left + 12, top + 44 + 16 * row), text, "black")
    draw.rectangle((0, 760, 1280, 800), (16, 16, 16))
    for i in range(8):
        draw.rectangle((12 + 48 * i, 768, 36 + 48 * i, 792), PURE[(i + 2) % 6])
    draw.text((1180, 772), "12:34  01.02.2026", "white")
    return image


def worst_tile(x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
    return min(
        psnr_rgb(x[top : top + 64, left : left + 64], x_hat[top : top + 64, left : left + 64])
        for top in range(0, x.shape[0], 64)
        for left in range(0, x.shape[1], 64)
    )


def jpeg(image: Image.Image, most: int) -> float | None:
    """PSNR of the best JPEG 4:4:4 of at most so many bytes; None where there is none."""

    def coded(quality: int) -> bytes:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, subsampling=0, optimize=True)
        return out.getvalue()

    low, high = 0, 100
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(coded(middle)) <= most else (low, middle - 1)
    if low == 0:
        return None
    return psnr_rgb(np.asarray(image), np.asarray(image_of(coded(low))))


def measured(kind: str, name: str, image: Image.Image, quality: int) -> dict[str, object]:
    codec, rounds = open_codec(EncodeOptions(model="everyday"))
    picture, step = from_pillow(image), quality_step(quality)
    encoded = pack(encode_at(codec, picture, step, rounds).container)
    with patch.object(payload, "plan_tiles", return_value=None):
        y, side = codec.search(picture, partial(codec.analyze, picture, step), step, rounds)
        bare = pack(payload.code(codec, picture, y, step, side).container)
    x, x_hat = picture.color, decode_picture(codec, unpack(encoded)).color
    beside = jpeg(image, len(encoded))
    return {
        "kind": kind,
        "picture": name,
        "quality": quality,
        "bytes": len(encoded),
        "psnr": round(psnr_rgb(x, x_hat), 2),
        "jpeg": None if beside is None else round(beside, 2),
        "worst_tile": round(worst_tile(x, x_hat), 2),
        "growth_percent": round(100 * (len(encoded) / len(bare) - 1), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("-j", "--jobs", type=int, default=1)
    arguments = parser.parse_args()
    wanted = [(*p, quality) for p in pictures(arguments.folders) for quality in QUALITIES]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(measured, *zip(*wanted, strict=True)))
    below = [r for r in rows if r["jpeg"] is not None and r["psnr"] < r["jpeg"]]
    ruined = [r for r in rows if 2 * r["quality"] >= LEAST_FROM and r["worst_tile"] < LEAST_PSNR]
    print(f"{len(rows)} files; {len(below)} with less PSNR than a JPEG of their size:")
    for r in below:
        print(f"  {r['kind']} {r['picture']} -q {r['quality']}: {r['psnr']} dB, JPEG {r['jpeg']}")
    print(f"{len(ruined)} files from -q {LEAST_FROM // 2} on with a tile below {LEAST_PSNR:g} dB")
    for kind in sorted({r["kind"] for r in rows}):
        grown = [r["growth_percent"] for r in rows if r["kind"] == kind]
        print(f"{kind}: residual tiles change the size by {min(grown):+.2f} to {max(grown):+.2f} %")
    if arguments.output:
        found = {"meta": provenance(), "rows": rows}
        arguments.output.write_text(json.dumps(found, indent=0), "utf-8")
    return 1 if ruined else 0


if __name__ == "__main__":
    sys.exit(main())
