"""The commands `encode` and `decode`."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from licodec import help, rate_control
from licodec.architectures import HYPERPRIOR, TABLE
from licodec.cli import batch, plan, shared_options
from licodec.errors import UsageError
from licodec.io import files
from licodec.options import MAX_EFFORT, MAX_ERROR, DecodeOptions, EncodeOptions
from licodec.progress import say
from licodec.weights import catalogue

if TYPE_CHECKING:
    from licodec.io.image import Picture

Options = TypeVar("Options", bound=DecodeOptions)


_QUALITY = help.group(
    "Quality and size",
    click.option(
        "-q", "--quality", type=click.FloatRange(0, 100),
        help=f"0 is smallest, 100 is best, in steps of 0.5.  [default: {rate_control.DEFAULT_QUALITY:g}]",
    ),
    click.option(
        "--target-size", metavar="SIZE",
        help="Best quality of at most so many bytes; 60k, 1.5M, 64Ki.",
    ),
    click.option(
        "--target-bpp", type=float, metavar="BPP", help="The same in bits per pixel of the image."
    ),
    click.option(
        "--target-psnr", type=float, metavar="DB", help="Smallest file of at least this PSNR."
    ),
    click.option("--lossless", is_flag=True, help="Keep every pixel as it is (model everyday)."),
    click.option(
        "--max-error", type=click.IntRange(0, MAX_ERROR), metavar="N",
        help="Keep every sample of 0 … 255 within N (model everyday).",
    ),
    click.option(
        "--psnr", "with_psnr", is_flag=True, help="Decode what is written, and tell its PSNR."
    ),
    click.option(
        "--no-check", "check", is_flag=True, default=True, flag_value=False,
        help="No notes on files far worse than -q promises, or larger than a lossless one.",
    ),
)  # fmt: skip

_MODEL = help.group(
    "Model",
    click.option(
        "-m", "--model", shell_complete=shared_options.models,
        help=f"See `licodec models`.  [default: {TABLE[0].name}, or what --weights offers]",
    ),
    click.option(
        "-e", "--effort", type=click.IntRange(0, MAX_EFFORT), metavar="N",
        help="Rounds of search for better latents: smaller files, slower encoding."
        f"  [default: {TABLE[0].usual_effort} with {TABLE[0].name}, {HYPERPRIOR.usual_effort} with hyperprior"
        " and scale-hyperprior, else 0]",
    ),
    click.option(
        "--z-distributions", type=click.Choice(["static", "adaptive"]), default="static",
        show_default=True,
        help="Tables of a hyperprior's ẑ: the same for all images, or the image's own.",
    ),
)  # fmt: skip


@click.command(
    cls=help.Command,
    examples=[
        "licodec encode photo.png",
        "licodec encode photo.png -o small.lic --target-size 20k",
        "licodec encode -r photos --output-dir coded -j 2",
    ],
)
@_QUALITY
@_MODEL
@shared_options.coding
def encode(
    inputs: tuple[str, ...],
    target_size: str | None,
    with_psnr: bool,
    check: bool,
    lossless: bool,
    **given: Any,
) -> None:
    """Encode images to .lic files; - is standard input or output."""
    size = None if target_size is None else rate_control.parse_size(target_size)
    if lossless:
        if given["max_error"]:
            raise UsageError("--lossless and --max-error exclude each other")
        given["max_error"] = 0
    options = _taken(EncodeOptions, {**given, "target_size": size})
    name = catalogue.choose(options).name
    if given["ray"]:
        if with_psnr:
            raise UsageError("--psnr and --ray exclude each other")
        return _on_ray("encode", inputs, options, files.has_image_suffix, given, check=check)

    def work(job: plan.Job) -> batch.Result:
        from licodec import info
        from licodec.codec import encode_checked, encode_picture

        picture = _picture(job.source, options)
        began = time.perf_counter()
        if check:
            data, found = encode_checked(picture, options)
        else:
            data, found = encode_picture(picture, options), []
        seconds = time.perf_counter() - began
        height, width = picture.color.shape[:2]
        row = {**info(data, options.max_pixels), "model": name, "seconds": round(seconds, 3)}
        psnr = ""
        if with_psnr:
            decibels = _psnr(picture, data, options)
            row["psnr"] = (
                round(decibels, 3) if decibels < math.inf else None
            )  # JSON has no infinity
            psnr = f"{decibels:.2f} dB, "
        line = (
            f"{len(data):,} bytes, {8 * len(data) / (height * width):.3f} bpp, {psnr}{name} "
            f"q {row['quality']:g}, {width}x{height}, {seconds:.2f} s"
        )
        notes = [*picture.notes, *found]
        if isinstance(options.rate, rate_control.Target):
            notes += options.rate.notes(row["quality"], len(data), height * width)
        return batch.Result(data, line, row, notes)

    outputs = _outputs(given, ".lic", lambda path: path.suffix.lower() == ".lic")
    if given["output"] and files.has_image_suffix(Path(given["output"])):
        raise UsageError(f"encode writes .lic files, and {given['output']} is named like an image")
    found = plan.find(
        inputs,
        given["recursive"],
        files.has_image_suffix,
        "image",
        _listed(given["filelist"], inputs),
    )
    _run("encode", plan.pair(found, outputs), files.refuse_coded, work, given)


def _psnr(picture: Picture, data: bytes, options: EncodeOptions) -> float:
    """Of a file against the picture that it was made of, in dB."""
    from licodec.codec import decode_picture
    from licodec.container import unpack
    from licodec.distortion import psnr_db
    from licodec.open_codec import codec_of

    container = unpack(data, options.max_pixels)
    decoded = decode_picture(codec_of(container, options), container)
    return psnr_db(picture, decoded.color)


def _picture(source: str, options: EncodeOptions) -> Picture:
    """The file's pixels; Pillow's own copy of them is gone when this returns."""
    from licodec.io.image import from_pillow

    with files.open_image(source, options.max_pixels) as image:
        return from_pillow(image, options.strip, options.max_error is not None)


def _format(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """A format's name, in any of its spellings."""
    if name is None:
        return None
    from licodec.io import output as outputs

    outputs.output_format(name)
    return name.lower().lstrip(".")


