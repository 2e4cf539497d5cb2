import pytest
import torch
from small_checkpoints import ARCHES, network

from licodec.architectures import BY_COMPRESSAI
from licodec.networks.hyper import HyperNetworks


@pytest.mark.parametrize("arch", ARCHES)
def test_compressai_state_gives_compressai_forward_pass(arch):
    theirs = network(arch)
    ours = HyperNetworks.from_state_dict(BY_COMPRESSAI[arch], theirs.state_dict())
    x = torch.rand(2, 3, 128, 192)
    with torch.no_grad():
        expected = theirs(x)
        y = ours.g_a(x)
        z = ours.hyper_latents(y)
        z_hat, z_likelihoods = theirs.entropy_bottleneck(z)
        scales, means = ours.parameters_of(z_hat, y.round())
        y_hat = y.round() if "mbt2018-mean" != arch else (y - means).round() + means
        x_hat = ours.g_s(y_hat)
        _, y_likelihoods = theirs.gaussian_conditional(y, scales, means=means)
    assert torch.allclose(x_hat, expected["x_hat"], atol=1e-5)
    assert x_hat.std() > 1e-3
    for found, name in ((y_likelihoods, "y"), (z_likelihoods, "z")):
        assert torch.allclose(found, expected["likelihoods"][name], atol=1e-4)


def test_another_architecture_s_state_is_refused_in_one_line():
    state = network("mbt2018-mean").state_dict()
    for arch in ("bmshj2018-hyperprior", "mbt2018", "cheng2020-attn"):
        with pytest.raises(ValueError) as caught:
            HyperNetworks.from_state_dict(BY_COMPRESSAI[arch], state)
        assert "\n" not in str(caught.value) and arch in str(caught.value)


def test_compressai_is_not_imported_at_run_time():
    import subprocess
    import sys

    code = "import sys, licodec.codec; assert not {'compressai', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
