import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import ARCHES, latents, settings

from licodec.architectures import BY_NAME
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.hyperprior import HyperpriorNetwork
from licodec.training.convert.export import export
from licodec.training.data import Images
from licodec.training.loop import train
from licodec.training.regularizer import Regularizer, SourceEntropyModel
from licodec.training.stages.stage import make_stage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair(folder):
    """Patches of photographs, and coarse reconstructions of them that nothing changes."""
    images = Images(folder, 2, 64, CPU)
    x = images.crops(np.random.default_rng(0), 2, 64).float() / 255
    small = torch.nn.functional.avg_pool2d(x, 4)
    return x, torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear")


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("arch", ARCHES)
def test_first_update_reaches_q_and_nothing_else(folder, arch):
    torch.manual_seed(0)
    codec = HyperpriorNetwork(BY_NAME[arch], 8, latents(arch), (0.013,))
    regularizer = Regularizer(BY_NAME[arch], configs.RegularizerSettings(alpha=0.1), CPU)
    x = Images(folder, 2, 64, CPU).crops(np.random.default_rng(0), 2, 64).float() / 255
    x_hat = codec(x).x_hat
    before = {k: v.clone() for k, v in regularizer.q.state_dict().items()}
    for _ in range(3):  # the last layer starts at 0, and hides the others from the first
        regularizer.learn(x, x_hat)
    assert all(p.grad is None for p in codec.parameters())
    for name, gradient in gradients(regularizer.q).items():
        assert gradient.abs().sum() > 0, name
        assert not torch.equal(before[name], regularizer.q.state_dict()[name]), name


@pytest.mark.parametrize("arch", ARCHES)
def test_second_update_reaches_the_codec_and_nothing_else(folder, arch):
    """What makes x̂ gets a gradient, what only decides the rate gets none, q neither and stays."""
    torch.manual_seed(0)
    codec = HyperpriorNetwork(BY_NAME[arch], 8, latents(arch), (0.005, 0.05), "noise")
    regularizer = Regularizer(BY_NAME[arch], configs.RegularizerSettings(alpha=0.1), CPU)
    x = Images(folder, 2, 64, CPU).crops(np.random.default_rng(0), 2, 64).float() / 255
    for _ in range(3):
        regularizer.learn(x, torch.rand_like(x))
    regularizer.optimizer.zero_grad(set_to_none=True)
    before = {k: v.clone() for k, v in regularizer.q.state_dict().items()}
    regularizer.reward(x, codec(x).x_hat).sum().backward()
    assert all(gradient is None for gradient in gradients(regularizer.q).values())
    for name, value in regularizer.q.state_dict().items():
        assert torch.equal(before[name], value)
    for name, gradient in gradients(codec).items():
        reached = gradient is not None and bool(gradient.abs().sum() > 0)
        assert reached == name.startswith(("g_a.", "g_s.", "log_gain")), name


@pytest.mark.parametrize("levels", [1, 255])
@pytest.mark.parametrize("arch", ARCHES)
def test_q_learns_fixed_reconstructions(pair, arch, levels):
    torch.manual_seed(0)
    regularizer = Regularizer(
        BY_NAME[arch], configs.RegularizerSettings(lr=1e-2, levels=levels), CPU
    )
    bits = [float(regularizer.learn(*pair)) for _ in range(30)]
    assert np.mean(bits[-10:]) < 0.95 * np.mean(bits[:3])
    assert regularizer.figures()["conditional_bpp"] == pytest.approx(np.mean(bits), abs=1e-3)


@pytest.mark.parametrize("arch", ARCHES)
def test_q_is_a_distribution_over_the_levels(arch):
    """The probabilities of a sample's levels sum to 1; only later pixels can depend on it."""
    torch.manual_seed(0)
    q = SourceEntropyModel(BY_NAME[arch], 4, 255)
    for parameter in q.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = (torch.randint(0, 256, (1, 3, 5, 5)) / 255).repeat(2001, 1, 1, 1)
    x[:, 1, 2, 2] = torch.arange(-900.0, 1101.0) / 255
    with torch.no_grad():
        p = q.likelihoods(x, torch.rand(1, 3, 5, 5).expand_as(x), torch.zeros_like(x))
    assert float(p[:, 1, 2, 2].sum()) == pytest.approx(1, abs=1e-4)
    changes = ((p / p[:1]).log().abs() > 1e-3).any(0).any(0).flatten()
    assert not changes[:12].any()
    assert changes[13:].any() == (arch in ("autoregressive", "attention"))


