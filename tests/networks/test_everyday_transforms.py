import numpy as np
import pytest
import torch
from small_everyday import latents, network, tensors

from licodec.entropy.tables import EXP2_UNIT, exp2
from licodec.networks import everyday, everyday_slope
from licodec.networks.everyday import EverydayTransforms, HyperAnalysis
from licodec.networks.everyday_slope import Slope
from licodec.networks.everyday_torch import CudaSynthesis
from licodec.quantize import quantize

rng = np.random.default_rng(0)
STEP = exp2(tensors()["log2_step"][1])


def test_analysis_is_the_network_that_was_trained():
    x = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = network().g_a(torch.from_numpy(x)[None].float() / 255 - 0.5)[0].numpy()
    found = EverydayTransforms(tensors()).features(x)[0].transpose(1, 2, 0)
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def test_hyper_analysis_is_the_network_that_was_trained():
    y = latents(8, 12).transpose(1, 2, 0).astype(np.float32) / 16
    with torch.no_grad():
        wanted = network().h_a(torch.from_numpy(y.copy())[None])[0].numpy()
    found = HyperAnalysis(tensors())(y)
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def test_synthesis_is_the_network_that_was_trained():
    y = latents(4, 6, largest=20)
    t = torch.tensor([1.0])
    with torch.no_grad():
        wanted = network().synthesize(torch.from_numpy(y / 16.0).float().permute(1, 2, 0)[None], t)
    found = EverydayTransforms(tensors()).synthesize(y, STEP, 64, 96, 3)
    error = found - (wanted[0].clamp(0, 1) * 255).numpy()
    assert np.abs(error).max() < 4 and np.abs(error).mean() < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 200), (160, 176)])
def test_tiles_do_not_show(height, width, monkeypatch):
    h, w = -(-height // 16), -(-width // 16)
    y = latents(h, w)
    x = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    transforms = EverydayTransforms(tensors())
    whole = transforms.synthesize(y, STEP, height, width, 3)
    features = transforms.features(x)
    for tile in (1, 3, 8):
        monkeypatch.setattr(everyday, "_TILE", tile)
        assert np.array_equal(transforms.synthesize(y, STEP, height, width, 3), whole)
        assert np.allclose(transforms.features(x), features, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (64, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_latents_with_their_back_projection(size, channels, monkeypatch):
    """What y misses is how far g_a(x) is from g_a(g_s(y)), in one pass as with features made before."""
    monkeypatch.setattr(everyday, "_TILE", 2)
    x = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    transforms = EverydayTransforms(tensors())
    y, missed = transforms.features(x, back_projection=True)
    plain = transforms.features(x)[0]
    finest = np.exp(tensors()["log_gain"][-1]) * 16
    assert np.abs((y - plain) * finest[:, None, None]).max() <= 0.501
    step = exp2(tensors()["log2_step"][-1])
    fine = np.rint(plain * finest[:, None, None]).astype(np.int16)
    x_hat = transforms.synthesize(fine, step, *x.shape)
    assert np.allclose(missed, y - transforms.features(x_hat)[0], atol=1e-5)
    assert np.abs(missed).max() > 0.1
    gain = (finest / 3).astype(np.float32)
    found = transforms.analyze(x, gain, True, 0.5)
    assert found.dtype == np.int16 and np.array_equal(
        found, quantize(np.stack([y, missed]), gain, 0.5)
    )


def test_one_channel_is_the_mean_of_three():
    transforms = EverydayTransforms(tensors())
    y = latents(2, 3)
    color = transforms.synthesize(y, STEP, 32, 48, 3).astype(int)
    grey = transforms.synthesize(y, STEP, 32, 48, 1)
    assert np.array_equal(grey[..., 0], (color.sum(2) + 1) // 3)


def test_powers_of_two_are_close_and_exact_integers_times_powers():
    logs = np.array([-(20 * EXP2_UNIT), -1, 0, 1, 777, EXP2_UNIT, 3 * EXP2_UNIT + 12345])
    found = exp2(logs)
    assert np.allclose(found, 2.0 ** (logs / EXP2_UNIT), rtol=1e-6)
    mantissas = np.frexp(found)[0] * 2**31
    assert np.array_equal(mantissas, np.rint(mantissas))
    assert found[2] == 1 and found[5] == 2


def test_pytorch_computes_the_same_integers(monkeypatch):
    y = latents(6, 9)
    monkeypatch.setattr(CudaSynthesis, "device", "cpu")
    numpys = EverydayTransforms(tensors()).synthesize(y, STEP, 90, 140, 3)
    pytorchs = EverydayTransforms(tensors(), on_gpu=True).synthesize(y, STEP, 90, 140, 3)
    assert np.array_equal(numpys, pytorchs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_the_same_integers():
    y = latents(40, 30)
    numpys = EverydayTransforms(tensors()).synthesize(y, STEP, 640, 480, 3)
    gpus = EverydayTransforms(tensors(), on_gpu=True).synthesize(y, STEP, 640, 480, 3)
    assert np.array_equal(numpys, gpus)


@pytest.mark.parametrize("channels", [1, 3])
def test_slope_is_that_of_the_pixels_error(channels):
    transforms, y = EverydayTransforms(tensors()), latents(4, 5, largest=20)
    color = rng.integers(0, 256, (57, 80, channels), dtype=np.uint8)
    shown = rng.integers(0, 2, (57, 80)) > 0
    slope = Slope(tensors())

    def at(y):
        (part,) = slope(np.ascontiguousarray(y.transpose(1, 2, 0)), STEP, color, shown)
        return part.error, part.slope.transpose(2, 0, 1)

    found, by_y = at(y)
    pixels = transforms.synthesize(y, STEP, 57, 80, channels).astype(float)
    assert abs(found / ((pixels - color)[shown] ** 2).mean(1).sum() - 1) < 0.02
    step = 0.01 * found / np.square(by_y).sum()
    assert 0.95 * found < at(y - step * by_y)[0] < 0.995 * found


def test_the_slope_of_tiles_is_that_of_the_whole(monkeypatch):
    y, color = (
        latents(9, 10).transpose(1, 2, 0),
        rng.integers(0, 256, (144, 160, 3), dtype=np.uint8),
    )

    def whole():
        out = np.zeros(y.shape, np.float32)
        for (top, bottom, left, right), slope, _ in Slope(tensors())(y, STEP, color):
            out[top:bottom, left:right] = slope
        return out

    expected = whole()
    monkeypatch.setattr(everyday_slope, "_TILE", 4)
    assert np.corrcoef(expected.ravel(), whole().ravel())[0, 1] > 0.99
