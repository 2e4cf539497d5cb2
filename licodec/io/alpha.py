"""Alpha, losslessly, and the colour that nobody sees under it (docs/format.md, §2)."""

from __future__ import annotations

import lzma

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licodec.container import ALPHA, Container
from licodec.errors import DamagedFileError

Pixels = NDArray[np.uint8]

_DICTIONARY = 2**22
# Position bits are for text and machine words; alpha has neither. A third smaller than deflate.
_LZMA = {
    "id": lzma.FILTER_LZMA2,
    "preset": 9,
    "dict_size": _DICTIONARY,
    "lc": 0,
    "lp": 0,
    "pb": 0,
}
_LEFT, _UP, _CONSTANT = 1, 2, 3
_SAMPLE = 2**20
"""Pixels on which the filter is chosen."""


def pack(alpha: Pixels) -> bytes:
    """Alpha (H, W) as the content of its chunk: a filter byte, then what the filter leaves."""
    if (alpha == alpha.flat[0]).all():
        return bytes([_CONSTANT, alpha.flat[0]])
    rows = max(1, _SAMPLE // alpha.shape[1])
    middle = max(0, (len(alpha) - rows) // 2)
    sample = alpha[middle : middle + rows]
    best = min((0, _LEFT, _UP), key=lambda kind: len(_compress(_filter(sample, kind))))
    return bytes([best]) + _compress(_filter(alpha, best))


def of(container: Container) -> Pixels | None:
    """A file's alpha (H, W)."""
    content = container.chunks.get(ALPHA)
    return None if content is None else unpack(content, container.height, container.width)


def unpack(content: bytes, height: int, width: int) -> Pixels:
    """Undo `pack`; no more than the pixels of the image are ever unpacked.

    Raises:
        DamagedFileError: not what `pack` writes for an image of this size.
    """
    kind = content[0] if content else 255
    if kind == _CONSTANT and len(content) == 2:
        return np.full((height, width), content[1], dtype=np.uint8)
    if kind > _UP:
        raise DamagedFileError("the alpha chunk has an unknown filter")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_LZMA])
    try:
        stored = decompressor.decompress(content[1:], height * width + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DamagedFileError("the alpha chunk does not decompress") from error
    if len(stored) != height * width or not decompressor.eof or decompressor.unused_data:
        raise DamagedFileError("the alpha chunk does not fit the image")
    plane = np.frombuffer(stored, dtype=np.uint8).reshape(height, width)
    if kind == 0:
        return plane
    return np.cumsum(plane, axis=2 - kind, dtype=np.uint8)


def _filter(alpha: Pixels, kind: int) -> Pixels:
    """Each value less its left (1) or upper (2) neighbour, mod 256; 0 outside the image."""
    if kind == 0:
        return alpha
    return np.diff(alpha, axis=2 - kind, prepend=np.uint8(0))


def _compress(plane: Pixels) -> bytes:
    return lzma.compress(np.ascontiguousarray(plane).data, format=lzma.FORMAT_RAW, filters=[_LZMA])


_BLOCK = 8
_BAND = 64 * _BLOCK
"""Rows that are looked at at once, which bounds the memory."""


def fill_hidden(color: Pixels, alpha: Pixels) -> Pixels:
    """Color (H, W, C) with the pixels of alpha 0 replaced by a smooth continuation of the others.

    Whatever stands there is never shown, but would cost bits and ring into what is. Visible pixels
    are averaged over blocks, and empty blocks take the average of ever larger surroundings.
    """
    if alpha.all():
        return color
    height, width = alpha.shape
    blocks = (-(-height // _BLOCK), -(-width // _BLOCK), color.shape[2] + 1)
    sums = np.zeros(blocks, dtype=np.float32)  # of the colours, and how many there are
    for top in range(0, height, _BAND):
        visible = alpha[top : top + _BAND, :, None] > 0
        samples = np.concatenate([np.where(visible, color[top : top + _BAND], 0), visible], axis=2)
        part = _reduce(samples, _BLOCK)
        sums[top // _BLOCK : top // _BLOCK + len(part)] = part
    field = _continue(sums)[:, :, :-1]
    bands = [Image.fromarray(np.ascontiguousarray(field[:, :, c])) for c in range(color.shape[2])]
    filled = color.copy()
    for top in range(0, height, _BAND):
        hidden = alpha[top : top + _BAND] == 0
        if not hidden.any():
            continue
        rows = len(hidden)
        box = (0.0, top / _BLOCK, width / _BLOCK, (top + rows) / _BLOCK)
        for c, band in enumerate(bands):
            smooth = band.resize((width, rows), Image.Resampling.BILINEAR, box)
            filled[top : top + rows, :, c][hidden] = np.asarray(smooth)[hidden].round()
    return filled


def visible_positions(alpha: Pixels, stride: int, reach: int) -> NDArray[np.bool_]:
    """Which latent positions (⌈H/stride⌉, ⌈W/stride⌉) have a pixel of alpha > 0 within `reach` positions.

    Exactly those can have a say in what is visible.
    """
    height, width = alpha.shape
    visible = np.maximum.reduceat(alpha, range(0, height, stride), axis=0)
    visible = np.maximum.reduceat(visible, range(0, width, stride), axis=1) > 0
    around = np.pad(visible, reach)
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(around, 2 * reach + 1, axis=axis)
        around = windows.any(-1)
    return around


def _reduce(samples: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Sums over factor x factor blocks of (H, W, C); the last ones may be cut by the border."""
    height, width, _ = samples.shape
    rows: NDArray[np.float32] = np.add.reduceat(
        samples, range(0, height, factor), axis=0, dtype=np.float32
    )
    return np.add.reduceat(rows, range(0, width, factor), axis=1)


def _continue(sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted sums (h, w, C + 1), the weight last, to means; where it is 0, those of coarser sums."""
    weight = sums[:, :, -1:]
    means: NDArray[np.float32] = sums / np.maximum(weight, 1)
    empty = weight[:, :, 0] == 0
    if not empty.any() or empty.size == 1:
        return means
    coarse = _continue(_reduce(sums, 2))
    size = (means.shape[1], means.shape[0])
    for c in range(means.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(coarse[:, :, c]))
        means[empty, c] = np.asarray(plane.resize(size, Image.Resampling.BILINEAR))[empty]
    return means
