"""The command line: parse, one library call, print."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import licodec
from licodec import files
from licodec.catalogue import ARCHITECTURES
from licodec.container import MAX_PIXELS
from licodec.errors import LicodecError, UsageError
from licodec.files import STANDARD


class Commands(click.Group):
    """Turns every LicodecError into one line and its exit code; loads `bench` when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [
            "encode",
            "decode",
            "info",
            "verify",
            "models",
            "bench",
            "train",
            "export",
            "import",
        ]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "bench":
            from licodec.bench.command import bench

            return bench
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LicodecError as error:
            complain(str(error))
            ctx.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(licodec.__version__, "-V", "--version", message="licodec %(version)s")
def main() -> None:
    """A learned image codec: smaller than JPEG, the same on every machine."""


def complain(message: str) -> None:
    click.echo(f"licodec: {' '.join(message.split())}", err=True)


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that encode and decode have in common."""
    for option in (
        click.argument("inputs", nargs=-1, required=True, metavar="IN..."),
        click.option("-o", "--output", metavar="OUT", help="Output file; - is standard output."),
        click.option("--output-dir", metavar="DIR", help="Write all outputs there."),
        click.option("-f", "--force", is_flag=True, help="Overwrite existing files."),
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
        click.option("--strip", is_flag=True, help="Drop ICC, EXIF and XMP."),
        click.option("--weights", metavar="FILE", help="Weights that are not installed."),
        click.option("--quiet", is_flag=True, help="Print errors only."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command()
@shared
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100), default=50, show_default=True,
    help="0 is smallest, 100 is best; continuous.",
)  # fmt: skip
@click.option(
    "-m", "--model", help="See `licodec models`.  [default: adaptive, or what --weights offers]"
)
def encode(
    inputs: tuple[str, ...], output: str | None, output_dir: str | None, force: bool,
    device: str, precision: str, max_pixels: int, strip: bool, weights: str | None, quiet: bool,
    quality: float, model: str | None,
) -> None:  # fmt: skip
    """Encode images to .lic files; - is standard input or output."""

    def work(source: str, target: str) -> str:
        from licodec import image as images
        from licodec.codec import encode_picture

        with files.open_image(source, max_pixels) as image:
            picture = images.from_pillow(image)
        if strip:
            picture.metadata.clear()
        for note in picture.notes:
            complain(f"{source}: note: {note}")
        began = time.perf_counter()
        data = encode_picture(picture, quality, model, device, precision, weights)
        seconds = time.perf_counter() - began
        files.write(target, data)
        height, width = picture.color.shape[:2]
        return (
            f"{len(data):,} bytes, {8 * len(data) / (height * width):.3f} bpp, "
            f"{width}x{height}, {seconds:.2f} s"
        )

    _each(inputs, output, output_dir, force, quiet, ".lic", work)


@main.command()
@shared
@click.option(
    "--format", "format_", type=click.Choice(["png", "jpeg", "webp", "ppm", "tiff"]),
    help="Of the output; by default its name decides, else png.",
)  # fmt: skip
def decode(
    inputs: tuple[str, ...], output: str | None, output_dir: str | None, force: bool,
    device: str, precision: str, max_pixels: int, strip: bool, weights: str | None, quiet: bool,
    format_: str | None,
) -> None:  # fmt: skip
    """Decode .lic files to images; - is standard input or output."""

    def work(source: str, target: str) -> str:
        from licodec import image as images
        from licodec.codec import decode as decode_bytes

        data = files.read(source)
        began = time.perf_counter()
        image = decode_bytes(
            data, weights=weights, device=device, precision=precision, max_pixels=max_pixels
        )
        seconds = time.perf_counter() - began
        if strip:
            image.info.clear()
        files.write(target, images.to_file(image, format_ or Path(target).suffix))
        return f"{image.width}x{image.height} {image.mode}, {seconds:.2f} s"

    suffix = "." + (format_ or "png")
    _each(inputs, output, output_dir, force, quiet, suffix, work)


def _each(
    inputs: tuple[str, ...], output: str | None, output_dir: str | None, force: bool,
    quiet: bool, suffix: str, work: Callable[[str, str], str],
) -> None:  # fmt: skip
    """Run work on every input; with several, a failing one is named and the rest go on."""
    if output and output_dir:
        raise UsageError("-o and --output-dir exclude each other")
    if output and len(inputs) > 1:
        raise UsageError("-o takes one input; use --output-dir for several")
    failures = 0
    for source in inputs:
        target = output or _target(source, output_dir, suffix)
        try:
            files.check_output(target, force, source)
            result = work(source, target)
        except LicodecError as error:
            error.args = (f"{'standard input' if source == STANDARD else source}: {error}",)
            if len(inputs) == 1:
                raise
            complain(str(error))
            failures += 1
        else:
            if not quiet and target != STANDARD:
                click.echo(f"{source} -> {target}: {result}", err=True)
    if failures:
        raise LicodecError(f"{failures} of {len(inputs)} files failed")


def _target(source: str, output_dir: str | None, suffix: str) -> str:
    if source == STANDARD:
        return STANDARD if output_dir is None else str(Path(output_dir) / f"stdin{suffix}")
    path = Path(source).with_suffix(suffix)
    return str(path if output_dir is None else Path(output_dir) / path.name)


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object, or a list for several files."
)
def info(inputs: tuple[str, ...], as_json: bool) -> None:
    """Show what .lic files hold, without decoding them."""

    def line(row: dict[str, Any]) -> str:
        streams = ", ".join(f"{name} {size}" for name, size in row["streams"].items())
        return (
            f"{row['file']}: {row['width']}x{row['height']} {row['mode']}, {row['bytes']} bytes, "
            f"{row['bpp']} bpp, {row['model']}@{row['model_hash']}, quality {row['quality']:g} ({streams})"
        )

    _inspect(inputs, as_json, lambda data: licodec.info(data, 2**62), line)


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("--deep", is_flag=True, help="Decode the latents and compare their checksum.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object, or a list for several files."
)
@click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True)
def verify(inputs: tuple[str, ...], deep: bool, as_json: bool, max_pixels: int) -> None:
    """Check .lic files against their checksums."""

    def check(data: bytes) -> dict[str, Any]:
        row = licodec.info(data, max_pixels)
        if deep:
            from licodec.codec import verify_latents

            row["latents_crc32"] = verify_latents(data, max_pixels)
        return {"ok": True, "deep": deep, "latents_crc32": row["latents_crc32"]}

    _inspect(inputs, as_json, check, lambda row: f"{row['file']}: ok")


def _inspect(
    inputs: tuple[str, ...], as_json: bool,
    look: Callable[[bytes], dict[str, Any]], line: Callable[[dict[str, Any]], str],
) -> None:  # fmt: skip
    """Print a row for every input; the exit code is the worst failure's."""
    rows, worst = [], 0
    for source in inputs:
        try:
            row = {"file": source, **look(files.read(source))}
        except LicodecError as error:
            complain(f"{source}: {error}")
            worst = max(worst, error.exit_code)
            row = {"file": source, "ok": False, "error": str(error)}
        else:
            if not as_json:
                click.echo(line(row))
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows))
    if worst:
        sys.exit(worst)