@click.command(
    cls=help.Command,
    examples=[
        "licodec decode photo.lic -o photo.png",
        "licodec decode -r coded --output-dir decoded --format jpeg",
    ],
)
@help.group(
    "Output",
    click.option(
        "--format",
        "format_",
        metavar="png|jpeg|webp|ppm|tiff",
        callback=_format,
        shell_complete=lambda *_: ["png", "jpeg", "webp", "ppm", "tiff"],
        help="Of the output; by default its name decides, else png.",
    ),
    click.option(
        "--format-quality",
        type=click.IntRange(1, 100),
        metavar="N",
        help="Quality of a JPEG or WebP output, 1 … 100.  [default: 95, and lossless WebP]",
    ),
)
@shared_options.coding
def decode(
    inputs: tuple[str, ...], format_: str | None, format_quality: int | None, **given: Any
) -> None:
    """Decode .lic files to images; - is standard input or output."""
    from licodec.io import output as made

    options = _taken(DecodeOptions, given)
    if options.weights_path:
        catalogue.models(options.weights_path)  # weights that are missing are told before all else
    output = given["output"] or ""
    suffix = "" if plan.is_folder(output) else Path(output).suffix
    if format_ and made.contradicts(suffix, format_):
        raise UsageError(f"--format {format_} and the name {output} contradict each other")
    made.check_quality(format_ or suffix, format_quality)
    if given["ray"]:
        chosen = {"format": format_ or "png", "format_quality": format_quality}
        return _on_ray("decode", inputs, options, files.is_lic, given, **chosen)

    def work(job: plan.Job) -> batch.Result:
        from licodec.codec import decode_file

        name = format_ or Path(job.target).suffix
        made.output_format(name)  # an unknown one is refused before the work
        data = files.read(job.source, options.max_pixels)
        began = time.perf_counter()
        image = decode_file(data, options)
        seconds = time.perf_counter() - began
        content, notes = made.to_file(image, name, format_quality)
        line = f"{image.width}x{image.height} {image.mode}, {seconds:.2f} s"
        row = {
            "bytes": len(content),
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "format": made.output_format(name),
            "seconds": round(seconds, 3),
        }
        return batch.Result(content, line, row, notes)

    def is_made(path: Path) -> bool:
        return files.has_image_suffix(path) and not (path.is_file() and files.is_lic(path))

    outputs = _outputs(given, "." + (format_ or "png"), is_made, spares=True)
    found = plan.find(
        inputs, given["recursive"], files.is_lic, ".lic file", _listed(given["filelist"], inputs)
    )
    _run("decode", plan.pair(found, outputs), files.refuse_foreign, work, given)


def _taken(kind: type[Options], given: dict[str, Any]) -> Options:
    """The options of the command line that `kind` has; the others are for `_run`."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})


def _on_ray(
    verb: str, inputs: tuple[str, ...], options: DecodeOptions, takes: Callable[[Path], bool],
    given: dict[str, Any], **more: Any,
) -> None:  # fmt: skip
    """Either command on a cluster, whose machines look for weights as this one names them."""
    from licodec.cli import ray_batch
    from licodec.ray.coding import Coding

    chosen = asdict(options)
    for name in ("weights", "model"):
        if os.path.isfile(chosen.get(name) or ""):
            chosen[name] = os.path.abspath(chosen[name])
    coding = Coding(verb == "encode", chosen, **more)
    ray_batch.code(verb, inputs, _listed(given["filelist"], inputs), coding, takes, given)


def _outputs(
    given: dict[str, Any], suffix: str, is_made: Callable[[Path], bool], spares: bool = False
) -> plan.Outputs:
    return plan.Outputs(
        suffix, is_made, given["output"], given["output_dir"], given["force"], spares
    )


def _listed(name: str | None, inputs: tuple[str, ...]) -> list[str]:
    return [] if name is None else plan.read_list(name, inputs)


def _run(
    verb: str,
    todo: plan.Plan,
    check: Callable[[str], None],
    work: batch.Work,
    given: dict[str, Any],
) -> None:
    """Do the work of a plan.

    Args:
        verb, check, work: as `batch.Batch` has them.
        given: the options that `shared_options.coding` declares.
    """
    quiet, jobs = given["quiet"], given["jobs"] or 1
    if quiet:
        warnings.simplefilter("ignore")
    for note in [] if quiet else todo.notes:
        say(f"licodec: note: {note}")
    if jobs > 1:
        from licodec.entropy.threads import share_among

        share_among(jobs)
    telling = batch.Telling(not quiet, given["verbose"], given["as_json"])
    batch.Batch(verb, todo, telling).run(check, work, jobs)
