"""ICC, EXIF and XMP: out of a Pillow image into chunks, and back into the formats that hold them."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

from PIL import Image

from licodec.container import EXIF, ICC, XMP
from licodec.errors import UnsupportedImageError
from licodec.io import exif
from licodec.io.exif import DIRECTORIES, ORIENTATION, PREFIX

MOST = {EXIF: exif.MAX_BYTES, XMP: 2**20, ICC: 2**22}
"""Bytes of each that are taken over, or written into an image file."""

NAMES = {ICC: "ICC profile", EXIF: "EXIF", XMP: "XMP"}
_KEYS = {ICC: "icc_profile", EXIF: "exif", XMP: "xmp"}

# TIFF keeps what describes a photograph and what describes its own bytes in one directory.
_LAYOUT = {ORIENTATION} | set(
    map(
        int,
        """
        254 255 256 257 258 259 262 263 264 265 266 273 277 278 279 280 281 284 288 289 290 291 292
        293 301 317 318 319 320 321 322 323 324 325 330 338 339 340 341 347 512 513 514 515 517 518
        519 520 521 529 530 531 532 700 34675
        """.split(),
    )
)

_RAW = "Raw profile type "
"""How ImageMagick and its kin name EXIF, XMP and ICC that stand in a PNG's text, in hexadecimal."""
_RAW_NAMES = {ICC: ("icc", "icm"), EXIF: ("exif", "APP1"), XMP: ("xmp", "APP1")}
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_RAW_PREFIX = {ICC: b"", EXIF: PREFIX, XMP: b"http://ns.adobe.com/xap/1.0/\0"}


def large_tags(image: Image.Image) -> dict[int, int]:
    """Tags of an opened, not yet loaded TIFF file that leave no room for the rest of its EXIF, such as the
    layers that Photoshop keeps; with their bytes."""
    file = getattr(image, "fp", None)
    if image.format != "TIFF" or file is None:
        return {}
    before = file.tell()
    sizes = {entry.tag: entry.size for entry in exif.entries(file)[1] if entry.tag not in _LAYOUT}
    file.seek(before)
    large: dict[int, int] = {}
    for tag in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if sum(sizes.values()) - sum(large.values()) <= MOST[EXIF] // 2:
            break
        large[tag] = sizes[tag]
    return large


def read(image: Image.Image, without: dict[int, int]) -> tuple[dict[bytes, bytes], list[str]]:
    """Chunk type to content, of a loaded image, and notes of what is left out.

    Args:
        without: tags of a TIFF file that are left out, with their bytes.

    Raises:
        UnsupportedImageError: one of them is larger than MOST says.
    """
    notes = [
        f"the EXIF's tag {tag} was left out: it has {size:,} bytes"
        for tag, size in without.items()
        if image.format == "TIFF"
    ]
    found: dict[bytes, Any] = {
        ICC: image.info.get("icc_profile"),
        EXIF: _tiff_exif(image, without) if image.format == "TIFF" else image.info.get("exif"),
        XMP: image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"),
    }
    kept = {"exif", "XML:com.adobe.xmp"}
    for kind in [kind for kind in NAMES if not found[kind]]:
        key, found[kind] = _raw_profile(image, kind)
        kept.add(key)
    notes += [f"the {name} was left out" for name in _without_place(image, kept)]
    if "icc_profile" in image.info and not found[ICC]:
        notes.append("the ICC profile was left out: it does not inflate")
    chunks: dict[bytes, bytes] = {}
    for kind, value in found.items():
        content = _bytes_of(value)
        if content is None:
            notes.append(f"the {NAMES[kind]} was left out: it is {type(value).__name__}, not bytes")
        elif content := content.removeprefix(PREFIX if kind == EXIF else b""):
            chunks[kind] = content
    for kind, content in chunks.items():
        if len(content) > MOST[kind]:
            raise UnsupportedImageError(
                f"its {NAMES[kind]} has {len(content):,} bytes, more than {MOST[kind]:,}; "
                "--strip leaves it out"
            )
    return chunks, notes


