"""What the commands are, read off click: for the man page and for the guide's page."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import click

import licodec
from licodec.cli.main import main
from licodec.help import grouped_options


@dataclass(frozen=True)
class Described:
    """One command.

    Attributes:
        usage: its whole line.
        paragraphs: of its help text.
        options: by the titles of their groups: how each is written, and its help.
        examples: whole command lines.
    """

    name: str
    usage: str
    paragraphs: list[str]
    options: dict[str, list[tuple[str, str]]]
    examples: Sequence[str]


def commands() -> list[Described]:
    """Every command, in the order of `licodec --help`."""
    parent = click.Context(main, info_name="licodec")
    out = []
    for name in main.list_commands(parent):
        command = main.get_command(parent, name)
        assert command is not None
        ctx = click.Context(
            command, parent, info_name=name, show_default=True, **command.context_settings
        )
        text = inspect.cleandoc(command.help or "")
        out.append(
            Described(
                name,
                " ".join(["licodec", name, *command.collect_usage_pieces(ctx)]),
                [" ".join(part.split()) for part in text.split("\n\n")],
                grouped_options(command, ctx),
                getattr(command, "examples", ()),
            )
        )
    return out


def man_page() -> str:
    """licodec(1), for `man`."""
    lines = [
        f'.TH LICODEC 1 "" "licodec {licodec.__version__}" "User commands"',
        ".SH NAME",
        f"licodec \\- {_roff(_first_line().rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B licodec",
        _roff("COMMAND [OPTIONS] …"),
        ".SH COMMANDS",
    ]
    for command in commands():
        lines += [f".SS {_roff(command.usage)}"]
        for paragraph in command.paragraphs:
            lines += [".PP", _roff(paragraph)]
        for title, records in command.options.items():
            lines += [".PP", f".B {_roff(title)}"]
            for option, text in records:
                lines += [".TP", f".B {_roff(option)}", _roff(text)]
        if command.examples:
            examples = map(_roff, command.examples)
            lines += [".PP", ".B Examples", ".PP", ".nf", ".RS", *examples, ".RE", ".fi"]
    for title, records in _FURTHER.items():
        lines += [f".SH {title}"]
        for key, text in records:
            lines += [".TP", f".B {_roff(key)}", _roff(text)]
    return "\n".join(lines) + "\n"


def guide_page() -> str:
    """The same in Markdown, with a heading for each command."""
    lines = ["# Commands", "", _first_line(), ""]
    for command in commands():
        lines += [f"## `licodec {command.name}`", "", "```text", command.usage, "```", ""]
        lines += [line for paragraph in command.paragraphs for line in (paragraph, "")]
        for title, records in command.options.items():
            lines += [f"| {title} | |", "|---|---|"]
            lines += [f"| `{option}` | {_cell(text)} |" for option, text in records]
            lines += [""]
        if command.examples:
            lines += ["```console", *(f"$ {example}" for example in command.examples), "```", ""]
    for title, records in _FURTHER.items():
        lines += [f"## {title.capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| `{key}` | {_cell(text)} |" for key, text in records]
        lines += [""]
    return "\n".join(lines)


_FURTHER = {
    "EXIT STATUS": [
        ("0", "All went well."),
        ("1", "An image or a file could not be handled."),
        ("2", "The arguments make no sense."),
        ("3", "A file is damaged, or it needs a later licodec."),
        ("4", "The weights that a file or an argument names are not installed, or are damaged."),
        ("130", "Interrupted: the process is killed by the signal."),
    ],
    "ENVIRONMENT": [
        ("LICODEC_WEIGHTS", "A folder in which weights are looked for first."),
        ("LICODEC_DEBUG", "If set, errors show where they come from."),
    ],
}


def _first_line() -> str:
    return (main.help or "").strip().split("\n")[0]


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
