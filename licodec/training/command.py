"""The commands `train`, `export`, `import` and `qualities`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from licodec.architectures import BY_COMPRESSAI
from licodec.progress import Bar, watching


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False))
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in train.out.")
@click.option("--data", "path", metavar="DIR", help="Images or tar shards (data.path).")
@click.option("--init", metavar="FILE", help="Weights or checkpoint to start from (train.init).")
@click.option("--out", metavar="DIR", help="Where checkpoints and logs go (train.out).")
@click.option("--steps", type=click.IntRange(1), help="Stop after this many (train.steps).")
@click.option("--minutes", type=float, help="Stop after this much time (train.minutes).")
def train(
    config: str,
    resume: bool,
    path: str | None,
    init: str | None,
    out: str | None,
    steps: int | None,
    minutes: float | None,
) -> None:
    """Train a model as CONFIG (TOML) says."""
    from licodec.training import config as configs

    data = {"path": path}
    run_of = {"init": init, "out": out, "steps": steps, "minutes": minutes}
    # What is wrong with it is told before PyTorch takes its time.
    settings = configs.load(config, data=data, train=run_of)
    from licodec.training import distributed
    from licodec.training.loop import train as run

    with _reporter() as report:
        checkpoint = run(settings, resume, report)
    click.echo(os.fsencode(checkpoint))
    distributed.leave()


@contextlib.contextmanager
def _reporter() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with the phase and the latest figures on a terminal, and a line for each row that is no step of
    the way."""

    def text(row: dict[str, Any]) -> str:
        return " ".join(
            f"{k}={v:.5g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()
        )

    with Bar("starting") as bar, watching(bar.update):

        def show(row: dict[str, Any]) -> None:
            if "progress" in row and sys.stderr.isatty():
                figures = f"step {row['step']}, loss {row['loss']:.4f}, lr {row['lr']:.2g}"
                bar.update(figures, row["progress"])
            else:
                bar.print(text(row))

        yield show


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o",
    "--output-dir",
    help="By default weights, or the checkpoint's own folder for a codec with a hyperprior.",
)
@click.option("--name", default="own", show_default=True, help="First part of the file's name.")
@click.option(
    "--calibrate",
    metavar="DIR",
    help="Photographs for everyday's integers.  [default: its training data]",
)
def export(checkpoint: str, output_dir: str | None, name: str, calibrate: str | None) -> None:
    """Turn a training checkpoint into a hashed weights file.

    Of a codec with a hyperprior it is a state dict of CompressAI's, for `licodec import`.
    """
    from licodec.training.convert.export import export as run

    click.echo(run(checkpoint, output_dir, name, calibrate))


@click.command("import")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--arch", required=True, type=click.Choice(list(BY_COMPRESSAI)), help="Its CompressAI class."
)
@click.option("--calibrate", metavar="DIR", help="Images to measure activations on.")
@click.option("--share", metavar="FILE", help="Weights to share equal tensors with, stored once.")
@click.option("-o", "--output-dir", default="weights", show_default=True)
@click.option("--name", help="First part of the file's name.  [default: the architecture]")
def import_(
    checkpoint: str,
    arch: str,
    calibrate: str | None,
    share: str | None,
    output_dir: str,
    name: str | None,
) -> None:
    """Turn a CompressAI checkpoint into a hashed weights file, its entropy path in integers."""
    from licodec.training.convert.import_checkpoint import import_checkpoint as run

    click.echo(run(checkpoint, arch, calibrate, output_dir, name or arch, share))
    if calibrate is None:
        click.echo(
            "licodec: note: calibrated on noise; --calibrate DIR with photographs costs less rate",
            err=True,
        )


@click.command()
@click.argument("weights", type=click.Path(exists=True, dir_okay=False))
@click.argument("photographs", type=click.Path(exists=True, file_okay=False))
@click.option("-o", "--output-dir", default="weights", show_default=True)
@click.option("--share", metavar="FILE", help="Weights to share equal tensors with, stored once.")
def qualities(weights: str, photographs: str, output_dir: str, share: str | None) -> None:
    """Write WEIGHTS anew, such that -q means what it means with all others.

    Each quality then has a PSNR of its own on the last images of the folder PHOTOGRAPHS. For everyday they
    also tell how much of its back-projection the encoder adds.
    """
    from licodec.training.convert.quality_axis import with_qualities as run

    click.echo(run(weights, photographs, output_dir, share))
