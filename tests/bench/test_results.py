"""Curves as data: averages, the JSON that other tools read, tables and plots."""

from __future__ import annotations

import io
import json
import os
import re

import pytest
from PIL import Image
from rich.console import Console

from licodec.bench import report
from licodec.bench.results import Curve, aggregate, load_curves, save_curves, to_json
from licodec.errors import LicodecError, UsageError
from licodec.training import config as configs


def row(image: str, quality: float, bpp: float, psnr: float, ms_ssim: float | None = 0.9, **more):
    return {
        "image": image, "sha256": image * 3, "width": 10, "height": 10, "quality": quality,
        "bytes": int(bpp * 100 / 8), "bpp": bpp, "psnr-rgb": psnr, "ms-ssim-rgb": ms_ssim,
        "encoding_time": bpp, "decoding_time": 1.0, **more,
    }  # fmt: skip


def curve(name: str, rate: float = 1.0, low: float = 30.0) -> Curve:
    rows = [row("a", q, rate * q, low + q) for q in (1, 2, 3)]
    return Curve(name, f"about {name}", aggregate(rows, 1), {"codec.version": "1"}, rows)


def test_averages_are_means_of_images_and_medians_of_times():
    rows = [row("a", 5, 1.0, 30.0, 0.8), row("b", 5, 2.0, 33.0, 0.9), row("c", 5, 6.0, 36.0, 0.99)]
    results = aggregate(rows, 3)
    assert results["bpp"] == [3.0] and results["psnr-rgb"] == [33.0]
    assert results["encoding_time"] == [2.0]
    assert results["ms-ssim-rgb"] == [pytest.approx(0.8966667)]
    assert results["ms-ssim-db"] == [pytest.approx(9.8576, abs=1e-3)]


def test_points_stand_by_rate_and_only_where_every_image_has_a_row():
    rows = [row("a", 9, 2.0, 40.0), row("b", 9, 2.0, 40.0), row("a", 1, 1.0, 30.0),
            row("b", 1, 1.0, 30.0), row("a", 5, 1.5, 35.0)]  # fmt: skip
    assert aggregate(rows, 2)["quality"] == [1, 9]
    assert aggregate(rows, 3) == {}


def test_a_measure_that_an_image_lacks_has_no_average():
    results = aggregate([row("a", 5, 1.0, 30.0), row("b", 5, 1.0, 30.0, None)], 2)
    assert "ms-ssim-rgb" not in results
    assert Curve("x", results=results).points("ms-ssim-db") == ([], [])


def test_files_hold_all_curves_and_are_read_by_who_knows_one(tmp_path):
    path = tmp_path / "r.json"
    curves = [curve("one"), curve("two", 2.0)]
    save_curves(path, curves)
    assert load_curves(path) == curves
    assert load_curves(tmp_path / "r.json#two") == curves[1:]
    document = json.loads(path.read_text())
    assert document["name"] == "one"
    assert document["results"]["bpp"] == curves[0].results["bpp"]
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    with pytest.raises(UsageError, match="three"):
        load_curves(tmp_path / "r.json#three")


def test_rows_stay_out_of_json_unless_asked_for():
    assert "rows" not in json.loads(to_json([curve("one")], rows=False))
    assert "rows" in json.loads(to_json([curve("one")], rows=True))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "x", "results": {}}', '{"name": 1', "[" * 10**5, "\xff"]
)
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text, "latin-1")
    with pytest.raises(LicodecError, match="x.json: no rate-distortion curve"):
        load_curves(tmp_path / "x.json")


ROW = {"image": "a.png", "sha256": "0", "quality": 50, "bpp": 1.0, "psnr-rgb": 30.0}


