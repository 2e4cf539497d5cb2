"""`licodec bench` as a user runs it, on images of a few pixels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from licodec.bench import evaluate, measure
from licodec.bench.command import bench
from licodec.bench.datasets import examine
from licodec.bench.evaluate import BenchPlan
from licodec.bench.interface import Settings
from licodec.bench.results import Curve, aggregate, load_curves, save_curves
from licodec.errors import LicodecError, UsageError

QUICK = ["--codecs", "jpeg", "--qualities", "20,80"]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        small = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(small).resize((41, 30)).save(tmp_path / f"{name}.png")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(bench, [str(argument) for argument in arguments])


def reference(path, name, rate):
    results = {"bpp": [rate, 2 * rate, 4 * rate], "psnr-rgb": [30.0, 33.0, 36.0]}
    path.write_text(json.dumps({"name": name, "results": results}))
    return path


def plan(folder, codecs=("jpeg",)):
    images = [examine(folder / name) for name in ("a.png", "b.png")]
    return BenchPlan(images, {name: (20.0, 80.0) for name in codecs}, Settings(), 1, "test")


@pytest.fixture
def here(monkeypatch):
    """Work in this process: no workers to start, and calls can be watched."""

    class Pool:
        def __init__(self):
            self.calls = []

        def submit(self, work, *args):
            from concurrent.futures import Future

            future = Future()
            self.calls.append((work.__name__, args))
            try:
                future.set_result(work(*args))
            except Exception as error:
                future.set_exception(error)
            return future

        def shutdown(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    pool = Pool()
    monkeypatch.setattr(measure, "workers", lambda jobs, settings: pool)
    return pool


def quiet(*_):
    pass


def test_json_goes_to_a_pipe_and_holds_real_files(folder):
    result = run(folder, *QUICK, "--per-image")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["name"] == "jpeg" and document["results"]["quality"] == [20, 80]
    with Image.open(folder / "a.png") as image:
        image.save(folder / "a.jpg", quality=20, optimize=True, progressive=True)
    (row,) = (r for r in document["rows"] if (r["image"], r["quality"]) == ("a.png", 20))
    assert row["bytes"] == (folder / "a.jpg").stat().st_size
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / (41 * 30))
    mean = np.mean([r["psnr-rgb"] for r in document["rows"] if r["quality"] == 80])
    assert document["results"]["psnr-rgb"][1] == pytest.approx(mean)
    meta = document["meta"]
    assert {"licodec.version", "command", "date", "machine", "codec.version"} <= set(meta)
    assert meta["images"] == 2 and meta["process.encoding_peak_bytes"] > 2**20
    assert meta["process.encoding_time"] > max(document["results"]["encoding_time"])


def test_what_cannot_be_read_is_named_and_ends_in_exit_code_1(folder, here):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("not an image")
    result = run(folder, *QUICK)
    assert result.exit_code == 1
    assert "broken.png" in result.stderr and "1 file was unreadable" in result.stderr
    assert "notes.txt" not in result.stderr
    assert json.loads(result.stdout)["meta"]["images"] == 2


def test_nothing_to_read_is_one_clear_line(tmp_path, here):
    (tmp_path / "notes.txt").write_text("not an image")
    for path in (tmp_path, tmp_path / "notes.txt"):
        result = run(path, *QUICK)
        assert isinstance(result.exception, LicodecError)
        assert "no readable image" in str(result.exception)
        assert result.stdout == ""


def test_a_codec_that_is_missing_is_named_and_skipped(folder, here, monkeypatch):
    from licodec.bench.pillow_peers import WebP

    monkeypatch.setattr(WebP, "missing", lambda self: "no WebP here")
    result = run(folder, "--codecs", "webp,jpeg", "--qualities", "20")
    assert result.exit_code == 0
    assert "skipped webp: no WebP here" in result.stderr
    assert json.loads(result.stdout)["name"] == "jpeg"
    alone = run(folder, "--codecs", "webp")
    assert "none of these codecs" in str(alone.exception)


def test_a_checkpoint_runs_beside_the_codecs_that_are_named(folder, here):
    (folder / "c.pth").write_text("none")
    result = run(folder, *QUICK, "--checkpoint", f"nowhere={folder / 'c.pth'}")
    assert "skipped nowhere" in result.stderr and json.loads(result.stdout)["name"] == "jpeg"


def test_a_second_run_continues(folder, here):
    output = folder / "r.json"
    assert run(folder, *QUICK, "-o", output).exit_code == 0
    measured = [call for call in here.calls if call[0] == "measure"]
    assert len(measured) == 4
    (curve,) = load_curves(output)
    lost = curve.rows.pop(1)
    save_curves(output, [curve])
    here.calls.clear()
    assert run(folder, *QUICK, "-o", output).exit_code == 0
    (call,) = (call for call in here.calls if call[0] == "measure")
    assert (call[1][2].name, call[1][3]) == (lost["image"], lost["quality"])
    (again,) = load_curves(output)
    assert sorted(r["bytes"] for r in again.rows) == sorted(r["bytes"] for r in [*curve.rows, lost])
    run(folder, "--codecs", "webp", "--qualities", "50", "-o", output)
    assert {c.name for c in load_curves(output)} == {"jpeg", "webp"}


def test_results_of_another_version_stay_until_all_new_ones_are_there(folder, here, monkeypatch):
    old = evaluate.evaluate(plan(folder), [], quiet, quiet).curves
    old[0].meta["codec.version"] = "older"
    real = measure.measure

    def fails_once(name, settings, image, quality):
        if quality == 80 and image.name == "b.png":
            raise OSError("no luck")
        return real(name, settings, image, quality)

    monkeypatch.setattr(measure, "measure", fails_once)
    saved: list[list[Curve]] = []
    half = evaluate.evaluate(plan(folder), [*old], saved.append, quiet).curves
    assert [(c.meta["codec.version"] == "older", len(c.rows)) for c in saved[-1]] == [
        (True, 4),
        (False, 3),
    ]
    monkeypatch.setattr(measure, "measure", real)
    here.calls.clear()
    (curve,) = evaluate.evaluate(plan(folder), half, quiet, quiet).curves
    assert len([call for call in here.calls if call[0] == "measure"]) == 1
    assert curve.meta["codec.version"] != "older" and len(curve.rows) == 4


def test_rows_of_other_images_are_not_mixed_in(folder, here):
    first = evaluate.evaluate(plan(folder), [], quiet, quiet).curves
    first[0].rows[0]["sha256"] = "0"
    with pytest.raises(UsageError, match="other images"):
        evaluate.evaluate(plan(folder), first, quiet, quiet)


def test_a_curve_from_elsewhere_keeps_its_numbers(folder, here):
    kept = load_curves(reference(folder / "r.json", "published", 0.5))[0].results
    assert run(folder, *QUICK, "-o", folder / "r.json").exit_code == 0
    ours, published = load_curves(folder / "r.json")
    assert ours.name == "jpeg" and published.results == kept


@pytest.mark.parametrize("option", ["--plot", "--html", "-o"])
def test_no_picture_is_overwritten(folder, here, option):
    before = (folder / "a.png").read_bytes()
    result = run(folder, *QUICK, option, folder / "a.png")
    assert result.exit_code == 2 and "a.png" in result.stderr
    assert (folder / "a.png").read_bytes() == before and here.calls == []


def test_two_results_in_one_file_are_refused(folder, here):
    result = run(folder, *QUICK, "-o", folder / "r.svg", "--plot", folder / "r.svg")
    assert result.exit_code == 2 and "twice" in result.stderr and not (folder / "r.svg").exists()


def test_complete_results_are_read_and_nothing_is_run(folder, here):
    output = folder / "r.json"
    assert run(folder, *QUICK, "-o", output).exit_code == 0
    date = load_curves(output)[0].meta["date"]
    here.calls.clear()
    assert run(folder, *QUICK, "-o", output).exit_code == 0
    assert here.calls == [] and load_curves(output)[0].meta["date"] == date


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_bench_removes_nothing_before_it_has_something_better(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv" / ".installed").touch()
    old = tmp_path / "benchmarks" / "kodak.json"
    old.write_text("old")
    licodec = tmp_path / ".venv" / "bin" / "licodec"
    licodec.write_text("#!/bin/sh\nexit 3\n")
    licodec.chmod(0o755)
    makefile = Path(__file__).parents[2] / "Makefile"

    def make(*arguments):
        command = ["make", "-f", makefile, "bench", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    without = make()
    assert without.returncode and "make bench KODAK=" in without.stderr
    (tmp_path / "kodak").mkdir()
    assert make().returncode
    assert old.read_text() == "old"


def test_interrupting_keeps_what_is_done(folder, here):
    saved: list[list[Curve]] = []

    def stop(done, total, what):
        if done == 3:
            raise KeyboardInterrupt

    outcome = evaluate.evaluate(plan(folder), [], saved.append, stop)
    assert outcome.interrupted
    assert len(saved[-1][0].rows) >= 3
    assert saved[-1][0].results == aggregate(saved[-1][0].rows, 2)


def test_an_interrupted_file_is_continued(folder, here, monkeypatch):
    output = folder / "r.json"
    real = evaluate.evaluate

    def cut_short(plan, previous, save, progress):
        def stop(done, total, what):
            raise KeyboardInterrupt

        return real(plan, previous, save, stop)

    both = ["--codecs", "jpeg,webp", "--qualities", "20,80", "-o", output]
    both += ["--html", folder / "r.html"]
    (folder / "r.html").write_text("earlier")
    monkeypatch.setattr(evaluate, "evaluate", cut_short)
    result = run(folder, *both)
    assert result.exit_code == 130 and "the same command continues" in result.stderr
    assert (folder / "r.html").read_text() == "earlier"
    curves = load_curves(output)
    for curve in curves:
        del curve.rows[1 if curve.name == "jpeg" else 0 :]
        curve.results = {}
    save_curves(output, curves)
    monkeypatch.setattr(evaluate, "evaluate", real)
    here.calls.clear()
    assert run(folder, *both).exit_code == 0
    assert len([call for call in here.calls if call[0] == "measure"]) == 7
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    assert [len(curve.results["bpp"]) for curve in load_curves(output)] == [2, 2]


def test_one_failure_does_not_end_the_run(folder, here, monkeypatch):
    from licodec.bench.pillow_peers import Jpeg

    original = Jpeg.encode

    def encode(self, image, quality):
        if quality == 80 and image.size == (41, 30):
            raise OSError("no luck")
        return original(self, image, quality)

    monkeypatch.setattr(Jpeg, "encode", encode)
    result = run(folder, *QUICK)
    assert result.exit_code == 1
    assert "jpeg q=80 a.png: no luck" in result.stderr
    assert json.loads(result.stdout)["results"]["quality"] == [20]


def test_curves_are_compared_without_any_image(tmp_path):
    one = reference(tmp_path / "one.json", "one", 1.0)
    two = reference(tmp_path / "two.json", "two", 0.8)
    result = run(one, two, "--anchor", one)
    assert result.exit_code == 0 and "-20.0 %" in result.stdout
    with_plot = run(one, two, "--anchor", "two", "--plot", tmp_path / "rd.svg")
    assert "+25.0 %" in with_plot.stdout
    assert ">one<" in (tmp_path / "rd.svg").read_text()


def test_the_anchor_may_be_spelled_as_codecs_may(folder, here):
    result = run(folder, *QUICK, "--anchor", "JPG")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["meta"]["bd-rate"]["anchor"] == "jpeg"


def test_the_page_shows_every_codec_beside_the_original_and_keeps_what_it_took(folder, here):
    arguments = [folder, "--codecs", "jpeg,webp", "-o", folder / "r.json", "--html"]
    result = run(*arguments, folder / "r.html")
    assert result.exit_code == 0, result.output
    text = (folder / "r.html").read_text()
    document = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    for comparison in document["comparisons"]:
        assert [shown["codec"] for shown in comparison["shown"]] == ["original", "jpeg", "webp"]
        sizes = [shown["bytes"] for shown in comparison["shown"][1:]]
        assert max(sizes) < 1.5 * min(sizes)
    assert len(document["comparisons"]) == 2
    here.calls.clear()
    assert run(*arguments, folder / "again.html").exit_code == 0
    assert here.calls == []
    again = (folder / "again.html").read_text()
    assert again == text
    for kept in (folder / "r.images").iterdir():
        kept.write_bytes(b"junk")
    assert run(*arguments, folder / "again.html").exit_code == 0
    assert len(here.calls) == 6 and (folder / "again.html").read_text() == text


@pytest.mark.parametrize(
    "arguments",
    [["--codecs", "bmp"], ["--anchor", "vvc"], ["--qualities", "many"], ["--jobs", "0"],
     ["--qualities", "webp=3", "--codecs", "jpeg"], ["--checkpoint", "mbt2018"],
     ["--qualities", "nan"], ["--qualities", "jpeg=500", "--codecs", "jpeg"],
     ["--qualities", "jpeg=1e400", "--codecs", "jpeg"], ["--static", "x"],
     ["-o", "no-such-folder/r.json"], ["--anchor", "nowhere.json"], ["--plot", "x.odd"], ["--plot", "x"]],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_usage_errors(folder, arguments):
    result = run(folder, *arguments)
    code = result.exception.exit_code if isinstance(result.exception, UsageError) else None
    assert result.exit_code == 2 or code == 2
    assert result.stdout == ""


def test_help_is_quick():
    code = "import sys; from licodec.bench import command; print('torch' in sys.modules, \
'numpy' in sys.modules, 'matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"] * 3
