"""One small adapter a codec: an 8-bit RGB image to the bytes of a file, and back."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import PIL
from PIL import Image, features

from licodec.bench.complexity import Complexity
from licodec.bench.compressai_peer import CompressAI
from licodec.bench.interface import Codec, Settings, package_version
from licodec.errors import LicodecError, UsageError


class Licodec(Codec):
    """licodec's own files, through its public functions."""

    model: ClassVar[str]
    qualities = (0, 15, 30, 45, 60, 75, 90, 100)
    quality_step = 0.5

    def missing(self) -> str | None:
        from licodec.weights import catalogue

        try:
            catalogue.resolve(self.model)
        except LicodecError as error:
            return str(error)
        return None

    def encode(self, image: Image.Image, quality: float) -> bytes:
        import licodec

        data: bytes = licodec.encode(image, quality, self.model, device=self.settings.device)
        return data

    def decode(self, data: bytes) -> Image.Image:
        import licodec

        image: Image.Image = licodec.decode(data, device=self.settings.device)
        return image

    def version(self) -> str:
        import licodec

        smallest = licodec.info(self.encode(Image.new("RGB", (1, 1)), 0))
        return f"licodec {licodec.__version__}, weights {smallest['model_hash']}"

    def streams(self, data: bytes) -> dict[str, int]:
        import licodec

        described = licodec.info(data)["streams"]
        side, latents = int(described["side"]), int(described["latents"])
        return {"header": len(data) - side - latents, "side": side, "latents": latents}

    def decoder_complexity(self, width: int, height: int) -> Complexity | None:
        from licodec.bench import licodec_networks

        return licodec_networks.decoder_complexity(self.model, width, height)


class LicodecAdaptive(Licodec):
    name = "licodec-adaptive"
    description = "licodec, encoding distributions adapted to each image"
    model = "adaptive"


class LicodecFactorized(Licodec):
    name = "licodec-factorized"
    description = "licodec, static encoding distributions"
    model = "factorized"


class LicodecScaleHyperprior(Licodec):
    name = "licodec-scale-hyperprior"
    description = "licodec, bmshj2018-hyperprior"
    model = "scale-hyperprior"


class LicodecHyperprior(Licodec):
    name = "licodec-hyperprior"
    description = "licodec, mbt2018-mean"
    model = "hyperprior"


class LicodecAutoregressive(Licodec):
    name = "licodec-autoregressive"
    description = "licodec, mbt2018"
    model = "autoregressive"


class LicodecAttention(Licodec):
    name = "licodec-attention"
    description = "licodec, cheng2020-attn"
    model = "attention"


class PillowCodec(Codec):
    """A format that Pillow writes and reads."""

    format: ClassVar[str]
    feature: ClassVar[str]

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality)}

    def encode(self, image: Image.Image, quality: float) -> bytes:
        file = io.BytesIO()
        image.save(file, format=self.format, **self.options(quality))
        return file.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data), formats=[self.format]) as image:
            image.load()
            return image

    def missing(self) -> str | None:
        return None if features.check(self.feature) else f"this Pillow has no {self.format}"

    def version(self) -> str:
        return f"Pillow {PIL.__version__}, {self.feature} {features.version(self.feature)}"


class Jpeg(PillowCodec):
    name = "jpeg"
    description = "JPEG 4:2:0, progressive, optimized Huffman tables"
    format, feature = "JPEG", "jpg"
    qualities = (5, 10, 20, 35, 55, 75, 90, 95)

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality), "optimize": True, "progressive": True}


class WebP(PillowCodec):
    name = "webp"
    description = "WebP, lossy, method 6"
    format, feature = "WEBP", "webp"
    qualities = (1, 10, 30, 50, 70, 85, 92, 96)

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality), "method": 6}


class Jpeg2000(PillowCodec):
    name = "jpeg2000"
    description = "JPEG 2000, irreversible, quality in dB"
    format, feature = "JPEG2000", "jpg_2000"
    qualities = (26, 28, 30, 32, 34, 36, 38, 40)
    quality_step = 0.25

    def options(self, quality: float) -> dict[str, Any]:
        layers = {"quality_mode": "dB", "quality_layers": [quality]}
        return {**layers, "irreversible": True, "mct": 1}


class Avif(PillowCodec):
    name = "avif"
    description = "AVIF 4:4:4, speed 4"
    format, feature = "AVIF", "avif"
    qualities = (15, 25, 35, 45, 55, 65, 75, 85)

    def options(self, quality: float) -> dict[str, Any]:
        return {
            "quality": round(quality), "subsampling": "4:4:4", "speed": 4,
            "max_threads": self.settings.threads,
        }  # fmt: skip

    def decode(self, data: bytes) -> Image.Image:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = self.settings.threads
        return super().decode(data)


class JpegXl(PillowCodec):
    name = "jpegxl"
    description = "JPEG XL, effort 7"
    format = "JXL"
    qualities = (5, 15, 30, 50, 65, 80, 90, 94)

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality), "effort": 7, "num_threads": self.settings.threads}

    def encode(self, image: Image.Image, quality: float) -> bytes:
        import pillow_jxl  # noqa: F401  registers the format

        return super().encode(image, quality)

    def decode(self, data: bytes) -> Image.Image:
        from pillow_jxl import JpegXLImagePlugin

        JpegXLImagePlugin.DECODE_THREADS = self.settings.threads
        return super().decode(data)

    def missing(self) -> str | None:
        try:
            import pillow_jxl  # noqa: F401
        except ImportError as error:
            return f"pillow-jxl-plugin cannot be imported ({error})"
        return None

    def version(self) -> str:
        return f"pillow-jxl-plugin {package_version('pillow-jxl-plugin')}"


ADAPTERS: dict[str, type[Codec]] = {
    adapter.name: adapter
    for adapter in (
        LicodecAdaptive,
        LicodecFactorized,
        LicodecScaleHyperprior,
        LicodecHyperprior,
        LicodecAutoregressive,
        LicodecAttention,
        Jpeg,
        WebP,
        Jpeg2000,
        Avif,
        JpegXl,
    )
}


def default() -> list[str]:
    """The codecs of a run that names none: all but licodec's models that lack weights."""
    return [
        name
        for name, adapter in ADAPTERS.items()
        if not issubclass(adapter, Licodec) or adapter(Settings()).missing() is None
    ]


def make(name: str, settings: Settings) -> Codec:
    """The adapter of a codec's name.

    Raises:
        UsageError: neither a known codec nor an architecture with a checkpoint.
    """
    if name in ADAPTERS:
        return ADAPTERS[name](settings)
    architectures = dict(settings.checkpoints)
    if name in architectures:
        return CompressAI(settings, name)
    known = ", ".join([*ADAPTERS, *architectures])
    raise UsageError(f"no codec named {name!r}; there are {known}")


def check(codec: Codec) -> str:
    """Round-trip a small image and return the codec's version.

    Raises:
        LicodecError: the codec cannot run here; the message says why.
    """
    reason = codec.missing()
    if reason:
        raise LicodecError(reason)
    image = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    try:
        decoded = codec.decode(codec.encode(image, codec.qualities[len(codec.qualities) // 2]))
        if decoded.size != image.size:
            raise LicodecError(f"decodes {image.size} pixels to {decoded.size}")
        return codec.version()
    except LicodecError:
        raise
    except Exception as error:  # whatever a foreign library throws, the run goes on without it
        raise LicodecError(f"{type(error).__name__}: {error}") from error
