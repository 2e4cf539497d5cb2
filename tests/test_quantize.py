import numpy as np
import pytest

from licodec.quantize import nearest, rate_distortion


def laplace(channels=3):
    p = np.exp2(-np.abs(np.arange(256) - 128) / 0.8)
    return np.tile(np.append(p, 1e-4) * 2**20, (channels, 1)).astype(np.int64)


def test_dear_errors_leave_the_nearest():
    u = np.random.default_rng(0).normal(0, 4, (3, 500)).astype(np.float32)
    assert (rate_distortion(u, laplace(), np.full(3, 1e9)) == nearest(u)).all()


def test_free_errors_leave_nothing():
    u = np.random.default_rng(0).normal(0, 4, (3, 500)).astype(np.float32)
    assert not rate_distortion(u, laplace(), np.zeros(3)).any()


@pytest.mark.parametrize("weight", [0.5, 2.0, 8.0])
def test_choice_is_the_cheapest_of_its_candidates(weight):
    u = np.random.default_rng(1).normal(0, 3, (1, 300)).astype(np.float32)
    pmf = laplace(1)
    y = rate_distortion(u, pmf, np.array([weight]))[0]
    bits = -np.log2(np.maximum(pmf[0, :-1], 0.25) / pmf[0].sum())
    for value, chosen in zip(u[0], y, strict=True):
        near = int(np.rint(value))
        candidates = {near, near - int(np.sign(near)), 0}
        cost = {q: bits[q + 128] + weight * (value - q) ** 2 for q in candidates}
        assert chosen in candidates
        assert cost[chosen] == pytest.approx(min(cost.values()))


def test_latents_outside_the_bins_keep_their_value():
    u = np.array([[200.2, -300.7, 0.1]], dtype=np.float32)
    assert rate_distortion(u, laplace(1), np.array([1e-3])).tolist() == [[200, -301, 0]]
