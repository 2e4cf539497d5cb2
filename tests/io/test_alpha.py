import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from opened import opened
from PIL import Image, ImageDraw, ImageFilter

import licodec
from licodec.container import ALPHA, unpack
from licodec.errors import DamagedFileError
from licodec.io import alpha
from licodec.payload import decode_latents


def disc(width, height):
    """An antialiased disc, as cut-out photographs have it."""
    mask = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(mask).ellipse((width, height, 3 * width, 3 * height), fill=255)
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(5)).resize((width, height)))


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_what_goes_in_comes_out(plane):
    assert (alpha.unpack(alpha.pack(plane), *plane.shape) == plane).all()


@pytest.mark.parametrize(
    ("plane", "kind"),
    [
        (np.full((30, 40), 255), 3),
        (np.tile(np.arange(40) * 5, (30, 1)), 1),
        (np.random.default_rng(0).integers(0, 256, (1, 40)).repeat(30, 0) + np.arange(30)[:, None], 2),
    ],
)  # fmt: skip
def test_the_filter_that_packs_best_is_taken(plane, kind):
    plane = plane.astype(np.uint8)
    packed = alpha.pack(plane)
    assert packed[0] == kind
    assert (alpha.unpack(packed, *plane.shape) == plane).all()


def test_opaque_alpha_takes_two_bytes():
    assert len(alpha.pack(np.full((512, 768), 255, dtype=np.uint8))) == 2


def test_alpha_is_smaller_than_png_and_deflate_make_it():
    import io
    import zlib

    plane = disc(300, 200)
    png = io.BytesIO()
    Image.fromarray(plane).save(png, "PNG", optimize=True)
    packed = len(alpha.pack(plane))
    assert packed < 0.95 * len(png.getvalue())
    assert packed < 0.9 * len(zlib.compress(plane.tobytes(), 9))


def raw(content):
    return lzma.compress(content, format=lzma.FORMAT_RAW, filters=[alpha._LZMA])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\3", b"\3ab", b"\4\0", b"\0" + raw(bytes(11)), b"\0" + raw(bytes(13)),
        b"\0" + raw(bytes(12)) + b"x", b"\0" + raw(bytes(12))[:-1], b"\0" + b"\xff" * 30,
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(content):
    with pytest.raises(DamagedFileError):
        alpha.unpack(content, 3, 4)


def test_no_more_than_the_image_is_unpacked():
    """A bomb of 64 MiB for an image of twelve pixels."""
    import tracemalloc

    bomb = b"\0" + raw(bytes(2**26))
    tracemalloc.start()
    with pytest.raises(DamagedFileError, match="fit"):
        alpha.unpack(bomb, 3, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23  # the dictionary


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 9), (64, 64), (200, 1), (130, 600)])
def test_visible_colours_are_left_as_they_are(width, height):
    rng = np.random.default_rng(width)
    color = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    opacity = (rng.random((height, width)) < 0.3).astype(np.uint8) * 9
    filled = alpha.fill_hidden(color, opacity)
    assert filled.shape == color.shape
    assert (filled[opacity > 0] == color[opacity > 0]).all()


def test_hidden_colours_continue_the_visible_ones():
    color = np.zeros((64, 64, 1), dtype=np.uint8)
    color[:, :32] = 200
    opacity = np.zeros((64, 64), dtype=np.uint8)
    opacity[:, :32] = 255
    assert (np.abs(alpha.fill_hidden(color, opacity).astype(int) - 200) <= 1).all()


def test_an_invisible_image_becomes_flat():
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.ptp(alpha.fill_hidden(color, np.zeros((40, 50), dtype=np.uint8))) == 0


def test_hidden_pixels_cost_next_to_nothing():
    """Half of a photograph hidden, and noise there: what a flat area costs, and no more."""
    from skimage import data

    photograph = data.astronaut()[:256, :512]
    opacity = np.full((256, 512), 255, dtype=np.uint8)
    opacity[:, 256:] = 0
    noisy = photograph.copy()
    noisy[:, 256:] = np.random.default_rng(0).integers(0, 256, (256, 256, 3))
    image = Image.fromarray(np.dstack([noisy, opacity]))
    half = len(licodec.encode(Image.fromarray(photograph[:, :256])))
    whole = licodec.encode(image)
    unfilled = len(licodec.encode(Image.fromarray(noisy)))
    flat = noisy.copy()
    flat[:, 256:] = 128
    assert len(whole) < len(licodec.encode(Image.fromarray(flat))) + 100
    assert len(whole) < 1.1 * half
    assert len(whole) - half < 0.03 * (unfilled - half)
    decoded = np.asarray(licodec.decode(whole))
    assert (decoded[:, :, 3] == opacity).all()
    assert len(unpack(whole).chunks[ALPHA]) < 100


def test_visible_positions_are_those_around_visible_pixels():
    opacity = np.zeros((100, 150), dtype=np.uint8)
    opacity[40, 70] = 1
    expected = np.zeros((7, 10), dtype=bool)
    expected[0:5, 2:7] = True
    assert (alpha.visible_positions(opacity, 16, 2) == expected).all()
    assert alpha.visible_positions(np.ones((5, 5), dtype=np.uint8), 16, 2).all()


def test_latents_left_out_leave_visible_pixels_alone():
    from skimage import data

    codec = opened("adaptive", precision="float32")
    color = data.astronaut()[:200, :200]
    opacity = np.zeros((200, 200), dtype=np.uint8)
    opacity[90:130, 60:80] = 255
    y = codec.transforms.analyze(color, codec.weights.gain(500))
    zeroed = y.copy()
    zeroed[:, ~codec.visible(opacity)] = 0
    assert (zeroed != y).any()
    a, b = (codec.synthesize(latents, 200, 200, "RGB", 100) for latents in (y, zeroed))
    moved = np.abs(a.astype(int) - b).max(2)
    assert moved[opacity > 0].max() <= 1 and moved.max() > 9


@pytest.mark.parametrize("model", ["adaptive", "factorized"])
def test_only_seen_latents_are_coded(model):
    rng = np.random.default_rng(0)
    opacity = np.zeros((160, 240), dtype=np.uint8)
    opacity[10:30, 200:] = rng.integers(0, 3, (20, 40))
    color = rng.integers(0, 256, (160, 240, 3), dtype=np.uint8)
    data = licodec.encode(Image.fromarray(np.dstack([color, opacity])), model=model)
    codec = opened(model)
    y, visible = decode_latents(codec, unpack(data)), codec.visible(opacity)
    assert 0 < visible.sum() < visible.size / 2
    assert (y[:, ~visible] == 0).all() and (y[:, visible] != 0).any()
    assert (np.asarray(licodec.decode(data))[:, :, 3] == opacity).all()
