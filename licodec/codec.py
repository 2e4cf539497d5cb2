"""encode(image) → bytes, decode(bytes) → image: the whole path.

image.from_pillow ─► transforms.analyze (─► refine) ─► Model.code_latents ─► container.pack
image.to_pillow ◄─ transforms.synthesize ◄─ Model.code_latents ◄─ container.unpack
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from licodec.container import (
    ALPHA,
    MAX_PIXELS,
    QUALITY_STEPS,
    Container,
    pack,
    pack_chunks,
    refuse_large,
    unpack,
)
from licodec.entropy.gaussian import MEAN_UNIT
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.tabled import MODELS, Model
from licodec.errors import (
    DamagedFileError,
    ModelMissingError,
    UsageError,
    one_family,
)
from licodec.info import checked_bytes
from licodec.io import alpha, metadata
from licodec.io.image import Picture, from_pillow, to_pillow
from licodec.latent_search import refine
from licodec.networks import transforms
from licodec.networks.attention import AttentionPair
from licodec.networks.transforms import STRIDE
from licodec.rangecoder import LATENTS_PER_BYTE, Decoder, Encoder
from licodec.rate_control import Target, highest_within_size, lowest_with_psnr, rate_control
from licodec.weights import catalogue, schema
from licodec.weights import file as weights_file
from licodec.weights.catalogue import Z_DISTRIBUTIONS
from licodec.weights.file import Weights

Latents = NDArray[np.int32]

_LOADING = threading.Lock()
"""Threads of a batch share codecs and models, each loaded once."""

_PRECISE_FROM = 160


def is_precise(quality: int) -> bool:
    """Whether bf16 transforms would show: they cost 0.012 dB at quality 80 of 100, 0.026 at 100."""
    return quality > _PRECISE_FROM


class Codec:
    """One weights file on one device, ready to code pictures.

    Args:
        weights: the checked weights.
        device: cpu or cuda, for the transforms alone; the entropy path stays on the CPU.
        precision: float32, bf16, or auto: bf16 where the processor multiplies it natively and
            where it does not show (`is_precise`).

    Attributes:
        offers: names of the models that the weights offer.
        unit: y and ŷ are in this fraction of a step.
    """

    def __init__(self, weights: Weights, device: str = "cpu", precision: str = "auto") -> None:
        # oneDNN would keep kernels for 1024 shapes: 0.9 MB for every new size of image in a long batch.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        self.weights = weights
        self.offers = catalogue.models(weights.path)
        schema.check(weights)
        arch = weights.metadata.get("arch")
        self.unit = 1 if arch is None else MEAN_UNIT
        pair = AttentionPair if arch == "cheng2020-attn" else transforms.Pair
        self.transforms = pair(weights.torch("g_a."), weights.torch("g_s."), device, precision)
        self._models: dict[tuple[str, bool], Model] = {}

    def model(self, name: str, adaptive_z: bool = False) -> Model:
        """The entropy model of that name over these weights, made once.

        Args:
            adaptive_z: code ẑ by the image's own distributions, which the weights must have.

        Raises:
            ModelMissingError: they do not offer it, or would not compute it exactly.
        """
        if name not in self.offers:
            raise ModelMissingError(
                f"{self.weights.path.name} offers {' and '.join(self.offers)}, not {name}"
            )
        with _LOADING:
            key = name, adaptive_z
            if key not in self._models:
                try:
                    self._models[key] = (
                        Hyperprior(self.weights, True) if adaptive_z else MODELS[name](self.weights)
                    )
                except ValueError as error:  # sums that would not be exact
                    raise ModelMissingError(f"{self.weights.path}: {error}") from error
            return self._models[key]

    def model_of(self, container: Container) -> Model:
        """The entropy model that coded a file.

        Raises:
            DamagedFileError: these weights do not offer it.
        """
        adaptive_z = container.adaptive and f"{Z_DISTRIBUTIONS}prior" in self.weights
        name = "adaptive" if container.adaptive and not adaptive_z else self.offers[-1]
        if name not in self.offers:
            raise DamagedFileError("a flag in the header does not suit the weights")
        return self.model(name, adaptive_z)

    def encode(
        self, picture: Picture, quality: float, model: str, adaptive_z: bool = False,
        effort: int = 0,
    ) -> bytes:  # fmt: skip
        """A picture to the bytes of a .lic file; quality 0 … 100, in halves; effort as
        `catalogue.effort` has it."""
        step = round(quality * QUALITY_STEPS / 100)
        y = self.transforms.analyze(
            picture.color, self._gain(step), is_precise(step), self._echo(step)
        )
        y, side = self._searched(picture, y, step, self.model(model, adaptive_z), effort)
        return pack(self.container(picture, y, step, model, _chunks(picture), adaptive_z, side))

    def _searched(
        self, picture: Picture, y: Latents, step: int, model: Model, effort: int
    ) -> tuple[Latents, Any]:
        """y after so much effort, and the side information that it was spent for; None without."""
        if not effort:
            return y, None
        assert isinstance(model, Hyperprior)
        position = self.weights.position(step)
        side = model.side_information(y, position)
        y = refine(
            self.transforms, y, self.weights.gain(position), lambda y: model.forecast(y, side),
            self.weights.lmbda(position), picture.color, picture.alpha, effort, is_precise(step),
        )  # fmt: skip
        return y, side

    def encode_to(
        self, picture: Picture, target: Target, model: str, adaptive_z: bool = False,
        effort: int = 0,
    ) -> bytes:  # fmt: skip
        """A picture to the .lic file whose quality serves a target best; the features are made once for
        all that have no echo, and once for all that have one.

        Raises:
            UnreachableTargetError: no quality is small or good enough.
        """
        height, width = picture.color.shape[:2]
        chunks = _chunks(picture)
        chunk_bytes = len(pack_chunks(chunks))

        @cache  # a second time only where bf16 serves the lower qualities alone
        def features(reduced: bool, echo: bool) -> NDArray[np.float32]:
            return self.transforms.features(picture.color, not reduced, echo)

        @lru_cache(maxsize=1)
        def latents(step: int) -> tuple[Latents, Any]:
            reduced, echo = self.transforms.is_reduced(is_precise(step)), self._echo(step)
            y = transforms.quantize(features(reduced, echo > 0), self._gain(step), echo)
            return self._searched(picture, y, step, self.model(model, adaptive_z), effort)

        def container(step: int, chunks: dict[bytes, bytes]) -> Container:
            y, side = latents(step)
            return self.container(picture, y, step, model, chunks, adaptive_z, side)

        @cache
        def size(step: int) -> int:
            return len(pack(container(step, {}))) + chunk_bytes

        @cache
        def psnr(step: int) -> float:
            position = self.weights.position(step)
            y_hat = self.model(model).quantize(*latents(step), position)
            decoded = self.synthesize(y_hat, height, width, picture.mode, step)
            return psnr_db(picture, decoded)

        wanted = target.bytes(height * width)
        if wanted is None:
            assert target.psnr is not None
            step = lowest_with_psnr(psnr, target.psnr)
        else:
            step = highest_within_size(size, wanted)
        return pack(container(step, chunks))

    def _gain(self, step: int) -> NDArray[np.float32]:
        return self.weights.gain(self.weights.position(step)) * np.float32(self.unit)

    def _echo(self, step: int) -> float:
        return self.weights.echo(self.weights.position(step))

    def container(
        self, picture: Picture, y: Latents, step: int, model: str, chunks: dict[bytes, bytes],
        adaptive_z: bool = False, side: Any = None,
    ) -> Container:  # fmt: skip
        """The file of a picture whose latents y (M, h, w) are known, in 1/unit, at quality step / 2, and
        maybe their side information."""
        position = self.weights.position(step)
        height, width = picture.color.shape[:2]
        seen = self.seen(picture.alpha)
        entropy_model = self.model(model, adaptive_z)
        if side is None:
            side = entropy_model.side_information(y, position, seen)
        encoder = Encoder()
        _, h, w = y.shape
        y_hat = entropy_model.code_latents(encoder, position, h, w, y, side, seen)
        return Container(
            width=width, height=height, mode=picture.mode,
            adaptive=adaptive_z or model == "adaptive", model_hash=self.weights.hash, quality=step,
            side_bytes=math.ceil(entropy_model.side_bits(side, position) / 8),
            latents_crc32=latents_crc32(y_hat), payload=encoder.finish(y.size // LATENTS_PER_BYTE),
            chunks=chunks,
        )  # fmt: skip

    def decode(self, container: Container) -> Picture:
        """A parsed file to its picture.

        Raises:
            DamagedFileError: the latents are not those that were encoded.
        """
        c = container
        opacity = opacity_of(c)
        y = self.decode_latents(c, opacity)
        color = self.synthesize(y, c.height, c.width, c.mode, c.quality)
        chunks = {k: v for k, v in c.chunks.items() if k != ALPHA}
        return Picture(c.mode, color, opacity, chunks)

    def synthesize(
        self, y: Latents, height: int, width: int, mode: str, step: int
    ) -> NDArray[np.uint8]:
        """The pixels (height, width, 1 or 3) that ŷ (M, h, w) stands for at quality step / 2."""
        channels = 3 if mode.startswith("RGB") else 1
        return self.transforms.synthesize(
            y, self._gain(step), height, width, channels, is_precise(step)
        )

    def seen(self, opacity: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
        """The latent positions (h, w) that reach a visible pixel; None stands for all."""
        if opacity is None or opacity.all():
            return None
        return alpha.seen_positions(opacity, STRIDE, self.transforms.halo)

    def decode_latents(
        self, container: Container, opacity: NDArray[np.uint8] | None = None
    ) -> NDArray[np.int32]:
        """ŷ (M, h, w), checked against its CRC.

        Args:
            opacity: the file's alpha, if it was unpacked before.

        Raises:
            DamagedFileError: it does not agree, or the payload is too short for so many latents.
        """
        position = self.weights.position(container.quality)
        h, w = (math.ceil(side / STRIDE) for side in (container.height, container.width))
        if len(container.payload) < self.transforms.M * h * w // LATENTS_PER_BYTE:
            raise DamagedFileError(
                f"{len(container.payload)} bytes cannot hold {container.width}x{container.height} pixels"
            )
        decoder = Decoder(container.payload)
        seen = self.seen(opacity_of(container) if opacity is None else opacity)
        y = self.model_of(container).code_latents(decoder, position, h, w, seen=seen)
        if latents_crc32(y) != container.latents_crc32:
            raise DamagedFileError("the latents decode to other values than were encoded")
        return y


def _chunks(picture: Picture) -> dict[bytes, bytes]:
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


@lru_cache(maxsize=4)
def _codec(path: Path, device: str, precision: str) -> Codec:
    return Codec(weights_file.load(path), device, precision)


def open_codec(
    source: str | bytes | None, device: str = "auto", precision: str = "auto",
    file: str | Path | None = None,
) -> tuple[Codec, str]:  # fmt: skip
    """The codec and model name for a model argument, or the codec for a file's weights hash.

    Args:
        source: as `catalogue.resolve` takes it; or the 4 bytes of a .lic file.
        file: a weights file to use instead of the installed ones.

    Raises:
        ModelMissingError, UsageError
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device {device!r}; there are auto, cpu and cuda")
    if precision not in ("auto", "float32", "bf16"):
        raise UsageError(f"no precision {precision!r}; there are auto, float32 and bf16")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available")
    path = _weights_path(file)
    with _LOADING:
        if isinstance(source, bytes):
            return _codec(weights_file.by_hash(source, path).path, device, precision), ""
        name, path = catalogue.resolve(source, path)
        return _codec(path, device, precision), name


