"""The HTML report: what it says, that it needs nothing else, and in a browser that it works."""

from __future__ import annotations

import io
import json
import re

import chromium
import numpy as np
import pytest
from PIL import Image

from licodec.bench.comparison import Comparison, Facts, Shown
from licodec.bench.html import headline, page
from licodec.bench.results import Curve, aggregate

SCORES = {"psnr-rgb": 30.0, "ms-ssim-rgb": 0.9, "ssimulacra2": None}


def curve(name: str, rate: float = 1.0) -> Curve:
    rows = [
        {"image": image, "sha256": image, "width": 10, "height": 10, "quality": q, "bytes": int(100 * q),
         "bpp": rate * weight * q, "psnr-rgb": 30.0 + q, "ms-ssim-rgb": 1 - 0.1**q,
         "ssimulacra2": None, "encoding_time": 1.0, "decoding_time": 1.0}
        for image, weight in (("a.png", 1.0), ("b.png", 1.1 if rate > 1 else 1.0)) for q in (1, 2, 3)
    ]  # fmt: skip
    return Curve(name, f"about {name}", aggregate(rows, 2), {"codec.version": "1"}, rows)


def shown(codec: str, colour: tuple[int, int, int]) -> Shown:
    file = io.BytesIO()
    pixels = np.full((60, 90, 3), colour, np.uint8)
    Image.fromarray(pixels).save(file, "WEBP", lossless=True)
    known = (
        {} if codec == "original" else {"quality": 5.0, "bytes": 1234, "bpp": 0.5, "scores": SCORES}
    )
    return Shown(Facts(codec, "image/webp", **known), file.getvalue())


def written(folder, name="<b>licodec</b>"):
    """The page of three codecs and one image."""
    curves = [curve(name), curve("jpeg", 2.0), curve("avif", 0.9)]
    pictures = [
        shown("original", (0, 0, 200)),
        shown(name, (0, 200, 0)),
        shown("jpeg", (200, 0, 0)),
    ]
    text = page("t </script>", curves, curves[1], [Comparison("a&b.png", pictures)])
    (folder / "r.html").write_text(text, "utf-8")
    return folder / "r.html"


def test_the_headline_says_who_wins_by_how_much():
    one, two, three = curve("one"), curve("two", 1.25), curve("three", 2.0)
    told = headline([two, three, one], two, "psnr-rgb")
    assert told.startswith("one needs the fewest bits for the same PSNR-RGB: ")
    assert told.endswith("50.6 % fewer than three.") or told.endswith("52.4 % fewer than three.")
    assert "fewer than two" in told
    assert headline([one], one, "psnr-rgb") == "No two codecs can be compared in PSNR-RGB."
    assert "closely" in headline([one, curve("same")], one, "psnr-rgb")


