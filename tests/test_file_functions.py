import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_everyday
from conftest import noise
from PIL import Image, PngImagePlugin

import licodec
from licodec.errors import FileAccessError, UnsupportedImageError, UsageError


@pytest.fixture
def png(photo, tmp_path):
    photo.save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_paths_there_and_back(png, photo, tmp_path):
    lic, jpg = tmp_path / "x.lic", tmp_path / "y.jpg"
    row = licodec.encode_file(png, lic, quality=40, strip=True)
    assert lic.read_bytes() == licodec.encode(photo, quality=40)
    assert row["quality"] == 40 and row["bytes"] == lic.stat().st_size and row["notes"] == []
    row = licodec.decode_file(str(lic), str(jpg), format_quality=80)
    assert row["format"] == "JPEG" and row["bytes"] == jpg.stat().st_size
    with Image.open(jpg) as image:
        assert image.format == "JPEG" and image.size == photo.size


def test_open_files_there_and_back(png, photo):
    lic, out = io.BytesIO(), io.BytesIO()
    with png.open("rb") as source:
        licodec.encode_file(source, lic, quality=40)
    lic.seek(0)
    assert licodec.decode_file(lic, out, format="webp")["format"] == "WEBP"
    wanted = licodec.decode(licodec.encode(photo, quality=40))
    assert (np.asarray(Image.open(out)) == np.asarray(wanted)).all()


def test_a_file_named_like_standard_input(png, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    png.rename(tmp_path / "-")
    licodec.encode_file("-", "a.lic")
    (tmp_path / "-").unlink()
    licodec.decode_file("a.lic", "-", format="png")
    assert (tmp_path / "-").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_replaced_unasked(png, tmp_path):
    target = tmp_path / "x.lic"
    target.write_bytes(b"precious")
    with pytest.raises(FileAccessError, match="overwrite=True"):
        licodec.encode_file(png, target)
    assert target.read_bytes() == b"precious"
    licodec.encode_file(png, target, overwrite=True)
    before = png.read_bytes()
    with pytest.raises(FileAccessError, match="overwrite=True"):
        licodec.decode_file(target, png)
    with pytest.raises(UsageError, match="input itself"):
        licodec.encode_file(png, png, overwrite=True)
    assert png.read_bytes() == before


def test_what_cannot_be_is_refused_before_the_work(png, tmp_path):
    for arguments in ({"format": "gif"}, {"format": "png", "format_quality": 5}):
        with pytest.raises(UsageError):
            licodec.encode_file(png, tmp_path / "x.lic", overwrite=True)
            licodec.decode_file(tmp_path / "x.lic", tmp_path / "y.png", **arguments)
    assert not (tmp_path / "y.png").exists()
    with pytest.raises(FileAccessError):
        licodec.encode_file(tmp_path / "no.png", tmp_path / "y.lic")
    with pytest.raises(UnsupportedImageError):
        licodec.encode_file(io.BytesIO(b"no image"), tmp_path / "y.lic")
    with pytest.raises(UsageError):
        licodec.encode_file(png, tmp_path / "y.lic", quality=101)
    assert not (tmp_path / "y.lic").exists()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_arrays_are_images(mode):
    image = noise(24, 16, mode)
    array = np.asarray(image)
    assert licodec.encode(array) == licodec.encode(image)
    assert licodec.encode(array[::2, ::3]) == licodec.encode(
        Image.fromarray(array[::2, ::3].copy())
    )


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8, 3)), np.full((8, 8, 3), np.nan, np.float32), np.zeros((8, 8, 2), np.uint8),
     np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros(8, np.uint8),
     np.zeros((8, 8, 3), np.uint16)],
)  # fmt: skip
def test_other_arrays_are_none(array):
    with pytest.raises(UsageError, match=r"an array of uint8 \(H, W, 3\) is wanted, not of "):
        licodec.encode(array)


def test_the_programs_own_limits_stay(png, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 777)
    filters = [*warnings.filters]
    with ThreadPoolExecutor(3) as pool:
        for done in [
            pool.submit(licodec.encode_file, png, tmp_path / f"{i}.lic", max_pixels=10**6 + i)
            for i in range(6)
        ]:
            done.result()
    with pytest.raises(UnsupportedImageError):
        licodec.encode_file(io.BytesIO(b"no image"), io.BytesIO())
    assert Image.MAX_IMAGE_PIXELS == 12345 and PngImagePlugin.MAX_TEXT_CHUNK == 777
    assert warnings.filters == filters


