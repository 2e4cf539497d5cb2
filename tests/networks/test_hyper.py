import subprocess
import sys

import pytest
import torch
from PIL import Image
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


def _without_compressai(code, *arguments):
    """A new interpreter in which `import compressai` fails."""
    code = f"import sys; sys.modules['compressai'] = None; {code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_coding_does_without_compressai():
    code = (
        "import licodec; from PIL import Image; image = Image.linear_gradient('L').resize((40, 24)); "
        "files = [licodec.encode(image, model=m) for m in ('adaptive', 'factorized', 'hyperprior')]; "
        "sizes = [licodec.decode(file).size for file in files]; assert sizes == 3 * [(40, 24)]; "
        "assert not {'compressai', 'torchvision'} & {k for k, v in sys.modules.items() if v}"
    )
    done = _without_compressai(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "import"])
def test_commands_that_need_compressai_say_how_it_is_installed(tmp_path, command):
    config, state = tmp_path / "c.toml", tmp_path / "c.pt"
    config.write_text("[data]\nholdout = 1\n[train]\nsteps = 1\n")
    torch.save({}, state)
    for name in "ab":
        Image.new("RGB", (128, 128)).save(tmp_path / f"{name}.png")
    rest = [config, "--data", tmp_path] if command == "train" else [state, "--arch", "mbt2018"]
    done = _without_compressai("from licodec.__main__ import main; main()", command, *rest)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and "pip install 'licodec[train]'" in done.stderr
