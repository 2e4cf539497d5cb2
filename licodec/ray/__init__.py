"""Many images on a Ray cluster: `licodec encode --ray`, and columns of a Ray dataset.

import ray, licodec.ray
photos = ray.data.read_parquet("s3://bucket/photos")           # with a column of image files' bytes
licodec.ray.encode(photos, quality=50).write_parquet("s3://bucket/coded")
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from licodec.errors import family
from licodec.ray.batch import imported, processors
from licodec.ray.coding import Coding

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["decode", "encode"]

_ROWS = 16
"""That a worker gets at once."""


def encode(
    dataset: Dataset, *, column: str = "bytes", workers: int | None = None, **options: Any
) -> Dataset:
    """Encode a column of a Ray dataset.

    Args:
        dataset: with the bytes of an image file in each row; null stays null.
        column: which holds them.
        workers: at most so many processes, each with its model and one processor; by default one for each
            processor of the cluster.
        options: as `licodec.encode` takes them.

    Returns:
        The dataset, computed when it is used: the column has the bytes of .lic files, or null where that
        failed, and a column `error` one line on it.

    Raises:
        LicodecError: an option makes no sense, or Ray is not installed.
    """
    return _mapped(dataset, column, workers, Coding(True, options, check=False))


def decode(
    dataset: Dataset, *, column: str = "bytes", workers: int | None = None, format: str = "png",
    format_quality: int | None = None, **options: Any,
) -> Dataset:  # fmt: skip
    """Decode a column of a Ray dataset.

    Args:
        dataset, column, workers: as `encode` has them, of .lic files.
        format, format_quality: as `licodec.decode_file` takes them.
        options: as `licodec.decode` takes them.

    Returns:
        As `encode`, with the bytes of image files.

    Raises:
        LicodecError: an option makes no sense, or Ray is not installed.
    """
    coding = Coding(False, options, format=format, format_quality=format_quality)
    return _mapped(dataset, column, workers, coding)


def _mapped(dataset: Dataset, column: str, workers: int | None, coding: Coding) -> Dataset:
    ray = imported()
    most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    return dataset.map_batches(
        _Columns, batch_format="pyarrow", batch_size=_ROWS, fn_constructor_args=(coding, column),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most), **processors(coding),
    )  # fmt: skip


class _Columns:
    """A worker, from table to table."""

    def __init__(self, coding: Coding, column: str) -> None:
        self.coding, self.column = coding, column
        coding.load()

    def __call__(self, table: Any) -> Any:
        import pyarrow

        place = table.schema.get_field_index(self.column)
        coded = [self._row(content) for content in table.column(place).to_pylist()]
        columns = list(zip(*coded, strict=True)) or [(), ()]
        table = table.set_column(place, self.column, pyarrow.array(columns[0], pyarrow.binary()))
        return table.append_column("error", pyarrow.array(columns[1], pyarrow.string()))

    def _row(self, content: bytes | None) -> tuple[bytes | None, str | None]:
        """Bytes and error."""
        if content is None:
            return None, None
        try:
            return self.coding(BytesIO(content))[0], None
        except Exception as error:
            return None, str(family(error))
