"""A decoded image as the bytes of an image file."""

from __future__ import annotations

from io import BytesIO
from numbers import Integral
from typing import Any

from PIL import Image

from licodec.errors import UnsupportedImageError, UsageError, said
from licodec.io import libtiff, metadata

_FORMATS = {"": "PNG", "png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "ppm": "PPM",
            "pgm": "PPM", "tif": "TIFF", "tiff": "TIFF"}  # fmt: skip
_SETTINGS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True, "quality": 50, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "PPM": {},
}
_LONGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}


def output_format(name: str) -> str:
    """Pillow's name of the format that a format's name or a file name's suffix means; PNG for none.

    Raises:
        UsageError: no such format.
    """
    if not isinstance(name, str):
        raise UsageError(f"an output format is named by a string, not {name!r}")
    format = _FORMATS.get(name.lower().lstrip("."))
    if format is None:
        raise UsageError(f"no output format for {name!r}; there are png, jpeg, webp, ppm and tiff")
    return format


def contradicts(suffix: str, name: str) -> bool:
    """Whether a file name's suffix is that of another format than the one named."""
    format = _FORMATS.get(suffix.lower().lstrip("."))
    return bool(suffix) and format is not None and format != output_format(name)


def check_quality(name: str, quality: int | None) -> None:
    """Refuse a quality that makes no sense, or for a format that has none.

    Raises:
        UsageError: it is not within 1 … 100, or the format is neither JPEG nor WebP, or none.
    """
    if quality is None:
        return
    if (format := output_format(name)) not in ("JPEG", "WEBP"):
        raise UsageError(f"--format-quality is for JPEG and WebP; the output is {format}")
    if not isinstance(quality, Integral) or not 1 <= quality <= 100:
        raise UsageError(f"a format's quality is a whole number of 1 … 100, not {quality!r}")


def to_file(image: Image.Image, name: str, quality: int | None = None) -> tuple[bytes, list[str]]:
    """The bytes of an image file, and notes of what the format has no place for.

    Args:
        image: as `image.to_pillow` returns it.
        name: a format's name, or a file name's suffix.
        quality: of JPEG and WebP, 1 … 100; by default 95, and lossless.

    Raises:
        UsageError: no such format, or one that cannot hold the image's alpha.
        UnsupportedImageError: the format cannot hold an image of this size or this metadata.
    """
    check_quality(name, quality)
    format = output_format(name)
    if format in ("JPEG", "PPM") and image.mode in ("LA", "RGBA"):
        raise UsageError(f"{format} has no transparency; decode to png, webp or tiff")
    if max(image.size) > _LONGEST_SIDE.get(format, 2**31):
        raise UnsupportedImageError(
            f"{format} holds no {image.width}x{image.height} pixels; decode to png or tiff"
        )
    settings = _SETTINGS[format]
    if quality is not None:
        settings = {
            **settings,
            "quality": int(quality),
            **({"lossless": False} if format == "WEBP" else {}),
        }
    if format == "TIFF":
        libtiff.silence()
    try:
        return _saved(image, format, settings)
    except UnsupportedImageError:
        if format != "TIFF" or "exif" not in image.info:
            raise
        # libtiff takes few of the values that EXIF may have.
        return _saved(image, format, settings, plainly=True)


def _saved(
    image: Image.Image, format: str, settings: dict[str, Any], plainly: bool = False
) -> tuple[bytes, list[str]]:
    image, options, notes = metadata.prepare(image, format, plainly)
    out = BytesIO()
    try:
        image.save(out, format, **settings, **options)
    except MemoryError:
        raise
    except Exception as error:  # foreign encoders raise anything at all
        raise UnsupportedImageError(f"{format} cannot hold the image{said(error)}") from error
    return out.getvalue(), notes
