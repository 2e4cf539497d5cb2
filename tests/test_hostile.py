"""Files, pipes and disks that mean harm: one clear line, nothing half written, nothing allocated."""

import dataclasses
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise
from opened import opened
from PIL import Image
from small_checkpoints import checkpoint

import licodec
from licodec import container
from licodec.cli.main import main
from licodec.codec import verify_latents
from licodec.container import pack, unpack
from licodec.errors import (
    DamagedFileError,
    LicodecError,
    ModelMissingError,
    OutOfMemoryError,
    TooLargeError,
    family,
)
from licodec.io import files
from licodec.io.image import Picture
from licodec.networks import tiled
from licodec.payload import code, decode_latents
from licodec.rangecoder import LATENTS_PER_BYTE, Encoder
from licodec.weights import catalogue
from licodec.weights import file as weights_file

MUST_FAIL = Path(__file__).resolve().parent / "golden" / "must-fail"
GOLDEN = Path(__file__).resolve().parent / "golden" / "ok"


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def licodec_process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "licodec", *map(str, arguments)],
        capture_output=True, check=False, timeout=300, **options,
    )  # fmt: skip


def is_one_line(stderr):
    return stderr.count(b"\n") == 1 and b"Traceback" not in stderr


@pytest.fixture
def lic(encoded, tmp_path):
    path = tmp_path / "photo.lic"
    path.write_bytes(encoded)
    return path


# Damaged files


@pytest.mark.parametrize("name", ["metadata", "alpha"])
def test_every_prefix_and_every_flipped_byte_of_a_golden_file_is_refused(name):
    (path,) = GOLDEN.glob(f"{name}-????????.lic")
    data = path.read_bytes()
    for end in range(len(data)):
        with pytest.raises(LicodecError):
            licodec.decode(data[:end])
    for i in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            with pytest.raises(LicodecError):
                licodec.decode(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])


@pytest.mark.parametrize("path", sorted(MUST_FAIL.glob("*.lic")), ids=lambda p: p.stem)
def test_refusing_allocates_little(path, encoded):
    data = path.read_bytes()
    # Weights are loaded once, and not counted.
    licodec.decode(encoded)
    licodec.decode(licodec.encode(Image.new("L", (1, 1))))
    tracemalloc.start()
    with pytest.raises(LicodecError):
        licodec.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Metadata may unpack to its limit; all else is refused on what the file holds itself.
    assert peak < (2.1 * container.MAX_METADATA if "inflates" in path.stem else 2**24)


# Sizes that are absurd for the bytes at hand


def test_the_likeliest_symbol_takes_more_than_its_share_of_the_least_payload():
    """The rule of docs/format.md, §3, on the most lopsided table there can be."""
    count = 2**25
    pmf = np.zeros(257, dtype=np.int64)
    pmf[128] = 1
    encoder = Encoder()
    encoder.code(np.full(count, 128, dtype=np.int32), count, pmf)
    assert len(encoder.finish()) >= count // LATENTS_PER_BYTE


