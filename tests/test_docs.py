import re
from pathlib import Path

import click
import pytest

from licodec.cli.main import main
from licodec.container import SIGNATURE, Container, pack

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FORMAT = (ROOT / "docs" / "format.md").read_text("utf-8")
COMMANDS = main.list_commands(click.Context(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.help
    assert f"`licodec {name}" in README


def test_every_command_and_option_of_the_readme_exists():
    lines = re.findall(
        r"licodec (\w+)([^\n|]*)", "\n".join(re.findall(r"```console\n(.*?)```", README, re.S))
    )
    assert lines
    for name, rest in lines:
        if name == "train" and "configs/" in rest:
            assert (ROOT / re.search(r"configs/\S+", rest).group()).exists()
        command = main.get_command(click.Context(main), name)
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", rest):
            assert option in known, (name, option)


def test_signature_and_example_of_the_specification():
    assert SIGNATURE.hex(" ").upper() in FORMAT
    example = re.search(r"^    (89 4c .*) \| crc32$", FORMAT, re.M).group(1)
    data = pack(
        Container(
            768, 512, "RGB", True, bytes.fromhex("12345678"), 100, 3, 0xDEADBEEF, payload=b"payload"
        )
    )
    assert bytes.fromhex(example.replace("|", " ")) == data[:-4]


def test_links_in_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_changelog_has_the_bitstream_heading():
    assert "### Bitstream" in (ROOT / "CHANGELOG.md").read_text("utf-8")
