"""A file's payload: ŷ and, of an exact architecture, what x̂ misses; coded, and decoded and checked."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from licodec.container import Container, least_payload
from licodec.entropy.residual import code_tiles
from licodec.errors import DamagedFileError
from licodec.io import alpha
from licodec.io.image import Picture
from licodec.open_codec import Codec, Latents
from licodec.rangecoder import Decoder, Encoder
from licodec.tile_plan import plan_tiles
from licodec.tiles import positions

Pixels = NDArray[np.uint8]


class Coded(NamedTuple):
    """A picture's file and what it decodes to.

    Attributes:
        color: the pixels, where they are exact.
        y_hat: the latents (M, h, w), where pixels are not exact.
    """

    container: Container
    color: Pixels | None
    y_hat: Latents | None

    def with_chunks(self, chunks: dict[bytes, bytes]) -> Coded:
        return self._replace(container=replace(self.container, chunks=chunks))


def code(
    codec: Codec,
    picture: Picture,
    y: Latents,
    quality_step: int,
    side: Any = None,
    max_error: int | None = None,
) -> Coded:
    """The file of a picture whose latents are known, without its chunks.

    Args:
        y: (M, h, w), in 1/latent_unit.
        side: their side information, as far as it is known.
        max_error: of an exact architecture, what no sample is off by more.
    """
    model, position = codec.entropy_model, codec.position(quality_step)
    height, width = picture.color.shape[:2]
    visible = codec.visible(picture.alpha)
    if side is None:
        side = model.side_information(y, position, visible)
    encoder = Encoder()
    y_hat = model.code_latents(encoder, position, *positions(height, width), y, side, visible)
    color = None
    if codec.architecture.is_exact:
        x_hat = side.x_hat
        if x_hat is None:
            x_hat = codec.synthesize(y_hat, height, width, picture.mode, quality_step)
        color = _correct(encoder, codec, picture, x_hat, quality_step, max_error)
    container = Container(
        width=width,
        height=height,
        mode=picture.mode,
        adaptive=codec.adaptive_z or codec.architecture.sends_distributions,
        model_hash=codec.weights.hash,
        quality_step=quality_step,
        side_bytes=math.ceil(model.side_bits(side, position) / 8),
        latents_crc32=latents_crc32(y_hat) if color is None else zlib.crc32(color.data),
        payload=encoder.finish(max(codec.least_bytes(height, width), least_payload(width, height))),
    )
    return Coded(container, color, y_hat if color is None else None)


def decode_latents(
    codec: Codec, container: Container, opacity: Pixels | None = None, strictly: bool = False
) -> Latents:
    """ŷ (M, h, w), checked against its CRC.

    Args:
        opacity: the file's alpha, if it was unpacked before.
        strictly: refuse a payload that goes on after the latents.

    Raises:
        DamagedFileError: it does not agree, or the payload is too short for so many latents.
    """
    decoder = Decoder(container.payload, strictly)
    y_hat = _decode_latents(decoder, codec, container, opacity)
    _refuse_more(decoder, strictly, "latents")
    if latents_crc32(y_hat) != container.latents_crc32:
        raise DamagedFileError("the latents decode to other values than were encoded")
    return y_hat


def decode_pixels(
    codec: Codec, container: Container, opacity: Pixels | None = None, strictly: bool = False
) -> Pixels:
    """The pixels (H, W, 1 or 3) of an exact architecture's file, checked against their CRC; arguments and
    errors as of `decode_latents`."""
    c = container
    decoder = Decoder(c.payload, strictly)
    y_hat = _decode_latents(decoder, codec, c, opacity)
    x_hat = codec.synthesize(y_hat, c.height, c.width, c.mode, c.quality_step)
    color = code_tiles(decoder, x_hat)
    _refuse_more(decoder, strictly, "residual")
    if zlib.crc32(color.data) != c.latents_crc32:
        raise DamagedFileError("the pixels decode to other values than were encoded")
    return color


def latents_crc32(y: Latents) -> int:
    """CRC-32 of ŷ (M, h, w) as little-endian int32, channel after channel."""
    crc = 0
    for channel in y:
        crc = zlib.crc32(np.ascontiguousarray(channel, dtype="<i4").data, crc)
    return crc


def _decode_latents(
    decoder: Decoder, codec: Codec, container: Container, opacity: Pixels | None
) -> Latents:
    codec.refuse_short(container)
    position = codec.position(container.quality_step)
    h, w = positions(container.height, container.width)
    visible = codec.visible(alpha.of(container) if opacity is None else opacity)
    return codec.entropy_model.code_latents(decoder, position, h, w, None, None, visible)


def _refuse_more(decoder: Decoder, strictly: bool, last: str) -> None:
    if strictly and not decoder.is_exhausted():
        raise DamagedFileError(f"the payload goes on after the {last}")


def _correct(
    encoder: Encoder,
    codec: Codec,
    picture: Picture,
    x_hat: Pixels,
    quality_step: int,
    max_error: int | None,
) -> Pixels:
    """Code what x̂ misses of a picture, where that pays; the pixels that a decoder gets."""
    x = picture.color
    if max_error is None and picture.alpha is not None:
        x = np.where(picture.alpha[..., None] > 0, x, x_hat)
    plan = plan_tiles(x, x_hat, codec.lmbda(quality_step), quality_step, max_error)
    return code_tiles(encoder, x_hat, plan, x)
