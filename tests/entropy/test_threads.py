"""The host program gets its OpenBLAS threads back, and a forked process works."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from licodec.entropy import threads
from licodec.entropy.threads import coding, one_blas_thread


def blas_threads():
    return [count() for count, _ in threads._pools()]


@pytest.fixture
def three():
    """OpenBLAS with three threads, if NumPy has it."""
    if not blas_threads():
        pytest.skip("NumPy has no OpenBLAS here")
    before = blas_threads()
    for _, limit in threads._pools():
        limit(3)
    yield
    for (_, limit), count in zip(threads._pools(), before, strict=True):
        limit(count)


def test_within_it_is_one(three):
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {3}


def test_the_last_of_overlapping_threads_gives_back(three):
    """The first that enters leaves first."""
    entered, leave = threading.Event(), threading.Event()

    def first():
        with one_blas_thread():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(60)
    with one_blas_thread():
        leave.set()
        thread.join()
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {3}


def test_an_error_gives_back_too(three):
    with pytest.raises(ValueError), one_blas_thread():
        raise ValueError
    assert set(blas_threads()) == {3}


def test_each_of_several_at_once_has_a_buffer(monkeypatch):
    taken = []
    monkeypatch.setattr(threads, "_buffers", threads._Buffers())
    monkeypatch.setattr(threads, "_take_buffer", lambda: taken.append(1))
    for _ in range(2):
        with coding(), coding(), coding():
            pass
    assert len(taken) == 3


def test_products_are_those_of_more_threads():
    a = np.arange(90000, dtype=np.float32).reshape(300, 300) % 7
    whole = a @ a
    with one_blas_thread():
        assert (a @ a == whole).all()


def test_files_at_once_share_pytorchs_threads():
    script = (
        "import sys\n"
        "from licodec.entropy import threads\n"
        "threads.share_among(3)\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "torch.set_num_threads(7)\n"
        "threads.take_share()\n"
        "threads.take_share()\n"
        "print(torch.get_num_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"2"


def test_files_at_once_share_the_threads_of_products(three):
    script = (
        "from licodec.entropy import threads\n"
        "for _, limit in threads._pools():\n"
        "    limit(6)\n"
        "threads.share_among(3)\n"
        "print({count() for count, _ in threads._pools()})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"{2}"
