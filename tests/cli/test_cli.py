import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_everyday
from click.testing import CliRunner
from PIL import Image

import licodec
from licodec import codec
from licodec.cli.main import main
from licodec.weights import catalogue


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


def test_files_of_the_default_have_their_own_distributions():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert licodec.info(licodec.encode(Image.fromarray(noise)))["distributions"] == "adaptive"


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
    there = (
        "adaptive, factorized, attention, autoregressive, everyday, hyperprior, scale-hyperprior"
    )
    assert f"no model named 'foo'; {there} are installed" in result.stderr


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
        out = tmp_path / {"encode": "out.lic", "decode": "out.png"}[command]
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


@pytest.mark.skipif(os.name == "nt", reason="needs links and modes")
def test_outputs_that_cannot_be_written_are_told_before_the_work(run, png, tmp_path, monkeypatch):
    def work(*arguments):
        raise AssertionError("worked")

    monkeypatch.setattr(codec, "encode_checked", work)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing/x.lic")
    locked = tmp_path / "locked"
    locked.mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != locked and access(path, mode)
    )
    for name, why in (
        ("loop", "a link that leads nowhere"),
        ("nowhere", "a link that leads nowhere"),
        ("locked/x.lic", "its folder cannot be written to"),
    ):
        result = run("encode", png, "-o", tmp_path / name, "-f")
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert f"cannot write {tmp_path / name}: " in result.stderr and why in result.stderr


def test_the_input_as_output_is_not_said_to_be_overwritten_with_f(run, lic):
    result = run("decode", lic, "-o", lic)
    assert result.exit_code == 2 and "the output is the input itself" in result.stderr


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
    photo.save(tmp_path / "x.lic", quality=40, model="adaptive")
    assert (tmp_path / "x.lic").read_bytes() == encoded
    with Image.open(tmp_path / "x.lic") as image:
        assert (np.asarray(image) == np.asarray(licodec.decode(encoded))).all()


# Decoding beside originals


def test_decoding_never_replaces_an_original(run, png, tmp_path):
    assert run("encode", png).exit_code == 0
    before = png.read_bytes()
    spare = tmp_path / "photo.decoded.png"
    for flags in ([], ["-f"], ["-f", "--output-dir", tmp_path]):
        assert run("decode", png.with_suffix(".lic"), *flags).exit_code == 0
        assert opened(spare).size == opened(png).size
    refused = run("decode", png.with_suffix(".lic"))
    assert refused.exit_code == 1
    assert refused.stderr.endswith(f"{spare} exists; -o names another output, -f overwrites it\n")
    assert png.read_bytes() == before


def test_decoding_twice_says_how_to_go_on(run, lic, tmp_path):
    assert run("decode", lic).exit_code == 0
    first = lic.with_suffix(".png").read_bytes()
    refused = run("decode", lic)
    assert refused.exit_code == 1 and "photo.png exists; -o names another output" in refused.stderr
    assert f"-f makes {tmp_path / 'photo.decoded.png'}\n" in refused.stderr
    assert "0 done, 1 skipped" in run("decode", "-r", tmp_path).stderr
    lic.with_suffix(".png").write_bytes(b"precious")
    assert run("decode", lic, "-f").exit_code == 0
    assert lic.with_suffix(".png").read_bytes() == b"precious"
    assert (tmp_path / "photo.decoded.png").read_bytes() == first


def test_an_original_that_comes_up_meanwhile_stays(run, lic, monkeypatch):
    from licodec import codec

    original = codec.decode_file

    def meanwhile(*arguments):
        lic.with_suffix(".png").write_bytes(b"precious")
        return original(*arguments)

    monkeypatch.setattr(codec, "decode_file", meanwhile)
    assert run("decode", lic, "-f").exit_code == 1
    assert lic.with_suffix(".png").read_bytes() == b"precious"


# Outputs that are named oddly


@pytest.mark.parametrize("there", [False, True])
def test_a_second_name_is_taken_for_an_output_before_anything_is_done(run, png, lic, there):
    lic.rename(lic.with_name("x.lic"))
    out, image = lic.with_name("out.lic"), png.with_name("out.png")
    if there:
        out.write_bytes(lic.with_name("x.lic").read_bytes())
        image.write_bytes(png.read_bytes())
    before = sorted(png.parent.iterdir())
    result = run("encode", png, out)
    assert result.exit_code == 2 and f"did you mean -o {out}?\n" in result.stderr
    result = run("decode", lic.with_name("x.lic"), image)
    assert result.exit_code == 2 and f"did you mean -o {image}?\n" in result.stderr
    assert sorted(png.parent.iterdir()) == before


def test_a_lic_file_of_any_name_is_an_input(run, lic):
    other = lic.with_name("other.png")
    other.write_bytes(lic.read_bytes())
    assert run("decode", lic, other).exit_code == 0
    assert (
        opened(lic.with_name("other.decoded.png")).size == opened(lic.with_name("photo.png")).size
    )


