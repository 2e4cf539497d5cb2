"""`make demo`: what a newcomer sees first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import features

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_the_demo_compares_with_jpeg_and_avif_at_the_same_size(tmp_path):
    out = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "demo.py"], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    lines = re.findall(r"^(licodec|AVIF|JPEG) +([\d,]+) bytes, .* PSNR ([\d.]+) dB$", out, re.M)
    assert [name for name, *_ in lines] == ["licodec", "AVIF", "JPEG"]
    sizes = [int(size.replace(",", "")) for _, size, _ in lines]
    assert all(abs(size - sizes[0]) < 0.1 * sizes[0] for size in sizes)
    for name, size in zip(("lic", "avif", "jpg"), sizes, strict=True):
        assert (tmp_path / "demo" / f"astronaut.{name}").stat().st_size == size
