"""Options that several commands have in common, and what a shell completes them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from licodec import help
from licodec.container import MAX_PIXELS

Completion = list[CompletionItem]


def files(context: click.Context, parameter: click.Parameter, begun: str) -> Completion:
    """Names of files, which the shell knows best."""
    return [CompletionItem(begun, type="file")]


def folders(context: click.Context, parameter: click.Parameter, begun: str) -> Completion:
    """Names of folders, likewise."""
    return [CompletionItem(begun, type="dir")]


def models(context: click.Context, parameter: click.Parameter, begun: str) -> Completion:
    """The models that are installed, and files with weights."""
    from licodec.weights import catalogue

    names = [name for name in catalogue.offered_models() if name.startswith(begun)]
    return [CompletionItem(name) for name in names] or files(context, parameter, begun)


def inputs(required: bool) -> Callable[[Any], Any]:
    """The argument IN..."""
    return click.argument(
        "inputs", nargs=-1, required=required, metavar="IN...", shell_complete=files
    )


recursive = click.option(
    "-r", "--recursive", is_flag=True, help="Go into folders, but for hidden ones."
)

as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as one JSON object, or a list for several files.",
)

max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger images.",
)

weights = click.option(
    "--weights", metavar="FILE", help="Weights that are not installed.", shell_complete=files
)

_FILES = help.group(
    "Files",
    click.option(
        "-o", "--output", metavar="OUT", shell_complete=files,
        help="Output file; - is standard output, and a name that ends in / a folder.  "
        "[default: beside IN]",
    ),
    click.option(
        "--output-dir", metavar="DIR", shell_complete=folders,
        help="Write outputs there; it is made if needed, and -r mirrors the folders in it.",
    ),
    recursive,
    click.option(
        "--filelist", metavar="FILE", shell_complete=files,
        help="Take more inputs from FILE, one a line; - is standard input.",
    ),
    click.option(
        "-f", "--force", is_flag=True,
        help="Overwrite outputs. Without it, several files skip those that are done.",
    ),
    click.option(
        "--strip", is_flag=True, help="Drop ICC, EXIF and XMP; pixels are turned as EXIF said."
    ),
)  # fmt: skip

_WORK = help.group(
    "Work",
    click.option(
        "-j", "--jobs", type=click.IntRange(1), metavar="N",
        help="Files at once; memory grows with it.  [default: 1, and all processors with --ray]",
    ),
    click.option(
        "--ray", is_flag=False, flag_value="local", metavar="[ADDRESS]",
        help="Use a Ray cluster, without ADDRESS a local one; tar and Parquet files are image shards.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
        show_default=True, help="Where the transforms run.",
    ),
    click.option(
        "--precision", type=click.Choice(["auto", "float32", "bf16"]), default="auto",
        show_default=True, help="Arithmetic of the transforms.",
    ),
    max_pixels,
    weights,
)  # fmt: skip

_MESSAGES = help.group(
    "Messages",
    click.option("--quiet", is_flag=True, help="Print errors only."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Print every file's notes, and which files are skipped.",
    ),
    as_json,
)


def coding(command: Callable[..., Any]) -> Callable[..., Any]:
    """What encode and decode have in common."""
    for decorate in (_MESSAGES, _WORK, _FILES, inputs(required=False)):
        command = decorate(command)
    return command
