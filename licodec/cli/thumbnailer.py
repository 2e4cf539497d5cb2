"""`licodec-thumbnailer SIZE IN OUT`, which file managers call for a .lic file; see share/thumbnailers."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from licodec.container import MAX_PIXELS
from licodec.errors import FileAccessError, LicodecError, family
from licodec.io import files, metadata
from licodec.progress import say


class _OneLine(click.Command):
    """Says in one line what arguments it does not understand."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().main(*arguments, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            say(f"licodec-thumbnailer: {error.format_message()}")
            sys.exit(error.exit_code)


@click.command(cls=_OneLine)
@click.argument("size", type=click.IntRange(1))
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
def main(size: int, source: str, output: str) -> None:
    """Write a PNG of the .lic file IN to OUT, at most SIZE pixels wide and high."""
    try:
        files.write(output, thumbnail(source, size), force=True)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, LicodecError):
            error = FileAccessError(error.strerror or "not a .lic file")
        failure = family(error)
        say(f"licodec-thumbnailer: {source}: {failure}")
        sys.exit(failure.exit_code)


def thumbnail(source: str, size: int) -> bytes:
    """A PNG of a .lic file, turned as its EXIF says.

    Raises:
        LicodecError: the file cannot be decoded.
        OSError: it cannot be read.
    """
    files.refuse_foreign(source)
    with files.open_image(source, MAX_PIXELS, formats=("LIC",)) as image:
        image.load()
        small = metadata.upright(image)
        small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()
