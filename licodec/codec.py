"""encode(image) → bytes, decode(bytes) → image: the whole path.

from_pillow ─► Transforms.analyze (─► latent_search) ─► EntropyModel.code_latents ─► container.pack
to_pillow ◄─── Transforms.synthesize ◄──────────────── EntropyModel.code_latents ◄─ container.unpack
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licodec import interface, memory
from licodec.architectures import BY_NAME, Architecture
from licodec.container import (
    ALPHA,
    MAX_PIXELS,
    QUALITY_STEPS,
    Container,
    least_payload,
    pack,
    pack_chunks,
    refuse_large,
    refuse_sparse,
    unpack,
)
from licodec.entropy.residual import code_tiles
from licodec.entropy.tables import exp2, interpolate
from licodec.entropy.threads import coding
from licodec.errors import DamagedFileError, ModelMissingError, one_family
from licodec.info import checked_bytes
from licodec.interface import EntropyModel, Transforms
from licodec.io import alpha, metadata
from licodec.io.image import Picture, as_pillow, from_pillow, to_pillow
from licodec.options import DecodeOptions, EncodeOptions
from licodec.progress import trials
from licodec.quantize import quantize
from licodec.rangecoder import LATENTS_PER_BYTE, Decoder, Encoder
from licodec.rate_control import DEFAULT_QUALITY, Target, highest_within_size, lowest_with_psnr
from licodec.shortfall import far_below, promised_psnr, smaller_lossless
from licodec.tile_plan import plan_tiles
from licodec.tiles import STRIDE, Box
from licodec.weights import catalogue
from licodec.weights import file as weights_file
from licodec.weights.file import Weights

Latents = NDArray[np.int32]

_PRECISE_FROM = 160
_MUCH = 0.25
"""Share of corrected tiles from which on latents may be worth nothing."""

_USUAL_TRIALS = 8
"""Of a search for a target."""


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
            weights file; by default adaptive, or what `weights` offers.
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
        effort: 0 … 20 rounds in which better latents are searched for; by default 5 where the model
            can, and 0 elsewhere. Decoding takes no longer.
        max_error: no sample is off by more; 0 is lossless. By default this takes the model everyday.

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: the image, an argument or the weights cannot be used; one line says why.
    """
    options = EncodeOptions(
        quality=quality, model=model, weights=weights, target_size=target_size,
        target_bpp=target_bpp, target_psnr=target_psnr, device=device, precision=precision,
        strip=strip, max_pixels=max_pixels, z_distributions=z_distributions, effort=effort,
        max_error=max_error,
    )  # fmt: skip
    image = as_pillow(image)
    refuse_large(image.width, image.height, max_pixels)
    with one_family():
        picture = from_pillow(image, strip, keep_hidden=max_error is not None)
    return encode_picture(picture, options)


def encode_picture(picture: Picture, options: EncodeOptions) -> bytes:
    """`encode` for a picture already read."""
    with one_family(), coding():
        return pack(_coded(picture, options)[1].container)


def encode_checked(picture: Picture, options: EncodeOptions) -> tuple[bytes, list[str]]:
    """The same, and notes for a person: that the file is far worse than its quality promises, or that a
    lossless one is smaller."""
    with one_family(), coding():
        codec, coded = _coded(picture, options)
        return pack(coded.container), [
            *([] if options.target_psnr else codec.shortfall(picture, coded)),
            *([] if options.max_error == 0 else _lossless(picture, coded.container)),
        ]


def _coded(picture: Picture, options: EncodeOptions) -> tuple[Codec, Coded]:
    codec, rounds = open_codec(options)
    if options.max_error is not None:
        container = codec.encode_within(picture, options.max_error, options.quality)
        return codec, Coded(container, None, 0.0, None)
    if isinstance(options.rate, Target):
        return codec, Trials(codec, picture, rounds).best(options.rate)
    return codec, codec.coded(picture, quality_step(options.rate), rounds)


