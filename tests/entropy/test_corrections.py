import numpy as np
import pytest

from licodec.entropy.corrections import TILE, CorrectionPlan
from licodec.entropy.residual import ResidualPlan, code_tiles
from licodec.errors import DamagedFileError
from licodec.rangecoder import Decoder, Encoder
from licodec.tile_plan import LEAST_FROM, LEAST_PSNR, plan_tiles

rng = np.random.default_rng(0)


def pair(height, width, C, spread=4.0):
    """Something busy, and the same with errors."""
    x = rng.integers(0, 256, (height, width, C)).astype(np.uint8)
    x_hat = np.clip(np.rint(x + rng.laplace(0, spread, x.shape)), 0, 255).astype(np.uint8)
    return x, x_hat


def tiles_of(x, value):
    return np.full((-(-x.shape[0] // TILE), -(-x.shape[1] // TILE)), value)


def round_trip(x, x_hat, plan):
    encoder = Encoder()
    coded = code_tiles(encoder, x_hat.copy(), plan, x)
    data = encoder.finish()
    assert np.array_equal(code_tiles(Decoder(data, True), x_hat.copy()), coded)
    return coded, len(data)


def psnr_of_tiles(x, coded):
    error = (coded.astype(float) - x) ** 2
    places = np.ndindex(-(-x.shape[0] // TILE), -(-x.shape[1] // TILE))
    return [
        10 * np.log10(255**2 / max(1e-9, error[r * 64 : r * 64 + 64, c * 64 : c * 64 + 64].mean()))
        for r, c in places
    ]


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (130, 64)])
@pytest.mark.parametrize(("step", "least"), [(1, 1), (7, 4), (13, 20), (63, 250)])
def test_large_errors_are_corrected_and_others_stay(C, size, step, least):
    x, x_hat = pair(*size, C)
    x_hat[::3, ::2] = 255 - x_hat[::3, ::2]
    corrections = CorrectionPlan(step, tiles_of(x, True), tiles_of(x, least))
    coded, _ = round_trip(x, x_hat, ResidualPlan(step, tiles_of(x, False), corrections))
    before, after = (np.abs(v.astype(int) - x) for v in (x_hat, coded))
    assert np.array_equal(coded[before < least], x_hat[before < least])
    assert (after[before >= least] <= step // 2).all()


def test_corrections_and_residual_tiles_go_together():
    x, x_hat = pair(130, 200, 3)
    chosen = rng.random(tiles_of(x, 0).shape) < 0.5
    corrections = CorrectionPlan(9, ~chosen, tiles_of(x, 12))
    coded, _ = round_trip(x, x_hat, ResidualPlan(3, chosen, corrections))
    for row, column in np.ndindex(chosen.shape):
        rows, columns = (slice(v * TILE, (v + 1) * TILE) for v in (row, column))
        error = np.abs(coded[rows, columns].astype(int) - x[rows, columns]).max()
        assert error <= (1 if chosen[row, column] else 11)


def test_a_few_corrections_take_few_bytes():
    x, x_hat = pair(128, 128, 3, spread=0.5)
    x_hat[10:110:20, 5:120:25] ^= 64
    plan = plan_tiles(x, x_hat, 0.1, 100, None)
    assert not plan.chosen.any() and plan.corrections.chosen.all()
    coded, size = round_trip(x, x_hat, plan)
    assert np.abs(coded.astype(int) - x).max() < 40 and size < 400


def test_what_is_not_worth_it_is_left():
    x, x_hat = pair(128, 128, 3, spread=2.0)
    assert plan_tiles(x, x_hat, 0.001, 100, None) is None


@pytest.mark.parametrize("offset", [6, 7, 20])
def test_a_tile_has_its_least_psnr_whatever_its_errors_are(offset):
    x = rng.integers(0, 200, (70, 130, 3)).astype(np.uint8)
    x_hat = x.copy()
    x_hat[:64, :64] += np.uint8(offset)
    plan = plan_tiles(x, x_hat, 1e-6, LEAST_FROM, None)
    coded, _ = round_trip(x, x_hat, plan)
    assert min(psnr_of_tiles(x, coded)) >= LEAST_PSNR


@pytest.mark.parametrize("spread", [3.0, 5.0, 9.0])
def test_from_quality_90_on_photographs_have_their_least_psnr_in_every_tile(spread):
    x, x_hat = pair(130, 130, 3, spread)
    coded, _ = round_trip(x, x_hat, plan_tiles(x, x_hat, 1e-6, LEAST_FROM, None))
    assert min(psnr_of_tiles(x, coded)) >= LEAST_PSNR


@pytest.mark.parametrize("seed", range(20))
def test_any_corrections_decode_or_are_refused(seed):
    x, x_hat = pair(70, 100, 3)
    corrections = CorrectionPlan(255, tiles_of(x, True), tiles_of(x, 1))
    encoder = Encoder()
    code_tiles(encoder, x_hat.copy(), ResidualPlan(255, tiles_of(x, False), corrections), x)
    data = encoder.finish()
    noise = np.random.default_rng(seed).bytes(400)
    try:
        assert code_tiles(Decoder(data[:8] + noise), x_hat.copy()).shape == x.shape
    except DamagedFileError as error:
        assert "damaged" in str(error)