@pytest.mark.parametrize("arch", ["scale-hyperprior", "hyperprior"])
def test_bits_are_those_of_the_formula(arch):
    """q of unit bins on 0 … 1, with noise: the closed form, computed again."""
    torch.manual_seed(0)
    q = SourceEntropyModel(BY_NAME[arch], 4)
    for parameter in q.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, x_hat = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    u = torch.rand_like(x) - 0.5
    with torch.no_grad():
        outputs = 0.5 * q.h_s(x_hat - 0.5)
        sigma = outputs[:, :3].clamp_min(0.11)
        mu = x_hat + outputs[:, 3:] if BY_NAME[arch].has_means else x_hat
        v = (x + u - mu).abs().double()
        phi = torch.special.ndtr
        p = (phi((0.5 - v) / sigma) - phi((-0.5 - v) / sigma)).clamp_min(1e-9)
        assert torch.allclose(q.likelihoods(x, x_hat, u).double(), p, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("arch", ["autoregressive", "attention"])
def test_context_is_causal(arch):
    torch.manual_seed(0)
    q = SourceEntropyModel(BY_NAME[arch], 4)
    for parameter in q.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    context = q.context_prediction(x)
    context[0, :, 4, 4].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    before = torch.arange(64).reshape(8, 8) < 4 * 8 + 4
    assert seen.any() and not (seen & ~before).any()


@pytest.mark.parametrize("arch", ["hyperprior", "attention"])
def test_alpha_0_is_the_plain_run_to_the_bit(folder, tmp_path, arch):
    plain = train(settings(folder, tmp_path / "plain", arch))
    zero = train(settings(folder, tmp_path / "zero", arch, regularizer={"alpha": 0.0}))
    some = train(settings(folder, tmp_path / "some", arch, regularizer={}))
    plain, zero, some = (load_checkpoint(path) for path in (plain, zero, some))
    for part in ("model", "ema"):
        assert plain[part].keys() == zero[part].keys() == some[part].keys()
        assert all(torch.equal(v, zero[part][k]) for k, v in plain[part].items())
    assert not torch.equal(
        plain["model"]["g_a.0.weight" if arch == "hyperprior" else "g_a.0.conv1.weight"],
        some["model"]["g_a.0.weight" if arch == "hyperprior" else "g_a.0.conv1.weight"],
    )
    assert "regularizer" not in plain
    assert zero["regularizer"]["q"] and zero["history"][-1]["conditional_bpp"] > 0


def test_nothing_of_q_is_exported(folder, tmp_path):
    plain = export(train(settings(folder, tmp_path / "plain", "autoregressive")), None, "plain")
    path = train(settings(folder, tmp_path / "run", "autoregressive", regularizer={}))
    q = load_checkpoint(path)["regularizer"]["q"]
    out, reference = load_file(export(path, None, "tiny")), load_file(plain)
    shapes = {k: v.shape for k, v in reference.items() if not k.endswith(("_cdf",))}
    assert {k: v.shape for k, v in out.items() if k in shapes} == shapes
    assert out.keys() == reference.keys()
    values = {tuple(v.flatten().tolist()) for v in out.values()}
    learnt = [
        v for name, v in q.items() if name.split(".")[0] != "conditional" and "mask" not in name
    ]
    assert learnt and not any(tuple(v.flatten().tolist()) in values for v in learnt)


def test_resume_goes_on_with_q(folder, tmp_path):
    """q and its moments come back as they were, and two resumed runs are the same run."""
    first = settings(folder, tmp_path / "a", "hyperprior", regularizer={}, steps=3)
    train(first)
    saved = load_checkpoint(tmp_path / "a/checkpoint.pt")
    stage = make_stage(first, Images(folder, 2, 64, CPU), CPU)
    stage.regularizer.load_state_dict(saved["regularizer"])
    for name, value in stage.regularizer.q.state_dict().items():
        assert torch.equal(value, saved["regularizer"]["q"][name])
    ends = []
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pt").write_bytes((tmp_path / "a/checkpoint.pt").read_bytes())
        on = settings(folder, tmp_path / name, "hyperprior", regularizer={}, steps=6)
        ends.append(load_checkpoint(train(on, resume=True)))
    b, c = ends
    moments = b["regularizer"]["optimizer"]["state"]
    assert all(int(moment["step"]) == 6 for moment in moments.values())
    for part in ("model", "ema"):
        assert all(torch.equal(v, c[part][k]) for k, v in b[part].items())
    for name, value in b["regularizer"]["q"].items():
        assert torch.equal(value, c["regularizer"]["q"][name])
        if name == "h_s.0.weight":
            assert not torch.equal(value, saved["regularizer"]["q"][name])


@pytest.mark.slow
def test_two_processes(folder, tmp_path):
    """DDP over gloo: q is the same in both processes, and learns from both."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[data]\npath = "{folder}"\nholdout = 2\npatch = 64\nbatch = 2\n'
        '[model]\narch = "autoregressive"\nN = 8\nM = 12\nlambdas = [0.013]\n'
        f'[train]\nsteps = 3\nprecision = "float32"\ndevice = "cpu"\nout = "{tmp_path}/out"\n'
        "[regularizer]\n"
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, torch.distributed as dist, torch\n"
        "from licodec.training import loop, config, distributed\n"
        "from licodec.training.regularizer import Regularizer\n"
        "kept = []\n"
        "begin = Regularizer.__init__\n"
        "def remember(self, *args):\n"
        "    begin(self, *args)\n"
        "    kept.append(self)\n"
        "Regularizer.__init__ = remember\n"
        f"loop.train(config.load({str(config)!r}))\n"
        "mine = torch.cat([p.detach().flatten() for p in kept[0].q.parameters()])\n"
        "both = [torch.empty_like(mine) for _ in range(2)]\n"
        "dist.all_gather(both, mine)\n"
        "assert torch.equal(*both)\n"
        "grads = torch.cat([p.grad.flatten() for p in kept[0].q.parameters()])\n"
        "dist.all_gather(both, grads)\n"
        "assert torch.equal(*both) and grads.abs().sum() > 0\n"
        "distributed.leave()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(script)]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(tmp_path / "out/checkpoint.pt")
    assert state["step"] == 3 and state["provenance"]["processes"] == 2
    assert state["regularizer"]["q"]


@pytest.mark.parametrize(
    ("arch", "alpha"),
    [("scale-hyperprior", 0.1), ("hyperprior", 0.1), ("autoregressive", 1.0), ("attention", 1.0)],
)
def test_the_papers_weights_are_the_default(folder, tmp_path, arch, alpha):
    config = settings(folder, tmp_path, arch, regularizer={})
    assert config.regularizer.alpha == alpha
    assert configs.from_dict(configs.to_dict(config)) == config
    assert settings(folder, tmp_path, arch).regularizer is None