def test_the_encoder_leaves_zeros_on_where_the_payload_would_be_too_short():
    count = 2**21
    pmf = np.zeros(257, dtype=np.int64)
    pmf[0] = 1
    encoder = Encoder()
    encoder.code(np.zeros(count, dtype=np.int32), count, pmf)
    assert len(encoder.finish()) < count // LATENTS_PER_BYTE
    assert len(encoder.finish(count // LATENTS_PER_BYTE)) == count // LATENTS_PER_BYTE


@pytest.mark.parametrize("model", ["adaptive", "factorized"])
def test_a_large_flat_image_is_within_the_rule_and_less_is_refused(model):
    side = 4096
    codec = opened(model, precision="float32")
    y = np.zeros((codec.transforms.M, side // 16, side // 16), dtype=np.int32)
    picture = Picture("RGB", np.broadcast_to(np.uint8(0), (side, side, 3)))
    flat = code(codec, picture, y, 0).container
    assert (decode_latents(codec, unpack(pack(flat))) == 0).all()
    least = y.size // LATENTS_PER_BYTE
    assert len(flat.payload) >= least > 10
    with pytest.raises(DamagedFileError, match="bytes cannot hold 4096x4096"):
        decode_latents(codec, dataclasses.replace(flat, payload=flat.payload[: least - 1]))


def test_more_bytes_than_the_pixels_can_need(encoded, monkeypatch):
    monkeypatch.setattr(container, "MAX_OVERHEAD", 1000)
    monkeypatch.setattr(container, "MAX_BYTES_PER_PIXEL", 0)
    with pytest.raises(TooLargeError, match="more bytes"):
        unpack(encoded)


def test_the_worst_image_stays_within_the_most_bytes():
    """Escapes everywhere, as far out as the format reaches: 16 bytes a pixel are never used up."""
    codec = opened("factorized", precision="float32")
    y = np.full((codec.transforms.M, 4, 4), 2**23, dtype=np.int32)
    y[:, ::2] *= -1
    picture = Picture("RGB", np.zeros((64, 64, 3), dtype=np.uint8))
    file = code(codec, picture, y, 200).container
    assert len(file.payload) < (container.MAX_BYTES_PER_PIXEL - 1) * 64 * 64
    assert (decode_latents(codec, file) == y).all()


# Sizes that cost more than their pixels


def strip_file(encoded, width, height):
    return pack(
        dataclasses.replace(unpack(encoded), width=width, height=height, payload=bytes(9000))
    )


@pytest.mark.parametrize("size", [(1, 2**28), (2**28, 1), (15, 2**24 + 1)])
def test_a_side_under_16_pixels_counts_as_16(size, encoded):
    with pytest.raises(TooLargeError, match="counts as 16"):
        licodec.decode(strip_file(encoded, *size))
    if size[0] == 15:
        image = Image.new("1", (15, 2**24 + 1))
        with pytest.raises(TooLargeError, match="counts as 16"):
            licodec.encode(image)


def test_16_pixels_a_side_are_16_pixels(encoded):
    container.refuse_large(2**24, 1, 2**28)
    container.refuse_large(16, 16, 256)
    assert unpack(strip_file(encoded, 1, 2**24)).height == 2**24
    assert licodec.decode(licodec.encode(Image.new("L", (1, 40)), max_pixels=640)).size == (1, 40)
    with pytest.raises(TooLargeError):
        licodec.encode(Image.new("L", (1, 40)), max_pixels=639)


def icon(side):
    """An ICO file that declares 256x256 pixels, around a PNG file of other sides."""
    png = io.BytesIO()
    Image.new("1", (side, side)).save(png, "PNG")
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png.getvalue()), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + png.getvalue()


def test_an_icon_is_not_decoded_before_its_inner_size_is_known(tmp_path, monkeypatch):
    (tmp_path / "x.ico").write_bytes(icon(300))
    assert run("encode", tmp_path / "x.ico", "-o", tmp_path / "x.lic").exit_code == 0

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.core, "zip_decoder", load, raising=False)
    result = run("encode", tmp_path / "x.ico", "-f", "--max-pixels", 299 * 299)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"more than {299 * 299} pixels" in result.stderr


# What would start another program


@pytest.mark.slow
def test_no_command_starts_ghostscript(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def start(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    images = tmp_path / "images"
    images.mkdir()
    noise(64, 64, "RGB").save(images / "a.png", "EPS")
    config = tmp_path / "x.toml"
    config.write_text("[train]\nsteps = 1\n[data]\npatch = 64\nholdout = 1\n")
    checkpoint("mbt2018-mean", tmp_path / "x.pt")
    for arguments in (
        ["encode", "-r", images],
        ["train", config, "--data", images, "--out", tmp_path / "out"],
        [
            "import",
            tmp_path / "x.pt",
            "--arch",
            "mbt2018-mean",
            "--calibrate",
            images,
            "-o",
            tmp_path,
        ],
        ["bench", images, "--codecs", "jpeg"],
    ):
        result = run(*arguments)
        assert result.exit_code in (1, 2), (arguments, result.stderr)
        assert "not an image that can be read" in result.stderr, (arguments, result.stderr)
        assert "internal error" not in result.stderr


# What is no file


@pytest.mark.parametrize("verb", ["encode", "decode", "info", "verify"])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full"])
def test_devices_have_no_end_and_are_refused(verb, device, tmp_path):
    if not os.path.exists(device):
        pytest.skip("no such device here")
    result = run(verb, device)
    assert result.exit_code == 1 and "is a device, not a file" in result.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that fails")
@pytest.mark.parametrize("command", ["encode", "decode", "info", "verify", "compare"])
def test_a_disk_that_fails_is_one_line(command):
    """Address 0 cannot be read, as a bad sector cannot."""
    path = "/proc/self/mem"
    result = run(command, *[path] * (1 + (command == "compare")))
    assert result.exit_code == 1
    assert result.stderr == f"licodec: {path}: Input/output error\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipes_are_read(tmp_path, photo):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", str(pipe), "-o", str(tmp_path / "x.lic")]
    )
    with pipe.open("wb") as end:
        end.write(buffer.getvalue())
    assert process.wait(300) == 0
    assert licodec.decode((tmp_path / "x.lic").read_bytes()).size == photo.size


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_an_endless_pipe_of_nothing_ends(verb):
    feed = subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE)
    done = licodec_process(verb, "-", stdin=feed.stdout)
    feed.stdout.close()
    feed.wait(60)
    assert done.returncode == {"encode": 1, "decode": 3}[verb]
    assert is_one_line(done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="needs libtiff as a library of its own")
def test_libtiff_keeps_quiet(tmp_path):
    path = tmp_path / "x.tif"
    noise(64, 64, "RGB").save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[500:3000:7] = bytes(b ^ 0x55 for b in data[500:3000:7])
    path.write_bytes(data)
    done = licodec_process("encode", path)
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr


class Endless(io.RawIOBase):
    """A head, then zeros for ever."""

    def __init__(self, head):
        self.head, self.given = head, 0

    def read(self, count=-1):
        assert count > 0, "read to the end of something endless"
        out = (self.head + bytes(count))[:count]
        self.head = self.head[count:]
        self.given += count
        return out


def test_an_endless_file_ends_at_what_its_header_accounts_for(encoded, monkeypatch):
    monkeypatch.setattr(container, "MAX_OVERHEAD", 2**20)
    endless = Endless(encoded)
    monkeypatch.setattr(files, "_opened", lambda path: endless)
    with pytest.raises(TooLargeError, match="more bytes"):
        files.read("-", 2**28)
    assert endless.given < 2**23


def test_an_endless_image_ends_at_the_limit(photo, monkeypatch):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    monkeypatch.setattr(files, "MAX_OVERHEAD", 2**21)
    endless = Endless(buffer.getvalue())
    monkeypatch.setattr(files, "_opened", lambda path: endless)
    with pytest.raises(TooLargeError, match="more bytes"):
        files.open_image("-", 2**28)
    assert 2**21 < endless.given < 2**23


def test_an_endless_image_of_too_many_pixels_ends_at_once(monkeypatch):
    endless = Endless(b"P6 20000 20000 255\n")
    monkeypatch.setattr(files, "_opened", lambda path: endless)
    with pytest.raises(TooLargeError, match="more than 268435456 pixels"):
        files.open_image("-", 2**28)
    assert endless.given == 2**20


def test_what_does_not_begin_with_its_size_is_read_to_a_limit(monkeypatch, encoded):
    monkeypatch.setattr(files, "MOST_BYTES", 2**22)
    large = dataclasses.replace(unpack(encoded), width=2**20, height=2**20)
    for head, read in (
        (b"RIFF\0\0\0\x40WEBPVP8 ", lambda: files.open_image("-", 2**28)),
        (pack(large), lambda: files.read("-", 2**62)),
    ):
        endless = Endless(head)
        monkeypatch.setattr(files, "_opened", lambda path, endless=endless: endless)
        with pytest.raises(TooLargeError, match="more bytes"):
            read()
        assert 2**22 < endless.given < 2**24


@pytest.mark.parametrize("verb", ["encode", "decode", "info", "verify"])
def test_an_unreadable_file_is_one_line(verb, lic, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    lic = lic.rename(lic.with_suffix(".in"))
    monkeypatch.setattr(files, "open", refuse, raising=False)
    monkeypatch.setattr(Image, "open", refuse)
    result = run(verb, lic)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"{lic}: Permission denied" in result.stderr


def test_odd_names_are_one_line(tmp_path):
    for name in ("a\nb.lic", "a\tb.lic", "\x00", "x" * 300):
        result = run("decode", tmp_path / name)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1, repr(name)


# Disks and pipes that take no more


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(lic):
    for arguments, stdout in ((["-o", "-"], open("/dev/full", "wb")), (["-o", "/dev/full"], None)):
        done = subprocess.run(
            [sys.executable, "-m", "licodec", "decode", str(lic), *arguments, "-f"],
            stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
        assert b"No space left" in done.stderr
        if stdout:
            stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
@pytest.mark.parametrize("before", [None, b"precious"])
def test_a_disk_that_fills_up_leaves_what_was_there(lic, tmp_path, before):
    import resource

    target = tmp_path / "out" / "x.png"
    target.parent.mkdir()
    if before:
        target.write_bytes(before)
    done = licodec_process(
        "decode", lic, "-o", target, "-f",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
    assert b"File too large" in done.stderr
    assert [p.name for p in target.parent.iterdir()] == (["x.png"] if before else [])
    if before:
        assert target.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("--help > /dev/full", 1, b"cannot write standard output: No space left on device"),
        ("--version >&-", 1, b"cannot write standard output: Bad file descriptor"),
        ("info LIC > /dev/full", 1, b"cannot write standard output: No space left on device"),
        ("models >&-", 1, b"cannot write standard output: Bad file descriptor"),
        ("decode LIC -o - >&-", 1, b"LIC: cannot write -: Bad file descriptor"),
        ("encode - <&-", 1, b"standard input: is closed"),
        ("info - <&-", 1, b"-: is closed"),
        ("info LIC 2>&- > /dev/null", 0, b""),
        ("decode LIC -o LIC.png 2> /dev/full", 0, b""),
    ],
)
def test_standard_streams_that_are_full_or_closed(lic, command, code, said):
    shell = f"'{sys.executable}' -m licodec {command.replace('LIC', str(lic))}"
    done = subprocess.run(shell, shell=True, capture_output=True, check=False, timeout=300)
    expected = b"licodec: " + said.replace(b"LIC", bytes(lic)) + b"\n" if said else b""
    assert (done.returncode, done.stderr, done.stdout) == (code, expected, b"")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_comes_up_meanwhile_is_not_overwritten(tmp_path, photo, monkeypatch, links):
    from licodec import codec

    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    target = tmp_path / "x.lic"
    original = codec.encode_checked

    def meanwhile(*arguments):
        target.write_bytes(b"precious")
        return original(*arguments)

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    photo.save(tmp_path / "x.png")
    assert run("encode", tmp_path / "x.png").exit_code == 0
    target.unlink()
    monkeypatch.setattr(codec, "encode_checked", meanwhile)
    result = run("encode", tmp_path / "x.png")
    assert (
        result.exit_code == 1
        and "x.lic exists; -o names another output, -f overwrites it" in result.stderr
    )
    assert target.read_bytes() == b"precious"
    assert run("encode", tmp_path / "x.png", "-f").exit_code == 0
    assert target.read_bytes() != b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.lic", "x.png"]


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
def test_a_disk_that_fills_up_is_noticed_without_a_buffer(lic, tmp_path):
    """PYTHONUNBUFFERED makes a write to standard output write what there is room for."""
    import resource

    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "licodec", "decode", str(lic), "-o", "-", "--format", "ppm"],
            stdout=out, stderr=subprocess.PIPE, check=False, timeout=300,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        )  # fmt: skip
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
    assert b"File too large" in done.stderr


