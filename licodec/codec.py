"""encode(image) → bytes, decode(bytes) → image: the whole path.

image.from_pillow ─► transforms.analyze ─► models.code_latents ─► container.pack
image.to_pillow ◄─ transforms.synthesize ◄─ models.code_latents ◄─ container.unpack
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from licodec import catalogue, transforms, weights
from licodec import image as images
from licodec.attention_transforms import AttentionPair
from licodec.container import ALPHA, MAX_PIXELS, QUALITY_STEPS, Container, pack, unpack
from licodec.errors import DamagedFileError, ModelMissingError, UnsupportedImageError, UsageError
from licodec.gaussian import MEAN_UNIT
from licodec.hyperprior import Hyperprior
from licodec.image import Picture, from_pillow, to_pillow
from licodec.models import MODELS, Model, code_latents
from licodec.rangecoder import Decoder, Encoder
from licodec.transforms import STRIDE
from licodec.weights import Weights

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
    """

    def __init__(self, weights: Weights, device: str = "cpu", precision: str = "auto") -> None:
        self.weights = weights
        arch = weights.metadata.get("arch")
        pair = AttentionPair if arch == "cheng2020-attn" else transforms.Pair
        self.transforms = pair(weights.torch("g_a."), weights.torch("g_s."), device, precision)
        self.models: dict[str, Model] = {}
        self.hyperprior = None if arch is None else Hyperprior(weights)

    @property
    def unit(self) -> int:
        """ŷ is in this fraction of a step."""
        return 1 if self.hyperprior is None else MEAN_UNIT

    def model(self, name: str) -> Model:
        """The entropy model of that name over these weights, made once."""
        if name not in self.models:
            if name == "adaptive" and "z_prior" not in self.weights:
                raise ModelMissingError(f"{self.weights.path.name} has no adaptive distributions")
            self.models[name] = MODELS[name](self.weights)
        return self.models[name]

    def encode(self, picture: Picture, quality: float, model: str) -> bytes:
        """A picture to the bytes of a .lic file; quality 0 … 100, in halves."""
        step = round(quality * QUALITY_STEPS / 100)
        position = self.weights.position(step)
        height, width = picture.color.shape[:2]
        gain = self.weights.gain(position) * np.float32(self.unit)
        y = self.transforms.analyze(picture.color, gain, is_precise(step))
        encoder = Encoder()
        y_hat, side_bits = self._code(encoder, model, position, y)

        chunks = dict(picture.metadata)
        if picture.alpha is not None:
            chunks[ALPHA] = images.pack_alpha(picture.alpha)
        return pack(
            Container(
                width=width, height=height, mode=picture.mode, adaptive=model == "adaptive",
                model_hash=self.weights.hash, quality=step,
                side_bytes=math.ceil(side_bits / 8),
                latents_crc32=latents_crc32(y_hat), payload=encoder.finish(), chunks=chunks,
            )
        )  # fmt: skip

    def _code(
        self, encoder: Encoder, model: str, position: int, y: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], float]:
        """Write y (M, h, w), and return ŷ and the information of the side stream."""
        if self.hyperprior is not None:
            symbols = self.hyperprior.side_information(y)
            _, h, w = y.shape
            y_hat = self.hyperprior.code_latents(encoder, position, h, w, y, symbols)
            return y_hat, self.hyperprior.side_bits(symbols, position)
        entropy_model = self.model(model)
        flat = y.reshape(len(y), -1)
        z = entropy_model.side_information(flat, position)
        code_latents(entropy_model, encoder, position, flat.shape[1], flat, z)
        return y, entropy_model.side_bits(z, position)

    def decode(self, container: Container) -> Picture:
        """A parsed file to its picture.

        Raises:
            DamagedFileError: the latents are not those that were encoded.
        """
        y = self.decode_latents(container)
        gain = self.weights.gain(self.weights.position(container.quality))
        gain *= np.float32(self.unit)
        channels = 3 if container.mode.startswith("RGB") else 1
        color = self.transforms.synthesize(
            y, gain, container.height, container.width, channels, is_precise(container.quality)
        )
        alpha = None
        if container.mode.endswith("A"):
            alpha = images.unpack_alpha(
                container.chunks.get(ALPHA, b""), container.height, container.width
            )
        metadata = {k: v for k, v in container.chunks.items() if k != ALPHA}
        return Picture(container.mode, color, alpha, metadata)

    def decode_latents(self, container: Container) -> NDArray[np.int32]:
        """ŷ (M, h, w), checked against its CRC."""
        position = self.weights.position(container.quality)
        h, w = (math.ceil(side / STRIDE) for side in (container.height, container.width))
        decoder = Decoder(container.payload)
        if self.hyperprior is not None:
            if container.adaptive:
                raise DamagedFileError("a flag in the header does not suit the weights")
            y = self.hyperprior.code_latents(decoder, position, h, w)
        else:
            model = self.model("adaptive" if container.adaptive else "factorized")
            y = code_latents(model, decoder, position, h * w, None, None).reshape(-1, h, w)
        if latents_crc32(y) != container.latents_crc32:
            raise DamagedFileError("the latents decode to other values than were encoded")
        return y


