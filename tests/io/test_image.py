"""What of a Pillow image is kept, what is noted, and that the caller's own stays as it is."""

import io
import struct

import numpy as np
import pytest
from conftest import noise
from PIL import Image

import licodec
from licodec.io.image import from_pillow


def opened(data):
    return Image.open(io.BytesIO(data))


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def notes(image):
    return " ".join(from_pillow(image).notes)


def test_the_alpha_of_a_palette_is_kept():
    image = noise(20, 24, "RGBA").quantize(64, method=Image.Quantize.FASTOCTREE)
    assert "transparency" not in image.info and image.palette.mode == "RGBA"
    found = licodec.decode(licodec.encode(image, max_error=0))
    assert found.mode == "RGBA" and len(np.unique(np.asarray(found)[..., 3])) > 2
    assert np.array_equal(np.asarray(found), np.asarray(image.convert("RGBA")))


def test_the_callers_metadata_stay():
    image = noise(20, 20, "RGB")
    image.info = {"icc_profile": b"x" * 200, "xmp": b"<x/>", "exif": b"Exif\0\0II*\0" + bytes(10)}
    before = dict(image.info)
    data = licodec.encode(image, strip=True)
    assert image.info == before
    assert not {"icc_profile", "xmp", "exif"} & licodec.decode(data).info.keys()


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha_is_noted(mode):
    full = {"RGBa": "RGBA", "La": "LA"}[mode]
    assert f"premultiplied alpha was converted to {full}" in notes(
        noise(20, 20, full).convert(mode)
    )
    assert "premultiplied" not in notes(noise(20, 20, full))


def photoshop(channels, mode, resources=b""):
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, channels, 16, 16, 8, mode)
    parts = bytes(4) + struct.pack(">I", len(resources)) + resources + bytes(4) + bytes(2)
    return head + parts + bytes(256 * channels)


def test_channels_that_have_no_place_are_noted():
    assert "left out: 1" in notes(opened(photoshop(2, 1)))
    assert "left out" not in notes(opened(photoshop(3, 3)))
    assert "left out: 1" in notes(noise(8, 8, "RGB").convert("RGBX"))
    assert "left out" not in notes(opened(saved(noise(8, 8, "RGBA"), "TIFF")))


def test_metadata_that_pillow_does_not_read_are_noted():
    resource = b"8BIM" + struct.pack(">HHI", 1060, 0, 4) + b"<x/>"
    assert "the XMP was left out" in notes(opened(photoshop(3, 3, resource)))
    plain = saved(noise(16, 16, "RGB"), "JPEG")
    content = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8) + b"<x/>"
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    assert "extended part of the XMP was left out" in notes(opened(plain[:2] + segment + plain[2:]))
    assert "XMP" not in notes(opened(plain))


def test_pillow_finds_the_exif_of_a_file():
    exif = Image.Exif()
    exif[271] = "maker"
    image = opened(saved(noise(16, 16, "RGB"), "LIC", exif=exif, icc_profile=b"p" * 200))
    assert image.getexif()[271] == "maker"
    assert image.info["icc_profile"] == b"p" * 200
    assert dict(opened(saved(noise(16, 16, "RGB"), "LIC")).getexif()) == {}