# Interruptions


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["PIL", "click", "torch"])
def test_a_signal_during_an_import_is_quiet(tmp_path, photo, module, number):
    """A module that turns the exception into another, as compiled ones do."""
    (tmp_path / f"{module}.py").write_text(
        "import time\nprint('now', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError from None\n"
    )
    photo.save(tmp_path / "x.png")
    root = Path(licodec.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", "-m", "adaptive", str(tmp_path / "x.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
    )
    assert process.stdout.readline() == b"now\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -number
    assert said == (b"licodec: interrupted\n" if number == signal.SIGINT else b"")


def test_a_program_that_imports_licodec_keeps_its_handlers():
    code = (
        "import signal; before = signal.getsignal(2), signal.getsignal(15)\n"
        "import licodec, licodec.cli.main\n"
        "assert (signal.getsignal(2), signal.getsignal(15)) == before"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_closed_pipe_is_quiet(lic):
    done = subprocess.run(
        f'"{sys.executable}" -m licodec decode "{lic}" -o - --format ppm | head -c 10 > {os.devnull}',
        shell=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stderr == b""


# Too little memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_too_little_memory_is_one_line(tmp_path, monkeypatch, error):
    def analyze(*arguments, **options):
        raise error

    noise(24, 16, "RGB").save(tmp_path / "x.png")
    monkeypatch.setattr(tiled.TiledTransforms, "analyze", analyze)
    with pytest.raises(OutOfMemoryError):
        licodec.encode(Image.open(tmp_path / "x.png"), model="adaptive")
    result = run("encode", tmp_path / "x.png", "-m", "adaptive")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "not enough memory" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_a_real_lack_of_memory_is_one_line(tmp_path):
    """A process that may take 300 MB more than it needs for a small image, and is given 30 Mpx."""
    noise(24, 16, "RGB").save(tmp_path / "small.png")
    noise(6000, 5000, "RGB").save(tmp_path / "large.png", compress_level=1)
    script = (
        "import resource, sys\n"
        "from licodec.cli.main import main\n"
        "main(['encode', sys.argv[1], '--quiet'], standalone_mode=False)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**8,) * 2)\n"
        "main(['encode', sys.argv[2]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "small.png"), str(tmp_path / "large.png")],
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
    assert b"not enough memory" in done.stderr
    assert not (tmp_path / "large.lic").exists()


# Defects of licodec itself


def test_a_defect_is_one_line_and_debugging_shows_where(tmp_path, monkeypatch):
    def analyze(*arguments, **options):
        raise RuntimeError("a\ndefect")

    noise(24, 16, "RGB").save(tmp_path / "x.png")
    monkeypatch.setattr(tiled.TiledTransforms, "analyze", analyze)
    result = run("encode", tmp_path / "x.png", "-m", "adaptive")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "internal error, please report it: RuntimeError: a defect" in result.stderr
    monkeypatch.setenv("LICODEC_DEBUG", "1")
    result = run("encode", tmp_path / "x.png", "-m", "adaptive")
    assert isinstance(result.exception.__cause__, RuntimeError)


def test_one_family():
    assert isinstance(family(ValueError("x")), LicodecError)
    assert isinstance(family(MemoryError()), OutOfMemoryError)
    assert str(family(OSError(5, "Input/output error", "x"))) == "x: Input/output error"
    assert family(TooLargeError("x")).args == ("x",)
    causes = LicodecError.__subclasses__()
    assert len({c.__name__ for c in causes}) == len(causes) >= 9
    assert all(c.__doc__ and c.exit_code in (1, 2, 3, 4) for c in causes)


def test_a_flipped_size_is_damage_and_not_a_large_image():
    """The highest bit of a varint's last byte makes the size absurd; the checksum knows better."""
    data = licodec.encode(Image.new("RGB", (200, 160)))
    for at in (7, 9):
        flipped = data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]
        with pytest.raises(DamagedFileError):
            licodec.decode(flipped)


def test_links_are_written_through(tmp_path):
    image, target, link = tmp_path / "x.png", tmp_path / "real.lic", tmp_path / "link.lic"
    Image.new("RGB", (8, 8)).save(image)
    link.symlink_to(target)
    assert CliRunner().invoke(main, ["encode", str(image), "-o", str(link)]).exit_code == 0
    assert link.is_symlink() and target.is_file()


def test_weights_that_have_no_end_are_refused():
    with pytest.raises(ModelMissingError):
        weights_file.Weights(Path("/dev/zero"))


# Ends


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("numbers", [(2,), (15,), (2, 2), (15, 2)])
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_a_signal_is_what_the_process_dies_of(tmp_path, numbers, jobs):
    """At once, too: between this search's steps there are seconds."""
    for name in ("a.png", "b.png"):
        noise(1500, 1000, "RGB").save(tmp_path / name, compress_level=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", "-r", str(tmp_path), "-m", "hyperprior", "-e", "20",
         "-j", str(jobs)],
        stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    time.sleep(6)
    assert process.poll() is None
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.03)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -numbers[0]
    assert said == (b"licodec: interrupted\n" if numbers[0] == 2 else b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_file_being_written_is_removed_by_a_signal(tmp_path, name):
    """Here the disk takes for ever."""
    code = (
        "import os, sys, time\n"
        "sys.argv[0] = 'licodec'\n"
        "import licodec\n"
        "from licodec.io import files\n"
        "def wait(number):\n print('now', flush=True)\n time.sleep(60)\n"
        "os.fsync = wait\n"
        "files.write(sys.argv[1], b'data', True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x.lic")], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"now\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=60)
    assert process.returncode == -getattr(signal, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_the_parent_ignores_is_ignored(tmp_path, photo, name):
    """As of `licodec … &` in a script, and of nohup."""
    number = getattr(signal, name)
    photo.save(tmp_path / "x.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", str(tmp_path / "x.png")],
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(120) == 0 and (tmp_path / "x.lic").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs a shell's signals")
def test_a_shell_loop_ends_with_ctrl_c(tmp_path):
    for i in range(3):
        noise(3000, 2000, "RGB").save(tmp_path / f"{i}.png", compress_level=1)
    loop = (
        f"for f in {tmp_path}/*.png; do '{sys.executable}' -m licodec encode $f; done; echo after"
    )
    process = subprocess.Popen(
        ["bash", "-c", loop], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert b"after" not in said


# Files that are written anew


@pytest.mark.skipif(os.name == "nt", reason="needs modes")
def test_a_file_written_anew_keeps_its_mode(tmp_path, lic):
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    target.chmod(0o600)
    assert run("decode", lic, "-o", target, "-f").exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600 and target.read_bytes() != b"old"


def test_data_are_on_the_disk_before_the_name_is(tmp_path, lic, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, original=original: (done.append(name), original(*a))
        )
    assert run("decode", lic, "-o", tmp_path / "x.png", "-f").exit_code == 0
    assert done == ["fsync", "replace"]


# What is there beside the latents, or instead of pixels


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.lic")), ids=lambda p: p.stem)
def test_deep_verifying_takes_golden_files_and_nothing_after_their_latents(path, monkeypatch):
    file = unpack(path.read_bytes())
    assert verify_latents(pack(file)) == file.latents_crc32
    for more in (b"\x55" * 12, bytes(100) + b"x" * 100):
        longer = pack(dataclasses.replace(file, payload=file.payload + more))
        with pytest.raises(DamagedFileError):
            verify_latents(longer)


def test_deep_verifying_refuses_megabytes_after_one_pixel(tmp_path):
    file = unpack(licodec.encode(Image.new("RGB", (1, 1))))
    junk = np.random.default_rng(0).bytes(2**22)
    path = tmp_path / "x.lic"
    path.write_bytes(pack(dataclasses.replace(file, payload=file.payload + junk)))
    assert run("verify", path).exit_code == 0
    result = run("verify", "--deep", path)
    assert result.exit_code == 3 and result.stderr.count("\n") == 1


def test_pixels_that_are_no_numbers_are_refused(encoded, monkeypatch):
    original = tiled.TiledTransforms._run

    def overflow(self, net, x, precise):
        return original(self, net, x, precise) * (float("nan") if net == "g_s" else 1)

    monkeypatch.setattr(tiled.TiledTransforms, "_run", overflow)
    with pytest.raises(DamagedFileError, match="no pixels"):
        licodec.decode(encoded)


# What cannot even start


@pytest.mark.parametrize("debug", [False, True])
def test_a_library_that_cannot_be_imported_is_one_line(tmp_path, debug):
    (tmp_path / "click.py").write_text("raise OSError(24, 'Too many open files', 'a\\nb')\n")
    root = Path(licodec.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = licodec_process("--help", env={**env, **({"LICODEC_DEBUG": "1"} if debug else {})})
    assert done.returncode == 1 and (b"Traceback" in done.stderr) == debug
    if not debug:
        assert is_one_line(done.stderr) and b"Too many open files" in done.stderr


# Names


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_standard_output_of_any_encoding_takes_help_and_names(tmp_path, encoded, encoding):
    """As Windows' pipes have a code page."""
    name = tmp_path / "\u65e5\u672c.lic"
    name.write_bytes(encoded)
    for arguments in (["encode", "--help"], ["train", "--help"], ["info", name], ["verify", name]):
        done = licodec_process(
            *arguments, env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        )
        assert (done.returncode, done.stderr) == (0, b""), arguments
    assert rb"\u65e5" in done.stdout or "\u65e5".encode() in done.stdout


ODD_NAMES = [
    b"x\ngood.lic",
    b"\x1b[31mred.lic",
    b"caf\xe9\xff.lic",
    b"a\tb.lic",
    "\u202elic".encode(),
]


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
def test_odd_names_are_escaped_and_end_nothing(tmp_path, encoded):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for name in ODD_NAMES:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(encoded)
    names = sorted(os.fsdecode(os.path.join(folder, name)) for name in ODD_NAMES)
    for command, *options in (["verify"], ["info"], ["decode", "--output-dir", tmp_path / "out"]):
        done = licodec_process(command, "-r", tmp_path / "in", *options)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert said.count(b"\n") == len(ODD_NAMES) + (command == "decode")
        assert not any(byte in said for byte in (b"\x1b", b"\xff", b"\t", b"\xe2\x80\xae"))
        assert rb"x\ngood.lic" in said and rb"caf\xe9\xff.lic" in said
        if command != "decode":
            rows = json.loads(licodec_process(command, "-r", tmp_path / "in", "--json").stdout)
            assert sorted(row["file"] for row in rows) == names
    shutil.copytree(catalogue.resolve("adaptive")[1].parent, tmp_path / "w", symlinks=False)
    for path in list((tmp_path / "w").glob("*.safetensors")):
        path.rename(path.with_name(f"\x1b[31m{path.name}"))
    done = licodec_process("models", env={**os.environ, "LICODEC_WEIGHTS": str(tmp_path / "w")})
    assert done.returncode == 0 and b"\x1b" not in done.stdout and rb"\x1b[31m" in done.stdout
    for name in ODD_NAMES:
        torn = os.fsdecode(os.path.join(folder, name))
        Path(torn).write_bytes(encoded[:-1])
    done = licodec_process("verify", "-r", tmp_path / "in")
    assert done.returncode == 3 and done.stderr.count(b"\n") == len(ODD_NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a terminal of its own")
@pytest.mark.slow
def test_ctrl_c_on_a_terminal_gives_the_cursor_back(tmp_path):
    noise(1500, 1000, "RGB").save(tmp_path / "x.png", compress_level=1)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", str(tmp_path / "x.png"), "-m", "hyperprior",
         "-e", "20"],
        stderr=theirs, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown, told = b"", False
    while True:
        try:
            shown += os.read(ours, 2**16)
        except OSError:  # closed at the other end
            break
        if b"\x1b[?25l" in shown and not told:
            told = True
            process.send_signal(signal.SIGINT)
    os.close(ours)
    assert process.wait(60) == -signal.SIGINT
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
    assert shown.endswith(b"licodec: interrupted\r\n")
