"""ICC, EXIF and XMP: out of a Pillow image into chunks, and back into the formats that hold them."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageOps

from licodec.container import EXIF, ICC, MAX_METADATA, XMP
from licodec.errors import UnsupportedImageError

NAMES = {ICC: "ICC profile", EXIF: "EXIF", XMP: "XMP"}
_KEYS = {ICC: "icc_profile", EXIF: "exif", XMP: "xmp"}
_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112

# TIFF keeps what describes a photograph and what describes its own bytes in one directory.
_LAYOUT = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289,
    290, 291, 292, 293, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347,
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 34675, _ORIENTATION,
}  # fmt: skip

_SUBDIRECTORIES = {34665, 34853, 40965}
"""EXIF, GPS and interoperability directories, which Pillow's TIFF writer cannot carry over."""


_RAW = "Raw profile type "
"""How ImageMagick and its kin name EXIF, XMP and ICC that stand in a PNG's text, in hexadecimal."""
_RAW_NAMES = {ICC: ("icc", "icm"), EXIF: ("exif", "APP1"), XMP: ("xmp", "APP1")}
_RAW_PREFIX = {ICC: b"", EXIF: _PREFIX, XMP: b"http://ns.adobe.com/xap/1.0/\0"}


def read(image: Image.Image) -> tuple[dict[bytes, bytes], list[str]]:
    """Chunk type to content, of a loaded image, and notes of what is left out.

    Raises:
        UnsupportedImageError: one of them is larger than a .lic file may hold.
    """
    found = {
        ICC: image.info.get("icc_profile"),
        EXIF: _exif(image),
        XMP: image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"),
    }
    kept = {"exif", "XML:com.adobe.xmp"}
    for kind in [kind for kind in NAMES if not found[kind]]:
        key, found[kind] = _raw_profile(image, kind)
        kept.add(key)
    notes = [f"the {name} was left out" for name in _without_place(image, kept)]
    if "icc_profile" in image.info and not found[ICC]:
        notes.append("the ICC profile was left out: it does not inflate")
    chunks = {k: v.encode() if isinstance(v, str) else bytes(v) for k, v in found.items() if v}
    for kind, content in chunks.items():
        if len(content) > MAX_METADATA:
            raise UnsupportedImageError(
                f"its {NAMES[kind]} has {len(content)} bytes, more than {MAX_METADATA}; "
                "--strip leaves it out"
            )
    return chunks, notes


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
    text = [repr(key)[1:-1] for key in getattr(image, "text", {}) if key not in kept]
    out = [f"text ({', '.join(text)})"] if text else []
    if image.info.get("comment") and "comment" not in text:
        out.append("comment")
    if "photoshop" in image.info:
        out.append("IPTC")
    # sRGB's own gamma, or a profile that says more: nothing is lost.
    gamma = image.info.get("gamma", 1 / 2.2)
    if abs(gamma - 1 / 2.2) > 0.001 and not image.info.get("icc_profile"):
        out.append(f"gamma of {gamma:g}")
    return out


_TYPED = ("transparency", "exif", "icc_profile", "gamma", "photoshop")


def untangle(image: Image.Image) -> None:
    """Drop a PNG's text where its keyword takes the place of something else in Pillow's `info`."""
    for key in _TYPED:
        if isinstance(image.info.get(key), str):
            del image.info[key]


def _exif(image: Image.Image) -> bytes:
    if image.format != "TIFF":
        return bytes(image.info.get("exif") or b"").removeprefix(_PREFIX)
    # Pillow has already turned the pixels of a TIFF file as its orientation says.
    exif = image.getexif()
    for tag in _LAYOUT & set(exif):
        del exif[tag]
    return exif.tobytes().removeprefix(_PREFIX) if len(exif) else b""


def attach(image: Image.Image, chunks: dict[bytes, bytes]) -> None:
    """Put chunks where Pillow's writers look for them."""
    for kind, content in chunks.items():
        # Pillow's JPEG writer wants EXIF with the prefix that its readers leave on.
        image.info[_KEYS[kind]] = (_PREFIX if kind == EXIF else b"") + content


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; for whoever drops the EXIF or cannot write it."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # an EXIF that cannot be parsed turns nothing
        return image


def strip(image: Image.Image) -> Image.Image:
    """The image without metadata, turned as it said."""
    image = upright(image)
    for key in _KEYS.values():
        image.info.pop(key, None)
    return image


_JPEG_SEGMENT = {EXIF: 65533, XMP: 65533 - 29, ICC: 255 * (65533 - 14)}
"""What JPEG holds of each; Pillow splits the ICC profile alone over segments."""


def prepare(image: Image.Image, format: str) -> tuple[Image.Image, dict[str, Any], list[str]]:
    """The image, arguments for its `save` that carry the metadata along, and notes of what has no place."""
    held: dict[bytes, Any] = {k: image.info[key] for k, key in _KEYS.items() if image.info.get(key)}
    options: dict[str, Any] = {}
    notes = []
    for kind in list(held):
        if format == "PPM" or (format == "JPEG" and len(held[kind]) > _JPEG_SEGMENT[kind]):
            if kind == EXIF:
                image = upright(image)
            # The writers look into image.info, too.
            del held[kind], image.info[_KEYS[kind]]
            notes.append(f"the {NAMES[kind]} was left out: {format} has no place for it")
    if format == "PNG" and XMP in held:
        from PIL.PngImagePlugin import PngInfo

        text, packet = PngInfo(), held.pop(XMP)
        try:
            text.add_itxt("XML:com.adobe.xmp", packet.decode(_encoding(packet)))
            options["pnginfo"] = text
        except UnicodeDecodeError:
            notes.append("the XMP was left out: PNG has no place for what is not Unicode")
    if format == "TIFF":
        options["tiffinfo"], dropped = _tiff_directory(held)
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


def _tiff_directory(held: dict[bytes, Any]) -> tuple[Image.Exif, str]:
    """EXIF's first directory and XMP as tags of a TIFF, and a name for what of the EXIF finds no place."""
    directory, dropped = Image.Exif(), ""
    if EXIF in held:
        try:
            directory.load(held[EXIF])
        except Exception:  # an EXIF that cannot be parsed has no tags to keep
            directory, dropped = Image.Exif(), "the EXIF"
        if not len(directory):
            dropped = "the EXIF"
        # Another image's layout, and offsets into a file that is not this one.
        for tag in (_LAYOUT - {_ORIENTATION}) & set(directory):
            del directory[tag]
        for tag in _SUBDIRECTORIES & set(directory):
            del directory[tag]
            dropped = "the EXIF's directory of camera or place"
    if XMP in held:
        directory[700] = held[XMP]
    return directory, dropped