def test_the_page_needs_no_other_file_and_reads_no_name_as_html(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    head, data, script = re.split(
        r'<script type="application/json" id="data">|</script>\s*<script>', text
    )
    assert "<b>" not in text and "t </script>" not in text
    document = json.loads(data)
    assert [axis["key"] for axis in document["axes"]] == ["psnr-rgb", "ms-ssim-db"]
    assert document["curves"][0]["name"] == "<b>licodec</b>" and document["title"] == "t </script>"
    assert re.findall(r'(?:src|href)="?([^"> ]*)', head) == ["data:,"]
    addresses = set(re.findall(r"\w+://[^\"\'` ]*", head + script))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
    assert all(s["src"].startswith("data:image/") for s in document["comparisons"][0]["shown"])


def test_every_image_has_its_rates_against_the_anchor(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    document = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    rates = {
        image["name"]: image["rates"]["psnr-rgb"]["<b>licodec</b>"] for image in document["images"]
    }
    assert rates == {"a.png": pytest.approx(-50), "b.png": pytest.approx(100 * (1 / 2.2 - 1))}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    if chromium.PROGRAM is None:
        pytest.skip("no Chromium")
    return written(tmp_path_factory.mktemp("page"), "licodec-adaptive")


def colour_at(browser, folder, x: float, y: float) -> str:
    browser.run("Promise.all([...document.images].map(i => i.decode())).then(() => 1)")
    browser.screenshot(folder / "s.png")
    with Image.open(folder / "s.png") as image:
        r, g, b = image.convert("RGB").getpixel((int(x), int(y)))
    return {True: "red"}.get(
        r > 150 > g, "green" if g > 150 > r else "blue" if b > 150 > g else "other"
    )


BOX = "(() => { const b = document.querySelector('.stage').getBoundingClientRect(); \
return [b.x, b.y, b.width, b.height] })()"


@pytest.mark.slow
def test_slider_zoom_and_flicker(report, tmp_path):
    with chromium.Page(report) as browser:
        browser.run("document.querySelector('.stage').scrollIntoView({block: 'center'})")
        x, y, w, h = browser.run(BOX)
        look = [colour_at(browser, tmp_path, x + w * f, y + h * 0.3) for f in (0.1, 0.4, 0.6, 0.9)]
        assert look == ["red", "red", "green", "green"]
        browser.drag((x + w / 2, y + h / 2), (x + w * 0.3, y + h / 2))
        assert colour_at(browser, tmp_path, x + w * 0.4, y + h * 0.3) == "green"
        assert colour_at(browser, tmp_path, x + w * 0.2, y + h * 0.3) == "red"
        browser.press("f")
        assert colour_at(browser, tmp_path, x + w * 0.9, y + h * 0.3) == "red"
        browser.press("f")
        assert colour_at(browser, tmp_path, x + w * 0.1, y + h * 0.3) == "green"
        browser.press("o")
        assert colour_at(browser, tmp_path, x + w * 0.5, y + h * 0.3) == "blue"
        browser.press("s")
        browser.press("+")
        moved = browser.run(
            "[...document.querySelectorAll('.stage img')].map(i => i.style.transform)"
        )
        assert moved[0] == moved[1] and "scale(1.5)" in moved[0]
        browser.press("0")
        assert "scale(1)" in browser.run("document.querySelector('.stage img').style.transform")
        assert browser.problems == []
        assert [r for r in browser.requests if not r.startswith("data:")] == [report.as_uri()[:60]]


@pytest.mark.slow
def test_metric_codecs_axis_sorting_and_values_under_the_pointer(report):
    with chromium.Page(report) as browser:
        first = browser.run("document.querySelector('h1').textContent")
        assert first.startswith("avif needs the fewest bits for the same PSNR-RGB")
        browser.run(
            "(() => { const m = document.getElementById('metric'); m.value = 'ms-ssim-db'; \
m.dispatchEvent(new Event('change')) })()"
        )
        assert "MS-SSIM" in browser.run("document.querySelector('h1').textContent")
        paths = "[...document.querySelectorAll('.chart path')].map(p => p.getAttribute('d'))"
        before = browser.run(paths)
        browser.run("document.getElementById('log').click()")
        assert len(before) == 3 and browser.run(paths) != before
        browser.run("document.querySelector('#codecs input').click()")
        assert len(browser.run(paths)) == 2
        sorting = "document.querySelectorAll('#per-image th button')[1].click()"
        cells = "[...document.querySelectorAll('#per-image tbody tr')].map(r => r.children[1].textContent)"
        browser.run("document.querySelector('#codecs input').click()")
        browser.run(sorting)
        rising = browser.run(cells)
        browser.run(sorting)
        assert browser.run(cells) == rising[::-1] and rising[0] < rising[1] or rising[0] > rising[1]
        browser.run("document.querySelector('.chart').scrollIntoView({block: 'center'})")
        at = browser.run(
            "(() => { const b = document.querySelectorAll('.chart g circle')[1]\
.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        browser.mouse("mouseMoved", *at)
        tip = browser.run("document.querySelector('.tip').innerText")
        assert "2.000 bpp" in tip and "quality 2" in tip and "licodec-adaptive" in tip
        browser.run("document.getElementById('files').open = true")
        rows = "document.querySelectorAll('#files tbody tr').length"
        filled = (
            f"new Promise(r => (function look() {{ {rows} ? r({rows}) : setTimeout(look, 10) }})())"
        )
        assert browser.run(filled) == 6
        assert browser.problems == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1100, True)])
def test_phone_and_dark_mode(report, width, dark):
    with chromium.Page(report, width, 800, dark) as browser:
        assert browser.run("document.documentElement.scrollWidth") <= width
        light = "getComputedStyle(document.body).backgroundColor"
        assert (browser.run(light) == "rgb(255, 255, 255)") is not dark
        browser.run(
            "[...document.querySelectorAll('button')].find(b => b.textContent === 'Light or dark').click()"
        )
        assert (browser.run(light) == "rgb(255, 255, 255)") is dark
        assert browser.problems == []
