"""Where the files of a cluster lie: folders that all machines see, or what pyarrow and fsspec reach."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from licodec.errors import FileAccessError, UsageError
from licodec.io import files

_OBJECTS = ("s3", "gcs", "abfs")
"""File systems of pyarrow that show an object only when all of it is there."""


@dataclass(frozen=True)
class Store:
    """One file system.

    Attributes:
        system: of pyarrow; None for the machine's own, whose names may be any bytes.
    """

    system: Any = None

    def open(self, path: str) -> IO[bytes]:
        """A file to read from any place of it.

        Raises:
            FileAccessError: it cannot be read, or is none: a pipe may have no end.
        """
        try:
            if self.system is not None:
                opened: IO[bytes] = self.system.open_input_file(path)
                return opened
            if os.path.exists(path) and not os.path.isfile(path):
                raise FileAccessError("is no regular file")
            return open(path, "rb")
        except OSError as error:
            raise FileAccessError(error.strerror or str(error)) from error

    def names(self, folder: str) -> set[str]:
        """Paths of the files below a folder, or none where there is no such folder.

        Raises:
            FileAccessError: it cannot be read.
        """
        with self._access("read", folder):
            if self.system is None:
                return {
                    os.path.join(top, name) for top, _, found in os.walk(folder) for name in found
                }
            from pyarrow.fs import FileSelector, FileType

            selector = FileSelector(folder, allow_not_found=True, recursive=True)
            found = self.system.get_file_info(selector)
            return {info.path for info in found if info.type == FileType.File}

    def is_folder(self, path: str) -> bool:
        """Raises FileAccessError where there is nothing at all."""
        with self._access("read", path):
            from pyarrow.fs import FileType

            kind = self.system.get_file_info(path).type
            if kind == FileType.NotFound:
                raise FileNotFoundError(2, "No such file or directory", path)
            return bool(kind == FileType.Directory)

    def has(self, path: str) -> bool:
        with self._access("read", path):
            if self.system is None:
                return os.path.isfile(path)
            from pyarrow.fs import FileType

            return bool(self.system.get_file_info(path).type == FileType.File)

    def write(self, path: str, data: Any, replace: bool) -> None:
        """Write a whole file or nothing, and make its folder.

        Args:
            data: bytes, or what has their buffer.
            replace: overwrite a file that is there.

        Raises:
            FileAccessError: it cannot be written, or is there.
        """
        with self._access("write", path):
            if self.system is None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                files.write(path, data, replace)
            elif self.system.type_name in _OBJECTS:
                self._put(path, data)
            else:
                folder = PurePosixPath(path).parent
                self.system.create_dir(str(folder), recursive=True)
                temporary = str(folder / f".licodec-{secrets.token_hex(6)}.tmp")
                self._put(temporary, data)
                self.system.move(temporary, path)

    def _put(self, path: str, data: Any) -> None:
        stream = self.system.open_output_stream(path)
        stream.write(
            data
        )  # not in a `with`, which would close, and so show, half of it after an error
        stream.close()

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._access("remove", path):
            if self.system is None:
                Path(path).unlink(missing_ok=True)
            elif self.has(path):
                self.system.delete_file(path)

    @contextlib.contextmanager
    def _access(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error)
            raise FileAccessError(f"cannot {verb} {path}: {why}") from error


def located(name: str) -> tuple[Store, str]:
    """The store of a path or an URL, and the path in it.

    Raises:
        UsageError: no such kind of URL, or what it needs is not installed.
        FileAccessError: the store cannot be reached.
    """
    if "://" not in name:
        return Store(), os.path.abspath(name)
    from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem
    from pyarrow.lib import ArrowInvalid

    try:
        try:
            system, path = FileSystem.from_uri(name)
        except ArrowInvalid:
            from fsspec.core import url_to_fs

            inner, path = url_to_fs(name)
            system = PyFileSystem(FSSpecHandler(inner))
    except (ValueError, ImportError) as error:
        raise UsageError(f"{name}: {error}") from error
    except OSError as error:
        raise FileAccessError(f"{name}: {error}") from error
    return Store(None if isinstance(system, LocalFileSystem) else system), path
