"""Bits a sample and channels as an image file declares them, since Pillow narrows some files to 8 bits, and
leaves channels out, without a word."""

from __future__ import annotations

from PIL import Image

_SEARCHED = 2**24
"""Bytes in which a declaration is looked for: profiles and other boxes may stand before it."""


def grey_step(image: Image.Image) -> int:
    """What one level of an opened, not yet loaded grey PNG of few bits becomes in 8: 1, 17 or 85.

    Pillow spreads the samples, but not the one value that tRNS declares transparent.
    """
    tiles = getattr(image, "tile", None) or [(None, None, None, "")]
    return {"L;2": 85, "L;4": 17}.get(str(tiles[0][3]), 1) if image.format == "PNG" else 1


def bits_per_sample(image: Image.Image) -> int:
    """What the file of an opened, not yet loaded image holds; 8 where nothing says otherwise."""
    if image.mode.startswith(("I", "F")):
        return 16 if ";16" in image.mode or image.format == "PPM" else 32
    bits = 8
    for tile in getattr(image, "tile", None) or []:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for argument in args:  # raw modes such as RGB;16B; the greatest value of a PPM file
            if isinstance(argument, str) and ";16" in argument:
                bits = 16
            elif tile[0] in ("ppm", "ppm_plain") and isinstance(argument, int) and argument > 255:
                bits = 16
    declared = {"TIFF": _tiff, "JPEG2000": _jpeg2000, "AVIF": _avif, "PSD": _psd, "SGI": _sgi}
    if image.format in declared:
        bits = max(bits, declared[image.format](image))
    return bits


def channels(image: Image.Image) -> int:
    """What the file of an opened, not yet loaded TIFF or PSD holds; 0 where nothing says so."""
    if image.format == "TIFF":
        declared = getattr(image, "tag_v2", {}).get(277, 0)
        return declared if isinstance(declared, int) else 0
    return int.from_bytes(_head(image, 14)[12:], "big") if image.format == "PSD" else 0


def _head(image: Image.Image, count: int) -> bytes:
    """First bytes of the image's file, whose position is left as it was."""
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    at = file.tell()
    file.seek(0)
    head: bytes = file.read(count)
    file.seek(at)
    return head


def _tiff(image: Image.Image) -> int:
    """BitsPerSample, tag 258."""
    bits: int | tuple[int, ...] = getattr(image, "tag_v2", {}).get(258, 8)
    return bits if isinstance(bits, int) else max(bits)


def _jpeg2000(image: Image.Image) -> int:
    """Ssiz of each component: depth less one in 7 bits, 39 bytes after the SIZ marker, 3 bytes apart."""
    head = _head(image, _SEARCHED)
    at = head.find(b"\xff\x4f\xff\x51") + 2
    if at < 2:
        return 8
    depths = [head[i] & 127 for i in range(at + 40, at + 40 + 3 * head[at + 39], 3)]
    return max(depths, default=7) + 1


def _avif(image: Image.Image) -> int:
    """high_bitdepth and twelve_bit of av1C, AV1 codec configuration."""
    head = _head(image, _SEARCHED)
    at = head.find(b"av1C")
    if at < 0 or at + 6 >= len(head) or not head[at + 6] & 0x40:
        return 8
    return 12 if head[at + 6] & 0x20 else 10


def _psd(image: Image.Image) -> int:
    """Depth, bytes 22 and 23."""
    return int.from_bytes(_head(image, 24)[22:24], "big")


def _sgi(image: Image.Image) -> int:
    """BPC, bytes a sample."""
    return 8 * int.from_bytes(_head(image, 4)[3:], "big")
