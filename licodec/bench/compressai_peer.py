"""CompressAI's architectures with a user's checkpoints. compressai is imported when one runs."""

from __future__ import annotations

import hashlib
from typing import Any

from PIL import Image

from licodec.bench.complexity import Complexity
from licodec.bench.interface import Peer, Settings, package_version
from licodec.errors import UsageError


class CompressAI(Peer):
    """A CompressAI architecture with the user's checkpoints, one for each quality."""

    quality_step = None

    def __init__(self, settings: Settings, architecture: str) -> None:
        super().__init__(settings)
        self.name = architecture
        self.description = f"CompressAI's {architecture}, the user's checkpoints"
        self.files = [file for name, file in settings.checkpoints if name == architecture]
        self.qualities = tuple(float(i + 1) for i in range(len(self.files)))
        self._networks: dict[float, Any] = {}

    def network(self, quality: float) -> Any:
        from licodec.bench import compressai_networks

        if quality not in self._networks:
            if quality not in self.qualities:
                raise UsageError(f"{self.name} has no checkpoint for quality {quality:g}")
            file = self.files[int(quality) - 1]
            self._networks[quality] = compressai_networks.load(
                self.name, file, self.settings.device
            )
        return self._networks[quality]

    def encode(self, image: Image.Image, quality: float) -> bytes:
        from licodec.bench import compressai_networks

        return compressai_networks.encode(self.network(quality), image, int(quality))

    def decode(self, data: bytes) -> Image.Image:
        from licodec.bench import compressai_networks

        return compressai_networks.decode(self.network(data[0]), data)

    def missing(self) -> str | None:
        try:
            from licodec.bench import compressai_networks
        except ImportError as error:
            return f"compressai cannot be imported ({error})"
        return compressai_networks.unknown(self.name)

    def version(self) -> str:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in self.files]
        return f"compressai {package_version('compressai')}, checkpoints {' '.join(hashes)}"

    def decoder_complexity(self, width: int, height: int) -> Complexity | None:
        from licodec.bench import compressai_networks

        return compressai_networks.decoder_complexity(self.network(1), width, height)
