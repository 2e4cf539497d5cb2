"""A folder or tar shards of images, decoded once and kept on the training device."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from licodec.errors import UsageError, said
from licodec.io.files import has_image_suffix, image_of
from licodec.progress import track
from licodec.training.graphics import drawn


def _files(root: Path) -> dict[str, bytes]:
    """Every image file under a folder and in its shards, in the order of paths and of names in a shard. Of
    two of one name the later counts, but a lossy one never takes a lossless one's place."""
    found: dict[str, bytes] = {}
    for name, data in _all_files(root):
        if name in found and is_lossless(found[name]) and not is_lossless(data):
            continue
        found[name] = data
    return found


def _all_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.suffix.lower() == ".tar":
            yield from _members(path)
        elif has_image_suffix(path):
            yield str(path.relative_to(root)), path.read_bytes()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The image files of a shard, by name."""
    try:
        with tarfile.open(path) as tar:
            for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
                stream = tar.extractfile(member)
                if stream and has_image_suffix(Path(member.name)):
                    yield member.name, stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: no readable shard{said(error)}") from error


def is_lossless(data: bytes) -> bool:
    """Whether an image file holds its pixels without loss: all but JPEG, and WebP without a VP8L chunk."""
    if data[:2] == b"\xff\xd8":
        return False
    return data[8:12] != b"WEBP" or b"VP8L" in data[12:64]


class Images:
    """uint8 images (3, H, W) in device memory, and random crops of them.

    Args:
        root: folder of images, or of .tar shards.
        holdout: how many of the last images are kept for validation.
        patch: images with a smaller side than this are left out.
        device: where the pixels live.
        share: (rank, processes): the training images are dealt out like cards.
        count: keep so many of the training images, evenly spread; 0 for all.
        scale: shrink each lossy image once by a factor drawn from this range (two numbers, or one), which
            takes away most of what its compression did to it; () for none.
        graphics: share of the crops that are drawn instead.

    Raises:
        UsageError: there is nothing to train on.
    """

    def __init__(
        self,
        root: str | Path,
        holdout: int,
        patch: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
        count: int = 0,
        scale: tuple[float, ...] = (),
        graphics: float = 0.0,
    ) -> None:
        if not str(root):
            raise UsageError("no data: --data names a folder of images, or data.path in the config")
        if not Path(root).is_dir():
            raise UsageError(f"data.path {root!s}: not a folder")
        digest = hashlib.sha256()
        factors = np.random.default_rng(0)
        images: list[NDArray[np.uint8]] = []
        for name, data in track(list(_files(Path(root)).items()), "reading images"):
            digest.update(data)
            try:
                with image_of(data) as image:
                    if image.mode[0] in "IF":
                        raise UsageError("has more than 8 bits a sample")
                    shrink = float(factors.uniform(scale[0], scale[-1])) if scale else 1.0
                    rgb = image.convert("RGB")
                    if shrink != 1 and not is_lossless(data):
                        size = (round(rgb.width * shrink), round(rgb.height * shrink))
                        rgb = rgb.resize(size, Image.Resampling.LANCZOS)
                    pixels = np.array(rgb)
            except Exception as error:  # foreign decoders raise anything at all
                raise UsageError(
                    f"data.path {root!s}: {name} cannot be read{said(error)}"
                ) from error
            if min(pixels.shape[:2]) >= patch:
                images.append(pixels)
        if not images:
            raise UsageError(f"data.path {root!s}: no image of {patch} pixels a side or more")
        if len(images) <= holdout:
            found = f"{len(images)} usable images, of which data.holdout keeps {holdout}"
            raise UsageError(f"data.path {root!s}: {found}")
        self.sha256 = digest.hexdigest()
        split = len(images) - holdout
        rank, processes = share
        tensors = [torch.from_numpy(a).permute(2, 0, 1) for a in images]
        kept = tensors[:split]
        if 0 < count < split:
            kept = [tensors[i * split // count] for i in range(count)]
        self.train = [t.to(device) for t in kept[rank::processes]]
        self.validation = [t.to(device) for t in tensors[split:]]
        self._device, self._graphics = device, graphics
        self._smallest = min(min(t.shape[1:]) for t in tensors)
        areas = np.array([t.shape[1] * t.shape[2] for t in self.train], dtype=np.float64)
        self._weights = np.sqrt(areas) / np.sqrt(areas).sum()

    def choose(self, rng: np.random.Generator, batch: int) -> NDArray[np.int64]:
        """Indices of training images; large ones come up more often, by the root of their area."""
        return rng.choice(len(self.train), size=batch, p=self._weights)

    def crops(self, rng: np.random.Generator, batch: int, patch: int) -> Tensor:
        """Random crops, flipped and turned: uint8 (batch, 3, patch, patch); smaller where images are."""
        return self.marked_crops(rng, batch, patch)[0]

    def marked_crops(
        self, rng: np.random.Generator, batch: int, patch: int
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """The same, and which of them are drawn (batch,)."""
        out, patch = [], min(patch, self._smallest)
        is_drawn = np.zeros(batch, np.bool_)
        for i, index in enumerate(self.choose(rng, batch)):
            if self._graphics and rng.random() < self._graphics:
                is_drawn[i] = True
                picture = torch.from_numpy(drawn(rng, patch).copy())
                out.append(picture.permute(2, 0, 1).to(self._device))
                continue
            crop = window(self.train[index], patch, rng)
            if rng.integers(2):
                crop = crop.flip(2)
            out.append(torch.rot90(crop, int(rng.integers(4)), (1, 2)))
        return torch.stack(out), is_drawn


def window(image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """A random square (C, size, size) of an image (C, H, W)."""
    top = rng.integers(image.shape[1] - size + 1)
    left = rng.integers(image.shape[2] - size + 1)
    return image[:, top : top + size, left : left + size]


def central(image: Tensor, size: int, multiple: int = 16) -> Tensor:
    """The middle of an image (C, H, W): at most size a side, and a multiple of so much."""
    height, width = (min(side, size) // multiple * multiple for side in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]