@pytest.mark.parametrize("there", [False, True])
def test_a_name_that_ends_in_a_slash_is_a_folder(run, png, tmp_path, there):
    if there:
        (tmp_path / "out").mkdir()
    assert run("encode", png, "-o", f"{tmp_path / 'out'}/").exit_code == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.lic"]
    result = run("encode", png, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "is a folder; " in result.stderr
    assert f"{tmp_path / 'out'}/ or --output-dir writes into it" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["encode", "PNG", "-o", "x.jpg"], "encode writes .lic files, and x.jpg is named like an image"),
        (["decode", "LIC", "--format", "jpeg", "-o", "x.png"],
         "--format jpeg and the name x.png contradict each other"),
        (["decode", "LIC", "-o", "x.lic"], "no output format for '.lic'"),
        (["decode", "LIC", "--format", "gif"], "no output format for 'gif'"),
        (["decode", "LIC", "--format-quality", "80"],
         "--format-quality is for JPEG and WebP; the output is PNG"),
    ],
)  # fmt: skip
def test_a_name_of_another_format_is_refused(run, png, lic, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = run(*({"PNG": png, "LIC": lic}.get(a, a) for a in arguments))
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [("jpg", "JPEG"), ("JPEG", "JPEG"), ("tif", "TIFF"), ("TIFF", "TIFF"), ("pgm", "PPM")],
)
def test_formats_have_many_names(run, lic, name, kind):
    assert run("decode", lic, "--format", name).exit_code == 0
    assert opened(lic.with_suffix(f".{name.lower()}")).format == kind


def test_the_quality_of_an_output_can_be_chosen(run, lic, tmp_path):
    sizes = {}
    for name in ("jpg", "webp"):
        for quality in (20, 90):
            out = tmp_path / f"{quality}.{name}"
            assert run("decode", lic, "-o", out, "--format-quality", quality).exit_code == 0
            sizes[name, quality] = out.stat().st_size
        assert 0 < sizes[name, 20] < sizes[name, 90]


# What is wrong with an input is told before what is wrong with its output


@pytest.mark.parametrize("several", [False, True])
def test_inputs_that_are_none_are_told_first(run, png, lic, several):
    text = png.with_name("text.lic")
    text.write_text("no")
    for verb, source, said in (
        ("decode", png, "not a .lic file"),
        ("encode", lic, "is a .lic file already"),
        ("decode", text, "not a .lic file"),
    ):
        result = run(verb, source, *([source.with_name("missing")] if several else []))
        assert result.exit_code in (1, 3) and f"{source}: {said}\n" in result.stderr
        assert "exists" not in result.stderr


def test_missing_weights_are_told_first(run, png, lic):
    result = run("decode", lic, "--weights", "missing.safetensors")
    assert (
        result.exit_code == 4 and "missing.safetensors: no readable weights file" in result.stderr
    )


# Results for programs


def test_json_of_one_file(run, png, lic, tmp_path):
    out = tmp_path / "x.lic"
    result = run("encode", png, "-o", out, "--json", "--quiet", "--psnr")
    row = json.loads(result.stdout)
    assert result.stderr == "" and row["file"] == str(png) and row["output"] == str(out)
    assert row["ok"] and not row["skipped"] and row["notes"] == []
    assert row["bytes"] == out.stat().st_size and row["width"] == 150 and row["quality"] == 50
    back = tmp_path / "x.png"
    row = json.loads(run("decode", out, "-o", back, "--json", "--quiet").stdout)
    assert row["bytes"] == back.stat().st_size and row["format"] == "PNG" and row["mode"] == "RGB"
    refused = run("decode", out, "-o", back, "--json", "--quiet")
    row = json.loads(refused.stdout)
    assert refused.exit_code == 1 and not row["ok"] and "exists" in row["error"]


def test_the_psnr_is_that_of_what_was_written(run, png, tmp_path):
    out = tmp_path / "x.lic"
    result = run("encode", png, "-o", out, "-m", "adaptive", "--json", "--psnr")
    row = json.loads(result.stdout)
    error = np.asarray(licodec.decode(out.read_bytes()), float) - np.asarray(opened(png), float)
    psnr = 10 * np.log10(255**2 / (error**2).mean())
    assert abs(row["psnr"] - psnr) < 0.001 and f" {psnr:.2f} dB, adaptive" in result.stderr


