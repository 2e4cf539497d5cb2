"""Tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from licodec.bench.bdrate import CurveError, bd_rate
from licodec.bench.results import AXES, Curve
from licodec.progress import plain

NO_OVERLAP = "no overlap"

Content = tuple[list[str], list[list[str]]]
"""Titles of columns, and lines."""

_DIRECTIONS = ("encoding", "decoding")

LEGEND = (
    "Rates count whole files; qualities compare 8-bit RGB and are means of the images' values; "
    "times are medians. Negative BD-rates need fewer bits. PSNR is not what AVIF, WebP and JPEG XL "
    "are tuned for: they aim at how an image looks."
)


def compare(curve: Curve, anchor: Curve, axis: str) -> float | str | None:
    """BD-rate in percent, why there is none, or None where a curve lacks the axis."""
    points, anchor_points = curve.points(axis), anchor.points(axis)
    if not points[0] or not anchor_points[0]:
        return None
    try:
        rate = bd_rate(anchor_points, points)
    except CurveError as error:
        return str(error)
    return NO_OVERLAP if rate is None else rate


def summaries(curves: Sequence[Curve], anchor: Curve) -> dict[str, Content]:
    """Tables by title: how the codecs compare, what they take, and what their files and networks hold.

    A table has one line a codec. Columns and lines that stand empty are left out, and so are tables without
    any.
    """
    rates = [
        [curve.name, *(percent(compare(curve, anchor, axis)) for axis in AXES)] for curve in curves
    ]
    costs = [
        [
            curve.name,
            _milliseconds(curve, "encoding_time"),
            _milliseconds(curve, "decoding_time"),
            *(number(curve.meta.get(f"process.{key}_time"), "{:.2f}") for key in _DIRECTIONS),
            *(_mebibytes(curve.meta.get(f"process.{key}_peak_bytes")) for key in _DIRECTIONS),
        ]
        for curve in curves
    ]
    parts = [
        [
            curve.name,
            *_shares(curve),
            number(curve.meta.get("decoder.kmac_per_pixel"), "{:.1f}"),
            number(curve.meta.get("decoder.parameters"), "{:,}"),
        ]
        for curve in curves
    ]
    tables = {
        f"BD-rate against {anchor.name}": (
            ["codec", *(label.split(" [")[0] for label in AXES.values())], rates,
        ),
        "Time and memory": (
            ["codec", "encode ms", "decode ms", "encode, fresh process s",
             "decode, fresh process s", "encode peak MiB", "decode peak MiB"], costs,
        ),
        "Parts of the files, and the decoder's networks": (
            ["codec", "header %", "side %", "latents %", "kMAC/pixel", "parameters"], parts,
        ),
    }  # fmt: skip
    filled = {title: _filled(*table, least=1) for title, table in tables.items()}
    return {title: content for title, content in filled.items() if content[1]}


_POINTS = {
    "quality": ("quality", "{:g}"),
    "bpp": ("bpp", "{:.4f}"),
    "PSNR dB": ("psnr-rgb", "{:.2f}"),
    "MS-SSIM dB": ("ms-ssim-db", "{:.2f}"),
    "SSIMULACRA 2": ("ssimulacra2", "{:.1f}"),
    "encode ms": ("encoding_time", "{:.0f}"),
    "decode ms": ("decoding_time", "{:.0f}"),
}
_PER_IMAGE = {
    "q": ("quality", "{:g}"),
    "bytes": ("bytes", "{}"),
    "bpp": ("bpp", "{:.4f}"),
    "PSNR dB": ("psnr-rgb", "{:.2f}"),
    "MS-SSIM": ("ms-ssim-rgb", "{:.4f}"),
    "SSIMULACRA 2": ("ssimulacra2", "{:.1f}"),
}
"""Title of a column: the key of its values, and their form."""


def points(curves: Sequence[Curve]) -> Content:
    """Column titles and one line a codec and quality."""
    lines = []
    for curve in curves:
        for i in range(len(curve.results.get("bpp", []))):
            values = {k: v[i] for k, v in curve.results.items() if i < len(v)}
            lines.append([curve.name, *_formatted(values, _POINTS)])
    return _filled(["codec", *_POINTS], lines, least=2)


def per_image(curves: Sequence[Curve]) -> Content:
    """Column titles and one line a codec, image and quality."""
    lines = [
        [curve.name, row["image"], *_formatted(row, _PER_IMAGE)]
        for curve in curves
        for row in sorted(curve.rows, key=lambda row: (row["image"], row["quality"]))
    ]
    return _filled(["codec", "image", *_PER_IMAGE], lines, least=2)


def table(title: str, content: Content, rules: bool = False) -> Table:
    """As rich prints it, with a rule between codecs if asked.

    Readable at 80 characters: a column is as wide as its longest word, and titles wrap between words.
    """
    titles, lines = content[0], [[plain(cell) for cell in line] for line in content[1]]
    widths = [
        max(*map(len, name.split()), *(len(line[i]) for line in lines))
        for i, name in enumerate(titles)
    ]
    roomy = sum(widths) + 2 * (len(widths) - 1) <= 80
    out = Table(
        title=Text(plain(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, int(roomy)),
        pad_edge=False,
    )
    for i, (name, width) in enumerate(zip(titles, widths, strict=True)):
        out.add_column(
            textwrap.fill(name, width),
            justify="right" if i else "left",
            no_wrap=True,
            overflow="fold",
        )
    for i, line in enumerate(lines):
        last = i + 1 == len(lines) or lines[i + 1][0] != line[0]
        out.add_row(*map(Text, line), end_section=rules and last)
    return out


def percent(value: float | str | None) -> str:
    return f"{value:+.1f} %" if isinstance(value, float) else value or ""


def number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _filled(titles: list[str], lines: list[list[str]], least: int) -> Content:
    """Without the columns that stand empty, the first `least` excepted, and lines that hold only these."""
    used = [i for i in range(len(titles)) if i < least or any(line[i] for line in lines)]
    full = [line for line in lines if any(line[least:])]
    return [titles[i] for i in used], [[line[i] for i in used] for line in full]


def _formatted(values: dict[str, Any], columns: dict[str, tuple[str, str]]) -> list[str]:
    """A cell for each column; times in milliseconds."""
    found = {key: values.get(key) for key, _ in columns.values()}
    told = {k: 1000 * v if v is not None and k.endswith("_time") else v for k, v in found.items()}
    return [number(told[key], form) for key, form in columns.values()]


def _milliseconds(curve: Curve, key: str) -> str:
    times = [t for t in curve.results.get(key, []) if t is not None]
    return f"{1000 * sorted(times)[len(times) // 2]:.0f}" if times and curve.rows else ""


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:.0f}"


def _shares(curve: Curve) -> list[str]:
    """Percent of all bytes of all files of a curve: header, side stream, latents."""
    columns = [curve.results.get(f"{p}_bytes", []) for p in ("header", "side", "latents")]
    parts = [sum(value for value in column if value is not None) for column in columns]
    return [f"{100 * part / sum(parts):.1f}" if sum(parts) else "" for part in parts]
