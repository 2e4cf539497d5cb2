import numpy as np
import pytest
from small_everyday import tensors

from licodec.networks.fixed_point import (
    LIMIT,
    STREAM_LIMIT,
    Block,
    Dense,
    Depthwise,
    clipped,
    exact_type,
    leaky,
    shuffle,
    unshuffle,
)

rng = np.random.default_rng(0)


def random_dense(rows, columns, most):
    weight = rng.integers(-most, most + 1, (rows, columns)).astype(np.int16)
    bias = rng.integers(-(2**20), 2**20, rows).astype(np.int32)
    return Dense(weight, bias, rng.integers(0, 12, rows).astype(np.int8)), weight, bias


@pytest.mark.parametrize(("most", "kind"), [(20, np.float32), (30000, np.float64)])
def test_a_product_is_that_of_integers(most, kind):
    dense, weight, bias = random_dense(40, 300, most)
    assert dense.type is kind
    x = rng.integers(-LIMIT, LIMIT + 1, (50, 300))
    whole = (x @ weight.astype(np.int64).T + bias).astype(np.float64)
    assert np.array_equal(dense(x.astype(np.float32)), whole * dense.scale)


def test_the_bound_holds_for_the_worst_input():
    dense = Dense(np.array([[3, -2], [1, 1]]), np.array([1, -30]), np.array([0, 0]), limit=10)
    corners = np.array([[a, b] for a in (-10, 10) for b in (-10, 10)], np.float32)
    assert dense.bound == 51
    assert np.abs(dense(corners)).max() <= dense.bound
    assert dense(corners).max() == 51


def test_sums_that_would_not_be_exact_are_refused():
    assert exact_type(2**24 - 1) is np.float32
    assert exact_type(2**24) is np.float64
    with pytest.raises(ValueError, match="not exact"):
        exact_type(2**53)


def test_a_shift_out_of_range_is_refused():
    with pytest.raises(ValueError, match="shift"):
        Dense(np.ones((1, 1), np.int16), np.zeros(1, np.int32), np.array([100], np.int8))


def test_depthwise_is_a_convolution():
    weight, bias = rng.integers(-99, 100, (5, 9)), rng.integers(-99, 100, 5)
    shift = np.array([0, 1, 2, 3, 4])
    x = rng.integers(-LIMIT, LIMIT + 1, (6, 7, 5))
    found = Depthwise(weight, bias, shift)(x.astype(np.float32))
    for row, column, channel in np.ndindex(4, 5, 5):
        cell = x[row : row + 3, column : column + 3, channel].reshape(9)
        whole = int(cell @ weight[channel]) + int(bias[channel])
        assert found[row, column, channel] == whole / 2 ** int(shift[channel])


def test_rounding_is_half_to_even_and_the_slope_an_eighth():
    assert clipped(np.array([0.5, 1.5, -0.5, 5000.0])).tolist() == [0, 2, 0, LIMIT]
    assert leaky(np.array([8.0, -8.0, -20.0, -1e6])).tolist() == [8, -1, -2, -LIMIT]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 60)])
def test_a_block_stays_within_the_stream_and_knows_no_chunks(shape, monkeypatch):
    block = Block(tensors(), "g_s.coarse.0")
    stream = rng.integers(-STREAM_LIMIT, STREAM_LIMIT + 1, (*shape, 16)).astype(np.float32)
    whole = stream.copy()
    block(whole)
    assert np.array_equal(whole, np.rint(whole)) and np.abs(whole).max() <= STREAM_LIMIT
    monkeypatch.setattr("licodec.networks.fixed_point._CHUNK", 7)
    block(stream)
    assert np.array_equal(stream, whole)


def test_shuffle_is_undone():
    x = rng.random((4, 6, 12))
    assert np.array_equal(shuffle(unshuffle(x, 2), 2), x)
    assert unshuffle(x, 2)[1, 2, 12:24].tolist() == x[2, 5].tolist()
