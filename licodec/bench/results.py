"""Measurements as data: rows of one image each, curves of their averages, and the JSON of both.

A curve is CompressAI's JSON object, {"name", "description", "results": {"bpp": [], …}, "meta"},
with the rows it was made from beside it. One file may hold several curves: the first is the object
itself, so that a tool which knows one curve a file reads that, and the rest are its "others".
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licodec.bench.metrics import ms_ssim_db
from licodec.errors import FileAccessError, LicodecError, TooLargeError, UsageError
from licodec.io import files

Row = dict[str, Any]
"""image, sha256, width, height, quality, bytes, bpp, psnr-rgb, ms-ssim-rgb and ssimulacra2 (either
may be None), encoding_time and decoding_time in seconds, and header_bytes, side_bytes and
latents_bytes where the codec tells."""

MEANS = (
    "bpp",
    "psnr-rgb",
    "ms-ssim-rgb",
    "ssimulacra2",
    "header_bytes",
    "side_bytes",
    "latents_bytes",
)
MEDIANS = ("encoding_time", "decoding_time")

AXES = {
    "psnr-rgb": "PSNR-RGB [dB]",
    "ms-ssim-db": "MS-SSIM [dB]",
    "ssimulacra2": "SSIMULACRA 2",
}
"""Qualities that curves are compared in."""


@dataclass
class Curve:
    """One codec over one set of images."""

    name: str
    description: str = ""
    results: dict[str, list[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def values(self, axis: str) -> list[float | None]:
        """The quality of each point, None where there is none; axis is one of AXES.

        MS-SSIM in dB is made from the mean MS-SSIM where the curve has it: curves from elsewhere
        disagree on what their dB are the mean of.
        """
        values = self.results.get(axis, [])
        if axis == "ms-ssim-db":
            linear = self.results.get("ms-ssim-rgb", self.results.get("ms-ssim"))
            if linear is not None:
                values = [None if v is None else ms_ssim_db(v) for v in linear]
            else:
                values = values or self.results.get("ms-ssim-db-rgb", [])
        return list(values)

    def points(self, axis: str) -> tuple[list[float], list[float]]:
        """bpp and quality of each point that has both; axis is one of AXES."""
        pairs = [
            (bpp, value)
            for bpp, value in zip(self.results.get("bpp", []), self.values(axis), strict=False)
            if bpp is not None and value is not None
        ]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    def to_json(self, rows: bool) -> dict[str, Any]:
        out = {
            "name": self.name,
            "description": self.description,
            "meta": self.meta,
            "results": self.results,
        }
        return {**out, "rows": self.rows} if rows else out

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Curve:
        """A curve of parsed JSON.

        Raises:
            KeyError, TypeError: it is none.
        """
        kinds = {"name": str, "description": str, "results": dict, "meta": dict, "rows": list}
        known = {k: document[k] for k in kinds if k in document}
        if not all(isinstance(value, kinds[k]) for k, value in known.items()):
            raise TypeError("a part of it is of another kind")
        curve = cls(known.pop("name"), **known)
        measured = ("process.", "decoder.")
        times = [v for k, v in curve.meta.items() if k.startswith(measured) and k != _WHERE]
        numbers = [v for row in curve.rows for v in _numbers(row)]
        numbers += itertools.chain(times, *curve.results.values())
        if not all(value is None or _is_number(value) for value in numbers):
            raise TypeError("a value is no number")
        return curve


_WHERE = "process.image"


def _numbers(row: Row) -> list[Any]:
    """What of a row must be numbers, if there.

    Raises:
        KeyError, TypeError: it is no row.
    """
    if not (isinstance(row["image"], str) and isinstance(row["sha256"], str)):
        raise TypeError("a row of no image")
    if not (_is_number(row["quality"]) and _is_number(row["bpp"])):
        raise TypeError("a row of no quality or rate")
    return [row.get(key) for key in (*MEANS, *MEDIANS)]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**64


def aggregate(rows: Iterable[Row], images: int) -> dict[str, list[Any]]:
    """Averages by quality, from the lowest rate; only where every one of the images has a row.

    A value is None where some image has none.
    """
    by_quality: dict[float, list[Row]] = {}
    for row in rows:
        by_quality.setdefault(row["quality"], []).append(row)
    points = []
    for quality, group in by_quality.items():
        if len(group) < images:
            continue
        point: dict[str, Any] = {"quality": quality}
        for keys, average in ((MEANS, statistics.fmean), (MEDIANS, statistics.median)):
            for key in keys:
                values = [row[key] for row in group if row.get(key) is not None]
                point[key] = average(values) if len(values) == len(group) else None
        ms_ssim = point["ms-ssim-rgb"]
        point["ms-ssim-db"] = None if ms_ssim is None else ms_ssim_db(ms_ssim)
        points.append(point)
    points.sort(key=lambda point: float(point["bpp"]))
    columns = [k for k in (points[0] if points else {}) if any(p[k] is not None for p in points)]
    return {k: [point[k] for point in points] for k in columns}


def load_curves(path: Path) -> list[Curve]:
    """Every curve of a JSON file, CompressAI's or licodec's; PATH#NAME is one of several.

    Raises:
        UsageError: no such file, or no such curve in it.
        LicodecError: the file holds no curve.
    """
    name = None
    if not path.exists() and "#" in path.name:
        stem, name = path.name.rsplit("#", 1)
        path = path.with_name(stem)
    try:
        document = json.loads(files.read_all(str(path)))
        documents = [document, *document.get("others", ())]
        curves = [Curve.from_json(d) for d in documents]
        if any("bpp" not in d["results"] and "rows" not in d for d in documents):
            raise KeyError("bpp")
    except (FileAccessError, TooLargeError) as error:
        raise UsageError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LicodecError(f"{path}: no rate-distortion curve in CompressAI's schema") from error
    if name is None:
        return curves
    named = [curve for curve in curves if curve.name == name]
    if not named:
        raise UsageError(f"{path} has {', '.join(c.name for c in curves)}, and no {name!r}")
    return named


def to_json(curves: Sequence[Curve], rows: bool) -> str:
    first, *others = (curve.to_json(rows) for curve in curves)
    document = {**first, "others": others} if others else first
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def save_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write all curves with their rows; the file is never half-written."""
    files.write(str(path), to_json(curves, rows=True).encode(), force=True)
