"""CompressAI's own classes, small, with random weights that spread the latents over some steps."""

from pathlib import Path

import numpy as np
import torch
from opened import opened
from PIL import Image

from licodec.entropy.gaussian import MEAN_UNIT, MIXTURE_TOTAL
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.scale_shifts import starts
from licodec.entropy.tables import BINS, count_values
from licodec.open_codec import Codec, is_precise
from licodec.training.codecs.factorized import DistributionNets
from licodec.training.config import Model
from licodec.training.convert.export import write_weights
from licodec.training.convert.export_hyperprior import z_tensors
from licodec.training.convert.import_checkpoint import SCALES
from licodec.training.fit import scale_shifts
from licodec.weights import file as weights_file
from licodec.weights.file import STEPS

from licodec.training.codecs import compressai_layers  # noqa: F401  isort: skip  makes compressai importable
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


def with_z_distributions(path: Path, photo: Image.Image) -> Path:
    """A weights file's tensors, and nets that have learnt the distributions of ẑ of a photograph and
    of its negative."""
    loaded = weights_file.load(path)
    model = Hyperprior(loaded)
    transforms = opened(weights=path).transforms
    rates = np.arange(len(loaded.numpy("log_gain")))
    counts = []
    for k in rates:
        gain = loaded.gain(k * STEPS) * np.float32(MEAN_UNIT)
        for pixels in (np.asarray(photo), 255 - np.asarray(photo)):
            z = model.side_information(transforms.analyze(pixels, gain), 0).reshape(-1)
            channels = np.repeat(np.arange(model.N), len(z) // model.N)
            counts.append(count_values(z, channels, model.N, BINS))
    torch.manual_seed(0)
    sizes = Model(lambdas=tuple(rates.tolist()), width=16, z_channels=2, groups=4, kernel_size=5)
    nets = DistributionNets(model.N, sizes, classes=1)
    nets.z_prior.copy_(-(torch.arange(33) - 16).abs().expand_as(nets.z_prior))
    seen = torch.from_numpy(np.array(counts))[:, :, None].float()
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nets.rates(seen, torch.from_numpy(rates).repeat_interleave(2).float())[0].backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(nets.parameters(), 1.0)):
            optimizer.step()
    tensors = loaded.tensors("") | z_tensors(nets)
    return write_weights(path.parent / "z", path.stem, tensors, loaded.metadata, {})


def analyzed(path: Path, photo: Image.Image, quality: float) -> tuple[Codec, int, np.ndarray]:
    """The codec of a weights file, a quality's position, and y (M, h, w) of a photograph there, in
    1/MEAN_UNIT."""
    codec = opened(weights=path)
    step = round(2 * quality)
    position = codec.weights.position(step)
    gain = codec.weights.gain(position) * np.float32(MEAN_UNIT)
    return codec, position, codec.transforms.analyze(np.asarray(photo), gain, is_precise(step))


def with_scale_shifts(path: Path, folder: Path, name: str) -> Path:
    """A weights file's tensors, and scale shifts of random weights, some blocks in halves."""
    loaded = weights_file.load(path)
    M, scales = loaded.numpy("log_gain").shape[1], len(loaded.numpy("scales"))
    rng = np.random.default_rng(0)
    blocks = np.array([1, 1, 1, *[3] * ((M - 3) // 3)], np.int16)
    behind = np.arange(2 * M) // 2 < starts(blocks)[:, None]
    own = rng.integers(-1000, 3000, (M, 2))
    own[np.arange(M) % 5 != 0] = 0
    mixture = np.eye(scales, dtype=np.int16) * (MIXTURE_TOTAL - 2000)
    mixture[:, rng.integers(scales)] += 2000
    tensors = {
        "surprises.order": rng.permutation(M).astype(np.int16),
        "surprises.blocks": blocks,
        "surprises.weights": (rng.integers(-300, 900, (M, 2 * M)) * behind).astype(np.int16),
        "surprises.own": own.astype(np.int16),
        "surprises.table": scale_shifts.of_magnitudes(SCALES),
        "surprises.mixture": mixture,
    }
    return write_weights(folder, name, loaded.tensors("") | tensors, loaded.metadata, {})
