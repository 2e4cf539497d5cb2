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
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

import licodec
from licodec.container import ALPHA, Container, pack, unpack
from licodec.io.image import from_pillow
from licodec.open_codec import open_codec
from licodec.options import EncodeOptions
from licodec.payload import code

HERE = Path(__file__).resolve().parent
PRECISE: dict[str, Any] = {"device": "cpu", "precision": "float32"}

Feature = tuple[str, bytes]
"""What the file shows, and the file."""


def features() -> dict[str, Feature]:
    """Name to feature: one file each."""
    rgb = Image.fromarray(data.astronaut()[20:84, 180:276])
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(np.tile(np.arange(96, dtype=np.uint8) * 2, (64, 1))))
    half = rgb.copy()
    half.putalpha(Image.fromarray(np.tile(np.repeat(np.uint8([0, 255]), 48), (64, 1))))
    random = np.random.default_rng(0)
    speckled = rgb.copy()
    speckled.putalpha(Image.fromarray(random.integers(0, 256, (64, 96), dtype=np.uint8)))
    opaque = rgb.copy()
    opaque.putalpha(255)
    noise = Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    orientation = Image.Exif()
    orientation[0x0112] = 6
    everything = Image.Exif()
    everything[0x010E] = "a description"
    icc, xmp = b"profile" * 50, b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"

    def coded(image: Image.Image, model: str = "adaptive", **options: Any) -> bytes:
        return licodec.encode(image, model=model, **options, **PRECISE)

    plain = coded(rgb)
    return {
        "rgb": ("RGB, model adaptive, quality 50", plain),
        "factorized": ("model factorized", coded(rgb, model="factorized")),
        "lowest-quality": ("quality 0", coded(rgb, quality=0)),
        "highest-quality": ("quality 100", coded(rgb, quality=100)),
        "between-anchors": ("quality 37.5", coded(rgb, quality=37.5)),
        "target-size": ("the best quality of at most 500 bytes", coded(rgb, target_size=500)),
        "grey": ("mode L", coded(rgb.convert("L"))),
        "grey-alpha": ("mode LA", coded(rgba.convert("LA"))),
        "alpha": ("mode RGBA, alpha a ramp", coded(rgba)),
        "alpha-opaque": ("alpha that is one value", coded(opaque)),
        "alpha-noise": ("alpha that does not compress", coded(speckled)),
        "alpha-hidden": ("colours under alpha 0 replaced", coded(half)),
        "icc": ("chunk i, deflated", coded(saved(rgb, icc_profile=icc))),
        "exif-orientation": ("chunk e: pixels not turned", coded(saved(rgb, exif=orientation))),
        "xmp": ("chunk x, stored", coded(saved(rgb, xmp=xmp))),
        "metadata": (
            "chunks i, e and x", coded(saved(rgb, exif=everything, icc_profile=icc, xmp=xmp))
        ),
        "unknown-ancillary-chunk": ("chunk q is skipped", with_chunks(plain, b"q\x08skip")),
        "used-channels": (
            "272x256: tells which channels are used", coded(rgb.resize((272, 256)), quality=20)
        ),
        "escapes": ("latents of up to a million", escapes(rgb)),
        "noise": ("noise at quality 100", coded(noise, quality=100)),
        "one-pixel": ("1x1", coded(rgb.crop((0, 0, 1, 1)))),
        "one-row": ("61x1", coded(rgb.crop((0, 0, 61, 1)))),
        "one-column": ("1x61", coded(rgb.crop((0, 0, 1, 61)))),
        "prime-sides": ("47x31", coded(rgb.crop((0, 0, 47, 31)))),
    }  # fmt: skip


def saved(image: Image.Image, **metadata: Any) -> Image.Image:
    """The image with metadata, out of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **metadata)
    return Image.open(buffer)


def escapes(image: Image.Image) -> bytes:
    """Latents that no image has, around every border of the coded range."""
    codec = open_codec(EncodeOptions(model="adaptive", **PRECISE))[0]
    y = np.zeros((codec.transforms.M, 4, 6), dtype=np.int32)
    borders = [0, 127, 128, 129, -128, -129, -130, 1000, -1000, 10**6, -(10**6), 1]
    y[7] = np.resize(np.int32(borders), (4, 6))
    return pack(code(codec, from_pillow(image), y, 100).container)


def resealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def with_chunks(plain: bytes, chunks: bytes, end: bytes = b"\0") -> bytes:
    """A file without chunks, with these bytes for chunks."""
    at = len(plain) - 4 - len(unpack(plain).payload)
    flagged = plain[:5] + bytes([plain[5] | 64]) + plain[6:at]
    return resealed(flagged + chunks + end + plain[at:-4])


Fault = tuple[str, str, bytes]
"""The error's class, what is wrong, and the file."""


