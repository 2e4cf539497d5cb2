import math
import zlib

import numpy as np
import pytest
from scipy.stats import norm

from licodec.entropy.gaussian import _TAIL, MEAN_UNIT, SCALE_UNIT, Gaussians, bins_of, frequencies
from licodec.entropy.tables import PMF_TOTAL
from licodec.errors import UnsupportedImageError
from licodec.rangecoder import Decoder, Encoder

SCALES = np.round(np.exp(np.linspace(np.log(0.11), np.log(256), 64)) * SCALE_UNIT).astype(np.int64)
GAUSSIANS = Gaussians(SCALES)


@pytest.mark.parametrize("scale", [0.11, 0.5, 1.0, 3.0, 40.0, 256.0])
@pytest.mark.parametrize("mean", [0.0, 0.25, -0.5])
def test_frequencies_are_those_of_the_normal_distribution(scale, mean):
    bins = bins_of(round(scale * SCALE_UNIT))
    pmf = frequencies(
        bins, np.array([round(scale * SCALE_UNIT)]), np.array([round(mean * SCALE_UNIT)])
    )[0]
    k = np.arange(bins) - bins // 2
    exact = norm.cdf((k + 0.5 - mean) / scale) - norm.cdf((k - 0.5 - mean) / scale)
    assert np.abs(pmf[:-1] / PMF_TOTAL - exact).max() < 5e-6
    assert pmf.min() >= 0 and pmf[-1] < 1e-6 * PMF_TOTAL
    assert 0 <= PMF_TOTAL - pmf.sum() <= bins + 1


def test_the_tail_is_rounded_right():
    exact = np.array([math.erfc(k / 256 / math.sqrt(2)) for k in range(2561)]) * 2.0**39
    assert len(_TAIL) == 2561 and _TAIL[0] == 2**39
    assert np.abs(_TAIL - exact).max() < 0.501


def test_tables_never_change():
    """They are part of the format: another value here needs other weights."""
    crc = 0
    for width in GAUSSIANS.widths:
        own = [t for t in GAUSSIANS.centred if len(t) == width.bins + 1]
        for table in (np.array(own), width.shifted):
            crc = zlib.crc32(table.astype("<i4").tobytes(), crc)
    assert crc == 3987385312


@pytest.mark.parametrize("with_means", [False, True])
def test_what_goes_in_comes_out_at_the_price_of_the_distribution(with_means):
    rng = np.random.default_rng(1)
    n = 60_000
    index = rng.integers(0, 64, n).astype(np.uint8)
    mean = rng.normal(0, 200, n).astype(np.int32) if with_means else None
    centre = 0 if mean is None else mean / MEAN_UNIT
    scale = SCALES[index] / SCALE_UNIT
    values = np.round(centre + rng.normal(size=n) * scale).astype(np.int32)
    encoder = Encoder()
    assert (GAUSSIANS.code(encoder, values, index, mean) == values).all()
    data = encoder.finish()
    assert (GAUSSIANS.code(Decoder(data), None, index, mean) == values).all()
    mass = norm.cdf((values + 0.5 - centre) / scale) - norm.cdf((values - 0.5 - centre) / scale)
    bits = -np.log2(np.maximum(mass, 2.0**-30)).sum()
    assert bits * 0.999 < 8 * len(data) < bits * 1.001 + 32


@pytest.mark.parametrize("with_means", [False, True])
def test_no_value_is_clipped(with_means):
    values = np.array([0, 5, -5, 9000, -9000, 2**23, -(2**23), 1], dtype=np.int32)
    index = np.array([0, 0, 1, 63, 20, 5, 62, 0], dtype=np.uint8)
    mean = np.full(8, -33, dtype=np.int32) if with_means else None
    encoder = Encoder()
    GAUSSIANS.code(encoder, values, index, mean)
    decoded = GAUSSIANS.code(Decoder(encoder.finish()), None, index, mean)
    assert (decoded == values).all()
    with pytest.raises(UnsupportedImageError):
        GAUSSIANS.code(Encoder(), np.full(8, 2**30, dtype=np.int32), index, mean)
