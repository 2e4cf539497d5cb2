"""docs/inputs.md, row by row: what goes in, what comes back, and what is said about it."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise
from PIL import Image, ImageCms, ImageOps

import licodec
from licodec.cli.main import main
from licodec.container import EXIF, ICC, MAX_METADATA, XMP, unpack
from licodec.io.bitdepth import bits_per_sample
from licodec.io.output import to_file

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "inputs.md").read_text("utf-8")
SIZE = (24, 16)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PACKET = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def table(heading):
    part = PAGE.split(heading)[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", part, re.M)[2:]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in r.split("|")] for r in rows)}


IMAGES = table("## Images")
FORMATS = table("## Metadata")


def rgb(seed=0):
    return noise(*SIZE, "RGB", seed)


def grey():
    return noise(*SIZE, "L")


def transparent():
    image = rgb()
    image.putalpha(noise(*SIZE, "L", seed=3))
    return image


def file(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def orientation(value=6):
    exif = Image.Exif()
    exif[0x0112] = value
    exif[0x010E] = "a description"
    return exif


def png16(channels):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    width, height = SIZE
    row = b"\0" + bytes(range(256))[: 2 * channels * width].ljust(2 * channels * width)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    )  # fmt: skip


def patched(data, marker, offset, value):
    at = data.index(marker) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


def jpeg2000_12_bits():
    data = file(rgb(), "JPEG2000", no_jp2=True)
    for component in range(3):
        data = patched(data, b"\xff\x51", 40 + 3 * component, 11)
    return data


def cmyk(profile=None):
    options = {"icc_profile": profile} if profile else {}
    return file(rgb().convert("CMYK"), "JPEG", quality=95, **options)


def frames(format):
    return file(rgb(), format, save_all=True, append_images=[rgb(seed=5)])


def lab():
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    return ImageCms.applyTransform(rgb(), to_lab)


def plain_ppm16():
    return b"P3 2 1 65535\n0 1 65535 2 3 400\n"


def eps():
    return file(rgb(), "EPS")


INPUTS = {
    "PNG, RGB": lambda: file(rgb(), "PNG"),
    "PNG, RGBA": lambda: file(transparent(), "PNG"),
    "PNG, RGBA, fully opaque": lambda: file(rgb().convert("RGBA"), "PNG"),
    "PNG, grey": lambda: file(grey(), "PNG"),
    "PNG, grey and alpha": lambda: file(transparent().convert("LA"), "PNG"),
    "PNG, RGB, one colour transparent": lambda: file(rgb(), "PNG", transparency=(1, 2, 3)),
    "PNG, grey, one value transparent": lambda: file(grey(), "PNG", transparency=7),
    "PNG, palette": lambda: file(rgb().quantize(16), "PNG"),
    "PNG, palette with transparency": lambda: file(rgb().quantize(16), "PNG", transparency=0),
    "PNG, black and white": lambda: file(
        grey().point(lambda v: 255 * (v > 128)).convert("1"), "PNG"
    ),
    "PNG, animated": lambda: frames("PNG"),
    "PNG, grey, 16 bits": lambda: png16(1),
    "PNG, RGB, 16 bits": lambda: png16(3),
    "PNG, cut short": lambda: file(rgb(), "PNG")[:-90],
    "JPEG, RGB": lambda: file(rgb(), "JPEG"),
    "JPEG, grey": lambda: file(grey(), "JPEG"),
    "JPEG, CMYK": lambda: cmyk(),
    "JPEG, CMYK with a profile": lambda: cmyk(PROFILE),
    "JPEG, orientation in EXIF": lambda: file(rgb(), "JPEG", exif=orientation()),
    "JPEG, EXIF that cannot be parsed": lambda: file(rgb(), "JPEG", exif=b"Exif\0\0MM\0*garbage"),
    "WebP, RGB": lambda: file(rgb(), "WEBP"),
    "WebP, RGBA": lambda: file(transparent(), "WEBP", lossless=True),
    "WebP, animated": lambda: frames("WEBP"),
    "GIF": lambda: file(rgb().quantize(16), "GIF"),
    "GIF with transparency": lambda: file(rgb().quantize(16), "GIF", transparency=0),
    "TIFF, RGB": lambda: file(rgb(), "TIFF"),
    "TIFF, CMYK": lambda: file(rgb().convert("CMYK"), "TIFF"),
    "TIFF, orientation": lambda: file(rgb(), "TIFF", exif=orientation()),
    "TIFF, two pages": lambda: frames("TIFF"),
    "TIFF, Lab": lambda: file(lab(), "TIFF"),
    "TIFF, grey, 16 bits": lambda: file(Image.new("I;16", SIZE), "TIFF"),
    "TIFF, grey, floating point": lambda: file(Image.new("F", SIZE), "TIFF"),
    "BMP, RGB": lambda: file(rgb(), "BMP"),
    "PPM": lambda: file(rgb(), "PPM"),
    "PGM": lambda: file(grey(), "PPM"),
    "PPM, 16 bits": lambda: b"P6 2 1 65535\n" + bytes(range(12)),
    "PGM, 16 bits": lambda: b"P5 2 1 65535\n" + bytes(range(4)),
    "PPM, plain, 16 bits": plain_ppm16,
    "JPEG 2000, RGB": lambda: file(rgb(), "JPEG2000"),
    "JPEG 2000, grey, 16 bits": lambda: file(Image.new("I;16", SIZE), "JPEG2000"),
    "JPEG 2000, RGB, 12 bits": jpeg2000_12_bits,
    "AVIF, RGB": lambda: file(rgb(), "AVIF"),
    "AVIF, RGBA": lambda: file(transparent(), "AVIF"),
    "ICO": lambda: file(transparent().resize((16, 16)), "ICO", sizes=[(16, 16)]),
    "TGA": lambda: file(transparent(), "TGA"),
    "QOI": lambda: file(rgb(), "QOI"),
    "PCX": lambda: file(rgb(), "PCX"),
    "SGI, 16 bits": lambda: file(grey(), "SGI", bpc=2),
    "EPS": eps,
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "HEIC": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG XL": lambda: b"\xff\x0a" + bytes(9),
    "PDF": lambda: b"%PDF-1.4\n",
    "text": lambda: b"not an image at all\n",
    "empty file": lambda: b"",
    ".lic": lambda: licodec.encode(rgb()),
    "folder": lambda: Path("."),
    "device": lambda: Path("/dev/zero"),
    "no such file": lambda: Path("no-such-file.png"),
}


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_every_row_has_an_input_and_every_input_a_row():
    assert list(IMAGES) == list(INPUTS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", list(INPUTS))
def test_image(kind, tmp_path):
    if kind == "device" and not os.path.exists("/dev/zero"):
        pytest.skip("no such device here")
    expected, message = IMAGES[kind]
    content = INPUTS[kind]()
    source = content if isinstance(content, Path) else tmp_path / "in"
    if not isinstance(content, Path):
        source.write_bytes(content)
    lic, png = tmp_path / "x.lic", tmp_path / "x.png"
    encoded = run("encode", source, "-o", lic, "--quiet" if not message else "-f")
    said = encoded.stderr.strip().split("\n")
    if message:
        assert any(message.strip("`") in line for line in said), said
    else:
        assert encoded.stderr == ""
    if expected == "refused":
        assert encoded.exit_code == 1 and len(said) == 1
        assert not list(tmp_path.glob("x*")) and not list(tmp_path.glob(".licodec*"))
        return
    assert encoded.exit_code == 0, encoded.stderr
    assert run("decode", lic, "-o", png, "--quiet").exit_code == 0
    with Image.open(source) as before, Image.open(png) as after:
        assert after.mode == expected
        shown, original = (ImageOps.exif_transpose(image) for image in (after, before))
        assert shown.size == original.size
        if expected.endswith("A"):
            wanted = np.asarray(original.convert(expected))[:, :, -1]
            assert (np.asarray(shown)[:, :, -1] == wanted).all()
        error = np.asarray(shown.convert("RGB"), float) - np.asarray(original.convert("RGB"), float)
        if not expected.endswith("A"):
            assert np.sqrt((error**2).mean()) < 40


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A .lic file with ICC, EXIF (an orientation in it) and XMP."""
    path = tmp_path_factory.mktemp("described") / "x.lic"
    image = Image.open(
        io.BytesIO(file(rgb(), "JPEG", icc_profile=PROFILE, exif=orientation(), xmp=PACKET))
    )
    path.write_bytes(licodec.encode(image))
    return path


