"""The man page and the guide's page of commands, both read off click."""

import re
import shutil
import subprocess

import click
import pytest

from licodec.cli.main import main
from licodec.cli.reference import commands, guide_page, man_page

PARENT = click.Context(main)
COMMANDS = {name: main.get_command(PARENT, name) for name in main.list_commands(PARENT)}


def test_every_command_and_option_is_described_in_order():
    described = commands()
    assert [d.name for d in described] == list(COMMANDS)
    for d in described:
        assert d.usage.startswith(f"licodec {d.name} ") and d.paragraphs[0]
        written = " ".join(option for group in d.options.values() for option, _ in group)
        for parameter in COMMANDS[d.name].params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(name in written for name in parameter.opts), (d.name, parameter.opts)


def test_both_pages_hold_all_of_it():
    guide, man = guide_page(), man_page().replace("\\-", "-").replace("\\&", "")
    for d in commands():
        assert f"\n## `licodec {d.name}`\n" in guide
        assert f"\n.SS {d.usage}\n" in man
        for option, text in (record for group in d.options.values() for record in group):
            assert f"| `{option}` | {text} |".replace("|", "") in guide.replace("\\|", "").replace(
                "|", ""
            )
            assert f"\n.B {option}\n{text}\n" in man


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_finds_nothing_wrong_with_the_man_page():
    run = ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-b"]
    out = subprocess.run(run, input=man_page(), capture_output=True, text=True, check=True)
    # Lines that cannot be filled are a matter of width.
    wrong = [
        line
        for line in out.stderr.splitlines()
        if "can't break" not in line and "adjust" not in line
    ]
    assert wrong == [], out.stderr
    assert "--target-size SIZE" in re.sub(".\x08", "", out.stdout)