def _bytes_of(value: object) -> bytes | None:
    """What stands in an image's `info`; None for what is no bytes."""
    if not value:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


def _raw_profile(image: Image.Image, kind: bytes) -> tuple[str, bytes]:
    """Where a PNG's text holds this kind, and what; nothing where it is not as it says."""
    for key in (_RAW + name for name in _RAW_NAMES[kind]):
        try:
            _, length, digits = str(image.info.get(key, "")).split(None, 2)
            content = bytes.fromhex(digits)
        except ValueError:  # not three words, or not hexadecimal
            continue
        prefixed = content.startswith(_RAW_PREFIX[kind])
        if str(len(content)) == length and (prefixed or not key.endswith("APP1")):
            return key, content.removeprefix(_RAW_PREFIX[kind])
    return "", b""


def _without_place(image: Image.Image, kept: set[str]) -> list[str]:
    """Names of what an image says that no chunk holds; `kept` are the texts that one does."""
    text = [repr(key)[1:-1] for key in _texts(image) if key not in kept]
    out = [f"text ({', '.join(text)})"] if text else []
    if image.info.get("comment") and "comment" not in text:
        out.append("comment")
    if "photoshop" in image.info:
        out.append("IPTC")
    out += _segments(image)
    # sRGB's own gamma, or a profile that says more: nothing is lost.
    gamma = image.info.get("gamma", 1 / 2.2)
    if (
        isinstance(gamma, Real)
        and abs(float(gamma) - 1 / 2.2) > 0.001
        and not image.info.get("icc_profile")
    ):
        out.append(f"gamma of {gamma:g}")
    return out


_RESOURCES = {1028: "IPTC", 1058: "EXIF", 1060: "XMP"}
"""Of a PSD file."""


def _segments(image: Image.Image) -> list[str]:
    """What Pillow does not read of a JPEG or PSD, and that is known to be metadata."""
    segments = getattr(image, "applist", None) or []
    out = []
    if any(name == "APP1" and data.startswith(_EXTENDED_XMP) for name, data in segments):
        out.append("extended part of the XMP")
    if any(name == "APP11" for name, _ in segments):
        out.append("JUMBF (C2PA)")
    resources = getattr(image, "resources", None) or []
    known = {resource[0] for resource in resources} & _RESOURCES.keys()
    return out + [_RESOURCES[number] for number in sorted(known)]


_TYPED = ("transparency", "exif", "icc_profile", "gamma", "photoshop", "xmp")


def _texts(image: Image.Image) -> dict[str, Any]:
    """The texts of a PNG by keyword."""
    texts = getattr(image, "text", None)
    return texts if isinstance(texts, dict) else {}


def untangle(image: Image.Image) -> None:
    """Drop a PNG's text where its keyword takes the place of something else in Pillow's `info`."""
    texts = _texts(image)
    for key in _TYPED:
        if key in texts and isinstance(image.info.get(key), str):
            del image.info[key]


def _tiff_exif(image: Image.Image, without: dict[int, int]) -> bytes:
    # Pillow has already turned the pixels of a TIFF file as its orientation says.
    found = image.getexif()
    for tag in (_LAYOUT | set(without)) & set(found):
        del found[tag]
    return found.tobytes() if len(found) else b""