@pytest.mark.parametrize("format", list(FORMATS))
def test_metadata(format, described, tmp_path):
    icc, exif, xmp, turned, alpha = FORMATS[format]
    out = tmp_path / f"out.{format.lower()}"
    result = run("decode", described, "-o", out)
    assert result.exit_code == 0, result.stderr
    with Image.open(out) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright.size == SIZE[::-1]
        tag = image.getexif().get(0x0112, 1)
        on_disk = image.size if turned != "in its own tag" else None
        assert {"in EXIF": tag == 6 and on_disk == SIZE, "in the pixels": tag == 1,
                "in its own tag": True}[turned]  # fmt: skip
        found = {
            "ICC profile": image.info.get("icc_profile") == PROFILE,
            "EXIF": image.getexif().get(0x010E) == "a description",
            "XMP": (image.info.get("xmp") or b"").strip(b"\0") == PACKET,
        }
    for (name, is_there), wanted in zip(found.items(), (icc, exif, xmp), strict=True):
        assert is_there == (wanted == "kept"), name
        note = f"note: the {name} was left out: {format} has no place for it"
        assert (note in result.stderr) == (wanted == "note"), name
    see_through = tmp_path / "alpha.lic"
    see_through.write_bytes(licodec.encode(transparent()))
    result = run("decode", see_through, "-o", tmp_path / f"alpha.{format.lower()}")
    assert result.exit_code == {"kept": 0, "refused": 2}[alpha]


