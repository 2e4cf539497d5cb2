"""Write the golden files: `python tests/golden/make.py`, once for each release of weights or format.

Files of earlier releases stay: every later version must decode them to the same latents.
"""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import licodec
from licodec.container import Container, pack, unpack

HERE = Path(__file__).resolve().parent


def photographs() -> dict[str, tuple[Image.Image, dict[str, object]]]:
    """Name to (image, encode arguments): one file a feature."""
    rgb = Image.fromarray(data.astronaut()[20:84, 180:276])
    alpha = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8) * 2, (64, 1)))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=95, exif=exif, icc_profile=b"icc" * 50, xmp=b"<x:xmpmeta/>")
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return {
        "rgb": (rgb, {}),
        "factorized": (rgb, {"model": "factorized"}),
        "lowest-quality": (rgb, {"quality": 0}),
        "highest-quality": (rgb, {"quality": 100}),
        "between-anchors": (rgb, {"quality": 37.5}),
        "grey": (rgb.convert("L"), {}),
        "grey-alpha": (rgba.convert("LA"), {}),
        "alpha": (rgba, {}),
        "metadata": (Image.open(buffer), {}),
        "one-pixel": (rgb.crop((0, 0, 1, 1)), {}),
        "one-row": (rgb.crop((0, 0, 61, 1)), {}),
        "prime-sides": (rgb.crop((0, 0, 47, 31)), {}),
        "noise": (Image.fromarray(noise), {"quality": 100}),
    }


def resealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def damaged(good: bytes) -> dict[str, bytes]:
    """Name to bytes that must not decode: one file a fault."""
    c: Container = unpack(good)
    at = len(good) - len(c.payload) - 4
    flagged = bytearray(good[:-4])
    flagged[5] |= 64
    return {
        "empty": b"",
        "text": b"not an image\n",
        "cut-in-header": good[:12],
        "cut-in-payload": good[:-30],
        "flipped-bit": good[:40] + bytes([good[40] ^ 4]) + good[41:],
        "trailing-bytes": good + b"\0\0\0\0",
        "later-version": resealed(good[:5] + bytes([good[5] & ~7 | 2]) + good[6:-4]),
        "reserved-flag": resealed(good[:5] + bytes([good[5] | 128]) + good[6:-4]),
        "pixel-bomb": resealed(good[:6] + b"\xff\xff\xff\x7f" * 2 + good[8:-4]),
        "unknown-critical-chunk": resealed(bytes(flagged[:at]) + b"Z\x02a\0" + good[at:-4]),
        "chunk-beyond-end": resealed(bytes(flagged[:at]) + b"i\xff\xff\x7f" + good[at:-4]),
        "side-beyond-payload": pack(dataclasses.replace(c, side_bytes=10**6)),
        "missing-weights": pack(dataclasses.replace(c, model_hash=b"\0\0\0\0")),
        "other-latents": pack(dataclasses.replace(c, latents_crc32=c.latents_crc32 ^ 1)),
        "other-payload": pack(dataclasses.replace(c, payload=bytes(len(c.payload)))),
        "alpha-missing": pack(dataclasses.replace(c, mode="RGBA")),
    }


def main() -> None:
    ok, bad = HERE / "ok", HERE / "must-fail"
    for folder in (ok, bad):
        folder.mkdir(exist_ok=True)
    expected = {}
    files = {}
    for name, (image, options) in photographs().items():
        encoded = licodec.encode(image, device="cpu", precision="float32", **options)  # type: ignore[arg-type]
        decoded = licodec.decode(encoded, device="cpu", precision="float32")
        stem = f"{name}-{licodec.info(encoded)['model_hash']}"
        files[name] = encoded
        (ok / f"{stem}.lic").write_bytes(encoded)
        decoded.save(ok / f"{stem}.png")
        expected[stem] = licodec.info(encoded)["latents_crc32"]
    for name, content in damaged(files["rgb"]).items():
        (bad / f"{name}.lic").write_bytes(content)
    path = ok / "latents_crc32.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **expected}, indent=1, sort_keys=True) + "\n")
    print(f"{len(expected)} files in {ok}", file=sys.stderr)


if __name__ == "__main__":
    main()
