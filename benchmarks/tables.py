"""Write README's results from benchmarks/kodak.json: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from licodec.bench.bdrate import bd_rate

ROOT = Path(__file__).resolve().parent.parent
START = "<!-- results: written by benchmarks/tables.py from benchmarks/kodak.json -->"
END = "<!-- end of results -->"


def points(curve: dict, axis: str = "psnr-rgb") -> tuple[list[float], list[float]]:
    return curve["results"]["bpp"], curve["results"][axis]


def results() -> str:
    document = json.loads((ROOT / "benchmarks" / "kodak.json").read_text("utf-8"))
    curves = {curve["name"]: curve for curve in (document, *document.get("others", []))}
    lines = [
        "Kodak, 24 images; BD-rate in PSNR, negative means fewer bits than that codec:",
        "",
        "| codec | vs JPEG | vs WebP | vs AVIF 4:4:4 |",
        "|---|---|---|---|",
    ]
    for name, curve in curves.items():
        cells = []
        for anchor in ("jpeg", "webp", "avif"):
            value = bd_rate(points(curves[anchor]), points(curve)) if anchor in curves else None
            cells.append("–" if value is None else f"{value:+.1f} %")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    adaptive = curves["licodec-adaptive"]["results"]
    lines += [
        "",
        "`adaptive`, the default model:",
        "",
        "| -q | bpp | PSNR [dB] | MS-SSIM | side stream [bytes] |",
    ]
    lines += ["|---|---|---|---|---|"]
    for i, quality in enumerate(adaptive["quality"]):
        ms_ssim = adaptive["ms-ssim-rgb"][i]
        lines.append(
            f"| {quality:g} | {adaptive['bpp'][i]:.3f} | {adaptive['psnr-rgb'][i]:.2f} | "
            f"{ms_ssim:.4f} | {adaptive['side_bytes'][i]:.0f} |"
        )
    return "\n".join([*lines, "", "![Rate and distortion on Kodak](benchmarks/kodak.svg)", ""])


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    pattern = re.escape(START) + ".*?" + re.escape(END)
    new = re.sub(pattern, lambda _: f"{START}\n{results()}{END}", text, flags=re.S)
    readme.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
