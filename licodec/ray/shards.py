"""Tar shards and Parquet files, one after the other to one of the same kind, image by image."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from licodec.errors import DamagedFileError, TooLargeError, family
from licodec.io.files import MOST_BYTES
from licodec.ray.coding import Coding

SUFFIXES = (".tar", ".parquet")

_ROWS = 64
"""Of a Parquet file that are held at once."""


class Shard(NamedTuple):
    """What came of one: how many images it has, and for each that failed its place and why."""

    images: int
    failed: list[dict[str, Any]]


def convert(name: str, source: IO[bytes], target: IO[bytes], coding: Coding) -> Shard:
    """Write a shard anew with its images coded.

    Images that fail are left out of a tar file, and null in a Parquet file.

    Raises:
        DamagedFileError: the shard itself cannot be read.
    """
    kind = _tar if name.lower().endswith(".tar") else _parquet
    return kind(source, target, coding)


def _coded(
    coding: Coding, data: bytes, place: dict[str, Any], failed: list[dict[str, Any]]
) -> bytes | None:
    try:
        return coding(BytesIO(data))[0]
    except Exception as error:
        failed.append({**place, "error": str(family(error))})
        return None


def _tar(source: IO[bytes], target: IO[bytes], coding: Coding) -> Shard:
    """By WebDataset's naming: what an image is called but for its suffix stays, and so does all else."""
    images, names = 0, set[str]()
    failed: list[dict[str, Any]] = []
    try:
        with (
            tarfile.open(fileobj=source, mode="r|") as old,
            tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as new,
        ):
            for member in old:
                content = old.extractfile(member) if member.isreg() else None
                if content is None or not coding.takes(member.name):
                    new.addfile(member, content)
                    names.add(member.name)
                    continue
                images += 1
                if member.size > MOST_BYTES:
                    raise TooLargeError(f"{member.name} has {member.size:,} bytes")
                data = _coded(coding, content.read(), {"member": member.name}, failed)
                if data is not None:
                    entry = _renamed(member, coding.suffix, names)
                    entry.size = len(data)
                    new.addfile(entry, BytesIO(data))
    except (tarfile.TarError, EOFError) as error:
        raise DamagedFileError(f"no tar file that can be read ({error})") from error
    return Shard(images, failed)


def _renamed(member: tarfile.TarInfo, suffix: str, names: set[str]) -> tarfile.TarInfo:
    """A member's entry under its new name, which no other has."""
    name = str(PurePosixPath(member.name).with_suffix(suffix))
    if name in names:
        name = member.name + suffix
    names.add(name)
    entry = tarfile.TarInfo(name)  # fresh: extended headers would bring the old name back
    for kept in ("mode", "mtime", "uid", "gid", "uname", "gname"):
        setattr(entry, kept, getattr(member, kept))
    return entry


def _parquet(source: IO[bytes], target: IO[bytes], coding: Coding) -> Shard:
    import pyarrow
    from pyarrow import parquet

    images, row = 0, 0
    failed: list[dict[str, Any]] = []
    try:
        old = parquet.ParquetFile(source)
        schema = old.schema_arrow
        place = schema.get_field_index(bytes_column(schema))
        field = schema.field(place).with_nullable(True)
        with parquet.ParquetWriter(target, schema.set(place, field)) as new:
            for batch in old.iter_batches(_ROWS):
                contents = []
                for content in batch.column(place).to_pylist():
                    images += content is not None
                    contents.append(
                        None if content is None else _coded(coding, content, {"row": row}, failed)
                    )
                    row += 1
                column = pyarrow.array(contents, field.type)
                new.write_batch(batch.set_column(place, field, column))
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedFileError(f"no Parquet file that can be read ({error})") from error
    return Shard(images, failed)


def bytes_column(schema: Any) -> str:
    """The column `bytes`, or the only one of bytes that there is.

    Raises:
        DamagedFileError: there is none, or there are several.
    """
    from pyarrow import types

    kinds = (types.is_binary, types.is_large_binary)
    found = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
    if "bytes" in found:
        return "bytes"
    if len(found) != 1:
        raise DamagedFileError(f"has {len(found)} columns of bytes, and none is called bytes")
    return str(found[0])