def _lossless(picture: Picture, container: Container) -> list[str]:
    size = len(container.payload) + len(container.chunks.get(ALPHA, b""))
    found = smaller_lossless(picture, size)
    return [] if found is None else [f"a lossless {found[0]} of it takes {found[1]:,} bytes only"]


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
        codec = codec_of(container, options)
        image = to_pillow(codec.decode(container))
        return metadata.strip(image) if options.strip else image


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
            codec.decode(container, strictly=True)
            return container.latents_crc32
        return latents_crc32(codec.decode_latents(container, strictly=True))


def quality_step(quality: float) -> int:
    """The header's quality 0 … QUALITY_STEPS for a user's 0 … 100."""
    return round(quality * QUALITY_STEPS / 100)


def is_precise(quality_step: int) -> bool:
    """Whether bf16 transforms would show: they cost 0.012 dB at quality 80 of 100, 0.026 at 100."""
    return quality_step > _PRECISE_FROM


class Coded(NamedTuple):
    """A picture's file and what it decodes to.

    Attributes:
        color: the pixels, where they are exact.
        corrected: share of the tiles that have a residual.
        y_hat: the latents (M, h, w), where pixels are not exact.
    """

    container: Container
    color: NDArray[np.uint8] | None
    corrected: float
    y_hat: Latents | None

    def with_chunks(self, chunks: dict[bytes, bytes]) -> Coded:
        return self._replace(container=replace(self.container, chunks=chunks))


