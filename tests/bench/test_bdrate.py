"""BD-rates against published curves whose values are known, and PCHIP against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licodec.bench.bdrate import CurveError, bd_rate, integrate

# Kodak, PSNR-RGB: CompressAI's published curves, and those of the papers they name.
VTM = (
    [0.04824, 0.1125, 0.24582, 0.49055, 0.87481, 1.43085, 2.32461, 3.63261],
    [26.1448, 28.493, 31.1999, 34.2615, 37.4198, 40.4244, 43.5058, 46.5918],
)
FACTORIZED = (
    [0.12262, 0.18853, 0.28781, 0.44038, 0.64813, 0.96698, 1.35116, 1.83327],
    [26.9088, 28.2179, 29.6169, 31.2771, 32.9561, 35.381, 37.3969, 39.6213],
)
HYPERPRIOR = (
    [0.13129, 0.20889, 0.31986, 0.47836, 0.66868, 0.93883, 1.25917, 1.66022],
    [27.5815, 29.1967, 30.9722, 32.8382, 34.5262, 36.7434, 38.5839, 40.5569],
)
ADAPTIVE = (
    [0.11339, 0.17525, 0.26851, 0.41159, 0.60566, 0.89952, 1.256, 1.70694],
    [26.9105, 28.2181, 29.6165, 31.2765, 32.9557, 35.3801, 37.3975, 39.6213],
)
ELIC = (
    [0.1235, 0.1965, 0.3337, 0.4908, 0.7041, 0.8573],
    [29.113, 30.698, 32.784, 34.577, 36.488, 37.624],
)


@pytest.mark.parametrize(
    ("curve", "against_vtm"),
    [(FACTORIZED, 68.1), (HYPERPRIOR, 30.5), (ADAPTIVE, 56.6), (ELIC, -7.0), (VTM, 0.0)],
)
def test_published_curves_have_their_published_values(curve, against_vtm):
    assert bd_rate(VTM, curve) == pytest.approx(against_vtm, abs=0.1)


@pytest.mark.parametrize("factor", [0.5, 0.93, 1.5])
def test_scaled_rates_are_that_much_more(factor):
    scaled = [factor * bpp for bpp in FACTORIZED[0]]
    assert bd_rate(FACTORIZED, (scaled, FACTORIZED[1])) == pytest.approx(100 * (factor - 1))


def test_exchanging_the_curves_inverts_the_ratio():
    there, back = bd_rate(VTM, HYPERPRIOR), bd_rate(HYPERPRIOR, VTM)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_order_and_repetition_of_points_do_not_matter():
    bpp, psnr = ELIC
    again = (bpp[::-1] + bpp[:2], psnr[::-1] + psnr[:2])
    assert bd_rate(VTM, again) == bd_rate(VTM, ELIC)


@pytest.fixture(scope="module")
def pchip():
    return pytest.importorskip("scipy.interpolate").PchipInterpolator


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.integers(-50, 50)), min_size=2, max_size=9),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_interpolant_integrates_as_scipys_pchip(pchip, steps, a, b):
    x = np.cumsum([step for step, _ in steps])
    y = np.array([value / 10 for _, value in steps])
    low, high = (x[0] + t * (x[-1] - x[0]) for t in sorted((a, b)))
    expected = pchip(x, y).integrate(low, high)
    assert integrate(x, y, low, high) == pytest.approx(float(expected), abs=1e-9)


def test_qualities_that_do_not_meet_have_no_rate():
    worse = (FACTORIZED[0], [psnr - 13 for psnr in FACTORIZED[1]])
    assert bd_rate(FACTORIZED, worse) is None
    touching = ([0.1, 0.2], [20.0, FACTORIZED[1][0]])
    assert bd_rate(FACTORIZED, touching) is None


@pytest.mark.parametrize(
    ("bpp", "psnr", "reason"),
    [
        ([0.1, 0.2, 0.3], [30.0, 29.0, 31.0], "not monotone"),
        ([0.1, 0.1, 0.3], [30.0, 30.5, 31.0], "not monotone"),
        ([0.1, 0.2, 0.3], [30.0, 30.0, 31.0], "not monotone"),
        ([0.1], [30.0], "too few points"),
        ([0.1, 0.1], [30.0, 30.0], "too few points"),
        ([0.0, 0.1], [30.0, 31.0], "not a number"),
        ([0.1, float("nan")], [30.0, 31.0], "not a number"),
    ],
)
def test_what_is_no_curve_is_refused(bpp, psnr, reason):
    with pytest.raises(CurveError, match=reason):
        bd_rate(VTM, (bpp, psnr))
