"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from licodec.bench.bdrate import CurveError, bd_rate
from licodec.bench.results import AXES, Curve

NO_OVERLAP = "no overlap"

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


def summary(curves: Sequence[Curve], anchor: Curve) -> tuple[list[str], list[list[str]]]:
    """Column titles and one line a codec; columns that no codec fills are left out."""
    titles = [
        "codec", *(f"BD-rate {label.split(' [')[0]} vs {anchor.name}" for label in AXES.values()),
        "encode ms", "decode ms", "fresh process s", "peak MiB",
        "header / side / latents %", "decoder kMAC/pixel", "parameters",
    ]  # fmt: skip
    lines = [
        [
            curve.name,
            *(percent(compare(curve, anchor, axis)) for axis in AXES),
            _milliseconds(curve, "encoding_time"),
            _milliseconds(curve, "decoding_time"),
            _pair(curve.meta, "process.encoding_time", "process.decoding_time", 1, "{:.2f}"),
            _pair(
                curve.meta, "process.encoding_peak_bytes", "process.decoding_peak_bytes",
                2**-20, "{:.0f}",
            ),
            _shares(curve),
            number(curve.meta.get("decoder.kmac_per_pixel"), "{:.1f}"),
            number(curve.meta.get("decoder.parameters"), "{:,}"),
        ]
        for curve in curves
    ]  # fmt: skip
    return _filled(titles, lines)


def points(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Column titles and one line a codec and quality."""
    titles = ["codec", "quality", "bpp", "PSNR-RGB dB", "MS-SSIM", "MS-SSIM dB", "SSIMULACRA 2",
              "encode ms", "decode ms"]  # fmt: skip
    formats = {
        "quality": "{:g}", "bpp": "{:.4f}", "psnr-rgb": "{:.2f}", "ms-ssim-rgb": "{:.4f}",
        "ms-ssim-db": "{:.2f}", "ssimulacra2": "{:.1f}", "encoding_time": "{:.1f}",
        "decoding_time": "{:.1f}",
    }  # fmt: skip
    lines = []
    for curve in curves:
        for i in range(len(curve.results.get("bpp", []))):
            values = {k: v[i] for k, v in curve.results.items() if k in formats}
            lines.append([curve.name, *_formatted(values, formats)])
    return _filled(titles, lines)


def per_image(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Column titles and one line a codec, image and quality."""
    titles = ["codec", "image", "quality", "bytes", "bpp", "PSNR-RGB dB", "MS-SSIM",
              "SSIMULACRA 2"]  # fmt: skip
    formats = {"quality": "{:g}", "bytes": "{}", "bpp": "{:.4f}", "psnr-rgb": "{:.2f}",
               "ms-ssim-rgb": "{:.4f}", "ssimulacra2": "{:.1f}"}  # fmt: skip
    rows = [
        (curve.name, row)
        for curve in curves
        for row in sorted(curve.rows, key=lambda row: (row["image"], row["quality"]))
    ]
    lines = [[name, row["image"], *_formatted(row, formats)] for name, row in rows]
    return _filled(titles, lines)


def table(title: str, content: tuple[list[str], list[list[str]]], rules: bool = False) -> Table:
    """As rich prints it, with a rule between codecs if asked."""
    titles, lines = content
    out = Table(title=title, title_justify="left")
    for i, name in enumerate(titles):
        out.add_column(name, justify="right" if i else "left", overflow="fold")
    for i, line in enumerate(lines):
        last = i + 1 == len(lines) or lines[i + 1][0] != line[0]
        out.add_row(*line, end_section=rules and last)
    return out


def percent(value: float | str | None) -> str:
    return f"{value:+.1f} %" if isinstance(value, float) else value or ""


def number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _filled(titles: list[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns that stand empty, the first two excepted."""
    used = [i for i in range(len(titles)) if i < 2 or any(line[i] for line in lines)]
    return [titles[i] for i in used], [[line[i] for i in used] for line in lines]


def _formatted(values: dict[str, Any], formats: dict[str, str]) -> list[str]:
    return [
        number(None if values.get(k) is None else _in_ms(k, values[k]), form)
        for k, form in formats.items()
    ]


def _in_ms(key: str, value: Any) -> Any:
    return 1000 * value if key.endswith("_time") else value


def _milliseconds(curve: Curve, key: str) -> str:
    times = [t for t in curve.results.get(key, []) if t is not None]
    return f"{1000 * sorted(times)[len(times) // 2]:.1f}" if times and curve.rows else ""


def _pair(meta: dict[str, Any], first: str, second: str, scale: float, form: str) -> str:
    if meta.get(first) is None or meta.get(second) is None:
        return ""
    return " / ".join(form.format(scale * meta[key]) for key in (first, second))


def _shares(curve: Curve) -> str:
    """Of all bytes of all files of a curve."""
    parts = [sum(curve.results.get(f"{p}_bytes", [])) for p in ("header", "side", "latents")]
    return " / ".join(f"{100 * part / sum(parts):.1f}" for part in parts) if sum(parts) else ""