@main.command()
@click.option("--json", "as_json", is_flag=True)
def models(as_json: bool) -> None:
    """List the models that are installed."""
    from licodec import catalogue

    rows: list[dict[str, Any]] = []
    for path in catalogue.installed():
        for name in catalogue.models(path):
            default = name == catalogue.NAMES[0] and not any(row["default"] for row in rows)
            rows.append(
                {"model": name, "weights": path.stem, "hash": path.stem.rsplit("-", 1)[-1],
                 "bytes": path.stat().st_size, "default": default}
            )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        mark = " (default)" if row["default"] else ""
        click.echo(f"{row['model']}@{row['hash']}  {row['weights']}, {row['bytes']:,} bytes{mark}")


@main.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False))
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in train.out.")
@click.option("--data", "path", metavar="DIR", help="Images or tar shards (data.path).")
@click.option("--init", metavar="FILE", help="Weights or checkpoint to start from (train.init).")
@click.option("--out", metavar="DIR", help="Where checkpoints and logs go (train.out).")
@click.option("--steps", type=click.IntRange(1), help="Stop after this many (train.steps).")
@click.option("--minutes", type=float, help="Stop after this much time (train.minutes).")
def train(
    config: str, resume: bool, path: str | None, init: str | None, out: str | None,
    steps: int | None, minutes: float | None,
) -> None:  # fmt: skip
    """Train a model as CONFIG (TOML) says."""
    from licodec.training import config as configs
    from licodec.training.loop import train as run

    settings = configs.load(config)
    for section, key, value in (
        (settings.data, "path", path),
        (settings.train, "init", init),
        (settings.train, "out", out),
        (settings.train, "steps", steps),
        (settings.train, "minutes", minutes),
    ):
        if value is not None:
            setattr(section, key, value)
    with _reporter() as report:
        click.echo(run(settings, resume, report))


@contextlib.contextmanager
def _reporter() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar with the latest figures on a terminal, plain lines elsewhere."""

    def text(row: dict[str, Any]) -> str:
        return " ".join(
            f"{k}={v:.5g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()
        )

    if not sys.stderr.isatty():
        yield lambda row: click.echo(text(row), err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>5.1f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("starting", total=1.0)

        def show(row: dict[str, Any]) -> None:
            if "progress" in row:
                loss = f"step {row['step']}  loss {row['loss']:.4f}  lr {row['lr']:.2g}"
                progress.update(bar, completed=row["progress"], description=loss)
            else:
                progress.console.print(text(row))

        yield show


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output-dir", default="weights", show_default=True)
@click.option(
    "--name", default="natural-mse", show_default=True, help="First part of the file's name."
)
def export(checkpoint: str, output_dir: str, name: str) -> None:
    """Turn a training checkpoint into a hashed weights file."""
    from licodec.training.export import export as run

    click.echo(run(checkpoint, output_dir, name))


@main.command("import")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--arch", required=True, type=click.Choice(list(ARCHITECTURES)), help="Its CompressAI class."
)
@click.option("--calibrate", metavar="DIR", help="Images to measure activations on.")
@click.option("-o", "--output-dir", default="weights", show_default=True)
@click.option("--name", help="First part of the file's name.  [default: the architecture]")
def import_(
    checkpoint: str, arch: str, calibrate: str | None, output_dir: str, name: str | None
) -> None:
    """Turn a CompressAI checkpoint into a hashed weights file, its entropy path in integers."""
    from licodec.training.import_checkpoint import import_checkpoint as run

    if calibrate is None:
        complain("note: calibrating on noise; --calibrate DIR with photographs costs less rate")
    click.echo(run(checkpoint, arch, calibrate, output_dir, name or arch))
