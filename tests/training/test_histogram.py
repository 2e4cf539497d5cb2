import numpy as np
import pytest
import torch

from licodec.entropy.tables import BINS
from licodec.training.fit.histogram import (
    KERNELS,
    histogram,
    kernel_density,
    straight_through_histogram,
)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_density_is_the_kernel_sum(kernel):
    u = torch.tensor([[[0.3, -2.0, 5.75]]])
    k, _ = KERNELS[kernel]
    b = torch.arange(BINS) - BINS // 2
    expected = k(u[0, 0][:, None] - b[None]).sum(0)
    expected = expected / expected.sum()
    got = kernel_density(u, kernel)[0, 0]
    assert got.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(got, expected, atol=2e-4)


def test_triangular_kernel_touches_two_bins():
    p = kernel_density(torch.tensor([[[2.25]]]))[0, 0]
    assert p[BINS // 2 + 2].item() == pytest.approx(0.75)
    assert p[BINS // 2 + 3].item() == pytest.approx(0.25)
    assert int((p > 0).sum()) == 2


def test_histogram_counts_exactly():
    values = np.random.default_rng(0).integers(-140, 140, (2, 3, 50))
    p = histogram(torch.from_numpy(values).float())
    for b in range(2):
        for c in range(3):
            bins = np.clip(values[b, c] + BINS // 2, 0, BINS - 1)
            assert np.allclose(p[b, c].numpy(), np.bincount(bins, minlength=BINS) / 50)


def test_straight_through_is_hard_forward_and_soft_backward():
    u = torch.tensor([[[0.3, -1.6, 2.2]]], requires_grad=True)
    weight = torch.linspace(0, 1, BINS) ** 2
    p = straight_through_histogram(u)
    assert torch.equal(p, histogram(u))
    (p * weight).sum().backward()
    hard = u.grad.clone()
    u.grad = None
    (kernel_density(u) * weight).sum().backward()
    assert torch.equal(hard, u.grad)
    assert (hard != 0).all()


def test_values_beyond_the_bound_are_only_pushed_inwards():
    u = torch.tensor([[[120.0, -120.0]]], requires_grad=True)
    p = kernel_density(u)
    slope = torch.arange(BINS).float()
    (p * slope).sum().backward()  # wants every sample lower
    assert u.grad[0, 0, 0] > 0
    assert u.grad[0, 0, 1] == 0
