"""CompressAI's own classes, small, with random weights that spread the latents over some steps."""

import torch

from licodec.training import compressai_layers  # noqa: F401  isort: skip  makes compressai importable
from compressai.models import (
    Cheng2020Attention,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
)

ARCHES = {
    "bmshj2018-hyperprior": (ScaleHyperprior, (16, 24)),
    "mbt2018-mean": (MeanScaleHyperprior, (16, 24)),
    "mbt2018": (JointAutoregressiveHierarchicalPriors, (16, 24)),
    "cheng2020-attn": (Cheng2020Attention, (24,)),
}


def network(arch: str, sizes: tuple[int, ...] | None = None) -> torch.nn.Module:
    """The class's own random start, with its hyper-latents and scales widened to what training gives."""
    torch.manual_seed(0)
    kind, usual = ARCHES[arch]
    net = kind(*(sizes or usual)).eval()
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 32, 32), (256, 256), mode="bilinear")
    with torch.no_grad():
        last = [m for m in net.h_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        y = net.g_a(x)
        z = net.h_a((y / y.std()).abs() if arch == "bmshj2018-hyperprior" else y / y.std())
        last.weight.mul_(2 / z.std())
        last.bias.mul_(2 / z.std())
        final = net.entropy_parameters if hasattr(net, "entropy_parameters") else net.h_s
        conv = [m for m in final.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        conv.weight.mul_(4)
        conv.bias[: net.M].add_(1.5)  # scales about 1.5 steps
        net.entropy_bottleneck._update_quantiles()
    return net


def checkpoint(arch: str, path, sizes: tuple[int, ...] | None = None) -> dict:
    """Save a checkpoint of two rates, y being about 1 and 3 steps large, and return it."""
    net = network(arch, sizes)
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 32, 32), (256, 256), mode="bilinear")
    with torch.no_grad():
        spread = net.g_a(x).square().mean((0, 2, 3)).sqrt()
    gains = torch.stack([1 / spread, 3 / spread])
    saved = {"state_dict": net.state_dict(), "log_gain": gains.log(), "lambdas": [0.01, 0.1]}
    torch.save(saved, path)
    return saved
