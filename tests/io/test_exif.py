"""EXIF, XMP and ICC that mean harm, or that TIFF does not take."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise
from PIL import Image

import licodec
from licodec.cli.main import main
from licodec.container import EXIF, ICC, XMP, pack, unpack
from licodec.io import exif, metadata
from licodec.io.image import from_pillow
from licodec.io.output import to_file

SIZE = (24, 16)


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def rgb():
    return noise(*SIZE, "RGB")


def content(*entries, order="<", values=b""):
    """EXIF of entries (tag, type, count, value or offset), and what comes after them."""
    out = struct.pack(order + "2sHLH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        if isinstance(value, bytes):
            out += struct.pack(order + "HHL", tag, kind, count) + value.ljust(4, b"\0")
        else:
            out += struct.pack(order + "HHLL", tag, kind, count, value)
    return out + bytes(4) + values


def rationals(tag, count):
    return content((tag, 5, count, 26), values=struct.pack("<LL", 3, 7) * count)


def overlapping(count):
    """Tags that all stand for the same bytes."""
    size = 60_000 - 12 * count
    return content(
        *((0x9000 + i, 7, size, 14 + 12 * count) for i in range(count)), values=bytes(size)
    )


def png(chunk, data):
    out = io.BytesIO()
    rgb().save(out, "PNG")
    body = chunk + data
    made = struct.pack(">L", len(data)) + body + struct.pack(">L", zlib.crc32(body))
    return out.getvalue()[:33] + made + out.getvalue()[33:]


def jpeg(*segments):
    out = io.BytesIO()
    rgb().save(out, "JPEG")
    made = b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments)
    return out.getvalue()[:2] + made + out.getvalue()[2:]


def deflated_raw_profile(data):
    text = b"\nexif\n%8d\n" % len(data) + data.hex().encode()
    return b"Raw profile type exif\0\0" + zlib.compress(text)


# The bounded reader


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "layout", "value", "said"),
    [(3, "H", 6, 6), (4, "L", 8, 8), (1, "B", 3, 3), (3, "H", 0, 1), (3, "H", 9, 1), (9, "l", -1, 1)],
)  # fmt: skip
def test_the_orientation_is_read(order, kind, layout, value, said):
    entry = (0x112, kind, 1, struct.pack(order + layout, value))
    assert exif.orientation(content((0x10F, 2, 4, b"abc"), entry, order=order)) == said


@pytest.mark.parametrize(
    "data",
    [b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", content((0x112, 3, 1, b""))[:-7], b"MM\0*garbage",
     content((0x10F, 2, 4, b"abc")), b"XX*\0" + content()[4:]],
)  # fmt: skip
def test_nothing_is_said_where_nothing_stands(data):
    assert exif.orientation(data) is None and exif.is_bounded(data)


def test_pillow_agrees_on_orientations():
    rng = np.random.default_rng(0)
    for _ in range(300):
        order = "<>"[rng.integers(2)]
        value = struct.pack(order + "H", rng.integers(10)) + bytes(2)
        data = content((0x10F, 2, 4, b"abc"), (0x112, 3, 1, value), order=order)
        image = rgb()
        image.info["exif"] = b"Exif\0\0" + data
        said = image.getexif()[0x112]
        assert exif.orientation(data) == (said if 1 <= said <= 8 else 1)


def test_values_that_overlap_are_seen():
    assert not exif.is_bounded(overlapping(3))
    assert exif.is_bounded(overlapping(1))
    lower = struct.pack("<H", 3) + struct.pack("<HHLL", 0x9000, 7, 900, 30) * 3
    assert not exif.is_bounded(content((34665, 4, 1, 26), values=lower + bytes(1000)))


# Bombs: each is refused, or done at once


BOMBS = {
    "rationals as orientation, deflated": lambda: png(
        b"zTXt", deflated_raw_profile(rationals(0x112, 10**6))
    ),
    "rationals elsewhere, deflated": lambda: png(
        b"zTXt", deflated_raw_profile(rationals(0x9C9D, 10**6))
    ),
    "rationals": lambda: png(b"eXIf", rationals(0x112, 200_000)),
    "overlapping in PNG": lambda: png(b"eXIf", overlapping(2000)),
    "overlapping in JPEG": lambda: jpeg(b"Exif\0\0" + overlapping(2000)),
    "65,535 entries": lambda: png(b"eXIf", content(*[(0x9999, 7, 2**32 - 1, 0)] * 65535)),
    "5,000 entries": lambda: jpeg(b"Exif\0\0" + content(*[(0x9999, 7, 2**32 - 1, 0)] * 5000)),
    "many segments": lambda: jpeg(*[b"Exif\0\0" + bytes(60_000)] * 100),
}


@pytest.mark.parametrize("kind", list(BOMBS))
@pytest.mark.parametrize("strip", [False, True])
def test_a_bomb_costs_nothing(kind, strip, tmp_path, monkeypatch):
    original = Image.Exif.load

    def load(self, data):
        assert len(data) <= exif.MAX_BYTES + 6 and exif.is_bounded(data.removeprefix(exif.PREFIX))
        original(self, data)

    (tmp_path / "x.png").write_bytes(BOMBS[kind]())
    monkeypatch.setattr(Image.Exif, "load", load)
    result = run("encode", tmp_path / "x.png", *(["--strip"] if strip else []))
    assert len(result.stderr) < 1000 and result.stderr.count("\n") <= 3
    assert "internal error" not in result.stderr
    if strip and "JPEG" not in kind and "segments" not in kind:
        assert result.exit_code == 0, result.stderr
    if result.exit_code == 0:
        for name in ("x.tiff", "x.webp", "x.jpg"):
            assert run("decode", tmp_path / "x.lic", "-o", tmp_path / name).exit_code == 0
            assert (tmp_path / name).stat().st_size < 200_000


def test_a_tiff_of_overlapping_tags_is_refused(tmp_path):
    out = io.BytesIO()
    rgb().save(out, "TIFF")
    (tmp_path / "x.tif").write_bytes(overlapping(2000) + out.getvalue())
    result = run("encode", tmp_path / "x.tif")
    assert result.exit_code == 1 and "more bytes than the file has" in result.stderr


def test_a_little_overlap_keeps_no_photograph_out(tmp_path):
    (tmp_path / "x.jpg").write_bytes(jpeg(b"Exif\0\0" + overlapping(3)))
    assert run("encode", tmp_path / "x.jpg").exit_code == 0
    assert unpack((tmp_path / "x.lic").read_bytes()).chunks == {EXIF: overlapping(3)}
    result = run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.tiff")
    assert result.exit_code == 0 and "note: the EXIF was left out" in result.stderr


@pytest.mark.parametrize(("kind", "name"), [(EXIF, "exif"), (XMP, "xmp"), (ICC, "icc_profile")])
def test_more_than_the_most_is_refused_and_one_less_taken(kind, name):
    image = rgb()
    image.info[name] = bytes(metadata.MOST[kind])
    assert len(unpack(licodec.encode(image)).chunks[kind]) == metadata.MOST[kind]
    image.info[name] = bytes(metadata.MOST[kind] + 1)
    with pytest.raises(licodec.UnsupportedImageError, match="--strip leaves it out"):
        licodec.encode(image)
    assert licodec.encode(image, strip=True)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["png", "webp", "tiff", "jpg"])
def test_a_file_of_too_much_metadata_does_not_grow(format, tmp_path):
    """As the format allows it: 196 KB that inflate to 192 MiB."""
    import dataclasses

    file = unpack(licodec.encode(rgb()))
    chunks = {EXIF: bytes(2**26), XMP: b" " * 2**26, ICC: bytes(2**26)}
    (tmp_path / "x.lic").write_bytes(pack(dataclasses.replace(file, chunks=chunks)))
    result = run("decode", tmp_path / "x.lic", "-o", tmp_path / f"x.{format}")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("was left out: 67,108,864 bytes are too many") == 3
    assert (tmp_path / f"x.{format}").stat().st_size < 10_000


def test_the_layers_of_photoshop_are_left_out_of_a_tiff_and_the_rest_is_kept(tmp_path):
    tags = Image.Exif()
    tags[271], tags[37724] = "Maker", bytes(200_000)
    rgb().save(tmp_path / "x.tif", tiffinfo=tags)
    result = run("encode", tmp_path / "x.tif")
    assert result.exit_code == 0, result.stderr
    assert "note: the EXIF's tag 37724 was left out: it has 200,000 bytes" in result.stderr
    found = Image.Exif()
    found.load(unpack((tmp_path / "x.lic").read_bytes()).chunks[EXIF])
    assert dict(found) == {271: "Maker"}


# One warning at most


def test_a_warning_stands_once_a_file(tmp_path):
    (tmp_path / "x.jpg").write_bytes(BOMBS["5,000 entries"]())
    with warnings.catch_warnings():
        result = run("encode", tmp_path / "x.jpg")
    assert result.stderr.count("note: ") <= 1


# What TIFF does not take

ODD = {
    "orientation 0": (0x112, 3, 1, struct.pack("<H", 0)),
    "orientation 9": (0x112, 3, 1, struct.pack("<H", 9)),
    "no unit": (296, 3, 1, struct.pack("<H", 0)),
    "0/0": (282, 5, 1, 38),
    "DNG": (50706, 1, 4, b"\1\4\0\0"),
    "a maker in numbers": (271, 3, 1, struct.pack("<H", 7)),
    "an artist of bytes": (315, 7, 4, b"\xff\0\1\2"),
}


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("turned", [False, True])
def test_odd_exif_does_not_keep_a_tiff_from_being_written(kind, turned, tmp_path, capfd):
    if "orientation" in kind and turned:
        pytest.skip("one orientation is enough")
    entries = [ODD[kind]]
    if turned:
        entries.append((0x112, 3, 1, struct.pack("<H", 6)))
    image = rgb()
    image.info["exif"] = b"Exif\0\0" + content(*sorted(entries), values=bytes(12))
    (tmp_path / "x.lic").write_bytes(licodec.encode(image))
    result = run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.tiff")
    assert result.exit_code == 0, result.stderr
    assert capfd.readouterr().err == ""
    with Image.open(tmp_path / "x.tiff") as written:
        written.load()
        assert written.size == (SIZE[::-1] if turned else SIZE)


def test_random_exif_never_fails():
    rng = np.random.default_rng(1)
    plain = licodec.decode(licodec.encode(rgb()))
    tags = [256, 271, 282, 296, 306, 315, 34665, 50706, 0x112, 0x9C9D, 700, 34675, 33432]
    for _ in range(400):
        chosen = sorted(rng.choice(tags, size=rng.integers(1, 6), replace=False))
        entries = [
            (int(tag), int(rng.integers(0, 14)), int(rng.integers(0, 6)), rng.bytes(4))
            if rng.integers(2)
            else (int(tag), int(rng.integers(0, 14)), int(rng.integers(0, 40)), 8)
            for tag in chosen
        ]
        image = plain.copy()
        image.info["exif"] = b"Exif\0\0" + content(*entries, values=rng.bytes(100))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data, _ = to_file(image, "tiff")
            with Image.open(io.BytesIO(data)) as written:
                written.load()


# Odd types and texts


@pytest.mark.parametrize(
    "key", ["exif", "xmp", "icc_profile", "transparency", "gamma", "comment", "photoshop"]
)
@pytest.mark.parametrize(
    "value", [10**9, 1.5, object(), [b"x"], {1: 2}, "\udcff", float("nan"), (1, "x")]
)
@pytest.mark.parametrize("mode", ["RGB", "P", "L", "CMYK"])
def test_odd_types_are_left_out_or_refused(key, value, mode):
    for strip in (False, True):
        image = noise(*SIZE, mode)
        image.info[key] = value
        try:
            picture = from_pillow(image, strip)
        except licodec.UnsupportedImageError as error:
            assert "transparency" in str(error)
        else:
            assert picture.color.shape[:2] == SIZE[::-1]


def test_a_transparency_longer_than_the_palette(tmp_path):
    out = io.BytesIO()
    rgb().quantize(16).save(out, "PNG")
    data = out.getvalue()
    at = data.index(b"IDAT") - 4
    body = b"tRNS" + bytes(300)
    chunk = struct.pack(">L", 300) + body + struct.pack(">L", zlib.crc32(body))
    (tmp_path / "x.png").write_bytes(data[:at] + chunk + data[at:])
    result = run("encode", tmp_path / "x.png")
    assert result.exit_code in (0, 1) and "internal error" not in result.stderr, result.stderr


def test_a_text_named_xmp_is_no_xmp(tmp_path):
    (tmp_path / "x.png").write_bytes(png(b"tEXt", b"xmp\0hello"))
    result = run("encode", tmp_path / "x.png")
    assert "the text (xmp) was left out" in result.stderr
    assert not unpack((tmp_path / "x.lic").read_bytes()).chunks


@pytest.mark.parametrize("form", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_xmp_tells_the_orientation_where_exif_does_not(form):
    image = rgb()
    image.info["xmp"] = f"<x:xmpmeta {form}/>".encode()
    stripped = licodec.decode(licodec.encode(image, strip=True))
    assert stripped.size == SIZE[::-1]
    turned = metadata.upright(image)
    assert turned.size == SIZE[::-1] and metadata.orientation(turned) == 1
