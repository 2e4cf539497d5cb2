"""Between image files and pixels: what is kept, what is converted with a note, what is refused."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from licodec.container import EXIF, ICC, XMP
from licodec.errors import DamagedFileError, LicodecError, UnsupportedImageError, UsageError

Pixels = NDArray[np.uint8]


@dataclass
class Picture:
    """An image as the codec sees it.

    Attributes:
        mode: L, LA, RGB or RGBA.
        color: (H, W, 1 or 3).
        alpha: (H, W), for LA and RGBA.
        metadata: chunk type to bytes.
        notes: what was converted on the way, for a person.
    """

    mode: str
    color: Pixels
    alpha: Pixels | None = None
    metadata: dict[bytes, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def from_pillow(image: Image.Image) -> Picture:
    """Take over any 8-bit image.

    Raises:
        UnsupportedImageError: damaged, more than 8 bits a sample, or a colour space without a plain RGB
            meaning.
    """
    _refuse_deep(image)
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"only the first of {frames} frames is kept")
    try:
        image.load()
    except LicodecError:
        raise
    except Exception as error:  # foreign decoders raise anything at all
        raise UnsupportedImageError(f"the image is damaged ({error})") from error
    metadata = _metadata(image)
    transparent = "transparency" in image.info
    target = {
        "1": "L", "L": "LA" if transparent else "L", "LA": "LA", "La": "LA",
        "P": "RGBA" if transparent else "RGB", "PA": "RGBA", "RGB": "RGBA" if transparent else "RGB",
        "RGBA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
    }.get(image.mode)  # fmt: skip
    if target is None:
        raise UnsupportedImageError(
            f"images of mode {image.mode} are not supported; convert to 8-bit RGB or grey first"
        )
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "1"):
        names = {"P": "a palette", "PA": "a palette", "1": "black and white"}
        notes.append(f"{names.get(image.mode, image.mode)} was converted to {target}")
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image, metadata)
    elif image.mode != target:
        image = image.convert(target)
    samples = np.asarray(image)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if target in ("LA", "RGBA"):
        return Picture(target, samples[:, :, :-1], samples[:, :, -1], metadata, notes)
    return Picture(target, samples, None, metadata, notes)


def to_pillow(picture: Picture) -> Image.Image:
    """The decoded image; ICC, EXIF and XMP stand in its `info`."""
    samples = picture.color
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[:, :, None]], axis=2)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    for kind, key in ((ICC, "icc_profile"), (EXIF, "exif"), (XMP, "xmp")):
        if kind in picture.metadata:
            # Pillow's JPEG writer wants EXIF with the prefix that its readers leave on.
            prefix = b"Exif\0\0" if kind == EXIF else b""
            image.info[key] = prefix + picture.metadata[kind]
    return image


_FORMATS = {"": "PNG", "png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "ppm": "PPM",
            "pgm": "PPM", "tif": "TIFF", "tiff": "TIFF"}  # fmt: skip


def to_file(image: Image.Image, name: str) -> bytes:
    """The bytes of an image file.

    Args:
        image: as `to_pillow` returns it.
        name: a format's name, or a file name's suffix; empty means PNG.

    Raises:
        UsageError: no such format, or one that cannot hold the image's alpha.
    """
    format = _FORMATS.get(name.lower().lstrip("."))
    if format is None:
        raise UsageError(f"no output format for {name!r}; there are png, jpeg, webp, ppm and tiff")
    if format in ("JPEG", "PPM") and image.mode in ("LA", "RGBA"):
        raise UsageError(f"{format} has no transparency; decode to png or webp")
    if format == "PPM":  # has no tag to turn the image for the viewer
        image = ImageOps.exif_transpose(image)
    out = BytesIO()
    image.save(out, format, **save_options(image, format))
    return out.getvalue()


def save_options(image: Image.Image, format: str) -> dict[str, Any]:
    """Arguments for Image.save that carry the metadata of `info` along where the format has a place."""
    options: dict[str, Any] = {
        k: image.info[k] for k in ("icc_profile", "exif", "xmp") if k in image.info
    }
    if format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["compress_level"] = 3
        if "xmp" in options:
            text = PngInfo()
            text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode("utf-8", "replace"))
            options["pnginfo"] = text
    elif format in ("JPEG", "WEBP"):
        options["quality"] = 95
        if format == "WEBP":
            options["lossless"] = True
    elif format != "TIFF":
        options = {}
    return options


def pack_alpha(alpha: Pixels) -> bytes:
    """Alpha, losslessly: a filter byte (0 none, 1 left, 2 up), then the differences.

    The container deflates the chunk; the filter is the one that deflates best.
    """
    left = np.diff(alpha, axis=1, prepend=np.uint8(0))
    up = np.diff(alpha, axis=0, prepend=np.uint8(0))
    candidates = [bytes([i]) + a.tobytes() for i, a in enumerate((alpha, left, up))]
    return min(candidates, key=lambda c: len(zlib.compress(c, 6)))


def unpack_alpha(content: bytes, height: int, width: int) -> Pixels:
    """Undo pack_alpha.

    Raises:
        DamagedFileError: wrong length or unknown filter.
    """
    if len(content) != height * width + 1 or content[0] > 2:
        raise DamagedFileError("the alpha chunk does not fit the image")
    stored = np.frombuffer(content, dtype=np.uint8, offset=1).reshape(height, width)
    if content[0] == 0:
        return stored
    return np.cumsum(stored, axis=2 - content[0], dtype=np.uint8)


def _refuse_deep(image: Image.Image) -> None:
    """Pillow narrows some 16-bit files without a word; the decoder's arguments give them away."""
    deep = image.mode.startswith(("I", "F"))
    for tile in getattr(image, "tile", None) or []:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        deep = deep or any(isinstance(a, str) and ";16" in a for a in args)
    if deep:
        raise UnsupportedImageError(
            "more than 8 bits a sample would be lost; convert to 8 bits first if that is acceptable"
        )


def _metadata(image: Image.Image) -> dict[bytes, bytes]:
    out = {}
    icc = image.info.get("icc_profile")
    if icc:
        out[ICC] = bytes(icc)
    exif = image.info.get("exif")
    if exif:
        out[EXIF] = bytes(exif).removeprefix(b"Exif\0\0")
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if xmp:
        out[XMP] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return out


def _cmyk_to_rgb(image: Image.Image, metadata: dict[bytes, bytes]) -> Image.Image:
    """Through the embedded profile to sRGB where there is one; it means nothing for RGB afterwards."""
    profile = metadata.pop(ICC, None)
    if profile is None:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return image.convert("RGB") if converted is None else converted
