"""Help texts of the command line: options in groups, and examples at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def group(title: str, *options: Decorator) -> Callable[[F], F]:
    """A decorator that gives a command some `click.option`s, which its help shows under a title."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            option(command)
            command.__click_params__[-1].group = title  # type: ignore[attr-defined]
        return command

    return decorate


def grouped_options(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """A command's options by the titles of their groups: how each is written, and its help."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):
            groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
    return groups if len(groups) > 1 else {"Options": [r for g in groups.values() for r in g]}


class Command(click.Command):
    """A command for `click.command(cls=Command, examples=…)`.

    Args:
        examples: whole command lines, shown as they are.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, records in grouped_options(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))
