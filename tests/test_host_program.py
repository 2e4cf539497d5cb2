"""What a program that uses licodec may do besides."""

import copy
import io
import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from PIL import Image

import licodec
from licodec import open_codec
from licodec.weights import file as weights_file

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(code, *arguments):
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# Defaults of PyTorch


@pytest.fixture
def unloaded():
    """Codecs are made anew, and those that were made with odd defaults do not stay."""

    def forget():
        weights_file.load.cache_clear()
        open_codec._transforms.cache_clear()
        open_codec._codec.cache_clear()

    forget()
    yield forget
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    forget()


def coded(path, image):
    has_search = path.stem.startswith(("bmshj2018-hyperprior-", "mbt2018-mean-"))
    data = licodec.encode(image, 60, weights=path, effort=int(has_search))
    return data, licodec.decode(data, weights=path).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_defaults_of_the_program_do_not_matter(hyper_weights, photo, unloaded, dtype):
    image = photo.crop((0, 0, 70, 40))
    wanted = [coded(path, image) for path in hyper_weights.values()]
    unloaded()
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    assert [coded(path, image) for path in hyper_weights.values()] == wanted


@pytest.mark.slow
def test_defaults_that_are_set_before_licodec_is_imported_do_not_matter():
    code = """if True:
        import sys, zlib, torch
        if sys.argv[1] == "odd":
            torch.set_default_dtype(torch.bfloat16)
            torch.set_default_device("meta")
        import licodec
        from PIL import Image
        image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
        for model in ("adaptive", "factorized", "hyperprior"):
            data = licodec.encode(image, model=model)
            print(zlib.crc32(data), zlib.crc32(licodec.decode(data).tobytes()))
    """
    assert run(code, "odd") == run(code, "usual")


# Forked processes


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("model", ["adaptive", "hyperprior"])
def test_a_process_that_is_forked_after_use(model):
    code = """if True:
        import os, sys, licodec
        from PIL import Image
        image = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
        before = licodec.encode(image, model=sys.argv[1], effort=0)
        child = os.fork()
        if not child:
            data = licodec.encode(image, model=sys.argv[1], effort=0)
            os._exit(licodec.decode(before).size != licodec.decode(data).size)
        print(os.waitpid(child, 0)[1])
    """
    assert run(code, model) == b"0\n"


@needs_fork
def test_a_process_that_is_forked_while_another_thread_loads():
    code = """if True:
        import os, threading
        import licodec.open_codec
        from licodec.entropy import integer_nets, threads
        from PIL import Image
        entered, leave = threading.Event(), threading.Event()
        def hold():
            with licodec.open_codec._LOADING, integer_nets._lock, threads._limit.lock, \
                    threads._buffers.lock:
                entered.set()
                leave.wait(60)
        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(60)
        child = os.fork()
        if not child:
            licodec.encode(Image.new("L", (20, 20)))
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        leave.set()
        thread.join()
    """
    assert run(code) == b"0\n"


# Threads


@pytest.mark.slow
def test_the_host_keeps_its_threads(photo):
    """Eight at once, after which OpenBLAS and PyTorch have as many as before."""
    from licodec.entropy import threads

    def counts():
        return [count() for count, _ in threads._pools()], torch.get_num_threads()

    before = counts()
    many = [
        threading.Thread(target=licodec.encode, args=(photo, 10 * i, "adaptive")) for i in range(8)
    ]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert counts() == before


# Images that are opened


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda image: pickle.loads(pickle.dumps(image))]
)
def test_an_opened_image_is_copied(encoded, copied, loaded):
    image = Image.open(io.BytesIO(encoded))
    if loaded:
        image.load()
    assert copied(image).tobytes() == licodec.decode(encoded).tobytes()


class Endless(io.BytesIO):
    """What was encoded, then zeros for ever; as much as is read of it is counted."""

    given = 0

    def read(self, count=-1):
        assert count is not None and count > 0, "read to the end of something endless"
        self.given += count
        return super().read(count).ljust(count, b"\0")


def test_an_opened_image_has_the_limits_of_the_command_line(encoded, monkeypatch):
    monkeypatch.setattr("licodec.container.MAX_OVERHEAD", 2**20)
    endless = Endless(encoded)
    image = Image.open(endless)
    with pytest.raises(licodec.TooLargeError, match="more bytes"):
        image.load()
    assert endless.given < 2**23
