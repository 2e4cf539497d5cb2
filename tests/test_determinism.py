"""A file decodes to the same latents whatever arithmetic the machine does (docs/format.md, §4 to §6)."""

import json
import os
import subprocess
import sys

import pytest
from small_checkpoints import with_surprises, with_z_distributions

import licodec

_SCRIPT = """
import sys, torch, licodec, json
from licodec.codec import codec_of
from licodec.options import DecodeOptions
from licodec.container import unpack
threads, onednn, precision, path = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.backends.mkldnn.enabled = onednn == "on"
data = open(path, "rb").read()
container = unpack(data)
codec = codec_of(container, DecodeOptions(device="cpu", precision=precision))
y = codec.decode_latents(container)
from licodec.codec import latents_crc32
image = codec.decode(container)
# What this machine encodes must decode here too, whatever its transforms round to.
again = codec.encode(image, 80)
print(json.dumps([latents_crc32(y), latents_crc32(codec.decode_latents(again)) == again.latents_crc32]))
"""


settings = pytest.mark.parametrize(
    ("environment", "threads", "onednn", "precision"),
    [
        ({}, 1, "on", "float32"),
        ({}, 2, "on", "float32"),
        ({}, 2, "on", "bf16"),
        ({}, 2, "off", "float32"),
        ({"OMP_NUM_THREADS": "1"}, 1, "on", "bf16"),
        ({"ATEN_CPU_CAPABILITY": "default"}, 2, "on", "float32"),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, 2, "on", "float32"),
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, 1, "off", "float32"),
    ],
)


@settings
def test_latents_do_not_depend_on_the_machine(
    encoded, tmp_path, environment, threads, onednn, precision
):
    path = tmp_path / "x.lic"
    path.write_bytes(encoded)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(threads), onednn, precision, str(path)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    crc, round_trip = json.loads(done.stdout)
    assert crc == licodec.info(encoded)["latents_crc32"]
    assert round_trip


_HYPER = """
import sys, torch, json
from pathlib import Path
from licodec import codec
from licodec.weights import file as weights_file
from licodec.container import unpack
threads, onednn, precision, *paths = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.backends.mkldnn.enabled = onednn == "on"
torch.set_float32_matmul_precision("medium")  # a program may allow less; the integers may not care
rows = []
for path in paths:
    data = Path(path).read_bytes()
    file = Path(path).with_suffix(".safetensors")
    image = codec.decode(data, weights=file, precision=precision)
    again = codec.encode(image, 70, weights=file, precision=precision)
    rows.append([codec.verify_latents(data, weights=file),
                 codec.verify_latents(again, weights=file) == unpack(again).latents_crc32])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def hyper_files(hyper_weights, photo):
    """A file of each hyperprior codec, beside its weights; one whose ẑ has tables of its own, and one
    whose channels surprise."""
    z_path = with_z_distributions(hyper_weights["mbt2018"], photo)
    s_path = with_surprises(hyper_weights["mbt2018-mean"], z_path.parent, "surprising")
    paths = []
    for path in (*hyper_weights.values(), z_path, s_path):
        z_distributions = "adaptive" if path == z_path else "static"
        lic = path.with_suffix(".lic")
        lic.write_bytes(licodec.encode(photo, 70, weights=path, z_distributions=z_distributions))
        paths.append(lic)
    return paths


@settings
def test_latents_of_hyperpriors_do_not_either(hyper_files, environment, threads, onednn, precision):
    done = subprocess.run(
        [sys.executable, "-c", _HYPER, str(threads), onednn, precision, *map(str, hyper_files)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [[licodec.info(p.read_bytes())["latents_crc32"], True] for p in hyper_files]
    assert json.loads(done.stdout) == expected
    assert len({crc for crc, _ in expected}) == 5


def test_integer_synthesis_is_exact_where_floats_are_not():
    """The sums of h_s in any order, by numpy's int64, are torch's float64 ones."""
    import numpy as np
    import torch

    from licodec.entropy.tabled import Adaptive
    from licodec.weights import catalogue
    from licodec.weights import file as weights_file

    loaded = weights_file.load(catalogue.resolve("adaptive")[1])
    model = Adaptive(loaded)
    rng = np.random.default_rng(0)
    z = rng.integers(-9, 10, (model.Z, 32)).astype(np.int32)
    weight, bias = model.h_s.layers[0]
    x = np.concatenate([z.astype(np.int64) * 1024, np.full((1, 32), 77 * 4)])
    K = weight.shape[2]
    padded = np.pad(x, ((0, 0), (K // 2, K // 2)))
    columns = np.stack([padded[:, i : i + 32] for i in range(K)], axis=1)
    exact = np.einsum("oik,ikl->ol", weight.numpy().astype(np.int64), columns)
    exact += bias.numpy().astype(np.int64)[:, None]
    got = torch.nn.functional.conv1d(
        torch.from_numpy(x).double()[None], weight, bias, padding=K // 2
    )[0]
    assert (got.numpy().astype(np.int64) == exact).all()
    assert np.abs(exact).max() > 2**20
