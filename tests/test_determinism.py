"""A file decodes to the same latents whatever arithmetic the machine does (docs/format.md, §4 to §6)."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from small_checkpoints import with_scale_shifts, with_z_distributions

import licodec

settings = pytest.mark.parametrize(
    ("environment", "threads", "onednn", "precision"),
    [
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, 1, "off", "float32"),
        pytest.param({}, 1, "on", "float32", marks=pytest.mark.slow),
        pytest.param({}, 2, "on", "float32", marks=pytest.mark.slow),
        pytest.param({}, 2, "on", "bf16", marks=pytest.mark.slow),
        pytest.param({}, 2, "off", "float32", marks=pytest.mark.slow),
        pytest.param({"OMP_NUM_THREADS": "1"}, 1, "on", "bf16", marks=pytest.mark.slow),
        pytest.param(
            {"ATEN_CPU_CAPABILITY": "default"}, 2, "on", "float32", marks=pytest.mark.slow
        ),
        pytest.param({"ONEDNN_MAX_CPU_ISA": "SSE41"}, 2, "on", "float32", marks=pytest.mark.slow),
    ],
)


_SCRIPT = """
import sys, torch, json
from pathlib import Path
from licodec import codec
from licodec.container import unpack
threads, onednn, precision, *paths = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.backends.mkldnn.enabled = onednn == "on"
torch.set_float32_matmul_precision("medium")  # a program may allow less; the integers may not care
rows = []
for path in paths:
    data = Path(path).read_bytes()
    file = Path(path).with_suffix(".safetensors")
    file = file if file.exists() else None
    image = codec.decode(data, weights=file, precision=precision)
    # What this machine encodes must decode here too, whatever its transforms round to.
    again = codec.encode(image, 70, weights=file, precision=precision)
    rows.append([codec.verify_latents(data, weights=file),
                 codec.verify_latents(again, weights=file) == unpack(again).latents_crc32])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def files(hyper_weights, photo, encoded, tmp_path_factory):
    """A file of model adaptive; one of each hyperprior codec, beside its weights; one whose ẑ has tables of
    its own, and one with scale shifts."""
    z_path = with_z_distributions(hyper_weights["mbt2018"], photo)
    s_path = with_scale_shifts(hyper_weights["mbt2018-mean"], z_path.parent, "shifted_weights")
    adaptive = tmp_path_factory.mktemp("adaptive") / "x.lic"
    adaptive.write_bytes(encoded)
    paths = [adaptive]
    for path in (*hyper_weights.values(), z_path, s_path):
        z_distributions = "adaptive" if path == z_path else "static"
        lic = path.with_suffix(".lic")
        lic.write_bytes(licodec.encode(photo, 70, weights=path, z_distributions=z_distributions))
        paths.append(lic)
    return paths


@settings
def test_latents_do_not_depend_on_the_machine(files, environment, threads, onednn, precision):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(threads), onednn, precision, *map(str, files)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [[licodec.info(p.read_bytes())["latents_crc32"], True] for p in files]
    assert json.loads(done.stdout) == expected
    assert len({crc for crc, _ in expected}) == 6


_PIXELS = """
import sys
from pathlib import Path
import licodec
sys.stdout.buffer.write(b"".join(
    licodec.decode(Path(path).read_bytes(), precision=sys.argv[1]).tobytes() for path in sys.argv[2:]))
"""


def decoded_elsewhere(environment, precision, paths):
    """All samples that another process decodes."""
    done = subprocess.run(
        [sys.executable, "-c", _PIXELS, precision, *map(str, paths)],
        env={**os.environ, **environment}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.uint8).astype(int)


@pytest.mark.slow
def test_pixels_are_those_of_other_processors_within_one_level_in_float32_alone(photo, tmp_path):
    """As docs/format.md, §8, has it; bf16 is within some levels on a photograph."""
    paths = []
    for model in ("adaptive", "hyperprior"):
        for quality in (10, 70, 95):
            paths.append(tmp_path / f"{model}-{quality}.lic")
            effort = 0 if model == "hyperprior" else None
            paths[-1].write_bytes(licodec.encode(photo, quality, model, effort=effort))
    here = decoded_elsewhere({}, "float32", paths)
    simple = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    for environment in (simple, {**simple, "OMP_NUM_THREADS": "1"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}):
        assert np.abs(decoded_elsewhere(environment, "float32", paths) - here).max() <= 1
    away = np.abs(decoded_elsewhere({}, "bf16", paths) - here)
    assert 1 < away.max() <= 16 and away.mean() < 1.5


def test_integer_synthesis_is_exact_where_floats_are_not():
    """The sums of h_s in any order, by numpy's int64, are torch's float64 ones."""
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
