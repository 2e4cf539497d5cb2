import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import noise
from PIL import Image

import licodec
from licodec.bench.metrics import ms_ssim_rgb, psnr_rgb
from licodec.cli.main import main


def run(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def pair(tmp_path):
    a, b = noise(200, 180, "RGB"), noise(200, 180, "RGB", seed=1)
    a.save(tmp_path / "a.png")
    b.save(tmp_path / "b.png")
    return tmp_path / "a.png", tmp_path / "b.png"


def test_the_figures_are_the_benchmarks_own(pair):
    pytest.importorskip("pytorch_msssim")
    a, b = (np.asarray(Image.open(path)) for path in pair)
    psnr, ms_ssim = psnr_rgb(a, b), ms_ssim_rgb(a, b)
    result = run(*pair)
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.startswith(
        f"{pair[1]} against {pair[0]}: PSNR {psnr:.2f} dB, MS-SSIM {ms_ssim:.4f}"
    )
    row = json.loads(run("--json", *pair).stdout)
    assert row["psnr-rgb"] == pytest.approx(psnr) and row["ms-ssim-rgb"] == pytest.approx(
        ms_ssim, abs=1e-6
    )
    assert row["first"] == str(pair[0]) and not row["equal"]


def test_equal_images(pair):
    assert "PSNR inf dB" in run(pair[0], pair[0]).stdout
    row = json.loads(run("--json", pair[0], pair[0]).stdout)
    assert row["equal"] and row["psnr-rgb"] is None


def test_lic_files_are_decoded(pair, tmp_path):
    data = licodec.encode(Image.open(pair[0]))
    (tmp_path / "x.lic").write_bytes(data)
    row = json.loads(run("--json", pair[0], tmp_path / "x.lic").stdout)
    wanted = psnr_rgb(np.asarray(Image.open(pair[0])), np.asarray(licodec.decode(data)))
    assert row["psnr-rgb"] == pytest.approx(wanted)


def test_grey_turned_and_transparent_images(tmp_path):
    grey = noise(24, 16, "L")
    grey.save(tmp_path / "l.png")
    grey.convert("RGB").save(tmp_path / "rgb.png")
    assert "PSNR inf dB" in run(tmp_path / "l.png", tmp_path / "rgb.png").stdout
    exif = Image.Exif()
    exif[0x112] = 6
    grey.save(tmp_path / "turned.png", exif=exif)
    grey.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "pixels.png")
    assert "PSNR inf dB" in run(tmp_path / "turned.png", tmp_path / "pixels.png").stdout
    clear = noise(24, 16, "RGB").convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    Image.new("RGB", (24, 16), (128, 128, 128)).save(tmp_path / "grey.png")
    assert "PSNR inf dB" in run(tmp_path / "clear.png", tmp_path / "grey.png").stdout


def test_a_pipe_may_bring_either(pair, tmp_path):
    lic = tmp_path / "x.lic"
    lic.write_bytes(licodec.encode(Image.open(pair[0])))
    for path in (pair[0], lic):
        piped = CliRunner().invoke(main, ["compare", str(pair[0]), "-"], input=path.read_bytes())
        named = run(pair[0], path)
        assert piped.exit_code == named.exit_code == 0
        assert piped.stdout.split("PSNR")[1] == named.stdout.split("PSNR")[1]


def test_what_cannot_be_compared_is_one_line(pair, tmp_path):
    noise(8, 8, "RGB").save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no")
    for other, code, said in (
        ("small.png", 2, "images of one size are compared, not of 200x180 and 8x8"),
        ("text.png", 1, "not an image that can be read"),
        ("missing.png", 1, "No such file"),
        ("", 1, "is a directory"),
    ):
        result = run(pair[0], tmp_path / other)
        assert result.exit_code == code and said in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1 and result.stdout == ""
        assert code == 2 or str(tmp_path / other) in result.stderr
