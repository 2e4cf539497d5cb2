import numpy as np
import pytest
import torch

from licodec.entropy.pdf_transform import (
    RATE_UNIT,
    SIDE_LENGTH,
    IntegerSynthesis,
    PdfAnalysis,
    PdfSynthesis,
    interleave,
    quantize_synthesis,
)
from licodec.entropy.tables import BINS, LOG2_UNIT


def random_synthesis(seed: int = 0) -> PdfSynthesis:
    torch.manual_seed(seed)
    h_s = PdfSynthesis(M=16, width=16, Z=4, groups=4, K=7)
    torch.nn.init.normal_(h_s.layers[-1].weight, std=1.0)
    return h_s


def test_shapes():
    h_a = PdfAnalysis(M=16, width=16, Z=4, groups=4, K=7)
    assert h_a(torch.zeros(2, 16, BINS)).shape == (2, 4, SIDE_LENGTH)
    assert random_synthesis()(torch.zeros(2, 4, SIDE_LENGTH), torch.zeros(2)).shape == (2, 16, BINS)


def test_interleave_deals_channels_over_groups():
    x = torch.arange(6.0)[None, :, None]
    assert interleave(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_integer_synthesis_follows_the_float_one():
    h_s = random_synthesis()
    integer = IntegerSynthesis(quantize_synthesis(h_s), groups=4)
    z_hat = np.random.default_rng(1).integers(-6, 7, (4, SIDE_LENGTH)).astype(np.int32)
    with torch.no_grad():
        exact = h_s(torch.from_numpy(z_hat).float()[None], torch.tensor([0.25]))[0].numpy()
    got = integer(z_hat, RATE_UNIT // 4) / LOG2_UNIT
    assert np.abs(exact).max() > 0.5
    assert np.abs(got - exact).max() < 0.02


def test_integer_synthesis_yields_integers_and_stays_bounded_for_any_z():
    integer = IntegerSynthesis(quantize_synthesis(random_synthesis()), groups=4)
    z_hat = np.full((4, SIDE_LENGTH), 2**24, dtype=np.int32)
    delta = integer(z_hat, 0)
    assert delta.dtype == np.int64
    assert np.abs(delta).max() <= 2**20
    assert (integer(z_hat, 0) == integer(np.full_like(z_hat, 256), 0)).all()


def test_weights_whose_sums_could_be_inexact_are_refused():
    h_s = random_synthesis()
    with torch.no_grad():
        h_s.layers[2].weight.mul_(1e8)
    with pytest.raises(ValueError, match="exact sums"):
        quantize_synthesis(h_s)
