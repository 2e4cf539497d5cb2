"""Paper 1's experiment on toy weights, where what must hold can be told beforehand."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save

from licodec.bench import licodec_networks, paper1_others
from licodec.bench import paper1 as experiment
from licodec.bench.command import bench
from licodec.bench.datasets import examine
from licodec.bench.evaluate import BenchPlan
from licodec.bench.interface import Settings
from licodec.entropy.pdf_transform import PdfAnalysis, PdfSynthesis, quantize_synthesis
from licodec.errors import UsageError
from licodec.networks.transforms import analysis, synthesis
from licodec.weights.file import ARITHMETIC, Weights

N, M, K, Z, WIDTH = 4, 6, 3, 2, 4


def laplace(rows, bins, scale):
    """log2 in 1/1024 bit, an escape of 2^-16 at the end."""
    log2 = -np.abs(np.arange(bins) - bins // 2) / scale
    log2 = np.append(log2 - np.log2(np.exp2(log2).sum()), -16)
    return np.tile((log2 * 1024).round().astype(np.int16), (K, rows, 1))


def weights_file(folder, name, seed=0, **changed):
    torch.manual_seed(seed)
    h_a, h_s = (net(M, WIDTH, Z, 2, 3) for net in (PdfAnalysis, PdfSynthesis))
    nets = {"g_a": analysis(N, M), "g_s": synthesis(N, M), "h_a": h_a}
    tensors = {
        f"{net}.{k}": v.half().numpy()
        for net, module in nets.items()
        for k, v in module.state_dict().items()
    }
    log_gain = np.linspace(3, 5, K, dtype=np.float32)[:, None].repeat(M, 1)
    prior = laplace(M, 256, 6.0)
    tensors |= {"log_gain": log_gain, "prior": prior, "class_prior": prior[:, :, None]}
    tensors |= {
        "context.order": np.arange(M, dtype=np.int16),
        "context.weights": np.zeros((M, 2 * M), dtype=np.int16),
        "context.thresholds": np.zeros((K, M, 0), dtype=np.int32),
    }
    tensors |= {"z_prior": laplace(Z * 32, 32, 0.1), **quantize_synthesis(h_s), **changed}
    metadata = {"name": name, "arithmetic": ARITHMETIC, "groups": "2", "lambdas": "[1, 2, 3]"}
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, metadata)
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    images, shipped, trained = (tmp_path_factory.mktemp(n) for n in ("images", "shipped", "other"))
    rng = np.random.default_rng(0)
    for name in "ab":
        small = rng.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(small).resize((81, 66)).save(images / f"{name}.png")
    weights_file(shipped, "toy")
    return images, shipped, weights_file(trained, "trained", prior=laplace(M, 256, 40.0))


@pytest.fixture(scope="module")
def curves(folders):
    images, shipped, static = folders
    pictures = [examine(images / f"{name}.png") for name in "ab"]
    plan = BenchPlan(pictures, {}, Settings(device="cpu"), 1, "toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LICODEC_WEIGHTS", str(shipped))
        yield experiment.run(plan, static, lambda *_: None), plan


def test_curves_stand_in_the_order_that_theory_says(curves):
    curves, _ = curves
    bpp = {name: curve.results["bpp"] for name, curve in curves.items()}
    assert list(bpp) == ["static, trained", "static, average", "static, oracle", "classes, average",
                         "adaptive", "one a channel"]  # fmt: skip
    psnr = {tuple(curve.results["psnr-rgb"]) for curve in curves.values()}
    assert len(psnr) == 1, "the latents are the same, and so are the images"
    for k in range(K):
        at = {name: rates[k] for name, rates in bpp.items()}
        ideal, oracle = at["one a channel"], at["static, oracle"]
        assert 0 < ideal < oracle < at["static, average"] < at["static, trained"]
        assert ideal < at["adaptive"]
        # These toy weights have one class: its real file's rate, less the coder's last word.
        assert at["static, average"] - 0.1 < at["classes, average"] <= at["static, average"]


def test_real_rates_are_those_of_files(curves):
    import licodec

    curves, plan = curves
    with Image.open(plan.images[0].path) as image:
        data = licodec.encode(image, 50, "adaptive", device="cpu")
    (row,) = (r for r in curves["adaptive"].rows if (r["image"], r["quality"]) == ("a.png", 50))
    assert row["bytes"] == len(data)
    assert row["side_bytes"] == licodec.info(data)["streams"]["side"]


def test_cross_entropy_by_hand():
    counts = np.array([[4.0, 4.0, 0.0], [0.0, 8.0, 0.0]])
    assert experiment.cross_entropy(counts, counts) == pytest.approx(8)
    assert experiment.cross_entropy(counts, np.array([[2.0, 1, 1], [1, 2, 1]])) == pytest.approx(20)


def test_other_transforms_are_refused(curves, tmp_path):
    _, plan = curves
    other = weights_file(tmp_path, "other", seed=1)
    with pytest.raises(UsageError, match="other transforms"):
        experiment.run(plan, other, lambda *_: None)


def test_complexity_of_the_distributions_by_hand(folders):
    (path,) = folders[1].iterdir()
    h_a, h_s = licodec_networks.pdf_transforms(Weights(path))
    half = WIDTH * WIDTH // 2 * 3
    strided = half * (128 + 64 + 32)
    assert h_a.macs == 256 * WIDTH * M // 2 * 5 + strided + 32 * Z * WIDTH * 3
    assert h_s.macs == 32 * (Z + 1) * WIDTH * 3 + strided + 256 * M * WIDTH // 2 * 5
    biases = 4 * WIDTH
    assert h_a.parameters == WIDTH * M // 2 * 5 + 3 * half + Z * WIDTH * 3 + biases + Z


def test_the_preset_prints_the_papers_figures_beside_its_own(curves, folders, tmp_path):
    images, _, static = folders
    arguments = [images, "--preset", "encoding-distributions", "--static", static, "-o",
                 tmp_path / "r.json"]  # fmt: skip
    result = CliRunner().invoke(bench, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "-7.10 %" in result.stdout and "0.0004 to 0.0016" in result.stdout
    assert "scale hyperprior" in result.stdout
    document = json.loads((tmp_path / "r.json").read_text())
    names = [document["name"], *(o["name"] for o in document["others"])]
    of_others = [f"{m}, {t}" for m in paper1_others.MODELS for t in ("fixed", "adaptive", "ideal")]
    assert names == [*curves[0], *of_others]
    rows = {o["name"]: o["rows"] for o in document["others"]}
    for model in paper1_others.MODELS:
        kinds = (rows[f"{model}, {tables}"] for tables in ("fixed", "adaptive", "ideal"))
        for fixed, adaptive, ideal in zip(*kinds, strict=True):
            assert fixed["psnr-rgb"] == adaptive["psnr-rgb"] == ideal["psnr-rgb"]
            assert ideal["bytes"] < min(fixed["bytes"], adaptive["bytes"])
            assert 0 < adaptive["side_bytes"] < adaptive["bytes"]
    mixed = CliRunner().invoke(bench, [str(a) for a in [*arguments, "--codecs", "jpeg"]])
    assert mixed.exit_code == 2