def test_tiff_carries_the_orientation_in_its_own_tag(described, tmp_path):
    out = tmp_path / "out.tiff"
    run("decode", described, "-o", out)
    with Image.open(out) as image:
        assert image.tag_v2[0x0112] == 6


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_stripping_turns_the_pixels_as_the_orientation_said(verb, tmp_path):
    source, lic, png = tmp_path / "in.jpg", tmp_path / "x.lic", tmp_path / "x.png"
    source.write_bytes(file(rgb(), "JPEG", icc_profile=PROFILE, exif=orientation(), xmp=PACKET))
    strip = {"encode": ["--strip"], "decode": []}[verb]
    assert run("encode", source, "-o", lic, *strip).exit_code == 0
    assert bool(unpack(lic.read_bytes()).chunks) == (verb == "decode")
    assert run("decode", lic, "-o", png, "--strip").exit_code == 0
    with Image.open(png) as image, Image.open(source) as original:
        assert not set(image.info) & {"icc_profile", "exif", "xmp"}
        wanted = ImageOps.exif_transpose(original)
        assert image.size == wanted.size == SIZE[::-1]
        error = np.asarray(image, float) - np.asarray(wanted, float)
        assert np.sqrt((error**2).mean()) < 20


def test_an_image_that_cannot_be_turned_for_lack_of_memory_is_not_handed_out(monkeypatch):
    image = Image.open(io.BytesIO(file(rgb(), "JPEG", exif=orientation())))
    data = licodec.encode(image)

    def fail(image, method):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "transpose", fail)
    with pytest.raises(licodec.OutOfMemoryError):
        licodec.decode(data, strip=True)
    with pytest.raises(licodec.OutOfMemoryError):
        licodec.encode(image, strip=True)


@pytest.mark.parametrize("orientation_value", range(1, 9))
def test_every_orientation_acts_once(orientation_value, tmp_path):
    image = Image.open(io.BytesIO(file(rgb(), "JPEG", exif=orientation(orientation_value))))
    decoded = licodec.decode(licodec.encode(image, quality=90))
    shown, wanted = ImageOps.exif_transpose(decoded), ImageOps.exif_transpose(image)
    assert shown.size == wanted.size
    difference = np.asarray(shown, float) - np.asarray(wanted, float)
    assert np.sqrt((difference**2).mean()) < 20


