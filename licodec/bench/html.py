"""The report as one page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from licodec.bench import plots, report
from licodec.bench.results import AXES, Curve

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
.crops { display: flex; flex-wrap: wrap; gap: .8rem }
figure { margin: 0 } figcaption { font-size: .85rem }
.crops img { image-rendering: pixelated }
footer { color: #666; font-size: .85rem }
"""


@dataclass(frozen=True)
class Crop:
    """A cut-out of one decoded image."""

    caption: str
    image: Image.Image


def page(
    title: str,
    curves: Sequence[Curve],
    anchor: Curve,
    crops: dict[str, list[Crop]],
) -> str:
    """The page's text. `crops` maps an image's name to its crops, the original first."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(report.LEGEND)}</p>"]
    for axis in AXES:
        if any(curve.points(axis)[0] for curve in curves):
            parts.append(plots.svg(curves, axis))
    for heading, content in report.summaries(curves, anchor).items():
        parts += [f"<h2>{html.escape(heading)}</h2>", _table(content)]
    for name, cuts in crops.items():
        parts.append(f"<h2>{html.escape(name)}</h2><div class=crops>")
        parts += [_figure(crop) for crop in cuts]
        parts.append("</div>")
    parts += ["<h2>Every point</h2>", _table(report.points(curves)), _footer(curves)]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>\n" + "\n".join(parts) + "\n"
    )


def save_page(
    path: Path, title: str, curves: Sequence[Curve], anchor: Curve, crops: dict[str, list[Crop]]
) -> None:
    path.write_text(page(title, curves, anchor, crops), encoding="utf-8")


def _table(content: tuple[list[str], list[list[str]]]) -> str:
    titles, lines = content
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>\n"
        for line in lines
    )
    return f"<div class=wide><table><tr>{head}</tr>\n{body}</table></div>"


def _figure(crop: Crop) -> str:
    file = io.BytesIO()
    crop.image.save(file, "WEBP", lossless=True)
    data = base64.b64encode(file.getvalue()).decode()
    caption = html.escape(crop.caption)
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _footer(curves: Sequence[Curve]) -> str:
    """Provenance of each curve that was measured here."""
    keys = ("codec.version", "licodec.version", "licodec.commit", "date", "machine", "command")
    lines = [
        [curve.name, *(str(curve.meta.get(key) or "") for key in keys)]
        for curve in curves
        if curve.rows
    ]
    if not lines:
        return ""
    return f"<footer>{_table((['codec', *keys], lines))}</footer>"
