import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from licodec.cli.main import main


def completed(words, index):
    """What bash is told: pairs of type and value."""
    env = {
        **os.environ,
        "_LICODEC_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(index),
    }
    done = subprocess.run(
        [sys.executable, "-m", "licodec"], env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [tuple(line.split(",", 1)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "index", "told"),
    [
        ("licodec enc", 1, ("plain", "encode")),
        ("licodec encode --target-s", 2, ("plain", "--target-size")),
        ("licodec encode -m hyp", 3, ("plain", "hyperprior")),
        ("licodec encode pho", 2, ("file", "pho")),
        ("licodec encode -o x", 3, ("file", "x")),
        ("licodec encode --output-dir x", 3, ("dir", "x")),
        ("licodec decode --format j", 3, ("plain", "jpeg")),
        ("licodec decode --weights w", 3, ("file", "w")),
        ("licodec verify pho", 2, ("file", "pho")),
        ("licodec compare a b", 3, ("file", "b")),
    ],
)
def test_commands_options_models_and_files_are_completed(words, index, told):
    assert told in completed(words, index)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_takes(shell):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and f"_LICODEC_COMPLETE={shell}_complete" in result.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=result.stdout, text=True, check=False)
        assert checked.returncode == 0


def test_other_shells_are_a_usage_error():
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
