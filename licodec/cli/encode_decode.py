"""The commands `encode` and `decode`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from licodec import rate_control
from licodec.cli import batch
from licodec.container import MAX_PIXELS
from licodec.io import files
from licodec.options import MAX_EFFORT, DecodeOptions, EncodeOptions
from licodec.progress import say
from licodec.weights import catalogue

if TYPE_CHECKING:
    from licodec.io.image import Picture

Options = TypeVar("Options", bound=DecodeOptions)


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
    "-e", "--effort", type=click.IntRange(0, MAX_EFFORT), metavar="N",
    help="Rounds of search for better latents: smaller files, slower encoding."
    f"  [default: {catalogue.DEFAULT_EFFORT} with hyperprior and scale-hyperprior, else 0]",
)  # fmt: skip
def encode(inputs: tuple[str, ...], target_size: str | None, **given: Any) -> None:
    """Encode images to .lic files; - is standard input or output."""
    size = None if target_size is None else rate_control.parse_size(target_size)
    options = _taken(EncodeOptions, {**given, "target_size": size})
    name = catalogue.choose(options).name

    def work(job: batch.Job) -> batch.Result:
        from licodec import info
        from licodec.codec import encode_picture

        picture = _picture(job.source, options)
        began = time.perf_counter()
        data = encode_picture(picture, options)
        seconds = time.perf_counter() - began
        height, width = picture.color.shape[:2]
        made = info(data, options.max_pixels)
        line = (
            f"{len(data):,} bytes, {8 * len(data) / (height * width):.3f} bpp, {name} "
            f"q {made['quality']:g}, {width}x{height}, {seconds:.2f} s"
        )
        notes = [*picture.notes]
        if isinstance(options.rate, rate_control.Target):
            notes += options.rate.notes(made["quality"], len(data), height * width)
        return batch.Result(data, line, notes)

    _run("encode", inputs, ".lic", files.has_image_suffix, work, given)


def _picture(source: str, options: EncodeOptions) -> Picture:
    """The file's pixels; Pillow's own copy of them is gone when this returns."""
    from licodec.io.image import from_pillow

    with files.open_image(source, options.max_pixels) as image:
        return from_pillow(image, options.strip)


@click.command()
@shared
@click.option(
    "--format", "format_", type=click.Choice(["png", "jpeg", "webp", "ppm", "tiff"]),
    help="Of the output; by default its name decides, else png.",
)  # fmt: skip
def decode(inputs: tuple[str, ...], format_: str | None, **given: Any) -> None:
    """Decode .lic files to images; - is standard input or output."""
    options = _taken(DecodeOptions, given)

    def work(job: batch.Job) -> batch.Result:
        from licodec.codec import decode_file
        from licodec.io import output as outputs

        name = format_ or Path(job.target).suffix
        outputs.output_format(name)  # an unknown one is refused before the work
        data = files.read(job.source, options.max_pixels)
        began = time.perf_counter()
        image = decode_file(data, options)
        seconds = time.perf_counter() - began
        content, notes = outputs.to_file(image, name)
        line = f"{image.width}x{image.height} {image.mode}, {seconds:.2f} s"
        return batch.Result(content, line, notes)

    _run("decode", inputs, "." + (format_ or "png"), files.is_lic, work, given)


def _taken(kind: type[Options], given: dict[str, Any]) -> Options:
    """The options of the command line that `kind` has; the others are for `_run`."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})


def _run(
    verb: str, inputs: tuple[str, ...], suffix: str, takes: Callable[[Path], bool],
    work: batch.Work, given: dict[str, Any],
) -> None:  # fmt: skip
    """Plan the batch and do its work.

    Args:
        verb, inputs, suffix, takes: as `batch.plan` has them.
        given: the options that `shared` declares.
    """
    quiet, jobs = given["quiet"], given["jobs"]
    plan = batch.plan(
        verb, inputs, suffix, given["output"], given["output_dir"], given["recursive"], takes
    )
    if quiet:
        warnings.simplefilter("ignore")
    for note in [] if quiet else plan.notes:
        say(f"licodec: note: {note}")
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    batch.Batch(verb, plan, work, given["force"], not quiet).run(jobs)
