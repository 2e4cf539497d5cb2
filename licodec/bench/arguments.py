"""What the arguments of `licodec bench` mean."""

from __future__ import annotations

from pathlib import Path

import click

from licodec.bench import datasets, peers
from licodec.bench.datasets import SourceImage
from licodec.bench.interface import MOST_QUALITY, Settings
from licodec.bench.results import Curve, load_curves
from licodec.progress import say


def is_curve(path: Path) -> bool:
    """FILE.json, or FILE.json#NAME for one of several curves."""
    return path.name.partition("#")[0].lower().endswith(".json")


def checkpoints(values: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    out = []
    for value in values:
        architecture, separator, file = value.partition("=")
        if not separator or not Path(file).is_file():
            raise click.BadParameter(f"{value!r} is not ARCH=FILE", param_hint="--checkpoint")
        out.append((architecture, Path(file)))
    return tuple(out)


def plan_qualities(
    codecs: list[str], values: tuple[str, ...], settings: Settings
) -> dict[str, tuple[float, ...]]:
    """Each codec of the run with its qualities."""
    names = [*(codecs or peers.default()), *dict(settings.checkpoints)]
    out = {name: peers.make(name, settings).qualities for name in names}
    for value in sorted(values, key=lambda value: "=" in value):  # one codec's word comes last
        name, separator, numbers = value.rpartition("=")
        name = peers.canonical(name)
        try:
            chosen = tuple(float(number) for number in numbers.split(","))
        except ValueError as error:
            raise click.BadParameter(
                f"{numbers!r} is no list of numbers", param_hint="--qualities"
            ) from error
        if not all(0 <= number <= MOST_QUALITY for number in chosen):
            raise click.BadParameter(
                f"{numbers!r}: not all within 0 … {MOST_QUALITY}", param_hint="--qualities"
            )
        if separator and name not in out:
            raise click.BadParameter(f"{name!r} is not in this run", param_hint="--qualities")
        for codec in [name] if separator else out:
            out[codec] = chosen
    return out


def anchor_file(anchor: str | None, names: list[str]) -> Curve | None:
    """The anchor where it is a file; checked before hours are spent."""
    if anchor is None or anchor in names:
        return None
    if not is_curve(Path(anchor)):
        raise click.BadParameter(
            f"{anchor!r} is neither a JSON curve nor one of {', '.join(names)}",
            param_hint="--anchor",
        )
    return load_curves(Path(anchor))[0]


def choose_anchor(name: str | None, file: Curve | None, curves: list[Curve]) -> Curve:
    if file is not None:
        return file
    wanted = name or "avif"
    usable = [curve for curve in curves if curve.results.get("bpp")]
    for curve in usable:
        if curve.name == wanted:
            return curve
    if name:
        note(f"{name} has no points; BD-rates are against {usable[0].name}")
    return usable[0]


def examine(sources: list[Path]) -> tuple[list[SourceImage], list[str]]:
    """Readable images, each once, and what was wrong with the rest."""
    images: dict[tuple[str, str], SourceImage] = {}
    unreadable = []
    for path in datasets.collect(sources):
        try:
            picture = datasets.examine(path)
            images[picture.name, picture.sha256] = picture
        except datasets.UnreadableImageError as error:
            unreadable.append(str(error))
            note(f"left out: {error}")
    return list(images.values()), unreadable


def refuse_overwriting(targets: list[Path | None], images: list[SourceImage]) -> None:
    """Refuse to write two results to one file, or one over a picture that is measured."""
    taken = {Path(image.path).resolve() for image in images}
    for target in filter(None, targets):
        place = target.resolve()
        if place in taken:
            raise click.UsageError(f"{target}: it is one of the images, or named twice")
        taken.add(place)


def note(text: str) -> None:
    say(f"licodec: {text}")