@dataclass(frozen=True)
class Codec:
    """An architecture's parts over one weights file, ready to code pictures."""

    architecture: Architecture
    weights: Weights
    transforms: Transforms
    entropy_model: EntropyModel
    adaptive_z: bool = False

    def encode(self, picture: Picture, quality_step: int, rounds: int = 0) -> Container:
        """A picture to its file, after so many rounds of search."""
        return self.coded(picture, quality_step, rounds).container

    def coded(self, picture: Picture, quality_step: int, rounds: int = 0) -> Coded:
        """The same, with what the file decodes to."""
        y = self.transforms.analyze(
            picture.color, self.gain(quality_step), is_precise(quality_step),
            self.back_projection(quality_step),
        )  # fmt: skip
        searched, side = self.search(picture, y, quality_step, rounds)
        coded = self.code(picture, searched, quality_step, side)
        if rounds and self.architecture.is_exact:
            # A search forecasts what latents cost; here it is known.
            trials = (coded, self.code(picture, y, quality_step))
            coded = min(trials, key=lambda coded: self._cost(picture, coded, quality_step))
        return coded.with_chunks(chunks_of(picture))

    def shortfall(self, picture: Picture, coded: Coded) -> list[str]:
        """A note where a picture is far worse than its quality promises."""
        c, y_hat = coded.container, coded.y_hat
        lmbda = self.weights.lmbda(self.weights.position(c.quality_step))
        if y_hat is None or not lmbda:
            return []

        def decoded(box: Box) -> NDArray[np.uint8]:
            top, bottom, left, right = box
            part = y_hat[:, top:bottom, left:right]
            height, width = (STRIDE * side for side in part.shape[1:])
            return self.synthesize(part, height, width, c.mode, c.quality_step)

        _, h, w = y_hat.shape
        found = far_below(picture, lmbda, h, w, self.transforms.halo, decoded)
        if found is None:
            return []
        quality, promised = c.quality_step * 100 / QUALITY_STEPS, promised_psnr(lmbda)
        return [
            f"{found:.1f} dB is far below the {promised:.0f} dB that quality {quality:g} promises: "
            f"{self.architecture.name} is made for photographs"
        ]

    def encode_within(self, picture: Picture, max_error: int, quality: float | None) -> Container:
        """A picture to a file whose samples are off by max_error at most: its latents with what they miss or,
        without a quality, no latents to speak of and all in residual tiles, if that is smaller."""
        step = quality_step(DEFAULT_QUALITY if quality is None else quality)
        y = self.transforms.analyze(picture.color, self.gain(step))
        trials = [self._code(picture, y, step, None, max_error)]
        if quality is None:
            trials.append(self._code(picture, np.zeros_like(y), 0, None, max_error))
        best = min((coded.container for coded in trials), key=lambda c: len(c.payload))
        return replace(best, chunks=chunks_of(picture))

    def search(
        self, picture: Picture, y: Latents, quality_step: int, rounds: int
    ) -> tuple[Latents, Any]:
        """y after a search, and the side information that it was made for, which is None without a search.

        Args:
            y: (M, h, w), in 1/latent_unit.
            rounds: of the search; 0 for none.
        """
        if not rounds:
            return y, None
        search = interface.named("licodec.latent_search:search")

        model = cast("interface.SearchedModel", self.entropy_model)
        transforms = interface.descent(self.architecture, self.transforms)
        position, unit = self.weights.position(quality_step), self.architecture.latent_unit
        side = model.side_information(y, position)
        gain = self.weights.gain(position)
        if self.architecture.is_exact:
            gain = (1 / (unit * self._exact_unit(quality_step))).astype(np.float32)
        y = search(
            transforms, y, unit, gain, lambda y: model.forecast(y, side, position),
            self.weights.lmbda(position), picture.color, picture.alpha, rounds,
            is_precise(quality_step),
        )  # fmt: skip
        # Of an exact architecture, side information has all that is coded.
        return y, None if self.architecture.is_exact else side

    def code(self, picture: Picture, y: Latents, quality_step: int, side: Any = None) -> Coded:
        """The file of a picture whose latents are known, without its chunks.

        Where an exact architecture misses much, its residual tiles are tried without latents to speak of,
        with loss and without; the cheapest in R + λD is taken.

        Args:
            y: (M, h, w), in 1/latent_unit.
            side: their side information, as far as it is known.
        """
        coded = self._code(picture, y, quality_step, side, None)
        if coded.corrected < _MUCH:
            return coded
        nothing = np.zeros_like(y)
        trials = [coded, *(self._code(picture, nothing, quality_step, None, e) for e in (None, 0))]
        return min(trials, key=lambda coded: self._cost(picture, coded, quality_step))

    def _cost(self, picture: Picture, coded: Coded, quality_step: int) -> float:
        """R + λD of an exact architecture's file, in bits per pixel."""
        assert coded.color is not None
        height, width = picture.color.shape[:2]
        lmbda = self.weights.lmbda(self.weights.position(quality_step))
        mse = 255**2 / 10 ** (psnr_db(picture, coded.color) / 10)
        return 8 * len(coded.container.payload) / (height * width) + lmbda * mse

    def _code(
        self, picture: Picture, y: Latents, quality_step: int, side: Any, max_error: int | None
    ) -> Coded:
        position = self.weights.position(quality_step)
        height, width = picture.color.shape[:2]
        visible = self.visible(picture.alpha)
        if side is None:
            side = self.entropy_model.side_information(y, position, visible)
        encoder = Encoder()
        h, w = (math.ceil(side / STRIDE) for side in (height, width))
        y_hat = self.entropy_model.code_latents(encoder, position, h, w, y, side, visible)
        color, corrected = None, 0.0
        if self.architecture.is_exact:
            color, corrected = self.correct(encoder, picture, y_hat, quality_step, max_error)
        container = Container(
            width=width, height=height, mode=picture.mode,
            adaptive=self.adaptive_z or self.architecture.sends_distributions,
            model_hash=self.weights.hash, quality_step=quality_step,
            side_bytes=math.ceil(self.entropy_model.side_bits(side, position) / 8),
            latents_crc32=latents_crc32(y_hat) if color is None else zlib.crc32(color.data),
            payload=encoder.finish(max(y.size // LATENTS_PER_BYTE, least_payload(width, height))),
        )  # fmt: skip
        return Coded(container, color, corrected, y_hat if color is None else None)

    def decode(self, container: Container, strictly: bool = False) -> Picture:
        """A parsed file to its picture.

        Args:
            strictly: as `decode_latents` has it.

        Raises:
            DamagedFileError: the latents or pixels are not those that were encoded.
        """
        c = container
        opacity = opacity_of(c)
        if self.architecture.is_exact:
            color = self._decode_exactly(c, opacity, strictly)
        else:
            y_hat = self.decode_latents(c, opacity, strictly)
            color = self.synthesize(y_hat, c.height, c.width, c.mode, c.quality_step)
        chunks = {k: v for k, v in c.chunks.items() if k != ALPHA}
        return Picture(c.mode, color, opacity, chunks)

    def refuse_short(self, container: Container) -> None:
        """Hold a file's payload against its latents.

        Raises:
            DamagedFileError: it is too short for so many.
        """
        h, w = (math.ceil(side / STRIDE) for side in (container.height, container.width))
        if len(container.payload) < self.transforms.M * h * w // LATENTS_PER_BYTE:
            raise DamagedFileError(
                f"{len(container.payload)} bytes cannot hold {container.width}x{container.height} pixels"
            )

    def decode_latents(
        self, container: Container, opacity: NDArray[np.uint8] | None = None, strictly: bool = False
    ) -> Latents:
        """ŷ (M, h, w), checked against its CRC.

        Args:
            opacity: the file's alpha, if it was unpacked before.
            strictly: refuse a payload that goes on after the latents.

        Raises:
            DamagedFileError: it does not agree, or the payload is too short for so many latents.
        """
        decoder = Decoder(container.payload, strictly)
        y_hat = self._decode_latents(decoder, container, opacity)
        if strictly and not decoder.is_exhausted():
            raise DamagedFileError("the payload goes on after the latents")
        if latents_crc32(y_hat) != container.latents_crc32:
            raise DamagedFileError("the latents decode to other values than were encoded")
        return y_hat

    def _decode_latents(
        self, decoder: Decoder, container: Container, opacity: NDArray[np.uint8] | None
    ) -> Latents:
        position = self.weights.position(container.quality_step)
        h, w = (math.ceil(side / STRIDE) for side in (container.height, container.width))
        self.refuse_short(container)
        visible = self.visible(opacity_of(container) if opacity is None else opacity)
        return self.entropy_model.code_latents(decoder, position, h, w, None, None, visible)

    def correct(
        self, encoder: Encoder, picture: Picture, y_hat: Latents, quality_step: int,
        max_error: int | None = None,
    ) -> tuple[NDArray[np.uint8], float]:  # fmt: skip
        """Code what ŷ misses of a picture, where that pays; the pixels that a decoder gets, and the share of
        tiles that were corrected. Of an exact architecture alone."""
        x = picture.color
        x_hat = self.synthesize(y_hat, x.shape[0], x.shape[1], picture.mode, quality_step)
        if max_error is None and picture.alpha is not None:
            x = np.where(picture.alpha[..., None] > 0, x, x_hat)
        lmbda = self.weights.lmbda(self.weights.position(quality_step))
        plan = plan_tiles(x, x_hat, lmbda, quality_step, max_error)
        corrected = 0.0 if plan is None else float(plan.chosen.mean())
        return code_tiles(encoder, x_hat, plan, x), corrected

    def _decode_exactly(
        self, container: Container, opacity: NDArray[np.uint8] | None, strictly: bool
    ) -> NDArray[np.uint8]:
        """The pixels of an exact architecture, checked against their CRC."""
        c = container
        decoder = Decoder(c.payload, strictly)
        y_hat = self._decode_latents(decoder, c, opacity)
        x_hat = self.synthesize(y_hat, c.height, c.width, c.mode, c.quality_step)
        color = code_tiles(decoder, x_hat)
        if strictly and not decoder.is_exhausted():
            raise DamagedFileError("the payload goes on after the residual")
        if zlib.crc32(color.data) != c.latents_crc32:
            raise DamagedFileError("the pixels decode to other values than were encoded")
        return color

    def synthesize(
        self, y_hat: Latents, height: int, width: int, mode: str, quality_step: int
    ) -> NDArray[np.uint8]:
        """The pixels that ŷ stands for.

        Args:
            y_hat: (M, h, w), in 1/latent_unit.
            height, width: of the picture.
            mode: one of container.MODES.

        Returns:
            (height, width, 1 or 3)
        """
        channels = 3 if mode.startswith("RGB") else 1
        gain: NDArray[Any] = self.gain(quality_step)
        if self.architecture.is_exact:
            gain = self._exact_unit(quality_step)
        return self.transforms.synthesize(
            y_hat, gain, height, width, channels, is_precise(quality_step)
        )

    def _exact_unit(self, quality_step: int) -> NDArray[np.float64]:
        """(M,) what a unit of ŷ is in an exact g_s."""
        position = self.weights.position(quality_step)
        return exp2(interpolate(self.weights["log2_step"], position, weights_file.STEPS))

    def gain(self, quality_step: int) -> NDArray[np.float32]:
        """(M,) what y is multiplied by before rounding."""
        position = self.weights.position(quality_step)
        return self.weights.gain(position) * np.float32(self.architecture.latent_unit)

    def back_projection(self, quality_step: int) -> float:
        """How much of y's back-projection is added to it."""
        return self.weights.back_projection(self.weights.position(quality_step))

    def visible(self, opacity: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
        """The latent positions (h, w) that reach a visible pixel; None stands for all."""
        if opacity is None or opacity.all():
            return None
        return alpha.visible_positions(opacity, STRIDE, self.transforms.halo)


class Trials:
    """A picture coded at several qualities, to find the one that serves a target best.

    The features are made once for all qualities without back-projection, and once for all with it.
    """

    def __init__(self, codec: Codec, picture: Picture, rounds: int) -> None:
        self.codec, self.picture, self.rounds = codec, picture, rounds
        # A second time only where bf16 serves the lower qualities alone.
        self._features = cache(self._make_features)
        self._latents = lru_cache(maxsize=1)(self._make_latents)
        self._coded = lru_cache(maxsize=1)(self._code)
        self.size, self.psnr = cache(self._size), cache(self._psnr)
        self.chunks = chunks_of(picture)
        self.chunk_bytes = len(pack_chunks(self.chunks))
        self._begin: Callable[[], None] = lambda: None

    def best(self, target: Target) -> Coded:
        """The file that serves the target best.

        Raises:
            UnreachableTargetError: no quality is small or good enough.
        """
        height, width = self.picture.color.shape[:2]
        wanted = target.bytes(height * width)
        with trials(_USUAL_TRIALS) as self._begin:
            if wanted is None:
                assert target.psnr is not None
                step = lowest_with_psnr(self.psnr, target.psnr)
            else:
                step = highest_within_size(self.size, wanted)
        return self._coded(step).with_chunks(self.chunks)

    def _make_features(self, reduced: bool, back_projected: bool) -> NDArray[np.float32]:
        return self.codec.transforms.features(self.picture.color, not reduced, back_projected)

    def _make_latents(self, step: int) -> tuple[Latents, Any]:
        self._begin()
        codec = self.codec
        share = codec.back_projection(step)
        features = self._features(codec.transforms.is_reduced(is_precise(step)), share > 0)
        y = quantize(features, codec.gain(step), share)
        return codec.search(self.picture, y, step, self.rounds)

    def _code(self, step: int) -> Coded:
        y, side = self._latents(step)
        return self.codec.code(self.picture, y, step, side)

    def _size(self, step: int) -> int:
        return len(pack(self._coded(step).container)) + self.chunk_bytes

    def _psnr(self, step: int) -> float:
        codec = self.codec
        if codec.architecture.is_exact:
            color = self._coded(step).color
            assert color is not None
            return psnr_db(self.picture, color)
        y, side = self._latents(step)
        height, width = self.picture.color.shape[:2]
        y_hat = codec.entropy_model.quantize(y, side, codec.weights.position(step))
        return psnr_db(
            self.picture, codec.synthesize(y_hat, height, width, self.picture.mode, step)
        )


def open_codec(options: EncodeOptions) -> tuple[Codec, int]:
    """The codec that options name, and the rounds of its search.

    Raises:
        ModelMissingError: the weights are not installed, or not what their model needs.
        UsageError: the options ask for what the model, its weights or the machine have not.
    """
    choice = catalogue.choose(options)
    model = choice.path, choice.name, choice.adaptive_z
    with _LOADING:
        return _codec(*model, options.device, options.precision), choice.rounds


def codec_of(container: Container, options: DecodeOptions) -> Codec:
    """The codec that a file needs.

    Raises:
        ModelMissingError, UsageError
        DamagedFileError: its weights do not offer what its header says, or its payload is too short.
        TooLargeError: few bytes ask for much work.
    """
    with _LOADING:
        path = weights_file.by_hash(container.model_hash, options.weights_path).path
        name, adaptive_z = catalogue.coded_by(path, container.adaptive)
        if name is None:
            raise DamagedFileError("a flag in the header does not suit the weights")
        codec = _codec(path, name, adaptive_z, options.device, options.precision)
    codec.refuse_short(container)
    refuse_sparse(container, options.max_pixels)
    return codec


_LOADING = threading.Lock()
"""Threads of a batch share codecs, each loaded once."""


def _after_fork() -> None:
    """A forked process would wait for ever for a thread of its parent that is loading."""
    global _LOADING
    _LOADING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=4)
def _transforms(path: Path, device: str, precision: str) -> tuple[Weights, Transforms]:
    """Checked weights, and g_a and g_s, which all models of a file share."""
    weights = weights_file.load(path)
    architecture = BY_NAME[catalogue.models(path)[0]]
    if not architecture.is_exact:
        memory.need_libraries()
    interface.check(architecture, weights)
    return weights, interface.transforms(architecture, weights, device, precision)


@lru_cache(maxsize=8)
def _codec(path: Path, name: str, adaptive_z: bool, device: str, precision: str) -> Codec:
    weights, transforms = _transforms(path, device, precision)
    try:
        model = interface.entropy_model(BY_NAME[name], weights, adaptive_z)
    except ValueError as error:  # sums that would not be exact
        raise ModelMissingError(f"{path}: {error}") from error
    return Codec(BY_NAME[name], weights, transforms, model, adaptive_z)


def chunks_of(picture: Picture) -> dict[bytes, bytes]:
    if picture.alpha is None:
        return picture.metadata
    return {**picture.metadata, ALPHA: alpha.pack(picture.alpha)}


def psnr_db(picture: Picture, decoded: NDArray[np.uint8]) -> float:
    """Of decoded pixels (H, W, 1 or 3) against a picture's colours, where alpha does not hide them."""
    squares = samples = 0
    for i, row in enumerate(picture.color):
        error = row.astype(np.int32) - decoded[i]
        if picture.alpha is not None:
            error = error[picture.alpha[i] > 0]
        squares += int((error * error).sum())
        samples += error.size
    return 10 * math.log10(255**2 * samples / squares) if squares else math.inf


def opacity_of(container: Container) -> NDArray[np.uint8] | None:
    """The file's alpha (H, W)."""
    content = container.chunks.get(ALPHA)
    return None if content is None else alpha.unpack(content, container.height, container.width)


def latents_crc32(y: NDArray[np.int32]) -> int:
    """CRC-32 of ŷ (M, h, w) as little-endian int32, channel after channel."""
    crc = 0
    for channel in y:
        crc = zlib.crc32(np.ascontiguousarray(channel, dtype="<i4").data, crc)
    return crc
