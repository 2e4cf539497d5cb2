"""What a wheel installs for desktops: MIME type, thumbnailer, man page."""

import configparser
import importlib
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import licodec
from licodec.cli import thumbnailer
from licodec.container import SIGNATURE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def entry() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(ROOT / "share" / "thumbnailers" / "licodec.thumbnailer", "utf-8")
    return parser["Thumbnailer Entry"]


def called(size: int, source: Path, output: Path) -> list[str]:
    """The thumbnailer's command as a file manager runs it, by the entry point of pyproject.toml."""
    program, *arguments = entry()["Exec"].split()
    assert entry()["TryExec"] == program
    module, _, function = PROJECT["project"]["scripts"][program].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    filled = {"%s": str(size), "%i": str(source), "%o": str(output)}
    code = f"from {module} import {function}; {function}()"
    return [sys.executable, "-c", code, *(filled[argument] for argument in arguments)]


@pytest.mark.slow
def test_the_thumbnailer_writes_a_small_png_over_the_file_that_is_prepared(tmp_path, photo):
    turned = photo.getexif()
    turned[0x0112] = 6
    photo.save(tmp_path / "photo.lic", quality=30)
    exif = Image.open(tmp_path / "photo.lic")
    exif.load()
    exif.info["exif"] = turned.tobytes()
    (tmp_path / "turned.lic").write_bytes(licodec.encode(exif, 30))
    for name, size in (("photo", (60, 40)), ("turned", (40, 60))):
        output = tmp_path / "thumbnail.png"
        output.touch()
        subprocess.run(called(60, tmp_path / f"{name}.lic", output), check=True)
        with Image.open(output) as small:
            assert small.format == "PNG" and small.size == size


@pytest.mark.parametrize("arguments", [[], ["0", "a", "b"], ["x", "a", "b"], ["9", "a"]])
def test_the_thumbnailer_tells_odd_arguments_in_one_line(arguments):
    result = CliRunner().invoke(thumbnailer.main, arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("licodec-thumbnailer: ")


@pytest.mark.slow
def test_the_thumbnailer_refuses_in_one_line_and_writes_nothing(tmp_path, encoded):
    (tmp_path / "damaged.lic").write_bytes(encoded[:-20])
    (tmp_path / "other.lic").write_bytes(b"no image")
    for name in ("damaged", "other", "nowhere"):
        output = tmp_path / "thumbnail.png"
        run = called(60, tmp_path / f"{name}.lic", output)
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode not in (0, 2) and not output.exists()
        assert len(done.stderr.splitlines()) == 1 and "internal error" not in done.stderr, (
            done.stderr
        )


def test_mime_type_is_one_and_the_same_everywhere():
    tree = ElementTree.parse(ROOT / "share" / "mime" / "packages" / "licodec.xml")
    name = "{http://www.freedesktop.org/standards/shared-mime-info}"
    (kind,) = tree.findall(f"{name}mime-type")
    assert (
        kind.get("type")
        == Image.MIME["LIC"]
        == entry()["MimeType"].rstrip(";")
        == "image/x-licodec"
    )
    (match,) = kind.iter(f"{name}match")
    assert match.get("value").encode().decode("unicode_escape").encode("latin-1") == SIGNATURE
    assert [glob.get("pattern") for glob in kind.iter(f"{name}glob")] == ["*.lic"]


@pytest.mark.skipif(shutil.which("update-mime-database") is None, reason="no shared-mime-info")
def test_desktops_take_the_mime_type_in(tmp_path):
    shutil.copytree(ROOT / "share" / "mime", tmp_path / "mime")
    run = ["update-mime-database", tmp_path / "mime"]
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert "image/x-licodec:*.lic" in (tmp_path / "mime" / "globs2").read_text("utf-8")
    assert SIGNATURE in (tmp_path / "mime" / "magic").read_bytes()


@pytest.mark.slow
def test_the_wheel_installs_them_and_the_man_page(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = {n.partition(".data/data/")[2]: n for n in archive.namelist() if ".data/data/" in n}
        assert set(data) == {
            "share/man/man1/licodec.1",
            "share/mime/packages/licodec.xml",
            "share/thumbnailers/licodec.thumbnailer",
        }
        assert b".SH NAME" in archive.read(data["share/man/man1/licodec.1"])
        assert "licodec/bench/page/page.js" in archive.namelist()
