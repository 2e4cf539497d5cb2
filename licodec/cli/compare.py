"""The command `compare`: how far two images are apart."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from licodec import help, memory
from licodec.cli import shared_options
from licodec.errors import LicodecError, UsageError
from licodec.io import files
from licodec.progress import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GREY = 128
"""What stands behind transparent pixels."""

_UNITS = {
    "psnr-rgb": ("PSNR {:.2f} dB", 2),
    "ms-ssim-rgb": ("MS-SSIM {:.4f}", 4),
    "ssimulacra2": ("SSIMULACRA 2 {:.1f}", 1),
}


@click.command(
    cls=help.Command,
    examples=["licodec compare photo.png photo.lic", "licodec compare --json a.png b.jpg"],
)
@click.argument("first", metavar="A", shell_complete=shared_options.files)
@click.argument("second", metavar="B", shell_complete=shared_options.files)
@shared_options.max_pixels
@shared_options.weights
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(first: str, second: str, max_pixels: int, weights: str | None, as_json: bool) -> None:
    """Tell PSNR, MS-SSIM and SSIMULACRA 2 of B against A; images or .lic files.

    MS-SSIM needs pytorch-msssim and 161 pixels a side, SSIMULACRA 2 the package ssimulacra2. Transparent
    images are compared over grey, after any EXIF rotation.
    """
    memory.need_numpy()
    from licodec.bench.metrics import scores

    if first == second == files.STANDARD:
        raise UsageError("standard input is there once, and is named twice")
    a, b = (_shown(name, max_pixels, weights) for name in (first, second))
    if a.shape != b.shape:
        sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (a, b))
        raise UsageError(f"images of one size are compared, not of {sizes}")
    found = {**scores(a, b)}
    if (a == b).all():
        found["psnr-rgb"] = math.inf
    if as_json:
        row = {k: None if v is None or math.isinf(v) else round(v, 6) for k, v in found.items()}
        click.echo(
            json.dumps({"first": first, "second": second, "equal": bool((a == b).all()), **row})
        )
        return
    told = [_UNITS[name][0].format(value) for name, value in found.items() if value is not None]
    click.echo(plain(f"{second} against {first}: {', '.join(told)}"))


def _shown(name: str, max_pixels: int, weights: str | None) -> NDArray[np.uint8]:
    try:
        return _pixels(name, max_pixels, weights)
    except LicodecError as error:
        error.args = (f"{plain(name)}: {error}",)
        raise


def _pixels(name: str, max_pixels: int, weights: str | None) -> NDArray[np.uint8]:
    """(H, W, 3), of an image or a .lic file, as it is shown."""
    import numpy as np
    from PIL import Image

    from licodec.codec import decode_file
    from licodec.io.image import from_pillow
    from licodec.options import DecodeOptions

    image = files.open_any(name, max_pixels)
    if isinstance(image, bytes):
        options = DecodeOptions(weights=weights, max_pixels=max_pixels)
        image = decode_file(image, options)
    picture = from_pillow(image, strip=True)
    color = np.broadcast_to(picture.color, (*picture.color.shape[:2], 3))
    if picture.alpha is None:
        return np.ascontiguousarray(color)
    behind = Image.new("RGB", (color.shape[1], color.shape[0]), (_GREY,) * 3)
    shown = Image.composite(
        Image.fromarray(np.ascontiguousarray(color)), behind, Image.fromarray(picture.alpha)
    )
    return np.asarray(shown)
