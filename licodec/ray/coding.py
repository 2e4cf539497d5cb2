"""What a worker does to the bytes of one image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from licodec.file_functions import decode_file, encode_file
from licodec.io.files import has_image_suffix
from licodec.io.output import check_quality, output_format
from licodec.open_codec import open_codec
from licodec.options import DecodeOptions, EncodeOptions
from licodec.rate_control import Target


@dataclass(frozen=True)
class Coding:
    """Encoding or decoding with its options, as it is sent to workers.

    Attributes:
        options: as `encode` or `decode` takes them.
        check: as `encode_file` has it.
        format, format_quality: of decoded images, as `decode_file` has them.

    Raises:
        UsageError: the options make no sense.
    """

    encodes: bool
    options: dict[str, Any] = field(default_factory=dict)
    check: bool = True
    format: str = "png"
    format_quality: int | None = None

    def __post_init__(self) -> None:
        if self.encodes:
            EncodeOptions(**self.options)
        else:
            DecodeOptions(**self.options)
            output_format(self.format)
            check_quality(self.format, self.format_quality)

    @property
    def suffix(self) -> str:
        return ".lic" if self.encodes else f".{self.format}"

    def takes(self, name: str) -> bool:
        """Whether a file is named like one to be coded."""
        return has_image_suffix(Path(name)) if self.encodes else name.lower().endswith(".lic")

    def load(self) -> None:
        """Load the model beforehand; to decode, files name it.

        Raises:
            ModelMissingError, UsageError: as `open_codec`.
        """
        if self.encodes:
            open_codec(EncodeOptions(**self.options))

    def __call__(self, source: IO[bytes]) -> tuple[bytes, dict[str, Any]]:
        """The coded bytes, and what `encode_file` or `decode_file` says of them.

        Raises:
            LicodecError: as these.
        """
        target = BytesIO()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            if self.encodes:
                row = encode_file(source, target, check=self.check, **self.options)
            else:
                row = decode_file(
                    source, target, format=self.format, format_quality=self.format_quality,
                    **self.options,
                )  # fmt: skip
        if self.encodes:
            rate, pixels = EncodeOptions(**self.options).rate, row["width"] * row["height"]
            if isinstance(rate, Target):
                row["notes"] += rate.notes(row["quality"], row["bytes"], pixels)
        row["notes"] += [str(warning.message) for warning in heard[:1]]
        return target.getvalue(), row
