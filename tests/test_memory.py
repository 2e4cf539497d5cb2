"""Under a limit on its address space a process ends soon, with a result or with one line."""

import os
import subprocess
import sys

import pytest
import small_everyday
from conftest import noise
from PIL import Image

import licodec
from licodec import memory
from licodec.errors import OutOfMemoryError, family

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs limits on address space")
BUSY = "needs /proc/self/statm"


def limited(megabytes, *arguments):
    """A process of the command line."""
    import resource

    limit = megabytes * 10**6
    return subprocess.run(
        [sys.executable, "-m", "licodec", *map(str, arguments)],
        capture_output=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip


def after(loaded, code, spare):
    """A process that has run `loaded`, and may then map so many bytes more for `code`."""
    script = (
        f"{loaded}\n"
        "import resource\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {spare},) * 2)\n"
        f"{code}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=100
    )


def test_what_there_is_can_be_needed():
    memory.need(2**20)
    memory.need_libraries()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason=BUSY)
@pytest.mark.parametrize(
    ("loaded", "code"),
    [
        ("from licodec.entropy.threads import coding", "with coding():\n    print('in')"),
        ("from licodec import memory", "memory.need(10**8)"),
    ],
)
def test_libraries_that_would_ask_for_ever_are_not_asked(loaded, code):
    done = after(loaded, code, 2**24)
    assert done.returncode == 1 and done.stderr.strip().endswith(b"MemoryError"), done.stderr
    assert not done.stdout
    assert after(loaded, code, 2**28).returncode == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason=BUSY)
def test_pytorch_is_not_loaded_where_it_would_end_the_process():
    """The first 500 MB more would be too few, and PyTorch's loader does not bear that."""
    loaded = "import numpy, licodec.codec\nfrom PIL import Image\nx = Image.new('L', (9, 9))"
    done = after(loaded, "licodec.encode(x, model='adaptive')", 5 * 10**8)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(b"OutOfMemoryError: not enough memory to load PyTorch")


def test_openblas_has_one_thread_where_there_is_no_room_for_more(monkeypatch):
    """A thread that gets no buffer would keep the process from ending."""

    def need(size):
        if size > room:
            raise MemoryError

    modules = {name: module for name, module in sys.modules.items() if name != "numpy"}
    monkeypatch.setattr(memory.sys, "modules", modules)
    monkeypatch.setattr(memory, "need", need)
    monkeypatch.setattr(memory, "_is_limited", lambda: True)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    room = 2**40
    memory.need_numpy()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"
    room = memory.NUMPY
    memory.need_numpy()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    room -= 1
    with pytest.raises(OutOfMemoryError, match="not enough memory to load NumPy"):
        memory.need_numpy()


def test_numpy_that_cannot_be_loaded_is_a_lack_of_memory():
    cause = ImportError("libopenblas.so: failed to map segment from shared object")
    error = ImportError("Error importing numpy: you should not try to import numpy from here")
    assert not isinstance(family(error), OutOfMemoryError)
    error.__cause__ = cause
    assert isinstance(family(error), OutOfMemoryError)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [40, 80, 115, 130, 160, 180, 200, 220, 250, 280])
def test_what_needs_numpy_alone_ends(tmp_path, megabytes):
    weights = small_everyday.weights(tmp_path)
    image, file = tmp_path / "x.png", tmp_path / "x.lic"
    noise(160, 120, "RGB").save(image)
    file.write_bytes(licodec.encode(Image.open(image), weights=weights))
    for arguments in (
        ["encode", image, "--weights", weights, "-f", "-o", tmp_path / "y.lic"],
        ["decode", file, "--weights", weights, "-f", "-o", tmp_path / "y.png"],
        ["verify", "--deep", file, "--weights", weights],
        ["compare", image, file, "--weights", weights],
    ):
        done = limited(megabytes, *arguments)
        if megabytes > 60:  # less is too little for Python itself
            assert done.stderr.count(b"\n") <= 1, done.stderr
            assert done.returncode == 0 or b"not enough memory" in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [500, 650, 750, 900])
@pytest.mark.parametrize("model", ["adaptive", "hyperprior"])
def test_encoding_and_decoding_end(tmp_path, megabytes, model):
    """On images that 750 MB are too little for; what 900 are enough for depends on the machine."""
    image, file = tmp_path / "x.png", tmp_path / "x.lic"
    noise(1600, 1200, "RGB").save(image)
    both = [image, "-m", model, *(["--effort", 0] if model == "hyperprior" else [])]
    coded = subprocess.run(
        [sys.executable, "-m", "licodec", "encode", *map(str, both), "-o", str(file)], check=True
    )
    assert coded.returncode == 0
    for command in (["encode", *both], ["decode", file]):
        done = limited(megabytes, *command, "-f", "-o", tmp_path / "out", "--quiet")
        if megabytes <= 750 or done.returncode:
            assert done.returncode == 1 and done.stderr.count(b"\n") == 1, done.stderr
            assert b"not enough memory" in done.stderr
            assert not (tmp_path / "out").exists()
        (tmp_path / "out").unlink(missing_ok=True)
