"""Write the golden files of the hyperprior codecs: `python tests/golden/make_hyperprior.py`, once
for each format.

Each stands beside its own tiny weights, which CompressAI's class gave at random.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

import licodec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from small_checkpoints import ARCHES, checkpoint, with_scale_shifts  # noqa: E402

from licodec.training.convert.import_checkpoint import import_checkpoint  # noqa: E402

SMALL = {"cheng2020-attn": (12,)}


FOLDER = HERE / "hyperprior"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    expected = {}
    for arch in ARCHES:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "c.pt"
            checkpoint(arch, path, SMALL.get(arch, (8, 12)))
            weights = import_checkpoint(path, arch, None, FOLDER, arch)
        expected |= write(weights)
        if arch == "mbt2018-mean":
            expected |= write(with_scale_shifts(weights, FOLDER, "mbt2018-mean-s"))
    (FOLDER / "latents_crc32.json").write_text(json.dumps(expected, indent=1) + "\n")


def write(weights: Path) -> dict[str, int]:
    """The file and its picture beside its weights; the CRC-32 of its latents, by its name."""
    image = Image.fromarray(data.astronaut()[20:117, 180:311])
    weights.with_suffix(".json").unlink()
    encoded = licodec.encode(image, 60, weights=weights, device="cpu", precision="float32")
    weights.with_suffix(".lic").write_bytes(encoded)
    licodec.decode(encoded, weights=weights, device="cpu", precision="float32").save(
        weights.with_suffix(".png")
    )
    return {weights.stem: licodec.info(encoded)["latents_crc32"]}


if __name__ == "__main__":
    main()