@pytest.mark.parametrize(("flags", "bits"), [(0x00, 8), (0x40, 10), (0x60, 12)])
def test_avif_of_more_than_8_bits_is_known_by_its_configuration(flags, bits):
    """Pillow writes none, and narrows what it reads."""
    image = Image.open(io.BytesIO(file(rgb(), "AVIF")))
    image.fp = io.BytesIO(patched(file(rgb(), "AVIF"), b"av1C", 6, flags))
    assert bits_per_sample(image) == bits


def test_metadata_is_compressed_when_that_is_smaller():
    image = Image.open(io.BytesIO(file(rgb(), "JPEG", icc_profile=PROFILE, xmp=PACKET)))
    container = unpack(licodec.encode(image))
    assert container.chunks == {ICC: PROFILE, XMP: PACKET}
    assert (
        container.packed_chunk_bytes[ICC] == min(len(PROFILE), len(zlib.compress(PROFILE, 9))) + 3
    )
    assert container.packed_chunk_bytes[XMP] == min(len(PACKET), len(zlib.compress(PACKET, 9))) + 2


def test_tiff_keeps_what_describes_the_photograph_alone():
    image = Image.open(io.BytesIO(file(rgb(), "TIFF", exif=orientation(1))))
    exif = Image.Exif()
    exif.load(unpack(licodec.encode(image)).chunks[EXIF])
    assert dict(exif) == {0x010E: "a description"}


def test_metadata_beyond_the_limit_is_refused_with_the_way_out():
    image = rgb()
    image.info["xmp"] = bytes(MAX_METADATA + 1)
    with pytest.raises(licodec.UnsupportedImageError, match="XMP has .* --strip"):
        licodec.encode(image)
    assert licodec.encode(image, strip=True)


def test_metadata_too_long_for_jpeg_is_left_out_with_a_note(tmp_path):
    image = rgb()
    image.info["xmp"] = b"x" * 70_000
    (tmp_path / "x.lic").write_bytes(licodec.encode(image))
    result = run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.jpg")
    assert result.exit_code == 0 and "note: the XMP was left out" in result.stderr


def test_a_side_too_long_for_the_format_is_refused(tmp_path):
    (tmp_path / "x.lic").write_bytes(licodec.encode(Image.new("RGB", (16400, 2)), quality=0))
    result = run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.webp")
    assert result.exit_code == 1 and "WEBP holds no 16400x2" in result.stderr
    assert run("decode", tmp_path / "x.lic", "-o", tmp_path / "x.tiff").exit_code == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_one_grey_value_is_transparent_at_every_depth(bits):
    """Written by hand, since Pillow writes no grey of 2 or 4 bits."""
    levels = 2**bits - 1
    samples = np.tile(np.array([0, levels], dtype=np.uint8), (4, 8))
    flat = np.unpackbits(samples[:, :, None], axis=2)[:, :, 8 - bits :].reshape(4, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(flat, axis=1))

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 4, bits, 0, 0, 0, 0))
    png += chunk(b"tRNS", struct.pack(">H", levels)) + chunk(b"IDAT", zlib.compress(rows))
    png += chunk(b"IEND", b"")
    with Image.open(io.BytesIO(png)) as image:
        out = licodec.decode(licodec.encode(image))
    assert out.mode == "LA"
    assert (np.asarray(out)[:, :, 1] == np.where(samples == levels, 0, 255)).all()


def test_a_camera_photo_with_directories_in_its_exif_becomes_a_tiff(photo):
    exif = Image.Exif()
    exif[271] = "Maker"
    exif[262] = 6
    exif[256], exif[257] = 10, 7
    exif.get_ifd(34665)[36867] = "2026:01:01 00:00:00"
    image = photo.copy()
    image.info["exif"] = exif.tobytes()
    data, notes = to_file(licodec.decode(licodec.encode(image)), "tiff")
    lost = "the EXIF's directory of camera or place"
    assert notes == [f"{lost} was left out: TIFF has no place for it here"]
    with Image.open(io.BytesIO(data)) as out:
        assert out.size == photo.size and out.getexif()[271] == "Maker"
        assert (np.asarray(out) == np.asarray(licodec.decode(licodec.encode(photo)))).all()


