"""Rate-distortion curves as a picture. matplotlib is imported when a plot is made."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from licodec.bench.results import AXES, Curve
from licodec.errors import LicodecError, UsageError
from licodec.io import files


def require(path: Path) -> None:
    """See that there can be a plot of this name.

    Raises:
        LicodecError: matplotlib is not installed.
        UsageError: it knows no such format.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise LicodecError("plots need matplotlib: pip install 'licodec[bench]'") from error
    form = path.suffix[1:].lower()
    if form not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(f"no plot as {form!r}: choose .svg, .png or .pdf")


def save_plot(path: Path, curves: Sequence[Curve], title: str) -> None:
    """One panel a quality that the curves have; the suffix chooses the format, as `require` has seen."""
    axes = [axis for axis in AXES if any(curve.points(axis)[0] for curve in curves)]
    files.write(str(path), _render(curves, axes, title, path.suffix[1:].lower()), force=True)


def _render(curves: Sequence[Curve], axes: Sequence[str], title: str, form: str) -> bytes:
    """The same curves give the same bytes: no date, no random identifiers."""
    import matplotlib
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "licodec"}):
        figure = Figure(figsize=(7.2 * max(1, len(axes)), 5), dpi=120, layout="constrained")
        for i, axis in enumerate(axes):
            _panel(figure.add_subplot(1, len(axes), i + 1), curves, axis)
        if title:
            figure.suptitle(title)
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else {})
    return out.getvalue()


def _panel(panel: Any, curves: Sequence[Curve], axis: str) -> None:
    for k, curve in enumerate(curves):
        bpp, quality = curve.points(axis)
        if bpp:
            panel.plot(
                bpp,
                quality,
                label=curve.name,
                color=f"C{k % 10}",
                marker=".",
                linestyle="-" if curve.rows else "--",
                linewidth=2.2 if curve.name.startswith("licodec") else 1.1,
            )
    panel.set_xlabel("rate [bpp]")
    panel.set_ylabel(AXES[axis])
    panel.grid(alpha=0.3)
    if panel.lines:
        panel.legend(loc="lower right", fontsize="small")
