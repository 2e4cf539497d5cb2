"""encode(image) → bytes, decode(bytes) → image: the whole path.

from_pillow ─► analyze (─► search) ─► payload.code ─► container.pack
to_pillow ◄─── synthesize ◄─── payload.decode_latents ◄─ container.unpack
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licodec import shortfall
from licodec.cheapest import code_cheaply, code_within
from licodec.container import ALPHA, MAX_PIXELS, Container, pack, refuse_large, unpack
from licodec.entropy.threads import coding
from licodec.errors import one_family
from licodec.info import checked_bytes
from licodec.io import alpha, metadata
from licodec.io.image import Picture, as_pillow, from_pillow, to_pillow
from licodec.open_codec import Codec, codec_of, open_codec
from licodec.options import DecodeOptions, EncodeOptions
from licodec.payload import Coded, decode_latents, decode_pixels, latents_crc32
from licodec.rate_control import Target, quality_step
from licodec.target_search import code_for_target


def encode(
    image: Image.Image | NDArray[np.uint8],
    quality: float | None = None,
    model: str | None = None,
    *,
    weights: str | Path | None = None,
    target_size: float | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
    z_distributions: str = "static",
    effort: int | None = None,
    max_error: int | None = None,
) -> bytes:
    """Encode an image.

    Args:
        image: any 8-bit Pillow image, from 1x1 up; or an array of uint8, (H, W, 3) in sRGB, (H, W, 4) with
            alpha, or (H, W) in grey.
        quality: 0 (smallest) … 100 (best), continuous in halves; 50 unless there is a target.
        model: a name that `licodec models` lists, with or without its `@HASH8`, or the path of a
            weights file; by default everyday, or what `weights` offers.
        weights: a weights file to use instead of the installed ones.
        target_size: search the best quality of at most so many bytes; 100 where that takes less.
        target_bpp: the same in bits per pixel.
        target_psnr: search the smallest file of at least so many dB; quality 0 where that has more.
        device: auto, cpu or cuda, for the transforms.
        precision: auto, float32 or bf16, for the transforms.
        strip: leave ICC, EXIF and XMP out; pixels are turned as EXIF said.
        max_pixels: refuse larger images; a side under 16 pixels counts as 16.
        z_distributions: static or adaptive: whether ẑ of a hyperprior is coded by the same tables in
            all images, or by the image's own distributions, which the weights must be made for.
        effort: 0 … 20 rounds in which better latents are searched for; by default 1 with everyday, 5 with
            hyperprior and scale-hyperprior, else 0. Decoding takes no longer.
        max_error: no sample is off by more, 0 … 126; 0 is lossless. By default this takes the model
            everyday.

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: the image, an argument or the weights cannot be used; one line says why.
    """
    options = EncodeOptions(
        quality=quality,
        model=model,
        weights=weights,
        target_size=target_size,
        target_bpp=target_bpp,
        target_psnr=target_psnr,
        device=device,
        precision=precision,
        strip=strip,
        max_pixels=max_pixels,
        z_distributions=z_distributions,
        effort=effort,
        max_error=max_error,
    )
    image = as_pillow(image)
    refuse_large(image.width, image.height, max_pixels)
    with one_family():
        picture = from_pillow(image, strip, keep_hidden=max_error is not None)
    return encode_picture(picture, options)


def encode_picture(picture: Picture, options: EncodeOptions) -> bytes:
    """`encode` for a picture already read."""
    with one_family(), coding():
        return pack(_encoded(picture, options)[1].container)


def encode_checked(picture: Picture, options: EncodeOptions) -> tuple[bytes, list[str]]:
    """The same, and notes for a person: that the file is far worse than its quality promises, or that a
    lossless one is smaller."""
    with one_family(), coding():
        codec, coded = _encoded(picture, options)
        return pack(coded.container), shortfall.notes(codec, picture, coded, options)


def _encoded(picture: Picture, options: EncodeOptions) -> tuple[Codec, Coded]:
    codec, rounds = open_codec(options)
    if options.max_error is not None:
        coded = code_within(codec, picture, options.max_error, options.quality)
    elif isinstance(options.rate, Target):
        coded = code_for_target(codec, picture, options.rate, rounds)
    else:
        coded = encode_at(codec, picture, quality_step(options.rate), rounds)
    return codec, coded.with_chunks(picture.chunks)


def encode_at(codec: Codec, picture: Picture, quality_step: int, rounds: int = 0) -> Coded:
    """The file of a picture at a quality, without its chunks, after so many rounds of search."""
    analyze = partial(codec.analyze, picture, quality_step)
    y, side = codec.search(picture, analyze, quality_step, rounds)
    return code_cheaply(codec, picture, y, quality_step, side)


def decode(
    data: bytes,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode a .lic file to a Pillow image of its mode, with ICC, EXIF and XMP in `info`.

    Args:
        data: the file's bytes.
        weights: a weights file to use instead of the installed ones.
        device: auto, cpu or cuda, for the transforms.
        precision: auto, float32 or bf16, for the transforms.
        strip: leave ICC, EXIF and XMP out, and turn the pixels as EXIF said.
        max_pixels: refuse larger images; a side under 16 pixels counts as 16. Files whose few bytes claim
            many pixels are refused unless this is set.

    Raises:
        UsageError: `data` is no bytes, or an option makes no sense.
        DamagedFileError: not a .lic file, or not as it was written.
        ModelMissingError: the weights it names are not installed.
    """
    options = DecodeOptions(
        weights=weights, device=device, precision=precision, strip=strip, max_pixels=max_pixels
    )
    return decode_file(data, options)


def decode_file(data: bytes, options: DecodeOptions) -> Image.Image:
    """`decode` with its options in one object."""
    container = unpack(checked_bytes(data), options.max_pixels)
    with one_family(), coding():
        image = to_pillow(decode_picture(codec_of(container, options), container))
        return metadata.strip(image) if options.strip else image


def decode_picture(codec: Codec, container: Container) -> Picture:
    """The picture of a parsed file.

    Raises:
        DamagedFileError: the latents or pixels are not those that were encoded.
    """
    c = container
    opacity = alpha.of(c)
    if codec.architecture.is_exact:
        color = decode_pixels(codec, c, opacity)
    else:
        y_hat = decode_latents(codec, c, opacity)
        color = codec.synthesize(y_hat, c.height, c.width, c.mode, c.quality_step)
    return Picture(c.mode, color, opacity, {k: v for k, v in c.chunks.items() if k != ALPHA})


def verify_latents(
    data: bytes, max_pixels: int = MAX_PIXELS, weights: str | Path | None = None
) -> int:
    """Decode a file's latents, or its pixels where these are exact, and return their CRC-32, which is the one
    the file states.

    Raises:
        DamagedFileError: it is not, or the file is damaged.
    """
    options = DecodeOptions(weights=weights, device="cpu", max_pixels=max_pixels)
    container = unpack(checked_bytes(data), max_pixels)
    with one_family(), coding():
        codec = codec_of(container, options)
        if codec.architecture.is_exact:
            decode_pixels(codec, container, strictly=True)
            return container.latents_crc32
        return latents_crc32(decode_latents(codec, container, strictly=True))
