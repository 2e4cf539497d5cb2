"""What is measured, and how it is averaged.

Rates come from the bytes of whole files. Qualities compare 8-bit RGB images, the original and the
decoded one. A curve's value is the mean of the images' values (for PSNR: not the PSNR of the mean
error), its MS-SSIM in dB is that of the mean MS-SSIM, as in CompressAI's plots, and its times are
medians.
"""

from __future__ import annotations

import io
import math
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

MAX_DB = 100.0
"""What identical images count as, so that a mean over images exists."""

MS_SSIM_MIN_SIDE = 161
"""Five scales of an 11-tap window; smaller images have no MS-SSIM."""


def bpp(size: float, width: int, height: int) -> float:
    """Bits per pixel of a file of `size` bytes."""
    return 8 * size / (width * height)


def scores(x: Pixels, x_hat: Pixels) -> dict[str, float | None]:
    """Every quality of one decoded image, (H, W, 3); None where it cannot be measured."""
    return {
        "psnr-rgb": psnr_rgb(x, x_hat),
        "ms-ssim-rgb": ms_ssim_rgb(x, x_hat),
        "ssimulacra2": ssimulacra2(x, x_hat),
    }


def psnr_rgb(x: Pixels, x_hat: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all samples of two (H, W, 3) images."""
    mse = float(np.mean((x.astype(np.float64) - x_hat) ** 2))
    return _db(mse / 255**2)


def ms_ssim_rgb(x: Pixels, x_hat: Pixels) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003), mean of R, G and B, in 0 … 1.

    None where the image is too small for five scales, or PyTorch or pytorch-msssim is not installed.
    """
    if min(x.shape[:2]) < MS_SSIM_MIN_SIDE or None in map(find_spec, ("torch", "pytorch_msssim")):
        return None
    import torch
    from pytorch_msssim import ms_ssim

    a, b = (torch.from_numpy(i.transpose(2, 0, 1).astype(np.float32))[None] for i in (x, x_hat))
    with torch.inference_mode():
        return float(ms_ssim(a, b, data_range=255.0))


def ssimulacra2(x: Pixels, x_hat: Pixels) -> float | None:
    """SSIMULACRA 2, which follows what people see: 30 low, 50 medium, 70 high quality; at most 100.

    None where the package of that name, or what it needs, is not installed: it is an extra, and takes half a
    second.
    """
    try:
        from ssimulacra2 import compute_ssimulacra2  # type: ignore[import-not-found]
    except ImportError:
        return None
    return float(compute_ssimulacra2(_file(x), _file(x_hat)))


def _file(x: Pixels) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "BMP")
    file.seek(0)
    return file


def ms_ssim_db(ms_ssim: float) -> float:
    return _db(1 - ms_ssim)


def _db(error: float) -> float:
    return min(-10 * math.log10(error), MAX_DB) if error > 0 else MAX_DB
