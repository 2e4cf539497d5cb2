import numpy as np
import torch
from conftest import noise
from small_checkpoints import network

from licodec.networks.attention import AttentionTransforms

ROUNDING = 1e-11
"""What float64 may round otherwise for reasons of its own."""


def test_tiles_do_not_show():
    """Tiles with a halo give the untiled path's latents and pixels; with too small a halo, not."""
    state = network("cheng2020-attn").state_dict()
    g_a, g_s = (
        {k[4:]: v for k, v in state.items() if k.startswith(part) and "_reparam" not in k}
        for part in ("g_a.", "g_s.")
    )
    image = np.asarray(noise(500, 420, "RGB", seed=2))
    gain = np.full(24, 4000, dtype=np.float32)
    results = []
    for tile, halo in ((64, 11), (7, 11), (7, 1)):
        transforms = AttentionTransforms(g_a, g_s, "cpu", "float32", tile)
        transforms.halo = halo
        y = transforms.analyze(image, gain)
        results.append(
            (y, transforms.synthesize(results[0][0] if results else y, gain, 420, 500, 3))
        )
    (y, x_hat), (y_tiled, x_hat_tiled), (y_cut, x_hat_cut) = results
    assert y.std() > 100 and x_hat.std() > 1
    assert np.abs(y - y_tiled).max() <= 1
    assert np.abs(x_hat.astype(int) - x_hat_tiled).max() <= 1
    assert np.abs(y - y_cut).max() > 5


def test_halo_covers_the_receptive_field():
    """Nothing further than the halo moves when one latent position, or one block of pixels, does."""
    net = network("cheng2020-attn").double()
    side = 27 * 16
    with torch.no_grad():
        x = torch.rand(1, 3, side, side, dtype=torch.float64)
        touched = x.clone()
        touched[:, :, 13 * 16 : 14 * 16, 13 * 16 : 14 * 16] = 0
        moved = (net.g_a(x) - net.g_a(touched)).abs().amax(1)[0]
        rows = torch.nonzero(moved.amax(1) > ROUNDING).flatten()
        assert (
            13 - rows.min() <= AttentionTransforms.halo
            and rows.max() - 13 <= AttentionTransforms.halo
        )
        y = torch.randn(1, 24, 27, 27, dtype=torch.float64)
        touched = y.clone()
        touched[:, :, 13, 13] += 100 * torch.randn(24)
        moved = (net.g_s(y) - net.g_s(touched)).abs().amax(1)[0]
        rows = torch.nonzero(moved.amax(1) > ROUNDING).flatten() // 16
        assert (
            13 - rows.min() <= AttentionTransforms.halo
            and rows.max() - 13 <= AttentionTransforms.halo
        )
        assert rows.max() - 13 >= 4