def attach(image: Image.Image, chunks: dict[bytes, bytes]) -> None:
    """Put chunks where Pillow's writers look for them."""
    for kind, content in chunks.items():
        # Pillow's JPEG writer wants EXIF with the prefix that its readers leave on.
        image.info[_KEYS[kind]] = (PREFIX if kind == EXIF else b"") + content


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation(image: Image.Image) -> int:
    """1 … 8, as the EXIF says, or else the XMP; 1 of a TIFF, which Pillow has turned."""
    if image.format == "TIFF":
        return 1
    content = _bytes_of(image.info.get("exif")) or _raw_profile(image, EXIF)[1]
    said = exif.orientation(content.removeprefix(PREFIX))
    if said is None:
        packet = _bytes_of(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")) or b""
        match = _XMP_ORIENTATION.search(packet, 0, MOST[XMP])
        said = int(match[1]) if match else 1
    return said


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; for whoever drops the EXIF or cannot write it."""
    turn = _TURNS.get(orientation(image))
    if turn is None:
        return image
    image = image.transpose(turn)
    packet = image.info.get("xmp")
    if isinstance(packet, bytes):  # it says so, too, and would have the picture turned again
        image.info["xmp"] = re.sub(rb'(tiff:Orientation(?:="|>))[1-8]', rb"\g<1>1", packet)
    return image


def strip(image: Image.Image) -> Image.Image:
    """The image without metadata, turned as it said."""
    image = upright(image)
    for key in _KEYS.values():
        image.info.pop(key, None)
    return image


_JPEG_SEGMENT = {EXIF: 65533 - len(PREFIX), XMP: 65533 - 29, ICC: 255 * (65533 - 14)}
"""What JPEG holds of each; Pillow splits the ICC profile alone over segments."""


def prepare(
    image: Image.Image, format: str, plainly: bool = False
) -> tuple[Image.Image, dict[str, Any], list[str]]:
    """The image, arguments for its `save` that carry the metadata along, and notes of what has no place.

    Args:
        plainly: leave out an EXIF but for its orientation.
    """
    held: dict[bytes, Any] = {k: image.info[key] for k, key in _KEYS.items() if image.info.get(key)}
    options: dict[str, Any] = {}
    notes = []
    for kind in list(held):
        size = len(held[kind].removeprefix(PREFIX if kind == EXIF else b""))
        most = min(MOST[kind], _JPEG_SEGMENT[kind] if format == "JPEG" else size)
        if format != "PPM" and size <= most:
            continue
        # The writers look into image.info, too.
        if kind == EXIF:
            image = upright(image)
        del held[kind], image.info[_KEYS[kind]]
        why = (
            f"{size:,} bytes are too many" if size > MOST[kind] else f"{format} has no place for it"
        )
        notes.append(f"the {NAMES[kind]} was left out: {why}")
    if XMP in held:
        held[XMP] = image.info[_KEYS[XMP]]
    if format == "PNG" and XMP in held:
        from PIL.PngImagePlugin import PngInfo

        text, packet = PngInfo(), held.pop(XMP)
        try:
            text.add_itxt("XML:com.adobe.xmp", packet.decode(_encoding(packet)))
            options["pnginfo"] = text
        except UnicodeDecodeError:
            notes.append("the XMP was left out: PNG has no place for what is not Unicode")
    if format == "TIFF":
        options["tiffinfo"], dropped = _tiff_directory(held, orientation(image), plainly)
        if dropped:
            notes.append(f"{dropped} was left out: TIFF has no place for it here")
        held.pop(EXIF, None)
        held.pop(XMP, None)
    return image, {**options, **{_KEYS[k]: v for k, v in held.items()}}, notes


def _encoding(packet: bytes) -> str:
    """Of an XMP packet, which starts with a byte order mark or `<`; PNG holds UTF-8 alone."""
    if packet.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(packet[:2], "utf-8")


def _tiff_directory(
    held: dict[bytes, Any], orientation: int, plainly: bool
) -> tuple[Image.Exif, str]:
    """EXIF's first directory and XMP as tags of a TIFF, and a name for what of the EXIF finds no place."""
    directory, dropped = Image.Exif(), ""
    if EXIF in held:
        try:
            if plainly or not exif.is_bounded(held[EXIF].removeprefix(PREFIX)):
                raise ValueError
            directory.load(held[EXIF])
        except Exception:  # an EXIF that cannot be parsed has no tags to keep
            directory = Image.Exif()
        if not len(directory):
            dropped = "the EXIF"
        # Another image's layout, and offsets into a file that is not this one.
        for tag in _LAYOUT & set(directory):
            del directory[tag]
        for tag in DIRECTORIES & set(directory):
            del directory[tag]
            dropped = "the EXIF's directory of camera or place"
    if orientation != 1:
        directory[ORIENTATION] = orientation
    if XMP in held:
        directory[700] = held[XMP]
    return directory, dropped