def _weights_path(file: str | Path | None) -> Path | None:
    if file is None:
        return None
    if not isinstance(file, (str, os.PathLike)) or not str(file):
        raise UsageError(f"weights are named by a path, not {file!r}")
    return Path(file)


def encode(
    image: Image.Image,
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
) -> bytes:
    """Encode an image.

    Args:
        image: any 8-bit Pillow image, from 1x1 up.
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

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: the image, an argument or the weights cannot be used; one line says why.
    """
    rate = rate_control(quality, target_size, target_bpp, target_psnr)
    if not isinstance(image, Image.Image):
        raise UsageError(
            f"a Pillow image is wanted, not {type(image).__name__}; Image.open(path) opens a file, "
            "Image.fromarray(array) takes an array"
        )
    refuse_large(image.width, image.height, max_pixels)
    adaptive_z = catalogue.adaptive_z(z_distributions, model, _weights_path(weights))
    rounds = catalogue.effort(effort, model, _weights_path(weights))
    with one_family():
        picture = from_pillow(image, strip)
    return encode_picture(picture, rate, model, device, precision, weights, adaptive_z, rounds)


def encode_picture(
    picture: Picture, rate: float | Target, model: str | None = None,
    device: str = "auto", precision: str = "auto", weights: str | Path | None = None,
    adaptive_z: bool = False, effort: int = 0,
) -> bytes:  # fmt: skip
    """`encode` for a picture already read, to a quality or a target."""
    if isinstance(model, bytes):
        raise UsageError(f"a model is named by a string, not {model!r}")
    codec, name = open_codec(model, device, precision, weights)
    with one_family():
        if isinstance(rate, Target):
            return codec.encode_to(picture, rate, name, adaptive_z, effort)
        return codec.encode(picture, rate, name, adaptive_z, effort)


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

    `weights` names a weights file to use instead of the installed ones; `strip` leaves ICC, EXIF and XMP
    out, and turns the pixels as EXIF said.

    Raises:
        UsageError: `data` is no bytes.
        DamagedFileError: not a .lic file, or not as it was written.
        ModelMissingError: the weights it names are not installed.
    """
    container = unpack(checked_bytes(data), max_pixels)
    codec, _ = open_codec(container.model_hash, device, precision, weights)
    with one_family():
        image = to_pillow(codec.decode(container))
        return metadata.strip(image) if strip else image


def verify_latents(
    data: bytes, max_pixels: int = MAX_PIXELS, weights: str | Path | None = None
) -> int:
    """Decode a file's latents, and return their CRC-32, which is the one the file states.

    Raises:
        DamagedFileError: it is not, or the file is damaged.
    """
    container = unpack(checked_bytes(data), max_pixels)
    codec, _ = open_codec(container.model_hash, "cpu", file=weights)
    return latents_crc32(codec.decode_latents(container))
