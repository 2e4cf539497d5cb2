"""The command line: parse, one library call, print."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

import licodec
from licodec import memory, signals
from licodec.cli import batch, shared_options
from licodec.cli import plan as plans
from licodec.errors import FileAccessError, LicodecError, family
from licodec.io import files
from licodec.progress import Bar, plain, say, watching

_ELSEWHERE = {
    "encode": "licodec.cli.encode_decode:encode",
    "decode": "licodec.cli.encode_decode:decode",
    "compare": "licodec.cli.compare:compare",
    "bench": "licodec.bench.command:bench",
    "train": "licodec.training.command:train",
    "export": "licodec.training.command:export",
    "import": "licodec.training.command:import_",
    "qualities": "licodec.training.command:qualities",
}
"""Commands of other files, loaded when asked for."""

_COMPLETE = "_LICODEC_COMPLETE"
"""The variable by which a shell asks for completions."""

_PLAINER = {
    "is not a valid float range": "is no number", "is not a valid integer range": "is no whole number",
    "is not a valid float": "is no number", "is not a valid integer": "is no whole number",
}  # fmt: skip
"""What click says of values, and what is meant."""

_GENTLE = {"bench", "train", "export", "import", "qualities"}
"""Commands with more to put away than a temporary file, when a signal ends them."""


class Commands(click.Group):
    """Turns whatever goes wrong into one line and its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = "encode decode info verify compare models bench train export import qualities completion"
        return names.split()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _ELSEWHERE:
            module, _, attribute = _ELSEWHERE[name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        if found[0] in _GENTLE:
            signals.gently()
        return found

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        run = partial(super().main, args, "licodec", complete_var, False, **extra)
        if not standalone_mode:
            return run()
        if reconfigure := getattr(sys.stdout, "reconfigure", None):
            # A pipe may be of Windows' code page, which has not every letter of names and texts.
            reconfigure(errors="backslashreplace")
        try:
            code: Any = run()
            if not code:
                sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            say(error.format_message())
            code = error.exit_code
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            where = f"; see {context.command_path} --help" if context else ""
            message = error.format_message().rstrip(".")
            for words, plainer in _PLAINER.items():
                message = message.replace(words, plainer)
            complain(message + where)
            code = error.exit_code
        except click.Abort:
            code = 128 + signal.SIGINT
        except OSError as error:  # of --help and --version, and of the flush
            code = _report(error)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():  # Pillow's, of odd metadata above all
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = _warned()
                super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(128 + signal.SIGINT)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            ctx.exit(_report(error))


def _warned() -> Callable[..., None]:
    """A hook for warnings: one for each file of a batch, and elsewhere one for each cause."""
    seen = set()

    def show(message: Warning, category: object, filename: str, line: int, *_: object) -> None:
        if not batch.take_warning(str(message)) and (filename, line) not in seen:
            seen.add((filename, line))
            complain(f"note: {message}")

    return show


def _report(error: Exception) -> int:
    """Say what went wrong; the exit code for it."""
    if os.environ.get("LICODEC_DEBUG"):
        raise error
    if isinstance(error, OSError):  # whoever reads or writes an image has made it a LicodecError
        where = error.filename or "cannot write standard output"
        error = FileAccessError(f"{where}: {error.strerror or error}")
    failure = family(error)
    complain(str(failure))
    return failure.exit_code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(licodec.__version__, "-V", "--version", message="licodec %(version)s")
def main() -> None:
    """A learned image codec: smaller than JPEG, the same on every machine."""


def complain(message: str) -> None:
    say(f"licodec: {' '.join(message.split())}")


@main.command()
@shared_options.inputs(required=True)
@shared_options.as_json
@shared_options.recursive
def info(inputs: tuple[str, ...], as_json: bool, recursive: bool) -> None:
    """Show what .lic files hold, without decoding them."""

    from licodec.info import ALWAYS_ADAPTIVE

    def line(row: dict[str, Any]) -> str:
        is_told = row["distributions"] == "adaptive" and row["model"] not in ALWAYS_ADAPTIVE
        own = ", adaptive distributions" if is_told else ""
        streams = ", ".join(f"{name} {size}" for name, size in row["streams"].items())
        return (
            f"{row['file']}: {row['width']}x{row['height']} {row['mode']}, {row['bytes']} bytes, "
            f"{row['bpp']} bpp, {row['model']}@{row['model_hash']}, quality {row['quality']:g}{own} "
            f"({streams})"
        )

    found = plans.find(inputs, recursive, files.is_lic, ".lic file")
    _inspect(found, as_json, 2**62, lambda data: licodec.info(data, 2**62), line)


@main.command()
@shared_options.inputs(required=True)
@click.option("--deep", is_flag=True, help="Decode, and compare the checksum of pixels or latents.")
@shared_options.as_json
@shared_options.max_pixels
@shared_options.weights
@shared_options.recursive
def verify(
    inputs: tuple[str, ...],
    deep: bool,
    as_json: bool,
    max_pixels: int,
    weights: str | None,
    recursive: bool,
) -> None:
    """Check .lic files against their checksums."""

    def check(data: bytes) -> dict[str, Any]:
        row = licodec.info(data, max_pixels)
        if deep:
            memory.need_numpy()
            from licodec.codec import verify_latents

            row["latents_crc32"] = verify_latents(data, max_pixels, weights)
        return {"ok": True, "deep": deep, "latents_crc32": row["latents_crc32"]}

    found = plans.find(inputs, recursive, files.is_lic, ".lic file")
    _inspect(found, as_json, max_pixels, check, lambda row: f"{row['file']}: ok")


def _inspect(
    found: plans.Found,
    as_json: bool,
    max_pixels: int,
    look: Callable[[bytes], dict[str, Any]],
    line: Callable[[dict[str, Any]], str],
) -> None:
    """Print a row for every input; the exit code is the worst failure's."""
    rows, worst = [], 0
    for note in found.notes:
        say(f"licodec: note: {note}")
    for source in found.sources:
        name = plain(source.path)
        try:
            if source.problem:
                raise source.problem
            with Bar(name) as bar, watching(bar.update):
                row = {"file": source.path, **look(files.read(source.path, max_pixels))}
        except Exception as error:
            failure = family(error)
            complain(f"{name}: {failure}")
            worst = max(worst, failure.exit_code)
            row = {"file": source.path, "ok": False, "error": str(failure)}
        else:
            if not as_json:
                click.echo(plain(line({**row, "file": name})))
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows))
    if worst:
        sys.exit(worst)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that makes a shell complete licodec's commands.

    For bash, `eval "$(licodec completion bash)"` in ~/.bashrc; for zsh the same in ~/.zshrc; for fish,
    `licodec completion fish > ~/.config/fish/completions/licodec.fish`.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, "licodec", _COMPLETE)
    click.echo(script.source_template % script.source_vars())


@main.command()
@click.option("--json", "as_json", is_flag=True)
def models(as_json: bool) -> None:
    """List the models that are installed."""
    from licodec.architectures import TABLE
    from licodec.weights import catalogue

    rows: list[dict[str, Any]] = []
    named = os.environ.get("LICODEC_WEIGHTS")
    if named and not os.path.isdir(named):
        complain(f"note: LICODEC_WEIGHTS names no folder: {plain(named)}")
    for path in catalogue.installed():
        try:
            offered = catalogue.models(path)
        except LicodecError as error:
            complain(f"note: {error}")
            continue
        for name in offered:
            default = name == TABLE[0].name and not any(row["default"] for row in rows)
            rows.append(
                {
                    "model": name,
                    "weights": path.stem,
                    "hash": path.stem.rsplit("-", 1)[-1],
                    "bytes": path.stat().st_size,
                    "default": default,
                    "released": catalogue.is_released(path),
                }
            )
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        marks = [" (default)"] * row["default"] + [" (your own)"] * (not row["released"])
        size = f"{row['bytes']:,} bytes"
        click.echo(plain(f"{row['model']}@{row['hash']}  {row['weights']}, {size}{''.join(marks)}"))
