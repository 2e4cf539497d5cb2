"""Between Pillow images and pixels: what is kept, what is converted with a note, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from licodec.container import ALPHA, ICC
from licodec.errors import LicodecError, UnsupportedImageError, UsageError, said
from licodec.io import alpha, metadata
from licodec.io.bitdepth import bits_per_sample, channels, grey_step

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

    @cached_property
    def chunks(self) -> dict[bytes, bytes]:
        """A file's chunks of it."""
        if self.alpha is None:
            return self.metadata
        return {**self.metadata, ALPHA: alpha.pack(self.alpha)}


def as_pillow(image: object) -> Image.Image:
    """A caller's argument that should be an image: Pillow's, or an array of uint8, (H, W) or (H, W, 3 or 4).

    Raises:
        UsageError: it is something else.
    """
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"a Pillow image or an array is wanted, not {type(image).__name__}; Image.open(path) opens a "
            "file, and licodec.encode_file encodes one"
        )
    fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not fits or 0 in image.shape:
        shape = ", ".join(map(str, image.shape))
        raise UsageError(f"an array of uint8 (H, W, 3) is wanted, not of {image.dtype} ({shape})")
    return Image.fromarray(np.ascontiguousarray(image))


def from_pillow(image: Image.Image, strip: bool = False, keep_hidden: bool = False) -> Picture:
    """Take over any 8-bit image; strip drops ICC, EXIF and XMP, and turns the pixels as EXIF said.

    Args:
        keep_hidden: leave colours that alpha hides as they are, where others are easier to code.

    Raises:
        UnsupportedImageError: damaged, without pixels, more than 8 bits a sample, or a colour space without
            a plain RGB meaning.
    """
    if not image.width or not image.height:
        raise UnsupportedImageError(f"{image.width}x{image.height} is an image without pixels")
    notes: list[str] = []
    try:
        _refuse_deep(image)
        step = grey_step(image)
        frames = getattr(image, "n_frames", 1)
        large = metadata.large_tags(image)
        spare = max(0, channels(image) - len(image.getbands()))
        image.load()
    except (LicodecError, MemoryError):
        raise
    except Exception as error:  # foreign decoders raise anything at all
        raise UnsupportedImageError(f"the image is damaged{said(error)}") from error
    metadata.untangle(image)
    if frames > 1:
        notes.append(f"only the first of {frames} frames is kept")
    if spare := spare + (image.mode == "RGBX"):
        notes.append(f"channels beyond colour and alpha were left out: {spare}")
    if isinstance(image.info.get("transparency"), int) and image.mode == "L":
        image.info["transparency"] *= step
    if isinstance(image.info.get("transparency"), bytes):
        # Of a palette, which has no more.
        image.info["transparency"] = image.info["transparency"][:256]
    chunks: dict[bytes, bytes] = {}
    if not strip:
        chunks, dropped = metadata.read(image, large)
        notes += dropped
    target = _target(image)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "1", "La", "RGBa"):
        names = {"P": "a palette", "PA": "a palette", "1": "black and white"}
        names |= dict.fromkeys(("La", "RGBa"), "premultiplied alpha")
        notes.append(f"{names.get(image.mode, image.mode)} was converted to {target}")
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image, chunks)
    elif image.mode != target:
        image = _converted(image, target)
    if strip:  # the caller's image keeps its metadata
        image = metadata.upright(image)
    return _picture(image, chunks, notes, keep_hidden)


_TARGETS = {
    "L": ("1", "L"),
    "LA": ("LA", "La"),
    "RGB": ("P", "RGB", "RGBX", "CMYK", "YCbCr"),
    "RGBA": ("PA", "RGBA", "RGBa"),
}
"""Modes of a .lic file, and those of Pillow that become these."""


def _target(image: Image.Image) -> str:
    """The mode that an image becomes; a colour of it that is transparent asks for alpha."""
    for target, modes in _TARGETS.items():
        if image.mode in modes:
            may_be_clear = image.mode in ("1", "L", "P", "RGB")
            return target + "A" * (may_be_clear and _has_transparency(image))
    raise UnsupportedImageError(
        f"images of mode {image.mode} are not supported; convert to 8-bit RGB or grey first"
    )


def _has_transparency(image: Image.Image) -> bool:
    palette = image.palette if image.mode == "P" else None
    return "transparency" in image.info or (palette is not None and palette.mode.endswith("A"))


_BAND = 256
"""Rows that are copied at once: Pillow's own conversion to an array holds two copies more."""


def _picture(
    image: Image.Image, chunks: dict[bytes, bytes], notes: list[str], keep_hidden: bool
) -> Picture:
    channels = len(image.getbands())
    has_alpha = image.mode.endswith("A")
    color = np.empty((image.height, image.width, channels - has_alpha), dtype=np.uint8)
    opacity = np.empty(color.shape[:2], dtype=np.uint8) if has_alpha else None
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        rows = np.asarray(image.crop((0, top, image.width, bottom)))
        rows = rows.reshape(bottom - top, image.width, channels)
        color[top:bottom] = rows[:, :, : color.shape[2]]
        if opacity is not None:
            opacity[top:bottom] = rows[:, :, -1]
    if opacity is not None and not keep_hidden:
        color = alpha.fill_hidden(color, opacity)
    return Picture(image.mode, color, opacity, chunks, notes)


def to_pillow(picture: Picture) -> Image.Image:
    """The decoded image; ICC, EXIF and XMP stand in its `info`."""
    samples = picture.color
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[:, :, None]], axis=2)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    metadata.attach(image, picture.metadata)
    return image


def _refuse_deep(image: Image.Image) -> None:
    bits = bits_per_sample(image)
    if bits > 8:
        raise UnsupportedImageError(
            f"{bits} bits a sample would be lost; if that is acceptable, convert to 8 bits first, "
            "as with `magick IN -depth 8 OUT.png`"
        )


def _converted(image: Image.Image, mode: str) -> Image.Image:
    try:
        return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # `info` may hold anything at all
        raise UnsupportedImageError(f"its transparency makes no sense{said(error)}") from error


def _cmyk_to_rgb(image: Image.Image, chunks: dict[bytes, bytes]) -> Image.Image:
    """Through the embedded profile to sRGB where there is one; it means nothing for RGB afterwards."""
    profile = chunks.pop(ICC, None) or image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > metadata.MOST[ICC]:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return image.convert("RGB") if converted is None else converted
