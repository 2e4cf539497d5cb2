import io
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import licodec
from licodec.cli.main import main


@pytest.fixture
def run():
    def invoke(*arguments, stdin=None):
        return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)

    return invoke


@pytest.fixture
def png(photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.save(path)
    return path


@pytest.fixture
def lic(encoded, tmp_path):
    path = tmp_path / "photo.lic"
    path.write_bytes(encoded)
    return path


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def left_overs(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_encode_and_decode(run, png, tmp_path):
    assert run("encode", png, "-q", "70").exit_code == 0
    lic = png.with_suffix(".lic")
    assert run("decode", lic, "-o", tmp_path / "back.png").exit_code == 0
    assert opened(tmp_path / "back.png").size == opened(png).size
    assert not left_overs(tmp_path)


def test_pipes(run, png):
    encoded = run("encode", "-", stdin=png.read_bytes())
    assert encoded.exit_code == 0
    decoded = run("decode", "-", stdin=encoded.stdout_bytes)
    assert Image.open(io.BytesIO(decoded.stdout_bytes)).size == opened(png).size
    ppm = run("decode", "-", "--format", "ppm", stdin=encoded.stdout_bytes)
    assert ppm.stdout_bytes.startswith(b"P6")


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".ppm", "PPM")]
)
def test_output_name_decides_the_format(run, lic, tmp_path, suffix, kind):
    assert run("decode", lic, "-o", tmp_path / f"out{suffix}").exit_code == 0
    assert opened(tmp_path / f"out{suffix}").format == kind


def test_info(run, lic, encoded):
    row = json.loads(run("info", lic, "--json").stdout)
    assert row["bytes"] == len(encoded) == sum(row["streams"].values())
    for key in ("width", "height", "mode", "model", "model_hash", "quality", "latents_crc32"):
        assert key in row
    assert {"side", "latents"} <= set(row["streams"])
    assert row["model"] == "adaptive" and row["quality"] == 40
    assert row["streams"]["side"] > 0
    assert len(json.loads(run("info", lic, lic, "--json").stdout)) == 2
    assert "adaptive" in run("info", lic).stdout


def test_verify(run, lic, encoded, tmp_path):
    assert run("verify", lic).exit_code == 0
    deep = run("verify", "--deep", "--json", lic)
    assert json.loads(deep.stdout)["latents_crc32"] == licodec.info(encoded)["latents_crc32"]
    broken = tmp_path / "broken.lic"
    broken.write_bytes(encoded[:-1])
    result = run("verify", lic, broken)
    assert result.exit_code == 3
    assert "photo.lic: ok" in result.stdout and "broken.lic" in result.stderr


def test_models(run):
    rows = json.loads(run("models", "--json").stdout)
    assert {row["model"] for row in rows} >= {"adaptive", "factorized"}
    assert sum(row["default"] for row in rows) == 1


def test_refuses_to_overwrite(run, png, tmp_path):
    target = tmp_path / "out.lic"
    target.write_bytes(b"precious")
    refused = run("encode", png, "-o", target)
    assert refused.exit_code == 1 and "exists" in refused.stderr
    assert target.read_bytes() == b"precious"
    assert run("encode", png, "-o", target, "-f").exit_code == 0
    assert target.read_bytes() != b"precious"


def test_never_writes_over_its_input(run, lic, png):
    before = lic.read_bytes()
    assert run("decode", lic, "-o", lic, "-f").exit_code == 2
    assert lic.read_bytes() == before
    assert run("encode", png, "-o", png, "-f").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode",),
        ("encode", "a.png", "-q", "101"),
        ("encode", "a.png", "-q", "high"),
        ("encode", "a.png", "b.png", "-o", "c.lic"),
        ("encode", "a.png", "-o", "c.lic", "--output-dir", "d"),
        ("transmogrify",),
        ("decode", "--format", "gif", "a.lic"),
        ("encode", "a.png", "-j", "0"),
        ("encode", "a.png", "-q", "50", "--target-size", "60k"),
        ("encode", "a.png", "-q", "50", "--target-psnr", "30"),
        ("encode", "a.png", "--target-bpp", "1", "--target-size", "60k"),
        ("encode", "a.png", "--target-bpp", "1", "--target-psnr", "30"),
        ("encode", "a.png", "--target-bpp", "0"),
        ("encode", "a.png", "--target-psnr", "nan"),
        ("encode", "a.png", "--target-size", "60 parsecs"),
        ("encode", "--frobnicate", "a.png"),
        ("encode", "a.png", "--device", "abacus"),
        ("--frobnicate",),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("licodec: ") and result.stderr.count("\n") == 1


def test_usage_errors_say_where_help_is(run):
    assert run("encode", "-q", "101", "a.png").stderr.endswith("; see licodec encode --help\n")
    assert (
        run("transmogrify").stderr
        == "licodec: No such command 'transmogrify'; see licodec --help\n"
    )
    alone = run()
    assert alone.exit_code == 2 and "Commands:" in alone.stderr


