"""Paper 1's measure for the other codecs in whose files an image may have distributions of its own.

    hyperprior    those of ẑ, by channel: files with `--z-distributions static` and `adaptive`
    everyday      those of residuals, by class: files told to do without, and as they are

    fixed         the tables of all images                                       real files
    adaptive      tables that follow each image, side stream included            real files
    ideal         each image's own shares (p̂ = p), which nothing has to tell     ideal

Latents, and so decoded images, are the same in all three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from licodec.bench import metrics
from licodec.bench.datasets import SourceImage, load
from licodec.bench.evaluate import BenchPlan
from licodec.bench.measure import workers
from licodec.bench.paper1 import PAPER, cross_entropy
from licodec.bench.provenance import provenance
from licodec.bench.report import compare, percent
from licodec.bench.results import Curve, Row, aggregate
from licodec.codec import decode_picture
from licodec.container import pack
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.quadtree import Quadtree, count_classes
from licodec.entropy.tables import BINS, count_channels, information
from licodec.errors import ModelMissingError
from licodec.io.image import Picture, from_pillow
from licodec.open_codec import Codec, open_codec
from licodec.options import EncodeOptions
from licodec.payload import Coded, code
from licodec.rate_control import quality_step

QUALITIES = (0.0, 25.0, 50.0, 75.0, 100.0)
FIXED, ADAPTIVE, IDEAL = "fixed", "adaptive", "ideal"


class _Files(NamedTuple):
    """Of one picture, of the same latents.

    Attributes:
        fixed, adaptive: what is coded by tables of all images, and by its own.
        side_bits: what the second takes to tell its tables.
        won: bits that ideal tables win over fixed ones.
    """

    fixed: Coded
    adaptive: Coded
    side_bits: float
    won: float


def run(plan: BenchPlan, progress: Callable[[int, int, str], None]) -> dict[str, Curve]:
    """The curves, by name; without those of codecs whose weights are not installed or have none."""
    names = [name for name in MODELS if _installed(name, plan.settings.device)]
    rows: dict[str, list[Row]] = {}
    with workers(plan.jobs, plan.settings) as pool:
        futures = [
            (name, image, pool.submit(_measure, name, plan.settings.device, image))
            for name in names
            for image in plan.images
        ]
        for done, (name, image, future) in enumerate(futures, 1):
            for tables, measured in future.result().items():
                rows.setdefault(f"{name}, {tables}", []).extend(measured)
            progress(done, len(futures), f"{name}, {image.name}")
    meta = {**provenance(), "dataset": plan.dataset, "images": len(plan.images)}
    return {
        name: Curve(name, "licodec", aggregate(own, len(plan.images)), {**meta}, own)
        for name, own in rows.items()
    }


def bd_rates(curves: dict[str, Curve]) -> tuple[list[str], list[list[str]]]:
    """The table: adaptive and ideal against fixed tables, and the side stream; the paper's below."""
    lines = []
    for name in MODELS:
        if f"{name}, {FIXED}" not in curves:
            continue
        fixed, *others = (curves[f"{name}, {tables}"] for tables in (FIXED, ADAPTIVE, IDEAL))
        side = [row["side_bytes"] for row in others[0].rows]
        won = (percent(compare(curve, fixed, "psnr-rgb")) for curve in others)
        lines.append([name, *won, f"{float(np.mean(side)):.1f}"])
    lines.append(["factorized, in the paper", PAPER["adaptive"], PAPER["one a channel"], ""])
    return ["BD-rate vs fixed tables", ADAPTIVE, IDEAL, "side stream, bytes a file"], lines


def _open(name: str, device: str, tables: str = "static") -> Codec:
    return open_codec(EncodeOptions(model=name, device=device, z_distributions=tables))[0]


def _installed(name: str, device: str) -> bool:
    try:
        _open(name, device, "static" if name == "everyday" else "adaptive")
    except ModelMissingError:
        return False
    return True


def _measure(name: str, device: str, image: SourceImage) -> dict[str, list[Row]]:
    """Rows of one image by kind of tables."""
    original = load(image.path)
    picture = from_pillow(original)
    codec, files_of = _open(name, device), _FILES[name]
    out: dict[str, list[Row]] = {tables: [] for tables in (FIXED, ADAPTIVE, IDEAL)}
    for quality in QUALITIES:
        files = files_of(device, picture, quality_step(quality))
        decoded = decode_picture(codec, files.fixed.container).color
        row: Row = {
            "image": image.name,
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "quality": quality,
            "psnr-rgb": metrics.psnr_rgb(np.asarray(original), decoded),
            "ms-ssim-rgb": metrics.ms_ssim_rgb(np.asarray(original), decoded),
        }
        fixed, adaptive = (len(pack(c.container)) for c in (files.fixed, files.adaptive))
        sizes = {FIXED: fixed, ADAPTIVE: adaptive, IDEAL: fixed - files.won / 8}
        for tables, size in sizes.items():
            side = {"side_bytes": files.side_bits / 8} if tables == ADAPTIVE else {}
            bpp = metrics.bpp(size, image.width, image.height)
            out[tables].append({**row, "bytes": float(size), "bpp": bpp, **side})
    return out


def _hyperprior(device: str, picture: Picture, quality_step: int) -> _Files:
    codec, own = (_open("hyperprior", device, tables) for tables in ("static", "adaptive"))
    y, position = codec.analyze(picture, quality_step), codec.position(quality_step)
    model, told = codec.entropy_model, own.entropy_model
    assert isinstance(model, Hyperprior) and isinstance(told, Hyperprior)
    z = model.side_information(y, position)
    assert told.z_distributions is not None
    counts = count_channels(z, BINS)
    chosen = told.z_distributions.choose(counts[:, None], position)
    return _Files(
        code(codec, picture, y.copy(), quality_step, z),
        code(own, picture, y, quality_step, z),
        told.z_distributions.z_bits(chosen, position),
        model.side_bits(z, position) - cross_entropy(counts, counts),
    )


def _everyday(device: str, picture: Picture, quality_step: int) -> _Files:
    codec = _open("everyday", device)
    y, position = codec.analyze(picture, quality_step), codec.position(quality_step)
    model = codec.entropy_model
    assert isinstance(model, Quadtree)
    side = model.side_information(y, position)
    counts = count_classes(side.symbols)
    counted = counts[counts.any(1)]
    fixed = model.distributions.tables(position, None)
    # Coding uses symbols up.
    plain = side._replace(symbols=side.symbols.copy(), class_z=None)
    return _Files(
        code(codec, picture, y, quality_step, plain),
        code(codec, picture, y, quality_step, side),
        model.distributions.side_bits(side.class_z),
        information(counts, fixed) - cross_entropy(counted, counted),
    )


_FILES: dict[str, Callable[[str, Picture, int], _Files]] = {
    "hyperprior": _hyperprior,
    "everyday": _everyday,
}
MODELS = tuple(_FILES)
