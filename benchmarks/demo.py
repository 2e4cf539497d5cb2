"""`make demo`: a real photograph through licodec, and through AVIF and JPEG at the same size."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import licodec
from licodec.bench.interface import Settings
from licodec.bench.matching import match_size
from licodec.bench.metrics import bpp, psnr_rgb
from licodec.bench.pillow_peers import Avif, Jpeg

FOLDER = Path("demo")
SUFFIXES = {"jpeg": "jpg", "avif": "avif"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    image = Image.fromarray(data.astronaut())
    image.save(FOLDER / "original.png")
    licodec.decode(licodec.encode(image.crop((0, 0, 64, 64))))  # load weights and warm up

    began = time.perf_counter()
    encoded = licodec.encode(image, quality=50)
    middle = time.perf_counter()
    decoded = licodec.decode(encoded)
    end = time.perf_counter()

    (FOLDER / "astronaut.lic").write_bytes(encoded)
    decoded.save(FOLDER / "decoded.png")
    print(
        f"photograph  {image.width}x{image.height}, {image.width * image.height * 3:,} bytes of pixels"
    )
    report("licodec", image, encoded, decoded)
    print(f"            encoded in {middle - began:.2f} s, decoded in {end - middle:.2f} s")
    print("At the same size:")
    for codec in (Avif(Settings()), Jpeg(Settings())):
        reason = codec.missing()
        if reason:
            print(f"{codec.name.upper():11} left out: {reason}")
            continue
        _, other = match_size(codec, image, len(encoded))
        (FOLDER / f"astronaut.{SUFFIXES[codec.name]}").write_bytes(other)
        report(codec.name.upper(), image, other, codec.decode(other))
    print(f"All of them are in {FOLDER}/: look at original.png, decoded.png and the others.")


def report(name: str, image: Image.Image, file: bytes, decoded: Image.Image) -> None:
    psnr = psnr_rgb(np.asarray(image), np.asarray(decoded.convert("RGB")))
    rate = bpp(len(file), image.width, image.height)
    print(f"{name:11} {len(file):,} bytes, {rate:.3f} bpp, PSNR {psnr:.2f} dB")


if __name__ == "__main__":
    main()