@pytest.mark.parametrize(
    "odd",
    [{"name": 3}, {"name": ["a"]}, {"description": 3}, {"meta": None}, {"meta": [1]}, {"results": [1]},
     {"results": {"bpp": 3}}, {"results": {"bpp": ["a"]}}, {"rows": None}, {"rows": [1]}, {"rows": [{}]},
     {"meta": {"process.encoding_time": "1 s"}}, {"meta": {"decoder.parameters": "many"}},
     {"results": {"bpp": [10**400]}},
     *({"rows": [ROW | {key: value}]} for key, value in (
         ("image", [1]), ("sha256", 3), ("quality", "50"), ("bpp", None), ("bpp", float("nan")),
         ("psnr-rgb", "30"), ("ms-ssim-rgb", [1]), ("encoding_time", "fast"), ("latents_bytes", {})))],
)  # fmt: skip
def test_values_of_another_kind_are_refused(tmp_path, odd):
    good = {"name": "a", "results": {"bpp": [1.0]}, "rows": [ROW], "meta": {"process.image": "a"}}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(good))
    assert load_curves(path)[0].rows == [ROW]
    path.write_text(json.dumps(good | odd))
    with pytest.raises(LicodecError, match="no rate-distortion curve"):
        load_curves(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_curves_and_configs_that_have_no_end_are_refused(tmp_path):
    for name, load in (("x.json", load_curves), ("x.toml", configs.load)):
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(UsageError, match=f"{name}: is a device, not a file"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("results", "db"),
    [({"ms-ssim-rgb": [0.9], "ms-ssim-db": [10.4]}, 10), ({"ms-ssim": [0.9]}, 10),
     ({"ms-ssim-db-rgb": [12.0]}, 12), ({"ms-ssim-db": [13.0]}, 13)],
)  # fmt: skip
def test_ms_ssim_of_curves_from_elsewhere(results, db):
    assert Curve("x", results={"bpp": [1.0], **results}).points("ms-ssim-db")[1] == [
        pytest.approx(db)
    ]


def test_comparison_says_why_there_is_no_number():
    anchor = curve("anchor")
    assert report.compare(curve("x", 1.5), anchor, "psnr-rgb") == pytest.approx(50)
    assert report.compare(curve("x", 1.0, 90.0), anchor, "psnr-rgb") == "no overlap"
    assert report.compare(Curve("x"), anchor, "psnr-rgb") is None
    crooked = Curve("x", results={"bpp": [1, 2, 3], "psnr-rgb": [30.0, 35.0, 33.0]})
    assert report.compare(crooked, anchor, "psnr-rgb") == "not monotone"


def test_summaries_leave_out_what_no_codec_has():
    tables = report.summaries([curve("one"), curve("two", 2.0)], curve("one"))
    titles, lines = tables["BD-rate against one"]
    assert lines[1][titles.index("PSNR-RGB")] == "+100.0 %"
    assert not any(title.startswith("Parts") for title in tables)
    rows = [row("a", 1, 1.0, 30.0, header_bytes=10, side_bytes=30, latents_bytes=60)]
    parts = Curve("three", results=aggregate(rows, 1), rows=rows)
    tables = report.summaries([parts, curve("two")], curve("one"))
    (content,) = (content for title, content in tables.items() if title.startswith("Parts"))
    assert content[1] == [["three", "10.0", "30.0", "60.0"]]


def test_tables_keep_every_line_and_every_word_at_80_columns():
    full = curve("licodec-scale-hyperprior")
    for r in full.rows:
        r |= {"image": "kodim01.png", "ssimulacra2": 50.0, "header_bytes": 9, "side_bytes": 1,
              "latents_bytes": 9, "bytes": 123456}  # fmt: skip
    full.results = aggregate(full.rows, 1)
    full.meta |= {f"process.{key}": 1234.5 for key in ("encoding_time", "decoding_time")}
    full.meta |= {f"process.{key}_peak_bytes": 9e8 for key in ("encoding", "decoding")}
    full.meta |= {"decoder.kmac_per_pixel": 1044.5, "decoder.parameters": 6_749_580}
    summaries = report.summaries([full, curve("two")], curve("licodec-autoregressive", 1.0, 90.0))
    assert len(summaries) == 3
    for content in (report.points([full]), report.per_image([full]), *summaries.values()):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(report.table("title", content, rules=True))
        printed = console.export_text()
        assert len(re.findall(r"^(licodec|two)", printed, re.M)) == len(content[1])
        for text in (*content[0], *(cell for line in content[1] for cell in line)):
            assert all(word in printed.split() for word in text.split()), (text, printed)


def test_plots_are_the_same_bytes_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    from licodec.bench.plots import require, save_plot

    curves = [curve("one"), curve("two", 1.3)]
    for name in ("a.svg", "b.svg", "c.png"):
        save_plot(tmp_path / name, curves, "title")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert ">one<" in text and ">two<" in text and "MS-SSIM" in text
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 1000
    with pytest.raises(LicodecError, match="choose .svg"):
        require(tmp_path / "d.xyz")


def test_odd_names_are_only_shown_in_tables():
    from rich.console import Console

    console = Console(record=True, width=80)
    names = ["[/x].png", "\x1b[31mred\n.png", "a\udcff.png"]
    console.print(report.table("[/t]\x1b[2J", (["image"], [[name] for name in names])))
    shown = console.export_text()
    assert "[/x].png" in shown and r"\x1b[31mred\n.png" in shown and r"a\xff.png" in shown
    assert "\x1b" not in shown and r"[/t]\x1b[2J" in shown