def test_json_of_several_files(run, png, lic, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no")
    result = run("encode", png, bad, "--json", "--quiet")
    rows = json.loads(result.stdout)
    assert result.exit_code == 1 and [row["ok"] for row in rows] == [True, False]
    assert rows[0]["skipped"] and rows[1]["error"] == "not an image that can be read"


def test_json_and_the_output_do_not_share_a_pipe(run, png):
    result = run("encode", png, "-o", "-", "--json")
    assert result.exit_code == 2 and result.stdout == "" and "--json" in result.stderr


def test_a_batch_tells_its_notes_in_one_line(run, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", "x")
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png", pnginfo=text)
    Image.new("P", (8, 8)).save(tmp_path / "3.png")
    result = run("encode", "-r", tmp_path)
    notes = [line for line in result.stderr.split("\n") if "note: " in line]
    assert notes == [
        "licodec: note: the text (Software) was left out (3 files); "
        "a palette was converted to RGB (1 file); -v tells of which"
    ]
    verbose = run("encode", "-rfv", tmp_path)
    assert verbose.stderr.count(": note: the text (Software) was left out\n") == 3
    assert "-v tells" not in verbose.stderr
    assert run("encode", "-rv", tmp_path).stderr.count(": skipped, ") == 4
    assert "note: " not in run("encode", "-rf", tmp_path, "--quiet").stderr


def test_inputs_can_stand_in_a_file(run, png, tmp_path):
    odd = tmp_path / "a b\u2028c.png"
    odd.write_bytes(png.read_bytes())
    listed = tmp_path / "list"
    listed.write_bytes(f"{png}\r\n\n{odd}\n".encode())
    result = run("encode", "--filelist", listed, "--json", "--quiet")
    assert result.exit_code == 0 and [r["ok"] for r in json.loads(result.stdout)] == [True, True]
    assert run("encode", "--filelist", "-", "-f", stdin=f"{png}\n").exit_code == 0
    for name, why in (("no", "No such file or directory"), (".", "is a directory")):
        result = run("encode", "--filelist", tmp_path / name)
        said = f"licodec: --filelist {tmp_path / name}: {why}\n"
        assert (result.exit_code, result.stderr) == (1, said)
    listed.write_bytes(b"\xef\xbb\xbf" + f"{png}\r\n".encode())  # as Windows' editors begin a text
    assert run("encode", "--filelist", listed, "-f").exit_code == 0
    result = run("encode", "--filelist", png)
    assert result.exit_code == 2 and "one name a line is wanted" in result.stderr
    result = run("encode")
    assert result.exit_code == 2 and "name a file, or --filelist FILE" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "-", "-"],
        ["decode", "-", "x.lic", "-"],
        ["info", "-", "-"],
        ["verify", "-", "-"],
        ["compare", "-", "-"],
        ["encode", "-", "--filelist", "-"],
    ],
)
def test_standard_input_is_there_once(run, png, arguments):
    result = run(*arguments, stdin=png.read_bytes())
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "standard input" in result.stderr and result.stdout == ""


def test_a_model_of_no_name_is_not_the_default(run, png):
    for option in ("-m", "--weights"):
        result = run("encode", png, option, "")
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert not png.with_suffix(".lic").exists()


def test_a_folder_as_output_has_no_format(run, lic, tmp_path):
    result = run(
        "decode", lic, "-o", f"{tmp_path}/a.png/", "--format", "jpeg", "--format-quality", 9
    )
    assert result.exit_code == 0 and (tmp_path / "a.png" / "photo.jpeg").exists()


def test_weights_that_are_not_installed_are_named_by_their_model(run, png, tmp_path):
    weights = small_everyday.weights(tmp_path)
    row = json.loads(run("encode", png, "--weights", weights, "--json").stdout)
    assert row["model"] == "everyday"
    assert json.loads(run("info", png.with_suffix(".lic"), "--json").stdout)["model"] == "unknown"


def test_where_weights_were_looked_for(run, png, tmp_path, monkeypatch):
    def said():
        return run("encode", png, "--lossless").stderr

    monkeypatch.setattr(catalogue, "installed", list)
    monkeypatch.delenv("LICODEC_WEIGHTS", raising=False)
    assert "no weights for everyday are installed (looked in the package); --weights" in said()
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path))
    assert "(looked in $LICODEC_WEIGHTS and the package)" in said()
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path / "missing"))
    assert "$LICODEC_WEIGHTS names no folder" in said()
    assert "note: LICODEC_WEIGHTS names no folder: " in run("models").stderr
    assert "CompressAI" in run("encode", png, "-m", "hyperprior").stderr


def test_a_damaged_file_does_not_pass_pillows_verify(encoded, lic):
    with Image.open(lic) as image:
        image.verify()
    lic.write_bytes(encoded[:-5] + encoded[-4:])
    with Image.open(lic) as image, pytest.raises(OSError, match="damaged"):
        image.verify()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-bpp", "0"], "a target bpp is a number above 0, not 0.0"),
        (["--target-psnr", "-3"], "a target PSNR is a number above 0, not -3.0"),
        (
            ["-m", "adaptive", "-e", "3"],
            "--effort 3 asks for a search, and adaptive has none; --effort 0 goes without",
        ),
    ],
)
def test_what_makes_no_sense_is_told_in_plain_words(run, png, arguments, said):
    assert run("encode", png, *arguments).stderr == f"licodec: {said}\n"


@pytest.mark.parametrize(
    ("option", "said"), [("-q", "'x' is no number"), ("-j", "'x' is no whole number")]
)
def test_values_of_another_kind_are_told_in_plain_words(run, png, option, said):
    result = run("encode", png, option, "x")
    assert result.exit_code == 2 and said in result.stderr and "range" not in result.stderr