def latents_crc32(y: NDArray[np.int32]) -> int:
    """CRC-32 of ŷ (M, h, w) as little-endian int32, channel after channel."""
    return zlib.crc32(y.astype("<i4", copy=False).tobytes())


@lru_cache(maxsize=4)
def _codec(path: Path, device: str, precision: str) -> Codec:
    return Codec(weights.load(path), device, precision)


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
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available")
    path = None if file is None else Path(file)
    if isinstance(source, bytes):
        return _codec(weights.by_hash(source, path).path, device, precision), ""
    name, path = catalogue.resolve(source, path)
    return _codec(path, device, precision), name


def encode(
    image: Image.Image,
    quality: float = 50,
    model: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    strip: bool = False,
) -> bytes:
    """Encode an image.

    Args:
        image: any 8-bit Pillow image, from 1x1 up.
        quality: 0 (smallest) … 100 (best), continuous in halves.
        model: a name that `licodec models` lists, with or without its `@HASH8`, or the path of a
            weights file; by default adaptive, or what `weights` offers.
        weights: a weights file to use instead of the installed ones.
        device: auto, cpu or cuda, for the transforms.
        precision: auto, float32 or bf16, for the transforms.
        strip: leave ICC, EXIF and XMP out.

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: the image, an argument or the weights cannot be used; one line says why.
    """
    picture = from_pillow(image)
    if strip:
        picture.metadata.clear()
    return encode_picture(picture, quality, model, device, precision, weights)


def encode_picture(
    picture: Picture, quality: float, model: str | None = None,
    device: str = "auto", precision: str = "auto", weights: str | Path | None = None,
) -> bytes:  # fmt: skip
    """`encode` for a picture already read."""
    if not 0 <= quality <= 100:
        raise UsageError(f"quality {quality} is not within 0 … 100")
    height, width = picture.color.shape[:2]
    if width * height > MAX_PIXELS:
        raise UnsupportedImageError(f"{width}x{height} is more than {MAX_PIXELS} pixels")
    codec, name = open_codec(model, device, precision, weights)
    return codec.encode(picture, quality, name)


def decode(
    data: bytes,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode a .lic file to a Pillow image of its mode, with ICC, EXIF and XMP in `info`.

    `weights` names a weights file to use instead of the installed ones.

    Raises:
        DamagedFileError: not a .lic file, or not as it was written.
        ModelMissingError: the weights it names are not installed.
    """
    container = unpack(data, max_pixels)
    codec, _ = open_codec(container.model_hash, device, precision, weights)
    return to_pillow(codec.decode(container))


def verify_latents(
    data: bytes, max_pixels: int = MAX_PIXELS, weights: str | Path | None = None
) -> int:
    """Decode a file's latents, and return their CRC-32, which is the one the file states.

    Raises:
        DamagedFileError: it is not, or the file is damaged.
    """
    container = unpack(data, max_pixels)
    codec, _ = open_codec(container.model_hash, "cpu", file=weights)
    return latents_crc32(codec.decode_latents(container))
