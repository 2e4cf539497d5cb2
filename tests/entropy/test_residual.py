import numpy as np
import pytest

from licodec.entropy.residual import TILE, ResidualPlan, code_tiles
from licodec.errors import DamagedFileError
from licodec.rangecoder import Decoder, Encoder
from licodec.tile_plan import plan_tiles
from licodec.training.graphics import drawn

rng = np.random.default_rng(0)


def smooth(height, width, C):
    """Something like a photograph, and something like what a codec makes of it."""
    rows, columns = np.mgrid[:height, :width, :C][:2]
    x = (
        120
        + 60 * np.sin(rows / 9)
        + 50 * np.cos(columns / 13)
        + rng.normal(0, 6, (height, width, C))
    )
    x_hat = 118 + 58 * np.sin(rows / 9) + 51 * np.cos(columns / 13)
    return (np.clip(np.rint(v), 0, 255).astype(np.uint8) for v in (x, x_hat))


def round_trip(x, x_hat, plan):
    encoder = Encoder()
    coded = code_tiles(encoder, x_hat.copy(), plan, x)
    data = encoder.finish()
    assert np.array_equal(code_tiles(Decoder(data), x_hat.copy()), coded)
    return coded, len(data)


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (130, 64)])
@pytest.mark.parametrize("step", [1, 3, 13])
def test_errors_are_within_half_a_step(C, size, step):
    x, x_hat = smooth(*size, C)
    chosen = np.ones((-(-size[0] // TILE), -(-size[1] // TILE)), np.bool_)
    coded, _ = round_trip(x, x_hat, ResidualPlan(step, chosen))
    assert np.abs(coded.astype(int) - x).max() <= step // 2


def test_tiles_that_are_not_chosen_stay_as_they_are():
    x, x_hat = smooth(128, 192, 3)
    chosen = np.zeros((2, 3), np.bool_)
    chosen[1, 2] = True
    coded, _ = round_trip(x, x_hat, ResidualPlan(1, chosen))
    assert np.array_equal(coded[64:, 128:], x[64:, 128:])
    coded[64:, 128:] = x_hat[64:, 128:]
    assert np.array_equal(coded, x_hat)


def test_no_tiles_cost_a_bit():
    x, x_hat = smooth(64, 64, 3)
    coded, size = round_trip(x, x_hat, None)
    assert np.array_equal(coded, x_hat) and size <= 1


@pytest.mark.parametrize("seed", range(5))
def test_graphics_come_back(seed):
    x = drawn(np.random.default_rng(seed), 96)
    x_hat = np.clip(x.astype(int) + rng.integers(-40, 40, x.shape), 0, 255).astype(np.uint8)
    coded, size = round_trip(x, x_hat, ResidualPlan(1, np.ones((2, 2), np.bool_)))
    assert np.array_equal(coded, x) and size < x.size / 2


def test_a_picture_of_one_colour_takes_next_to_nothing():
    x = np.full((200, 200, 3), (200, 30, 90), np.uint8)
    _, size = round_trip(x, np.zeros_like(x), ResidualPlan(1, np.ones((4, 4), np.bool_)))
    assert size < 100


def test_noise_comes_back():
    x = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    coded, size = round_trip(x, 255 - x, ResidualPlan(1, np.ones((1, 1), np.bool_)))
    assert np.array_equal(coded, x) and size < 1.2 * x.size


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_decode_or_are_refused(seed):
    data = np.random.default_rng(seed).bytes(300)
    x_hat = np.zeros((70, 100, 3), np.uint8)
    try:
        assert code_tiles(Decoder(data), x_hat.copy()).shape == x_hat.shape
    except DamagedFileError as error:
        assert "damaged" in str(error)


def test_a_plan_keeps_the_largest_error():
    x, x_hat = smooth(100, 100, 3)
    plan = plan_tiles(x, x_hat, 0.01, 100, 2)
    coded, _ = round_trip(x, x_hat, plan)
    assert np.abs(coded.astype(int) - x).max() <= 2
    assert plan_tiles(x, x, 0.01, 100, 0) is None


def test_a_plan_corrects_what_is_far_off_and_leaves_what_is_close():
    x, x_hat = smooth(64, 128, 3)
    x_hat[:, 64:] = 255 - x_hat[:, 64:]
    x[:, 64:] = x[:1, 64:65]
    plan = plan_tiles(x, x_hat, 0.02, 100, None)
    assert plan.chosen.tolist() == [[False, True]]


def test_from_quality_90_on_no_tile_is_below_36_db():
    x, x_hat = smooth(70, 200, 3)
    coded, _ = round_trip(x, x_hat, plan_tiles(x, x_hat, 0.1, 180, None))
    error = (coded.astype(float) - x) ** 2
    tiles = [error[r : r + 64, c : c + 64].mean() for r in (0, 64) for c in (0, 64, 128, 192)]
    assert 10 * np.log10(255**2 / max(tiles)) >= 36
