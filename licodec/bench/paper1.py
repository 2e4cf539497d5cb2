"""Paper 1's experiment: what adapting the encoding distributions to each image is worth.

The same transforms, and so the same latents and the same decoded images, with the latents coded by

    static, trained    the tables the transforms were trained with (where a file with them is given)
    static, average    the best tables over the training images, as shipped       real files
    static, oracle     the best tables over the images measured here              ideal
    classes, average   the best tables by channel and class, as shipped           ideal
    adaptive           tables that follow each image, side stream included        real files
    one a channel      each image's own distributions (p̂ = p), no side stream,
                       no classes: the bound of paper 1                           ideal

Real rates are those of whole files; an ideal one is the latents' information and the header.

Ulhaq and Bajić 2024, "Learned compression of encoding distributions", on Kodak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from licodec.architectures import SCALE_HYPERPRIOR
from licodec.bench import metrics
from licodec.bench.complexity import Complexity, count
from licodec.bench.datasets import SourceImage, load
from licodec.bench.evaluate import BenchPlan
from licodec.bench.licodec_networks import pdf_transforms
from licodec.bench.measure import workers
from licodec.bench.provenance import provenance
from licodec.bench.report import compare, percent
from licodec.bench.results import Curve, Row, aggregate
from licodec.codec import decode_picture, encode_at
from licodec.container import pack, unpack
from licodec.entropy.tabled import Adaptive
from licodec.entropy.tables import BINS, information, integer_softmax, interpolate
from licodec.errors import UsageError
from licodec.io.image import from_pillow
from licodec.networks.hyper import hyper_analysis, hyper_synthesis
from licodec.open_codec import Codec, open_codec
from licodec.options import EncodeOptions
from licodec.payload import decode_latents
from licodec.rate_control import quality_step
from licodec.tiles import STRIDE
from licodec.weights import file as weights_file
from licodec.weights.file import STEPS

TRAINED, AVERAGE, ORACLE = "static, trained", "static, average", "static, oracle"
CLASSES, ADAPTIVE, IDEAL = "classes, average", "adaptive", "one a channel"

PAPER = {ADAPTIVE: "-7.10 %", IDEAL: "about -8.2 %"}
"""BD-rates that the paper reports against its static distributions."""
PAPER_SIDE_BPP = "0.0004 to 0.0016"

Counts = npt.NDArray[np.float64] | npt.NDArray[np.int64]


@dataclass
class _Measured:
    """One image at one quality."""

    row: Row
    bits: dict[str, float]
    side_bytes: int
    counts: Counts


def run(
    plan: BenchPlan, static: Path | None, progress: Callable[[int, int, str], None]
) -> dict[str, Curve]:
    """The curves, by name; at evenly spaced qualities, as many as the weights have anchors.

    Raises:
        ModelMissingError: no adaptive weights are installed.
        UsageError: `static` holds other transforms.
    """
    codec = _codec("adaptive", plan.settings.device)
    if static is not None:
        _same_transforms(codec, weights_file.load(static))
    anchors = len(codec.weights.numpy("log_gain"))
    qualities = [round(200 * k / (anchors - 1)) / 2 for k in range(anchors)]
    per_image: list[list[_Measured]] = []
    with workers(plan.jobs, plan.settings) as pool:
        futures = [
            pool.submit(_measure, plan.settings.device, image, qualities, static)
            for image in plan.images
        ]
        for done, future in enumerate(futures, 1):
            per_image.append(future.result())
            progress(done, len(futures), plan.images[done - 1].name)
    _add_oracle(per_image)
    names = [TRAINED, AVERAGE, ORACLE, CLASSES, ADAPTIVE, IDEAL][0 if static else 1 :]
    meta = {
        **provenance(),
        "codec.version": f"weights {codec.weights.hash.hex()}",
        "dataset": plan.dataset,
        "images": len(plan.images),
    }
    curves = {}
    for name in names:
        rows = [_row(m, name) for measured in per_image for m in measured]
        curves[name] = Curve(name, "licodec", aggregate(rows, len(plan.images)), {**meta}, rows)
    for name in (CLASSES, ADAPTIVE, IDEAL):
        against = {
            other: compare(curves[name], curves[other], "psnr-rgb")
            for other in names
            if other.startswith("static")
        }
        curves[name].meta["bd-rate"] = against
    return curves


def _codec(model: str, device: str, weights: Path | None = None) -> Codec:
    return open_codec(EncodeOptions(model=model, device=device, weights=weights))[0]


def _same_transforms(codec: Codec, other: weights_file.Weights) -> None:
    mine = codec.weights.tensors("g_") | codec.weights.tensors("log_gain")
    theirs = other.tensors("g_") | other.tensors("log_gain")
    if mine.keys() != theirs.keys() or any((v != theirs[k]).any() for k, v in mine.items()):
        raise UsageError(f"{other.path} holds other transforms than {codec.weights.path.name}")


def _measure(
    device: str, image: SourceImage, qualities: list[float], static: Path | None
) -> list[_Measured]:
    codec, average = (_codec(model, device) for model in ("adaptive", "factorized"))
    original = load(image.path)
    picture = from_pillow(original)
    out = []
    for quality in qualities:
        codecs = {AVERAGE: average, ADAPTIVE: codec}
        if static is not None:
            codecs[TRAINED] = _codec("factorized", device, static)
        step = quality_step(quality)
        coded = {name: encode_at(c, picture, step) for name, c in codecs.items()}
        files = {name: pack(c.with_chunks(picture.chunks).container) for name, c in coded.items()}
        container = unpack(files[ADAPTIVE])
        decoded = decode_picture(codec, container)
        header = len(files[AVERAGE]) - len(unpack(files[AVERAGE]).payload)
        y = decode_latents(codec, container)
        counts = _counts(y)
        bits = {name: 8.0 * len(data) for name, data in files.items()}
        bits[IDEAL] = 8 * header + cross_entropy(counts, counts)
        bits[CLASSES] = 8 * header + _by_classes(codec, y, step)
        bits[ORACLE] = 8 * header
        row = {
            "image": image.name,
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "quality": quality,
            "psnr-rgb": metrics.psnr_rgb(np.asarray(original), decoded.color),
            "ms-ssim-rgb": metrics.ms_ssim_rgb(np.asarray(original), decoded.color),
        }
        out.append(_Measured(row, bits, container.side_bytes, counts))
    return out


def _counts(y: npt.NDArray[np.int32]) -> Counts:
    """(M, BINS + 1): how often each channel takes each value, and values outside the bins."""
    symbols = y.reshape(len(y), -1).astype(np.int64) + BINS // 2
    symbols = np.where((symbols < 0) | (symbols >= BINS), BINS, symbols)
    return np.stack([np.bincount(row, minlength=BINS + 1) for row in symbols]).astype(np.float64)


def _by_classes(codec: Codec, y: npt.NDArray[np.int32], quality_step: int) -> float:
    """Bits of y under the class tables as they are shipped, for all images the same."""
    position = codec.weights.position(quality_step)
    tables = interpolate(codec.weights.numpy("class_prior"), position, STEPS)
    model = codec.entropy_model
    assert isinstance(model, Adaptive)
    counts = model.classifier.counts(y, model.classifier.sort(y, position), BINS)
    return information(counts, integer_softmax(tables))


def cross_entropy(counts: Counts, model: Counts) -> float:
    """Bits of `counts` (M, bins) under the shares of `model`, which is positive where they are."""
    shares = model / model.sum(1, keepdims=True)
    used = counts > 0
    return float(-(counts[used] * np.log2(shares[used])).sum())


def _add_oracle(per_image: list[list[_Measured]]) -> None:
    """Code each image by the mean of all images' shares, which no other table beats on average."""
    for same_quality in zip(*per_image, strict=True):
        average = sum(
            (m.counts / (m.row["width"] * m.row["height"]) for m in same_quality),
            start=np.zeros_like(same_quality[0].counts),
        )
        for m in same_quality:
            m.bits[ORACLE] += cross_entropy(m.counts, average)


