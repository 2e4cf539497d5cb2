"""Write README's tables from benchmarks/kodak.json: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from licodec.bench.bdrate import bd_rate

ROOT = Path(__file__).resolve().parent.parent


def points(curve: dict) -> tuple[list[float], list[float]]:
    return curve["results"]["bpp"], curve["results"]["psnr-rgb"]


def qualities(curves: dict[str, dict]) -> list[str]:
    """What a quality gives with each model."""
    models = ("everyday", "hyperprior")
    rows = []
    for model in models:
        found = curves[f"licodec-{model}"]["results"]
        rates = zip(found["bpp"], found["psnr-rgb"], strict=True)
        rows.append(dict(zip(found["quality"], rates, strict=True)))
    lines = [
        f"| `-q` | {' | '.join(f'`{m}`: bpp | PSNR [dB]' for m in models)} |",
        "|---" * 5 + "|",
    ]
    for quality in sorted(set(rows[0]).intersection(*rows[1:])):
        cells = ["{:.2f} | {:.1f}".format(*row[quality]) for row in rows]
        lines.append(f"| {quality:g} | {' | '.join(cells)} |")
    return lines


def results(curves: dict[str, dict]) -> list[str]:
    """BD-rates of every codec against the usual ones."""
    lines = [
        "Kodak, 24 images; BD-rate in PSNR, negative means fewer bits than that codec:",
        "",
        "| codec | vs JPEG | vs WebP | vs AVIF 4:4:4, speed 6 | … speed 4 |",
        "|---|---|---|---|---|",
    ]
    for name, curve in curves.items():
        cells = []
        for anchor in ("jpeg", "webp", "avif-speed6", "avif"):
            value = bd_rate(points(curves[anchor]), points(curve)) if anchor in curves else None
            cells.append("–" if value is None else f"{value:+.1f} %")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "![Rate and distortion on Kodak](benchmarks/kodak.svg)"]


def main() -> None:
    document = json.loads((ROOT / "benchmarks" / "kodak.json").read_text("utf-8"))
    curves = {curve["name"]: curve for curve in (document, *document.get("others", []))}
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for table in (qualities, results):
        marked = f"(<!-- {table.__name__}: .*? -->\n).*?(<!-- end of {table.__name__} -->)"
        lines = "\n".join(table(curves))
        text = re.sub(marked, lambda m, new=lines: f"{m[1]}{new}\n{m[2]}", text, flags=re.S)
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
