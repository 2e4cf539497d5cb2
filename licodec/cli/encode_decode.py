"""The commands `encode` and `decode`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from licodec import rate_control
from licodec.cli import batch
from licodec.container import MAX_PIXELS
from licodec.io import files
from licodec.progress import say
from licodec.weights import catalogue

if TYPE_CHECKING:
    from licodec.io.image import Picture


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that encode and decode have in common."""
    for option in (
        click.argument("inputs", nargs=-1, required=True, metavar="IN..."),
        click.option(
            "-o", "--output", metavar="OUT",
            help="Output file; - is standard output.  [default: beside IN]",
        ),
        click.option(
            "--output-dir", metavar="DIR",
            help="Write outputs there; it is made if needed, and -r mirrors the folders in it.",
        ),
        click.option("-r", "--recursive", is_flag=True, help="Go into folders."),
        click.option(
            "-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N",
            help="Files at once; memory grows with it.",
        ),
        click.option(
            "-f", "--force", is_flag=True,
            help="Overwrite outputs. Without it, several files skip those that are done.",
        ),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
            show_default=True, help="Where the transforms run.",
        ),
        click.option(
            "--precision", type=click.Choice(["auto", "float32", "bf16"]), default="auto",
            show_default=True, help="Arithmetic of the transforms.",
        ),
        click.option(
            "--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True,
            help="Refuse larger images.",
        ),
        click.option(
            "--strip", is_flag=True, help="Drop ICC, EXIF and XMP; pixels are turned as EXIF said."
        ),
        click.option("--weights", metavar="FILE", help="Weights that are not installed."),
        click.option("--quiet", is_flag=True, help="Print errors only."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@shared
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100),
    help=f"0 is smallest, 100 is best; continuous.  [default: {rate_control.DEFAULT_QUALITY:g}]",
)  # fmt: skip
@click.option(
    "--target-size", metavar="SIZE", help="Best quality of at most so many bytes; 60k, 1.5M, 64Ki."
)
@click.option(
    "--target-bpp", type=float, metavar="BPP", help="The same in bits per pixel of the image."
)
@click.option(
    "--target-psnr", type=float, metavar="DB", help="Smallest file of at least this PSNR."
)
@click.option(
    "-m", "--model", help="See `licodec models`.  [default: adaptive, or what --weights offers]"
)
@click.option(
    "--z-distributions", type=click.Choice(["static", "adaptive"]), default="static",
    show_default=True,
    help="Tables of a hyperprior's ẑ: the same for all images, or the image's own.",
)  # fmt: skip
@click.option(
    "-e", "--effort", type=click.IntRange(0, catalogue.MAX_EFFORT), metavar="N",
    help="Rounds of search for better latents: smaller files, slower encoding."
    f"  [default: {catalogue.DEFAULT_EFFORT} with hyperprior and scale-hyperprior, else 0]",
)  # fmt: skip
def encode(
    inputs: tuple[str, ...], output: str | None, output_dir: str | None, recursive: bool,
    jobs: int, force: bool, device: str, precision: str, max_pixels: int, strip: bool,
    weights: str | None, quiet: bool, quality: float | None, target_size: str | None,
    target_bpp: float | None, target_psnr: float | None, model: str | None, z_distributions: str,
    effort: int | None,
) -> None:  # fmt: skip
    """Encode images to .lic files; - is standard input or output."""
    size = None if target_size is None else rate_control.parse_size(target_size)
    wanted = rate_control.rate_control(quality, size, target_bpp, target_psnr)
    file = None if weights is None else Path(weights)
    adaptive_z = catalogue.adaptive_z(z_distributions, model, file)
    rounds = catalogue.effort(effort, model, file)
    name, _ = catalogue.resolve(model, file)

    def work(job: batch.Job) -> batch.Result:
        from licodec import info
        from licodec.codec import encode_picture

        picture = _picture(job.source, max_pixels, strip)
        began = time.perf_counter()
        data = encode_picture(
            picture, wanted, model, device, precision, weights, adaptive_z, rounds
        )
        seconds = time.perf_counter() - began
        height, width = picture.color.shape[:2]
        made = info(data, max_pixels)
        line = (
            f"{len(data):,} bytes, {8 * len(data) / (height * width):.3f} bpp, {name} "
            f"q {made['quality']:g}, {width}x{height}, {seconds:.2f} s"
        )
        notes = [*picture.notes]
        if isinstance(wanted, rate_control.Target):
            notes += wanted.notes(made["quality"], len(data), height * width)
        return batch.Result(data, line, [] if quiet else notes)

    plan = batch.plan(
        "encode", inputs, ".lic", output, output_dir, recursive, files.has_image_suffix
    )
    _run("encode", plan, work, force, jobs, quiet)


def _picture(source: str, max_pixels: int, strip: bool) -> Picture:
    """The file's pixels; Pillow's own copy of them is gone when this returns."""
    from licodec.io.image import from_pillow

    with files.open_image(source, max_pixels) as image:
        return from_pillow(image, strip)


@click.command()
@shared
@click.option(
    "--format", "format_", type=click.Choice(["png", "jpeg", "webp", "ppm", "tiff"]),
    help="Of the output; by default its name decides, else png.",
)  # fmt: skip
def decode(
    inputs: tuple[str, ...], output: str | None, output_dir: str | None, recursive: bool,
    jobs: int, force: bool, device: str, precision: str, max_pixels: int, strip: bool,
    weights: str | None, quiet: bool, format_: str | None,
) -> None:  # fmt: skip
    """Decode .lic files to images; - is standard input or output."""

    def work(job: batch.Job) -> batch.Result:
        from licodec.codec import decode as decode_bytes
        from licodec.io import output as outputs

        name = format_ or Path(job.target).suffix
        outputs.output_format(name)  # an unknown one is refused before the work
        data = files.read(job.source, max_pixels)
        began = time.perf_counter()
        image = decode_bytes(
            data, weights=weights, device=device, precision=precision, strip=strip,
            max_pixels=max_pixels,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        content, notes = outputs.to_file(image, name)
        line = f"{image.width}x{image.height} {image.mode}, {seconds:.2f} s"
        return batch.Result(content, line, [] if quiet else notes)

    suffix = "." + (format_ or "png")
    plan = batch.plan("decode", inputs, suffix, output, output_dir, recursive, files.is_lic)
    _run("decode", plan, work, force, jobs, quiet)


def _run(
    verb: str, plan: batch.Plan, work: batch.Work, force: bool, jobs: int, quiet: bool
) -> None:
    if quiet:
        warnings.simplefilter("ignore")
    for note in [] if quiet else plan.notes:
        say(f"licodec: note: {note}")
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    batch.Batch(verb, plan, work, force, not quiet).run(jobs)