def test_what_is_done_is_one_line_with_quality_and_model(run, png):
    said = run("encode", png, "-q", "70.5", "-m", "factorized").stderr
    assert said.count("\n") == 1 and " bpp, factorized q 70.5, 150x100, " in said
    assert len(said.partition(": ")[2]) < 80


def test_an_unknown_model_lists_the_installed_ones(run, png):
    result = run("encode", png, "-m", "foo")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "no model named 'foo'; adaptive, factorized, hyperprior are installed" in result.stderr


def test_an_unknown_model_beside_weights_that_cannot_be_read(run, png, tmp_path, monkeypatch):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a-00000000.safetensors").write_bytes(b"junk")
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path / "w"))
    result = run("encode", png, "-m", "foo")
    assert result.exit_code == 2 and "no model named 'foo'; adaptive" in result.stderr


@pytest.mark.parametrize("option", ["-o", "--output-dir"])
def test_an_output_needs_a_name(run, png, tmp_path, option):
    before = sorted(tmp_path.iterdir())
    result = run("encode", png, option, "")
    assert result.exit_code == 2 and result.stderr == "licodec: an output needs a name\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_with_a_newline_takes_one_line(run, png, tmp_path):
    result = run("encode", png, "-o", tmp_path / "new\nline.lic")
    assert result.exit_code == 0 and result.stderr.count("\n") == 1
    assert (tmp_path / "new\nline.lic").exists()


def test_every_failure_is_one_line_without_output(run, tmp_path, encoded, png):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty = tmp_path / "empty.lic"
    empty.touch()
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(png.read_bytes()[:2000])
    foreign = tmp_path / "foreign.lic"
    foreign.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    cut = tmp_path / "cut.lic"
    cut.write_bytes(encoded[:-20])
    out = tmp_path / "out.png"
    for command, path, code in [
        ("encode", text, 1),
        ("encode", truncated, 1),
        ("encode", tmp_path, 1),
        ("encode", tmp_path / "missing.png", 1),
        ("decode", empty, 3),
        ("decode", foreign, 3),
        ("decode", cut, 3),
        ("decode", tmp_path, 1),
        ("decode", tmp_path / "missing.lic", 1),
    ]:
        result = run(command, path, "-o", out)
        assert result.exit_code == code, (command, path, result.stderr)
        assert result.stderr.count("\n") == 1, result.stderr
        assert path.name in result.stderr
        assert not out.exists() and not left_overs(tmp_path)


def test_too_many_pixels(run, png, lic):
    assert run("encode", png, "--max-pixels", "100").exit_code == 1
    assert run("decode", lic, "--max-pixels", "100", "-f").exit_code == 1


def test_unwritable_output(run, lic, tmp_path):
    result = run("decode", lic, "-o", tmp_path / "no" / "such" / "folder.png")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_start_does_not_load_torch():
    code = (
        "import sys, licodec.cli.main, licodec; "
        "from PIL import Image; "
        "assert not {'torch', 'numpy', 'constriction', 'rich'} & set(sys.modules), "
        "sorted({'torch', 'numpy', 'constriction', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["--help"], 0, ""),
        (["info", "LIC"], 0, ""),
        (["verify", "LIC"], 0, ""),
        (["models"], 0, ""),
        (["train", "CONFIG"], 2, "set train.steps or train.minutes\n"),
    ],
)
def test_cheap_commands_do_not_load_torch(arguments, exit_code, said, lic, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("[train]\nlr = 1e-3\n")
    arguments = [{"LIC": str(lic), "CONFIG": str(config)}.get(a, a) for a in arguments]
    code = (
        "import sys, licodec.cli.main\n"
        f"try:\n licodec.cli.main.main({arguments!r})\n"
        f"except SystemExit as e:\n assert (e.code or 0) == {exit_code}\n"
        f"else:\n assert {exit_code} == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(said)


def test_pillow_opens_without_decoding(lic, photo):
    code = (
        "import sys, licodec\nfrom PIL import Image\n"
        f"image = Image.open({str(lic)!r})\n"
        "assert image.format == 'LIC' and image.size == (150, 100) and image.mode == 'RGB'\n"
        "assert 'torch' not in sys.modules\n"
        "image.load()\nassert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pillow_plugin_reads_and_writes(photo, tmp_path, encoded):
    photo.save(tmp_path / "x.lic", model="factorized", target_size=900, dpi=(72, 72))
    assert licodec.info((tmp_path / "x.lic").read_bytes())["model"] == "factorized"
    assert 800 < (tmp_path / "x.lic").stat().st_size <= 900
    photo.save(tmp_path / "x.lic", quality=40)
    assert (tmp_path / "x.lic").read_bytes() == encoded
    with Image.open(tmp_path / "x.lic") as image:
        assert (np.asarray(image) == np.asarray(licodec.decode(encoded))).all()
