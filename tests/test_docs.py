import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import licodec
from licodec.cli.main import main
from licodec.container import SIGNATURE, Container, pack

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FORMAT = (ROOT / "docs" / "format.md").read_text("utf-8")
PAGES = [
    README,
    ROOT / "SECURITY.md",
    ROOT / "weights" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMANDS = main.list_commands(click.Context(main))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.S)


def calls(path: Path) -> list[tuple[str, str]]:
    """(command, the rest of its line) of every licodec call in a page's console blocks."""
    lines = [line for block in blocks(path, "console") for line in block.splitlines()]
    parts = [part for line in lines if line.startswith("$ ") for part in line[2:].split(" | ")]
    return re.findall(
        r"(?:^|-m )licodec (\w+)(.*)", "\n".join(part.split(" #")[0] for part in parts), re.M
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.help
    assert f"licodec {name}" in README.read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_option_and_link_of_a_page_exists(path):
    for name, rest in calls(path):
        for config in re.findall(r"configs/\S+", rest):
            assert (ROOT / config).exists(), config
        command = main.get_command(click.Context(main), name)
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts}
        known |= set(command.context_settings.get("help_option_names", ["-h", "--help"]))
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", rest):
            assert option in known, (name, option)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_architecture_names_the_files_there_are():
    """All that it names are there, and it names every file at the top of the package."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`(licodec/[\w./-]+)`", text))
    assert len(named) > 50
    assert not {name for name in named if not (ROOT / name).exists()}
    assert {f"licodec/{path.name}" for path in (ROOT / "licodec").glob("*.py")} <= named


def test_pages_are_seen_to_hold_calls():
    assert len(calls(README)) >= 4


@pytest.mark.parametrize(
    "name", ["README.md", "docs/tutorial.md", "docs/mime.md", "docs/python.md"]
)
def test_python_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    found = blocks(ROOT / name, "python")
    assert found
    exec("\n".join(found), {})


def test_magic_recognizes_a_file(tmp_path):
    (rules,) = blocks(ROOT / "docs" / "mime.md", "magic")
    assert "\\x89LIC\\x0a" in rules and SIGNATURE == b"\x89LIC\x0a"
    if shutil.which("file") is None:
        pytest.skip("file(1) is not installed")
    magic, image = tmp_path / "licodec.magic", tmp_path / "photo.lic"
    magic.write_text(rules, "utf-8")
    for mode, told in [("L", "grey"), ("RGBA", "RGB with alpha")]:
        image.write_bytes(pack(Container(8, 8, mode, False, bytes(4), 0, 0, 0, payload=b"")))
        said = subprocess.check_output(["file", "-b", "-m", magic, image], text=True)
        assert said.strip() == f"licodec image, version 1, {told}"


def test_signature_and_example_of_the_specification():
    assert SIGNATURE.hex(" ").upper() in FORMAT
    example = re.search(r"^    (89 4c .*) \| crc32$", FORMAT, re.M).group(1)
    data = pack(
        Container(
            768, 512, "RGB", True, bytes.fromhex("12345678"), 100, 3, 0xDEADBEEF, payload=b"payload"
        )
    )
    assert bytes.fromhex(example.replace("|", " ")) == data[:-4]


def test_changelog_has_the_bitstream_heading():
    assert "### Bitstream" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_a_page_names_exist(path):
    pattern = r"`((?:licodec|docs|tests|configs|benchmarks)/[\w./-]*)`"
    for name in re.findall(pattern, path.read_text("utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_the_guide_is_built_without_a_warning_and_holds_every_page_command_and_function(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file(), page.name
    home, commands, python = (
        (tmp_path / f"{n}.html").read_text() for n in ("index", "commands", "python")
    )
    for text in (home, commands, python):  # search and theme are in the site itself
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="?https?:', text)
    assert all(f'id="licodec-{name}"' in commands for name in COMMANDS)
    for name in licodec.__all__:
        found = {
            f'id="licodec.{name}"',
            f'id="licodec.errors.{name}"',
            f'id="licodec.{name}.describe"',
            f'id="licodec.torch_models.{name}"',
        }
        assert name.startswith("_") or any(anchor in python for anchor in found), name
    links = re.findall(r'(?:src|href)="([^"#:]+)(?:#[^"]*)?"', home)
    assert links and all((tmp_path / link).exists() for link in links)