def with_chunk(kind, content):
    """A small PNG with one more chunk, before its pixels."""
    png = file(rgb(), "PNG")
    body = kind + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def raw_profile(name, content):
    digits = "\n".join(content.hex()[i : i + 72] for i in range(0, 2 * len(content), 72))
    text = f"\n{name}\n{len(content):8}\n{digits}\n".encode()
    return with_chunk(b"tEXt", b"Raw profile type " + name.encode() + b"\0" + text)


ADOBE = b"http://ns.adobe.com/xap/1.0/\0" + PACKET
DESCRIBED = orientation().tobytes()


@pytest.mark.parametrize(
    ("png", "kind", "content"),
    [
        (raw_profile("exif", DESCRIBED), EXIF, DESCRIBED.removeprefix(b"Exif\0\0")),
        (raw_profile("APP1", DESCRIBED), EXIF, DESCRIBED.removeprefix(b"Exif\0\0")),
        (raw_profile("APP1", ADOBE), XMP, PACKET),
        (raw_profile("xmp", PACKET), XMP, PACKET),
        (raw_profile("icc", PROFILE), ICC, PROFILE),
        (raw_profile("icm", PROFILE), ICC, PROFILE),
    ],
)
def test_raw_profiles_are_read(png, kind, content, tmp_path):
    (tmp_path / "x.png").write_bytes(png)
    result = run("encode", tmp_path / "x.png")
    assert result.exit_code == 0 and "note" not in result.stderr
    assert unpack((tmp_path / "x.lic").read_bytes()).chunks == {kind: content}


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (raw_profile("iptc", b"x"), "the text (Raw profile type iptc) was left out"),
        (with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nzz"), "the text (Raw profile"),
        (with_chunk(b"tEXt", b"Title\0x"), "the text (Title) was left out"),
        (with_chunk(b"tEXt", b"\x1b[2J\0x"), r"the text (\x1b[2J) was left out"),
        (with_chunk(b"tEXt", b"transparency\0x"), "the text (transparency) was left out"),
        (with_chunk(b"tEXt", b"icc_profile\0x"), "the text (icc_profile) was left out"),
        (with_chunk(b"tEXt", b"gamma\0x"), "the text (gamma) was left out"),
        (with_chunk(b"gAMA", struct.pack(">I", 100000)), "the gamma of 1 was left out"),
        (with_chunk(b"iCCP", b"x\0\0garbage"), "the ICC profile was left out: it does not inflate"),
        (file(rgb(), "JPEG", comment=b"hello"), "the comment was left out"),
    ],
)
def test_what_is_left_out_is_noted(image, note, tmp_path):
    (tmp_path / "x.png").write_bytes(image)
    result = run("encode", tmp_path / "x.png")
    assert note in result.stderr
    assert result.exit_code == 0
    assert not unpack((tmp_path / "x.lic").read_bytes()).chunks


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_xmp_of_any_encoding_goes_into_png(encoding):
    image = rgb()
    image.info["xmp"] = "<x>é€</x>".encode(encoding)
    data, notes = to_file(image, "png")
    assert Image.open(io.BytesIO(data)).info["xmp"].decode() == "<x>é€</x>" and not notes


def test_xmp_that_is_no_text_is_left_out_of_png_with_a_note():
    image = rgb()
    image.info["xmp"] = b"\xc3("
    data, notes = to_file(image, "png")
    assert "xmp" not in Image.open(io.BytesIO(data)).info and "XMP was left out" in notes[0]


def test_a_profile_of_several_megabytes_comes_through(tmp_path):
    profile = np.random.default_rng(0).bytes(2**21)
    (tmp_path / "x.png").write_bytes(file(rgb(), "PNG", icc_profile=profile))
    assert run("encode", tmp_path / "x.png").exit_code == 0
    assert run("decode", tmp_path / "x.lic", "-f").exit_code == 0
    assert unpack((tmp_path / "x.lic").read_bytes()).chunks == {ICC: profile}
