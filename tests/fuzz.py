"""Fuzz the whole decode path, from bytes to an image file, under a memory cap.

    pip install atheris
    python tests/fuzz.py [--minutes 10] [--corpus DIR]

Coverage-guided (atheris, libFuzzer), seeded with the golden files, whose pictures are cut and coded anew
with small weights, so that an input takes milliseconds. A checksum would end nearly every mutant at once,
so each input is parsed as it is, decoded with its CRC-32 made right, and one in four with that of the latents
or exact pixels made right, too, so that pixels are synthesized, metadata is written, and an image file comes
out. Each is read as EXIF, XMP and a file's name as well, and some choose arguments of the Python API.
Anything but a decoded image or a LicodecError is a find, and so is running out of memory or of time. Finds
are left as crash-* files; each deserves a test of its own. Atheris never frees what instrumented code
compares, so a fresh process goes on every so many inputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
import zlib
from multiprocessing import get_context
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["licodec"]):
    import licodec
    from licodec.container import Container, pack, unpack
    from licodec.entropy.residual import code_tiles
    from licodec.io import alpha, exif, metadata
    from licodec.io.image import from_pillow
    from licodec.io.output import to_file
    from licodec.open_codec import codec_of
    from licodec.options import DecodeOptions
    from licodec.payload import latents_crc32
    from licodec.progress import plain
    from licodec.rangecoder import Decoder
    from licodec.weights import catalogue

import torch
from odd_arguments import call
from PIL import Image
from small_weights import small_weights

GOLDEN = Path(__file__).resolve().parent / "golden"
SHIPPED = catalogue.resolve("adaptive")[1]
MAX_PIXELS = 2**12
"""The work of a decoder follows the pixels; larger files are parsed only."""
CAP_BYTES = 2**30
"""Address space beyond what a warm process has."""
SECONDS = 20
ROUND = 4000
"""Inputs of a process."""
CALLED = 8
"""Of so many inputs one is taken for arguments of the Python API as well, by its first CHOICES bytes."""
CHOICES = 16
WHOLE: list[Path] = []
"""A .lic file and its weights, for that."""
SIDE = 47
"""Pixels of a seed, at most."""
FORMATS = ("png", "jpeg", "webp", "ppm", "tiff")


def resealed(data: bytes) -> bytes:
    body = data[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def with_right_checksum(container: Container) -> Container:
    """The file that states the CRC-32 of the latents, or exact pixels, that its payload decodes to."""
    c = container
    codec = codec_of(c, DecodeOptions(device="cpu", precision="float32"))
    position = codec.weights.position(c.quality_step)
    h, w = -(-c.height // 16), -(-c.width // 16)
    decoder, visible = Decoder(c.payload), codec.visible(alpha.of(c))
    y = codec.entropy_model.code_latents(decoder, position, h, w, None, None, visible)
    if not codec.architecture.is_exact:
        return dataclasses.replace(c, latents_crc32=latents_crc32(y))
    x_hat = codec.synthesize(y, c.height, c.width, c.mode, c.quality_step)
    return dataclasses.replace(c, latents_crc32=zlib.crc32(code_tiles(decoder, x_hat).data))


def decode(data: bytes, format: str) -> None:
    image = licodec.decode(data, device="cpu", precision="float32", max_pixels=MAX_PIXELS)
    content, _ = to_file(image, format)
    with Image.open(io.BytesIO(content)) as written:
        written.load()


def attempt(data: bytes, format: str) -> None:
    try:
        decode(data, format)
    except licodec.OutOfMemoryError as error:
        raise MemoryError("over the cap") from error
    except licodec.LicodecError as error:
        assert "\n" not in str(error)


def as_metadata(data: bytes) -> None:
    """The input as EXIF and XMP of an image, and as a name."""
    image = Image.new("RGB", (2, 3))
    image.info["exif"], image.info["xmp"] = b"Exif\0\0" + data, data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.refuse_bombs(io.BytesIO(data))
            metadata.upright(image)
            from_pillow(image.copy(), strip=True)
            from_pillow(image.copy())
            to_file(image, FORMATS[len(data) % len(FORMATS)])
        except licodec.LicodecError as error:
            assert "\n" not in str(error)
    shown = plain(data.decode("utf-8", "surrogateescape"))
    shown.encode("utf-8")
    assert "\n" not in shown and "\x1b" not in shown


def one_input(data: bytes) -> None:
    as_metadata(data)
    chosen = zlib.crc32(data)
    if chosen % CALLED == 0 and WHOLE:
        call(data[:CHOICES], WHOLE[0].read_bytes(), weights=WHOLE[1])
    sealed = resealed(data)
    try:
        unpack(data)
    except licodec.LicodecError as error:
        assert "\n" not in str(error)
    try:
        repaired = with_right_checksum(unpack(sealed, MAX_PIXELS))
    except licodec.OutOfMemoryError as error:
        raise MemoryError("over the cap") from error
    except licodec.LicodecError as error:
        assert "\n" not in str(error)
        return
    if chosen // len(FORMATS) % 4 == 0:
        attempt(pack(repaired), FORMATS[chosen % len(FORMATS)])


def seeds(small: Path) -> dict[str, bytes]:
    """Name to content, all by small weights; of whatever cannot be decoded, only the hash is another."""
    hashes = [bytes.fromhex(path.stem[-8:]) for path in (SHIPPED, small)]
    out = {}
    for path in sorted(GOLDEN.glob("*/*.lic")):
        data = path.read_bytes()
        try:
            image = licodec.decode(data)
            own = catalogue.by_hash(unpack(data).model_hash)
            lossless = {"max_error": 0} if path.stem == "lossless" else {}
            out[f"{path.parent.name}-{path.name}"] = licodec.encode(
                image.crop((0, 0, min(image.width, SIDE), min(image.height, SIDE))),
                licodec.info(data)["quality"],
                "factorized" if path.stem.startswith("factorized") else None,
                weights=small if own == SHIPPED else own, **lossless,
            )  # fmt: skip
        except licodec.LicodecError:
            out[f"{path.parent.name}-{path.name}"] = data.replace(*hashes)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", help="kept between runs; a temporary folder by default")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.minutes * 60
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(arguments.corpus or Path(temporary) / "corpus")
        corpus.mkdir(exist_ok=True)
        while (left := round(end - time.monotonic())) > 0:
            process = get_context("spawn").Process(target=fuzz, args=(corpus, left))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


def fuzz(corpus: Path, seconds: int) -> None:
    """Run ROUND inputs, or for so long."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "weights"
        folder.mkdir()
        for path in GOLDEN.glob("*/*.safetensors"):
            shutil.copy(path, folder)
        os.environ["LICODEC_WEIGHTS"] = str(folder)
        small = small_weights(folder)
        WHOLE[:] = Path(temporary) / "whole.lic", small
        WHOLE[0].write_bytes(licodec.encode(Image.new("RGB", (6, 5)), weights=small))
        for name, seed in seeds(small).items():
            (corpus / name).write_bytes(seed)
            one_input(seed)  # loads weights and libraries, before the cap is set
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + CAP_BYTES, used + CAP_BYTES))
        options = [
            f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-runs={ROUND}",
            "-rss_limit_mb=0", "-max_len=4096", "-print_final_stats=1",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
