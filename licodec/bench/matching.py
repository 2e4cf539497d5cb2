"""Codecs at the same size: the quality of each whose file is nearest to a number of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from PIL import Image

from licodec.bench.interface import Peer


def match_size(
    codec: Peer, image: Image.Image, target: int, known: Mapping[float, int] | None = None
) -> tuple[float, bytes]:
    """The quality whose file is nearest to `target` bytes, and that file.

    Sizes are taken to grow with quality; where a codec disagrees, the file found is merely near.

    Args:
        known: sizes in bytes of this image's files by quality, which save trials.
    """

    @cache
    def encode(quality: float) -> bytes:
        return codec.encode(image, quality)

    candidates = _qualities(codec)
    first, last = 0, len(candidates) - 1
    for quality, size in (known or {}).items():
        if quality in candidates:
            at = candidates.index(quality)
            first, last = (max(first, at), last) if size < target else (first, min(last, at))
    if first > last:  # the sizes that are known do not grow
        first, last = 0, len(candidates) - 1
    while last - first > 1:
        middle = (first + last) // 2
        if len(encode(candidates[middle])) < target:
            first = middle
        else:
            last = middle
    nearest = min(
        candidates[first : last + 1], key=lambda quality: abs(len(encode(quality)) - target)
    )
    return nearest, encode(nearest)


def _qualities(codec: Peer) -> list[float]:
    """Every quality that the codec can be set to, from worst to best."""
    if codec.quality_step is None:
        return list(codec.qualities)
    low, high = codec.qualities[0], codec.qualities[-1]
    count = round((high - low) / codec.quality_step) + 1
    return [low + i * codec.quality_step for i in range(count)]
