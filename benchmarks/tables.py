"""Write the tables of README and docs/models.md from benchmarks/kodak.json and benchmarks/times.json.

    python benchmarks/tables.py [--vtm CURVE]

times.json comes of `licodec bench` on a machine that does nothing else, with `--qualities 25,75 -j 1`.
CURVE is VTM's in CompressAI's JSON schema; without it the column is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from licodec.architectures import TABLE
from licodec.bench.bdrate import bd_rate
from licodec.options import EncodeOptions
from licodec.weights import catalogue

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


def models(curves: dict[str, dict], vtm: dict | None, times: dict) -> list[str]:
    """What each model gives and takes: BD-rates, times, bytes."""
    anchors: dict[str, Any] = {
        "JPEG": curves["jpeg"],
        "WebP": curves["webp"],
        "AVIF 4:4:4, speed 6": curves["avif-speed6"],
        "VTM": vtm,
    }
    anchors = {name: curve for name, curve in anchors.items() if curve}
    timed = {curve["name"]: curve["rows"] for curve in (times, *times.get("others", []))}
    lines = [
        f"| model | bpp | PSNR [dB] | against {' | '.join(anchors)} | encode | decode | weights |",
        "|---" * (len(anchors) + 6) + "|",
    ]
    for architecture in TABLE:
        name = f"licodec-{architecture.name}"
        rates, psnr = points(curves[name])
        cells = [f"`{architecture.name}`", f"{min(rates):.2f} to {max(rates):.2f}"]
        cells.append(f"{min(psnr):.1f} to {max(psnr):.1f}")
        for curve in anchors.values():
            value = bd_rate(points(curve), points(curves[name]))
            cells.append("–" if value is None else f"{value:+.1f} %")
        cells += [_seconds(timed[name], key) for key in ("encoding_time", "decoding_time")]
        lines.append(f"| {' | '.join([*cells, _megabytes(name)])} |")
    return lines


def _seconds(rows: list[dict], key: str) -> str:
    """The median over images at each quality."""
    found = []
    for quality in sorted({row["quality"] for row in rows}):
        of_quality = [row[key] for row in rows if row["quality"] == quality]
        found.append(f"{statistics.median(of_quality):.1f}")
    return f"{', '.join(dict.fromkeys(found))} s"


def _megabytes(name: str) -> str:
    """Of a model's weights file, without one that it shares."""
    model = name.removeprefix("licodec-")
    path = catalogue.choose(EncodeOptions(model=model)).path
    return f"{path.stat().st_size / 1e6:.1f} MB"


def write(path: Path, name: str, lines: list[str]) -> None:
    """Put a table between its marks."""
    marked = f"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
    text = path.read_text("utf-8")
    new = "\n".join(lines)
    path.write_text(re.sub(marked, lambda m: f"{m[1]}{new}\n{m[2]}", text, flags=re.S), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vtm", type=Path)
    arguments = parser.parse_args()
    document = json.loads((ROOT / "benchmarks" / "kodak.json").read_text("utf-8"))
    curves = {curve["name"]: curve for curve in (document, *document.get("others", []))}
    times = json.loads((ROOT / "benchmarks" / "times.json").read_text("utf-8"))
    vtm = json.loads(arguments.vtm.read_text("utf-8")) if arguments.vtm else None
    write(ROOT / "README.md", "qualities", qualities(curves))
    write(ROOT / "README.md", "results", results(curves))
    write(ROOT / "docs" / "models.md", "models", models(curves, vtm, times))


if __name__ == "__main__":
    main()