def faults(good: bytes, rgba: bytes) -> dict[str, Fault]:
    """Name to fault: one file each, from a good RGB and a good RGBA file."""
    c: Container = unpack(good)
    damaged, newer = "DamagedFileError", "NewerFileError"
    body = good[:-4]
    bomb = zlib.compress(bytes(2**26 + 1), 9)
    transparent = unpack(rgba)

    def changed(**fields: Any) -> bytes:
        return pack(dataclasses.replace(c, **fields))

    def alpha(content: bytes) -> bytes:
        return pack(dataclasses.replace(transparent, chunks={ALPHA: content}))

    endless = resealed(with_chunks(good, b"", b"")[: -4 - len(c.payload)] + b"i\x02a")
    return {
        "empty": (damaged, "no byte", b""),
        "text": (damaged, "another signature", b"not an image\n"),
        "text-mode-transfer": (damaged, "newlines became CR LF", good.replace(b"\n", b"\r\n")),
        "cut-in-signature": (damaged, "three bytes", good[:3]),
        "cut-in-header": (damaged, "twelve bytes", good[:12]),
        "cut-in-payload": (damaged, "30 bytes are missing", good[:-30]),
        "flipped-bit": (
            damaged,
            "a bit of the payload",
            good[:40] + bytes([good[40] ^ 4]) + good[41:],
        ),
        "trailing-bytes": (damaged, "four bytes more", good + b"\0\0\0\0"),
        "later-version": (
            newer,
            "version 2",
            resealed(good[:5] + bytes([good[5] & ~7 | 2]) + body[6:]),
        ),
        "version-0": (newer, "version 0", resealed(good[:5] + bytes([good[5] & ~7]) + body[6:])),
        "reserved-flag": (
            damaged,
            "bit 7 of the flags",
            resealed(good[:5] + bytes([good[5] | 128]) + body[6:]),
        ),
        "varint-too-long": (
            damaged,
            "six bytes of width",
            resealed(good[:6] + b"\xff" * 5 + body[6:]),
        ),
        "pixel-bomb": (
            "TooLargeError",
            "2^56 pixels",
            resealed(good[:6] + b"\xff\xff\xff\x7f" * 2 + body[8:]),
        ),
        "too-few-bytes": (
            damaged,
            "2^28 pixels in 100 bytes",
            changed(width=2**14, height=2**14, payload=c.payload[:100]),
        ),
        "quality-201": (damaged, "quality out of range", changed(quality_step=201)),
        "side-beyond-payload": (damaged, "side_bytes", changed(side_bytes=10**6)),
        "missing-weights": (
            "ModelMissingError",
            "a hash of no weights",
            changed(model_hash=b"\0\0\0\0"),
        ),
        "other-latents": (
            damaged,
            "latents_crc32 of others",
            changed(latents_crc32=c.latents_crc32 ^ 1),
        ),
        "other-payload": (damaged, "zeros for payload", changed(payload=bytes(len(c.payload)))),
        "other-model": (damaged, "adaptive read as factorized", changed(adaptive=False)),
        "other-quality": (
            damaged,
            "tables of another rate",
            changed(quality_step=c.quality_step + 40),
        ),
        "unknown-critical-chunk": (newer, "chunk Z", with_chunks(good, b"Z\x02a")),
        "illegal-chunk-type": (damaged, "chunk 5", with_chunks(good, b"5\x02a")),
        "chunk-twice": (damaged, "two chunks i", with_chunks(good, b"i\x02ai\x02a")),
        "unknown-chunk-twice": (damaged, "two chunks q", with_chunks(good, b"q\x02aq\x02a")),
        "chunk-beyond-end": (damaged, "a length of 2^20", with_chunks(good, b"i\xff\xff\x7f")),
        "chunks-without-end": (damaged, "the list goes on to the checksum", endless),
        "chunk-does-not-inflate": (damaged, "deflated, but is not", with_chunks(good, b"i\x07abc")),
        "chunk-inflates-too-far": (
            damaged,
            "2^26 + 1 bytes",
            with_chunks(good, b"i" + varint(len(bomb) << 1 | 1) + bomb),
        ),
        "alpha-missing": (damaged, "mode RGBA without chunk A", changed(mode="RGBA")),
        "alpha-uncalled-for": (
            damaged,
            "mode RGB with chunk A",
            changed(chunks={ALPHA: b"\3\xff"}),
        ),
        "alpha-empty": (damaged, "chunk A without a byte", alpha(b"")),
        "alpha-unknown-filter": (damaged, "filter 4", alpha(b"\4\0")),
        "alpha-too-short": (damaged, "half the pixels", alpha(cut(transparent.chunks[ALPHA]))),
        "alpha-not-lzma": (damaged, "filter 0, then noise", alpha(b"\0" + b"\x8f\x11" * 20)),
        "alpha-deflated": (
            damaged,
            "chunk A with deflated set",
            with_chunks(changed(mode="RGB"), b"A" + varint(len(bomb[:20]) << 1 | 1) + bomb[:20]),
        ),
    }


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def main() -> None:
    ok, bad = HERE / "ok", HERE / "must-fail"
    for folder in (ok, bad):
        folder.mkdir(exist_ok=True)
    good = features()
    expected = {}
    for name, (_, encoded) in good.items():
        stem = f"{name}-{licodec.info(encoded)['model_hash']}"
        (ok / f"{stem}.lic").write_bytes(encoded)
        licodec.decode(encoded, **PRECISE).save(ok / f"{stem}.png")
        expected[stem] = licodec.info(encoded)["latents_crc32"]
    path = ok / "latents_crc32.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **expected}, indent=1, sort_keys=True) + "\n")

    broken = faults(good["rgb"][1], good["alpha"][1])
    for name, (_, _, content) in broken.items():
        (bad / f"{name}.lic").write_bytes(content)
    causes = {name: cause for name, (cause, _, _) in broken.items()}
    (bad / "causes.json").write_text(json.dumps(causes, indent=1, sort_keys=True) + "\n")

    rows = [
        "| ok | shows |",
        "|---|---|",
        *(f"| `{n}` | {what} |" for n, (what, _) in good.items()),
    ]
    rows += ["", "| must-fail | fault | error |", "|---|---|---|"]
    rows += [f"| `{name}` | {what} | {cause} |" for name, (cause, what, _) in broken.items()]
    readme = HERE / "README.md"
    head = readme.read_text("utf-8").split("| ok |")[0]
    readme.write_text(head + "\n".join(rows) + "\n", "utf-8")
    print(f"{len(expected)} files in {ok}, {len(broken)} in {bad}", file=sys.stderr)


if __name__ == "__main__":
    main()
