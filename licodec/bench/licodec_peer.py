"""licodec's models as codecs of the benchmark."""

from __future__ import annotations

from PIL import Image

from licodec.bench.complexity import Complexity
from licodec.bench.interface import Peer, Settings
from licodec.errors import LicodecError


class Licodec(Peer):
    """licodec's own files, through its public functions."""

    qualities = (0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100)
    quality_step = 0.5

    def __init__(self, settings: Settings, model: str) -> None:
        super().__init__(settings)
        self.model = model
        self.name = f"licodec-{model}"
        self.description = f"licodec, model {model}"

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
        from licodec.weights import catalogue

        _, weights = catalogue.resolve(self.model)
        return f"licodec {licodec.__version__}, weights {weights.stem.rpartition('-')[2]}"

    def streams(self, data: bytes) -> dict[str, int]:
        import licodec

        described = licodec.info(data)["streams"]
        side, latents = int(described["side"]), int(described["latents"])
        return {"header": len(data) - side - latents, "side": side, "latents": latents}

    def decoder_complexity(self, width: int, height: int) -> Complexity | None:
        from licodec.bench import licodec_networks

        return licodec_networks.decoder_complexity(self.model, width, height)
