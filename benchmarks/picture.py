"""`make picture`: README's picture, one photograph by JPEG, AVIF and licodec at the same size."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from skimage import data

from licodec.architectures import TABLE
from licodec.bench.comparison import Facts, at_size
from licodec.bench.interface import Settings
from licodec.bench.licodec_peer import Licodec
from licodec.bench.pillow_peers import Avif, Jpeg

PLACE = Path(__file__).resolve().parent.parent / "docs" / "comparison.jpg"
BOX = (70, 40, 480, 310)
"""The part of the photograph that is shown, pixel by pixel."""
BITS_PER_PIXEL = 0.22
MOST_BYTES = 300_000
CAPTION, GAP = 26, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PLACE)
    output = parser.parse_args().output
    photograph = Image.fromarray(data.coffee())
    target = round(BITS_PER_PIXEL * photograph.width * photograph.height / 8)
    settings = Settings()
    panels = [("original", photograph)]
    for name, codec in (
        ("JPEG", Jpeg(settings)), ("AVIF", Avif(settings)), ("licodec", Licodec(settings, TABLE[0].name)),
    ):  # fmt: skip
        facts, _, decoded = at_size(codec, photograph, target)
        panels.append((caption(name, facts), decoded))
        print(caption(name, facts))
    written = compressed(mosaic(panels))
    output.write_bytes(written)
    print(f"{output}: {len(written):,} bytes")


def caption(name: str, facts: Facts) -> str:
    assert facts.scores is not None
    return f"{name}: {facts.bytes:,} bytes, PSNR {facts.scores['psnr-rgb']:.1f} dB"


def mosaic(panels: list[tuple[str, Image.Image]]) -> Image.Image:
    """Two columns of panels, with a caption under each."""
    width, height = BOX[2] - BOX[0], BOX[3] - BOX[1] + CAPTION
    rows = (len(panels) + 1) // 2
    out = Image.new("RGB", (2 * width + GAP, rows * height), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(16)
    for i, (text, image) in enumerate(panels):
        left, top = i % 2 * (width + GAP), i // 2 * height
        out.paste(image.crop(BOX), (left, top))
        draw.text((left + 4, top + height - CAPTION + 3), text, "black", font)
    return out


def compressed(image: Image.Image) -> bytes:
    """A JPEG without subsampling, as good as MOST_BYTES allow."""
    for quality in range(97, 79, -1):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling="4:4:4", optimize=True)
        if file.tell() <= MOST_BYTES:
            return file.getvalue()
    raise SystemExit(f"the picture does not fit into {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
