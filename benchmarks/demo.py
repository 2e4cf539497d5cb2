"""`make demo`: encode and decode a real photograph, and say what came of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import licodec


def main() -> None:
    folder = Path("demo")
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(data.astronaut())
    image.save(folder / "original.png")
    licodec.decode(licodec.encode(image.crop((0, 0, 64, 64))))  # load weights and warm up

    began = time.perf_counter()
    encoded = licodec.encode(image, quality=50)
    middle = time.perf_counter()
    decoded = licodec.decode(encoded)
    end = time.perf_counter()

    (folder / "astronaut.lic").write_bytes(encoded)
    decoded.save(folder / "decoded.png")
    error = np.asarray(image, float) - np.asarray(decoded, float)
    psnr = 10 * math.log10(255**2 / (error**2).mean())
    pixels = image.width * image.height
    print(f"photograph  {image.width}x{image.height}, {pixels * 3:,} bytes of pixels")
    print(
        f"encoded     {len(encoded):,} bytes, {8 * len(encoded) / pixels:.3f} bpp, {middle - began:.2f} s"
    )
    print(f"decoded     PSNR {psnr:.2f} dB, {end - middle:.2f} s")
    print(f"results in  {folder / 'astronaut.lic'}, {folder / 'decoded.png'}")


if __name__ == "__main__":
    main()
