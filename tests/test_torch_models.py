"""Transforms as a module give what the codec's own give."""

import numpy as np
import pytest
import small_everyday
import torch
from opened import opened
from small_checkpoints import ARCHES

import licodec
from licodec.architectures import TABLE
from licodec.entropy.hyperprior import Z_UNIT, output_units
from licodec.errors import UsageError
from licodec.networks.everyday import HyperAnalysis
from licodec.rate_control import quality_step

QUALITY = 40
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def color():
    """Smooth, (64, 80, 3)."""
    small = torch.from_numpy(RANDOM.integers(0, 256, (1, 3, 6, 7))).float()
    large = torch.nn.functional.interpolate(small, (64, 80), mode="bilinear")
    return large[0].byte().permute(1, 2, 0).numpy()


def planes(color):
    return torch.from_numpy(color.copy()).permute(2, 0, 1)[None].float() / 255


def check_transforms(model, codec, color):
    """g_a with its gain, and g_s of what is rounded."""
    step = quality_step(QUALITY)
    x, gain = planes(color), model.gain(QUALITY)
    with torch.no_grad():
        y = model.g_a(x)
        found = codec.transforms.features(color, True)
        unit = codec.architecture.latent_unit
        np.testing.assert_allclose(y[0], found[0], rtol=1e-3, atol=1e-3 * np.abs(found).max())
        np.testing.assert_allclose(gain.flatten() * unit, codec.gain(step), rtol=1e-4)
        y_hat = (y * gain).round()
        x_hat = model.g_s(y_hat * model.inverse_gain(QUALITY)).clamp(0, 1)
    integers = (y_hat[0] * unit).numpy().astype(np.int32)
    wanted = codec.synthesize(integers, 64, 80, "RGB", step)
    levels = (255 * x_hat[0]).permute(1, 2, 0).numpy()
    return y, y_hat, np.abs(levels - wanted).max()


@pytest.mark.parametrize("name", ["adaptive", "factorized"])
def test_the_default_transforms(name, color):
    model, codec = licodec.torch_model(name), opened(name, precision="float32")
    assert {part for part, _ in model.named_children()} == {"g_a", "g_s"}
    assert check_transforms(model, codec, color)[2] < 1


@pytest.mark.slow
@pytest.mark.parametrize("arch", list(ARCHES))
def test_a_hyperprior(arch, color, hyper_weights):
    path = hyper_weights[arch]
    codec = opened(weights=path, precision="float32")
    model = licodec.torch_model(weights=path)
    entropy_model = codec.entropy_model
    _, y_hat, off = check_transforms(model, codec, color)
    assert off < 1
    inputs = y_hat if codec.architecture.has_means else y_hat.abs()
    with torch.no_grad():
        z = model.h_a(inputs)
        torch.testing.assert_close(z, entropy_model.h_a(inputs))
        z_hat = (z * Z_UNIT).round().clamp(-500, 500)
        own = model.h_s(z_hat / Z_UNIT)
    integers = entropy_model.h_s.plane(z_hat[0])
    if codec.architecture.has_context:
        assert set(dict(model.named_children())) >= {"context_prediction", "entropy_parameters"}
        units = np.full(len(integers), 2.0**-7)
    else:
        units = output_units(codec.architecture, len(y_hat[0]))
    wanted = integers.numpy() * units[:, None, None]
    # Rounding between layers.
    np.testing.assert_allclose(own[0], wanted, rtol=0.05, atol=0.05 * np.abs(wanted).max())


def test_everyday(color, tmp_path):
    path = small_everyday.weights(tmp_path)
    codec, model = opened(weights=path), licodec.torch_model(weights=path)
    _, y_hat, off = check_transforms(model, codec, color)
    assert off < 2  # layers that round
    z = model.h_a(y_hat[:, :, :4, :4])
    tensors = codec.weights.tensors("")
    own = HyperAnalysis(tensors)(y_hat[0, :, :4, :4].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(z[0].detach().permute(1, 2, 0), 4 * own, rtol=1e-3, atol=1e-3)
    assert model.h_s(z.round()).shape == (1, 8, 4, 4)


def test_gradients_reach_weights_and_pixels(color):
    model = licodec.torch_model("factorized")
    assert isinstance(model, torch.nn.Module) and not model.training
    x = planes(color).requires_grad_()
    (model.g_s(model.g_a(x)) - x).square().mean().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_what_there_is_not():
    with pytest.raises(UsageError, match="no model named 'none'"):
        licodec.torch_model("none")
    with pytest.raises(UsageError, match="quality is 0 … 100"):
        licodec.torch_model().gain(101)
    assert licodec.torch_model().architecture is TABLE[0]
