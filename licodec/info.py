"""What a file says of itself, without torch and without decoding."""

from __future__ import annotations

from typing import Any

from licodec.architectures import ADAPTIVE, EVERYDAY
from licodec.container import ALPHA, EXIF, ICC, MAX_PIXELS, QUALITY_STEPS, XMP, Container, unpack
from licodec.errors import ModelMissingError, UsageError
from licodec.weights import catalogue

ALWAYS_ADAPTIVE = (ADAPTIVE.name, EVERYDAY.name)
"""Models whose every file tells the image's own distributions."""
_NAMES = {ALPHA: "alpha", ICC: "icc", EXIF: "exif", XMP: "xmp"}


def model_name(container: Container) -> str:
    """The model that coded a file; `unknown` where only weights that are not installed could tell."""
    path = catalogue.by_hash(container.model_hash)
    try:
        name = None if path is None else catalogue.coded_by(path, container.adaptive)[0]
    except ModelMissingError:
        name = None
    return name or "unknown"


def checked_bytes(data: object) -> bytes:
    """A caller's argument that should be the bytes of a file.

    Raises:
        UsageError: it is a path, most likely.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise UsageError(
        f"the bytes of a .lic file are wanted, not {type(data).__name__}; Path(path).read_bytes() reads them"
    )


def describe(data: bytes, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Bytes, size, model, quality, and the bytes of each stream.

    Raises:
        DamagedFileError: the file is not whole.
        UsageError: these are no bytes.
    """
    data = checked_bytes(data)
    container = unpack(data, max_pixels)
    model = model_name(container)
    is_adaptive = container.adaptive or model in ALWAYS_ADAPTIVE
    streams = {
        "side": container.side_bytes,
        "latents": len(container.payload) - container.side_bytes,
    }
    streams |= {_NAMES[k]: size for k, size in container.packed_chunk_bytes.items()}
    return {
        "bytes": len(data),
        "width": container.width,
        "height": container.height,
        "mode": container.mode,
        "model": model,
        "model_hash": container.model_hash.hex(),
        "distributions": "adaptive" if is_adaptive else "static",
        "quality": container.quality_step * 100 / QUALITY_STEPS,
        "streams": {**streams, "header": len(data) - sum(streams.values())},
        "latents_crc32": container.latents_crc32,
        "bpp": round(8 * len(data) / (container.width * container.height), 4),
    }
