from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np
import pytest

from licodec.entropy.tables import (
    _EXP2,
    BINS,
    LOG2_UNIT,
    PMF_TOTAL,
    code_values,
    count_values,
    information,
    integer_softmax,
    interpolate,
)
from licodec.rangecoder import Decoder, Encoder


def laplace_tables(channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0.5, 1.5, (channels, 1)))
    distance = np.abs(np.arange(BINS) - BINS // 2)
    logits = np.concatenate([-distance / scale, np.full((channels, 1), -15.0)], axis=1)
    return integer_softmax((logits * LOG2_UNIT).astype(np.int64))


def sample(pmf: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    p = pmf[:, :-1] / pmf[:, :-1].sum(1, keepdims=True)
    return np.stack([rng.choice(BINS, count, p=row) for row in p]).astype(np.int32) - BINS // 2


def test_tables_are_integers_that_sum_to_the_total():
    pmf = laplace_tables(50)
    assert pmf.dtype == np.int64
    assert (pmf >= 0).all()
    assert (pmf.sum(1) <= PMF_TOTAL).all()
    assert (pmf.sum(1) > PMF_TOTAL - BINS - 2).all()


def test_softmax_agrees_with_floating_point():
    rng = np.random.default_rng(3)
    logits = rng.integers(-20 * LOG2_UNIT, 0, (20, 257))
    expected = np.exp2(logits / LOG2_UNIT)
    expected /= expected.sum(1, keepdims=True)
    got = integer_softmax(logits) / PMF_TOTAL
    assert np.abs(got - expected).max() < 2e-6


def test_interpolation_hits_the_anchors_and_stays_between():
    prior = np.array([[[-1024, -5000]], [[-2048, -1000]], [[-4096, -3]]], dtype=np.int16)
    assert (interpolate(prior, 0, 256) == prior[0]).all()
    assert (interpolate(prior, 256, 256) == prior[1]).all()
    assert (interpolate(prior, 512, 256) == prior[2]).all()
    middle = interpolate(prior, 384, 256)
    assert (middle == [[-3072, -502]]).all()
    assert (interpolate(prior[:1], 0, 256) == prior[0]).all()


def test_coder_is_within_a_fifth_of_a_percent_of_the_information():
    pmf = laplace_tables(192)
    values = sample(pmf, 1536)
    encoder = Encoder()
    code_values(encoder, values.reshape(-1), np.full(192, 1536), pmf)
    bits = 8 * len(encoder.finish())
    channels = np.repeat(np.arange(192), 1536)
    expected = information(count_values(values.reshape(-1), channels, 192, BINS), pmf)
    assert bits >= expected
    assert bits < 1.002 * expected


@pytest.mark.parametrize("far", [128, -129, 200, -1000, 2**20, -(2**20)])
def test_values_outside_the_bins_are_never_clipped(far):
    pmf = laplace_tables(3)
    values = sample(pmf, 40)
    values[1, 7] = far
    values[2, 0:3] = [far, -far, 127]
    encoder = Encoder()
    counts = np.array([40, 0, 80])
    values = values.reshape(-1)
    code_values(encoder, values, counts, pmf)
    decoded = code_values(Decoder(encoder.finish()), None, counts, pmf)
    assert (decoded == values).all()


def test_bytes_are_those_of_the_format():
    """Golden: if this fails, files written before cannot be read any more."""
    pmf = laplace_tables(4, seed=7)
    values = sample(pmf, 12, seed=8)
    values[0, 0] = 300
    encoder = Encoder()
    for channel, row in zip(values, pmf, strict=True):
        code_values(encoder, channel, np.array([12]), row[None])
    assert encoder.finish().hex() == GOLDEN


def test_one_value_a_table_is_coded_as_by_single_calls():
    pmf = laplace_tables(300, seed=3)
    values = sample(pmf, 1, seed=4).reshape(-1)
    values[17] = -200
    together, one_by_one = Encoder(), Encoder()
    code_values(together, values, None, pmf)
    symbols = np.where(np.abs(values) > 128, BINS, values + BINS // 2).astype(np.int32)
    for symbol, row in zip(symbols, pmf, strict=True):
        one_by_one.code(np.array([symbol], dtype=np.int32), 1, row)
    expected = one_by_one.finish()
    assert together.finish()[: len(expected) - 8] == expected[:-8]
    decoder = Decoder(together.finish())
    assert (code_values(decoder, None, None, pmf) == values).all()


GOLDEN = "bbfeffff6fab20b527020461424d8c13408b4721fdd5318c"


def test_exp2_table_is_exact():
    with localcontext() as context:
        context.prec = 60
        for f in range(LOG2_UNIT):
            exact = Decimal(2) ** (Decimal(30) - Decimal(f) / LOG2_UNIT)
            assert _EXP2[f] == int(exact.to_integral_value(ROUND_HALF_EVEN))
