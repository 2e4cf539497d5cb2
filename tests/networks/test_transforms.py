import numpy as np
import pytest
import torch
from conftest import noise

from licodec.networks import tiled, transforms

HEIGHT, WIDTH = 301, 403


@pytest.fixture(scope="module")
def run():
    """What small random nets make of an image: features with their back-projection, y and pixels."""
    torch.manual_seed(0)
    g_a, g_s = (net(16, 24) for net in (transforms.analysis, transforms.synthesis))
    with torch.no_grad():
        for layer in (*g_a[::2], *g_s[::2]):
            layer.weight.mul_(2)  # so that what is missing shows
        g_s[-1].bias.fill_(0.5)
    states = g_a.state_dict(), g_s.state_dict()
    image = np.asarray(noise(WIDTH, HEIGHT, "RGB", seed=2))
    gain = np.full(24, 1000, dtype=np.float32)

    def run(tile, halo=tiled.TiledTransforms.halo):
        transforms = tiled.TiledTransforms(*states, "cpu", "float32", tile)
        transforms.halo = halo
        y = transforms.analyze(image, gain)
        x_hat = transforms.synthesize(whole[0] if whole else y, gain, HEIGHT, WIDTH, 3)
        return y, x_hat.astype(int), transforms.features(image, back_projection=True)

    whole = []
    whole += run(64)
    return run, whole


@pytest.mark.parametrize("tile", [7, 5])
def test_tiles_do_not_show(run, tile):
    """With a halo they give the untiled path's features, latents and pixels, but for rounding."""
    run, whole = run
    assert all(part.std() > 1 for part in whole[:2])
    for found, expected, close in zip(run(tile), whole, (1, 1, 1e-4), strict=True):
        assert np.abs(found - expected).max() <= close


def test_tiles_with_too_small_a_halo_show(run):
    run, whole = run
    for found, expected, close in zip(run(7, 1), whole, (1, 1, 1e-4), strict=True):
        assert np.abs(found - expected).max() > 5 * close
