"""Inputs that the tests make themselves; the weights are the ones that are shipped."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from skimage import data

# No test is about time: a busy machine may take as long as it likes.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell starts what it runs in the background, and nohup all it runs, with some signals ignored, and
# processes hand that on; tests of signals need them.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

if precision := os.environ.get("LICODEC_TEST_PRECISION"):
    import torch

    # What precision auto comes to, whatever this processor has: float32 or bf16.
    torch.cpu.get_capabilities = lambda: {"amx_bf16": {"float32": False, "bf16": True}[precision]}


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photograph, 150 x 100, RGB."""
    return Image.fromarray(data.astronaut()).resize((256, 256)).crop((60, 20, 210, 120))


@pytest.fixture(scope="session")
def encoded(photo: Image.Image) -> bytes:
    """`photo`, adaptive, at quality 40."""
    import licodec

    return licodec.encode(photo, quality=40, model="adaptive")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Eight crops of free photographs."""
    path = tmp_path_factory.mktemp("images")
    for i, source in enumerate((data.astronaut(), data.coffee(), data.chelsea(), data.rocket())):
        for j in range(2):
            Image.fromarray(source[j * 40 : j * 40 + 160, 60:260]).save(path / f"{i}{j}.png")
    return path


def noise(width: int, height: int, mode: str, seed: int = 0) -> Image.Image:
    """A smooth random image of any mode that Pillow builds from bytes."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    small = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    bands = [
        Image.fromarray(small[:, :, c]).resize((width, height), Image.Resampling.BILINEAR)
        for c in range(channels)
    ]
    return bands[0] if channels == 1 else Image.merge(mode, bands)


@pytest.fixture(scope="session")
def hyper_weights(tmp_path_factory):
    """Architecture to a small weights file, imported from CompressAI's class; in one folder."""
    from small_checkpoints import ARCHES, checkpoint

    from licodec.training.convert.import_checkpoint import import_checkpoint

    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for arch in ARCHES:
        checkpoint(arch, folder / f"{arch}.pt")
        found[arch] = import_checkpoint(folder / f"{arch}.pt", arch, None, folder, arch)
    return found