def _row(measured: _Measured, name: str) -> Row:
    size = measured.bits[name] / 8
    side = {"side_bytes": measured.side_bytes} if name == ADAPTIVE else {}
    pixels = measured.row["width"] * measured.row["height"]
    return {**measured.row, "bytes": size, "bpp": 8 * size / pixels, **side}


def bd_rates(curves: dict[str, Curve]) -> tuple[list[str], list[list[str]]]:
    """The table: each curve against each static one, next to the paper's figure."""
    statics = [name for name in curves if name.startswith("static")]
    lines = [
        [
            name,
            *(percent(compare(curves[name], curves[static], "psnr-rgb")) for static in statics),
            PAPER.get(name, ""),
        ]
        for name in curves
    ]
    return ["BD-rate of", *(f"vs {static}" for static in statics), "paper"], lines


def side_stream(curves: dict[str, Curve]) -> tuple[list[str], list[list[str]]]:
    """The table of the side stream's rate at each quality."""
    curve = curves[ADAPTIVE]
    side: dict[float, list[float]] = {}
    for row in curve.rows:
        bpp = metrics.bpp(row["side_bytes"], row["width"], row["height"])
        side.setdefault(row["quality"], []).append(bpp)
    lines = [
        [f"{quality:g}", f"{bpp:.4f}", f"{float(np.mean(side[quality])):.5f}", PAPER_SIDE_BPP]
        for quality, bpp in zip(curve.results["quality"], curve.results["bpp"], strict=True)
    ]
    return ["quality", "bpp", "side stream bpp", "paper"], lines


def complexity(plan: BenchPlan) -> tuple[list[str], list[list[str]]]:
    """The table of h_a + h_s: the distributions', and a scale hyperprior's on the same latents."""
    codec = _codec("adaptive", "cpu")
    image = max(plan.images, key=lambda i: i.width * i.height)
    pixels = image.width * image.height
    h_a, h_s = pdf_transforms(codec.weights)
    rows: list[tuple[str, Complexity]] = [("encoding distributions", h_a + h_s)]
    rows.append(("scale hyperprior (Ballé 2018)", _scale_hyperprior(codec, image)))
    lines = [[name, f"{c.kmac_per_pixel(pixels):.3f}", f"{c.parameters:,}"] for name, c in rows]
    return ["h_a + h_s of", f"kMAC/pixel at {image.width}x{image.height}", "parameters"], lines


def _scale_hyperprior(codec: Codec, image: SourceImage) -> Complexity:
    """The nets of a scale hyperprior of this codec's widths."""
    N, M = len(codec.weights.numpy("g_a.0.bias")), codec.transforms.M
    h_a = hyper_analysis(SCALE_HYPERPRIOR, N, M)
    h_s = hyper_synthesis(SCALE_HYPERPRIOR, N, M)
    h, w = (-(-side // (4 * STRIDE)) for side in (image.height, image.width))
    analysis = count(h_a, torch.zeros(1, M, 4 * h, 4 * w))
    return analysis + count(h_s, torch.zeros(1, N, h, w))
