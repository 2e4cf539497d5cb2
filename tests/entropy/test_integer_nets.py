import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from licodec.entropy.integer_nets import (
    FLOAT32_SUMS,
    FLOAT64_SUMS,
    IntegerLayer,
    IntegerNet,
    LayerSpec,
    exact_products,
    largest_sum,
)
from licodec.training.convert.quantize_nets import Inputs, quantize_layer, quantize_net

RNG = np.random.default_rng(0)


def exact(tensors, spec, x):
    """The layer by int64 arithmetic and loops over taps, independently of torch."""
    k = spec.kernel
    _, H, W = x.shape
    bias = tensors["bias"].astype(np.int64)
    outputs = len(bias)
    if spec.kind == "deconv":
        weight = tensors["weight"].astype(np.int64).reshape(len(x), outputs, k, k)
        full = np.zeros((outputs, 2 * H + k, 2 * W + k), dtype=np.int64)
        for i in range(k):
            for j in range(k):
                full[:, i : i + 2 * H : 2, j : j + 2 * W : 2] += np.einsum(
                    "co,chw->ohw", weight[:, :, i, j], x
                )
        sums = full[:, k // 2 : k // 2 + 2 * H, k // 2 : k // 2 + 2 * W]
    else:
        weight = tensors["weight"].astype(np.int64).reshape(outputs, len(x), k, k)
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        sums = sum(
            np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + H, j : j + W])
            for i in range(k)
            for j in range(k)
        )
    sums = sums + bias[:, None, None]
    low, high = tensors["limit"]
    out = np.empty_like(sums)
    for o, shift in enumerate(tensors["shift"].tolist()):
        # ⌊leaky(s) / 2^shift + 1/2⌋ as one floor of integers
        for place, s in np.ndenumerate(sums[o]):
            s = int(s)
            s = s * 164 if spec.activation == "leaky" and s < 0 else s * 2**14
            out[o][place] = (2 * s + 2 ** (shift + 14)) // 2 ** (shift + 15)
    out = np.clip(out, low, high)
    if spec.kind == "subpixel":
        out = (
            out.reshape(outputs // 4, 2, 2, H, W)
            .transpose(0, 3, 1, 4, 2)
            .reshape(outputs // 4, 2 * H, 2 * W)
        )
    return out, sums


@pytest.mark.parametrize("activation", ["none", "relu", "leaky"])
@pytest.mark.parametrize("kind", ["conv", "deconv", "subpixel"])
@pytest.mark.parametrize("sums", [FLOAT32_SUMS, FLOAT64_SUMS])
def test_a_layer_is_exact_up_to_the_largest_inputs(kind, activation, sums):
    kernel = 5 if kind == "deconv" else 3
    spec = LayerSpec(kind, kernel, activation)
    outputs, C, limit = 8, 6, 511
    size = (C, outputs, kernel**2) if kind == "deconv" else (outputs, C, kernel**2)
    tensors = quantize_layer(
        RNG.normal(size=size), RNG.normal(size=outputs), spec, np.full(C, 2.0**-6), limit,
        np.full(outputs, 2.0**-9), (-(2**20), 2**20), sums,
    )  # fmt: skip
    layer = IntegerLayer(tensors, spec, limit)
    assert layer.dtype == (torch.float32 if sums == FLOAT32_SUMS else torch.float64)
    bound = largest_sum(tensors["weight"], tensors["bias"], spec, limit)
    assert FLOAT32_SUMS / 16 < bound < FLOAT32_SUMS or FLOAT32_SUMS < bound < sums
    x = RNG.integers(-limit, limit + 1, (C, 5, 7))
    x[:, 2] = limit * RNG.choice([-1, 1], (C, 7))
    with exact_products():
        got = layer.plane(torch.from_numpy(x).float()).numpy()
    expected, reached = exact(tensors, spec, x)
    assert (got.astype(np.int64) == expected).all()
    assert np.abs(reached).max() > bound / 32


def test_inputs_of_the_worst_sign_reach_the_bound_and_no_further():
    spec = LayerSpec("conv", 1, "none")
    tensors = quantize_layer(
        RNG.normal(size=(4, 500, 1)), np.zeros(4), spec, np.ones(500), 255,
        np.ones(4), (-(2**20), 2**20), FLOAT32_SUMS,
    )  # fmt: skip
    worst = np.sign(tensors["weight"]).astype(np.int64) * 255
    sums = (worst * tensors["weight"]).sum(1)
    assert sums.max() == largest_sum(tensors["weight"], tensors["bias"], spec, 255)
    assert FLOAT32_SUMS / 4 < sums.max() < FLOAT32_SUMS


def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.ConvTranspose2d(8, 12, 5, stride=2, padding=2, output_padding=1),
        torch.nn.LeakyReLU(),
        torch.nn.Sequential(torch.nn.Conv2d(12, 64, 3, padding=1), torch.nn.PixelShuffle(2)),
        torch.nn.LeakyReLU(),
        torch.nn.Conv2d(16, 6, 3, padding=1),
    )


SPECS = (
    LayerSpec("deconv", 5, "leaky"),
    LayerSpec("subpixel", 3, "leaky"),
    LayerSpec("conv", 3, "none"),
)


def test_a_quantized_net_follows_the_float_one():
    inputs = [torch.randint(-40, 41, (1, 8, 6, 6)) / 4 for _ in range(4)]
    own = Inputs(inputs, np.full(8, 0.25), 511)
    tensors, units = quantize_net(net(), SPECS, "n", own, (np.full(6, 2.0**-10), 2**20))
    integer = IntegerNet(tensors, "n", SPECS, 511)
    assert all(layer.dtype == torch.float32 for layer in integer.layers)
    with exact_products():
        got = integer.plane(inputs[0][0] * 4) * units[0]
        expected = net()(inputs[0])[0]
    assert expected.std() > 0.1
    assert (got - expected).std() < 0.01 * expected.std()


@pytest.fixture
def allow():
    """Sets the precision that the program allows for float32 products."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def test_onednn_stays_on_where_products_are_exact_anyway(monkeypatch):
    """Its switch is the whole process's: transforms in other threads would round otherwise meanwhile."""
    with exact_products():
        assert torch.backends.mkldnn.enabled
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: a.bfloat16().mm(b.bfloat16()).float()
    )
    with exact_products():
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="an older torch")
def test_precision_that_was_allowed_by_backend_is_heard():
    """PyTorch then refuses to tell the precision as a whole, for the rest of the process."""
    code = (
        "import torch\n"
        "from licodec.entropy.integer_nets import exact_products\n"
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        "with exact_products():\n"
        "    print(torch.backends.mkldnn.enabled)\n"
        "print(torch.backends.mkldnn.enabled)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_last_thread_out_puts_onednn_back(allow):
    allow("medium")
    inside, leave = threading.Event(), threading.Event()

    def other():
        with exact_products():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with exact_products():
        thread.start()
        assert inside.wait(60)
    enabled = torch.backends.mkldnn.enabled
    leave.set()
    thread.join()
    assert not enabled and torch.backends.mkldnn.enabled


def test_reduced_precision_of_the_program_does_not_reach_the_sums(allow):
    inputs = [torch.randint(-40, 41, (1, 8, 6, 6)) / 4]
    own = Inputs(inputs, np.full(8, 0.25), 511)
    tensors, _ = quantize_net(net(), SPECS, "n", own, (np.full(6, 2.0**-10), 2**20))
    integer = IntegerNet(tensors, "n", SPECS, 511)
    results = []
    for precision in ("highest", "medium"):
        allow(precision)
        for dtype in (None, torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype, enabled=dtype is not None), exact_products():
                assert torch.backends.mkldnn.enabled == (precision == "highest")
                results.append(integer.plane(inputs[0][0] * 4))
    assert all(torch.equal(result, results[0]) for result in results)


def test_weights_whose_sums_could_be_inexact_are_refused():
    spec = LayerSpec("conv", 1, "none")
    with pytest.raises(ValueError, match="exact sums"):
        quantize_layer(
            np.full((1, 4, 1), 1e-3), np.full(1, 1e12), spec, np.ones(4), 255,
            np.full(1, 2.0**-120), (-1, 1), FLOAT32_SUMS,
        )  # fmt: skip
