"""Under a limit on its address space a process ends soon, with a result or with one line."""

import os
import subprocess
import sys

import pytest
from conftest import noise

from licodec import memory

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
