"""The report as one page that needs no other file: the data as JSON, and `page/` to show them."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from licodec.bench import report
from licodec.bench.comparison import Comparison, Shown
from licodec.bench.results import AXES, Curve, aggregate
from licodec.io import files

_PARTS = Path(__file__).with_name("page")
_ROW = (
    "image quality bytes bpp psnr-rgb ms-ssim-rgb ssimulacra2 encoding_time decoding_time"
).split()
_PROVENANCE = ("codec.version", "licodec.version", "licodec.commit", "date", "machine", "command")


def page(
    title: str, curves: Sequence[Curve], anchor: Curve, comparisons: Sequence[Comparison]
) -> str:
    """The page's text."""
    data = json.dumps(_document(title, curves, anchor, comparisons), separators=(",", ":"))
    style, script = ((_PARTS / name).read_text("utf-8") for name in ("page.css", "page.js"))
    shell = (_PARTS / "page.html").read_text("utf-8")
    filled = {
        "TITLE": html.escape(title),
        "STYLE": style,
        "DATA": data.replace("<", "\\u003c"),  # no name may end the element
        "SCRIPT": script,
    }
    for name, text in filled.items():
        before, _, after = shell.partition(f"@{name}@")
        shell = before + text + after
    return shell


def save_page(
    path: Path,
    title: str,
    curves: Sequence[Curve],
    anchor: Curve,
    comparisons: Sequence[Comparison],
) -> None:
    files.write(str(path), page(title, curves, anchor, comparisons).encode(), force=True)


def headline(curves: Sequence[Curve], anchor: Curve, axis: str) -> str:
    """Who wins by how much, in one sentence."""
    rates = [report.compare(curve, anchor, axis) for curve in curves]
    ranked = [(rate, i) for i, rate in enumerate(rates) if isinstance(rate, float)]
    metric = AXES[axis].split(" [")[0]
    if len(ranked) < 2:
        return f"No two codecs can be compared in {metric}."
    winner, second, last = (curves[sorted(ranked)[place][1]] for place in (0, 1, -1))
    told = []
    for other in (second, last)[: len(ranked) - 1]:
        rate = report.compare(winner, other, axis)
        if isinstance(rate, float) and rate < 0:
            told.append(f"{-rate:.1f} % fewer than {other.name}")
    lead = f"{winner.name} needs the fewest bits for the same {metric}"
    return f"{lead}: {' and '.join(told)}." if told else f"{lead}, closely before {second.name}."


def _document(
    title: str, curves: Sequence[Curve], anchor: Curve, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """All that the page shows."""
    axes = [axis for axis in AXES if any(curve.points(axis)[0] for curve in curves)]
    summaries = report.summaries(curves, anchor)
    return {
        "title": title,
        "legend": report.LEGEND,
        "anchor": anchor.name,
        "axes": [{"key": axis, "label": AXES[axis]} for axis in axes],
        "headlines": {axis: headline(curves, anchor, axis) for axis in axes},
        "curves": [
            {
                "name": curve.name,
                "description": curve.description,
                "measured": bool(curve.rows),
                "points": {axis: _points(curve, axis) for axis in axes},
                "rates": {
                    axis: {other.name: report.compare(curve, other, axis) for other in curves}
                    for axis in axes
                },
            }
            for curve in curves
        ],
        "images": _by_image(curves, anchor, axes),
        "rows": {
            curve.name: [[row.get(k) for k in _ROW] for row in curve.rows] for curve in curves
        },
        "columns": _ROW,
        "tables": [[name, *table] for name, table in summaries.items() if "BD-rate" not in name],
        "provenance": [
            [curve.name, *(str(curve.meta.get(key) or "") for key in _PROVENANCE)]
            for curve in curves
            if curve.rows
        ],
        "provenanceColumns": ["codec", *_PROVENANCE],
        "comparisons": [
            {"image": comparison.image, "shown": [_shown(shown) for shown in comparison.shown]}
            for comparison in comparisons
        ],
    }


def _points(curve: Curve, axis: str) -> list[list[float | None]]:
    """[bpp, value, quality setting or None] of each point, by rate."""
    bpp, values = curve.results.get("bpp", []), curve.values(axis)
    settings = curve.results.get("quality", [None] * len(bpp))
    points = zip(bpp, values, settings, strict=False)
    full = [[b, v, q] for b, v, q in points if b is not None and v is not None]
    return sorted(full, key=lambda point: point[:2])


def _by_image(curves: Sequence[Curve], anchor: Curve, axes: Sequence[str]) -> list[dict[str, Any]]:
    """BD-rates of each image: {"name", "rates": {axis: {codec: rate}}}."""

    def split(curve: Curve) -> dict[str, Curve]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in curve.rows:
            rows.setdefault(row["image"], []).append(row)
        return {name: Curve(curve.name, results=aggregate(r, 1)) for name, r in rows.items()}

    parts = {curve.name: split(curve) for curve in curves}
    return [
        {
            "name": name,
            "rates": {
                axis: {
                    codec: report.compare(images[name], against, axis)
                    for codec, images in parts.items()
                    if name in images
                }
                for axis in axes
            },
        }
        for name, against in split(anchor).items()
    ]


def _shown(shown: Shown) -> dict[str, Any]:
    data = base64.b64encode(shown.data).decode()
    return {**asdict(shown.facts), "src": f"data:{shown.facts.media_type};base64,{data}"}
