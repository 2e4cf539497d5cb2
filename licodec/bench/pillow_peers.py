"""Formats that Pillow writes and reads, JPEG XL by its plugin."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import PIL
from PIL import Image, features

from licodec.bench.interface import Peer, package_version
from licodec.io.files import image_of


class PillowPeer(Peer):
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
        image = image_of(data, formats=(self.format,))
        image.load()
        return image

    def missing(self) -> str | None:
        return None if features.check(self.feature) else f"this Pillow has no {self.format}"

    def version(self) -> str:
        return f"Pillow {PIL.__version__}, {self.feature} {features.version(self.feature)}"


class Jpeg(PillowPeer):
    name = "jpeg"
    description = "JPEG 4:2:0, progressive, optimized Huffman tables"
    format, feature = "JPEG", "jpg"
    media_type = "image/jpeg"
    qualities = (5, 10, 20, 35, 55, 75, 90, 95)

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality), "optimize": True, "progressive": True}


class WebP(PillowPeer):
    name = "webp"
    description = "WebP, lossy, method 6"
    format, feature = "WEBP", "webp"
    media_type = "image/webp"
    qualities = (1, 10, 30, 50, 70, 85, 92, 96)

    def options(self, quality: float) -> dict[str, Any]:
        return {"quality": round(quality), "method": 6}


class Jpeg2000(PillowPeer):
    name = "jpeg2000"
    description = "JPEG 2000, irreversible, quality in dB"
    format, feature = "JPEG2000", "jpg_2000"
    qualities = (26, 28, 30, 32, 34, 36, 38, 40)
    quality_step = 0.25

    def options(self, quality: float) -> dict[str, Any]:
        layers = {"quality_mode": "dB", "quality_layers": [quality]}
        return {**layers, "irreversible": True, "mct": 1}


class Avif(PillowPeer):
    name = "avif"
    description = "AVIF 4:4:4, speed 4"
    speed = 4
    format, feature = "AVIF", "avif"
    media_type = "image/avif"
    qualities = (15, 25, 35, 45, 55, 65, 75, 85)

    def options(self, quality: float) -> dict[str, Any]:
        return {
            "quality": round(quality),
            "subsampling": "4:4:4",
            "speed": self.speed,
            "max_threads": self.settings.threads,
        }

    def decode(self, data: bytes) -> Image.Image:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = self.settings.threads
        return super().decode(data)


class QuickAvif(Avif):
    name = "avif-speed6"
    description = "AVIF 4:4:4, speed 6, Pillow's default"
    speed = 6


class JpegXl(PillowPeer):
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


PILLOW_CODECS: tuple[type[PillowPeer], ...] = (Jpeg, WebP, Jpeg2000, Avif, QuickAvif, JpegXl)