class Raw(io.RawIOBase):
    """A file without a buffer, which takes and gives 7 bytes at most."""

    def __init__(self, content=b""):
        self.content = content

    def readable(self):
        return True

    def writable(self):
        return True

    def read(self, count=-1):
        given, self.content = self.content[: min(count, 7)], self.content[min(count, 7) :]
        return given

    def write(self, data):
        self.content += data[:7]
        return len(data[:7])


def test_files_without_a_buffer_are_read_and_written_whole(png):
    lic, out = Raw(), Raw()
    licodec.encode_file(Raw(png.read_bytes()), lic)
    assert lic.content == licodec.encode(Image.open(png))
    licodec.decode_file(lic, out, format="ppm")
    with Image.open(io.BytesIO(out.content)) as image:
        image.load()


def test_a_file_that_takes_no_more_is_an_error(png):
    class Full(Raw):
        def write(self, data):
            return None

    class Broken(Raw):
        def write(self, data):
            raise OSError(28, "No space left on device")

    for target in (Full(), Broken()):
        with pytest.raises(FileAccessError, match="cannot write: "):
            licodec.encode_file(png, target)


def closed(file):
    file.close()
    return file


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: None, "not NoneType"),
        (lambda: 3, "not int"),
        (lambda: b"bytes", "io.BytesIO makes one"),
        (lambda: Image.new("L", (3, 3)), "licodec.encode takes images"),
        (lambda: np.zeros((3, 3), np.uint8), "licodec.encode takes arrays"),
        (lambda: io.StringIO(), "'b' in its mode"),
        (lambda: closed(io.BytesIO()), "closed"),
    ],
)
def test_what_is_no_file_is_told_before_the_work(png, tmp_path, monkeypatch, wrong, said):
    def work(*arguments):
        raise AssertionError("worked")

    target, lic = tmp_path / "new", tmp_path / "x.lic"
    licodec.encode_file(png, lic)
    for name in ("encode_checked", "decode_file"):
        monkeypatch.setattr(licodec.codec, name, work)
    for function, source in ((licodec.encode_file, png), (licodec.decode_file, lic)):
        for arguments in ((wrong(), target), (source, wrong())):
            with pytest.raises(UsageError, match=said):
                function(*arguments)
    assert not target.exists()


def test_files_opened_in_another_mode(png, tmp_path):
    with png.open("rb") as source, (tmp_path / "x").open("wb") as target:
        with pytest.raises(UsageError, match="not writable"):
            licodec.encode_file(png, source)
        with pytest.raises(UsageError, match="not readable"):
            licodec.encode_file(target, tmp_path / "y")


def test_files_that_give_no_bytes():
    class Text:
        def read(self, count):
            return "text"

    for function in (licodec.encode_file, licodec.decode_file):
        with pytest.raises(UsageError, match="read bytes from is wanted; this one gives str"):
            function(Text(), io.BytesIO())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": 3}, "named by a string"),
        ({"format": "jpeg"}, "contradict"),
        ({"format_quality": 50}, "for JPEG and WebP"),
    ],
)
def test_formats_that_make_no_sense(png, tmp_path, options, said):
    lic = tmp_path / "x.lic"
    licodec.encode_file(png, lic)
    with pytest.raises(UsageError, match=said):
        licodec.decode_file(lic, tmp_path / "new.png", **options)
    for quality in (0, 101, "x", 3.5):
        with pytest.raises(UsageError, match=r"whole number of 1 … 100"):
            licodec.decode_file(lic, tmp_path / "new.jpg", format_quality=quality)
    licodec.decode_file(lic, tmp_path / "new.jpg", format_quality=np.int64(9))


def test_weights_that_are_not_installed_are_named_by_their_model(png, tmp_path):
    weights = small_everyday.weights(tmp_path)
    assert licodec.encode_file(png, tmp_path / "x.lic", weights=weights)["model"] == "everyday"
