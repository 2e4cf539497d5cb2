import numpy as np
import pytest
import torch
from opened import opened

from licodec.entropy.classes import (
    MAGNITUDE_LIMIT,
    Classifier,
    Features,
    bands,
    check_exact,
    magnitudes,
)
from licodec.entropy.tables import BINS, count_values
from licodec.rangecoder import Decoder, Encoder
from licodec.training.fit import classes as learning


def random_contexts(M: int, C: int = 4, seed: int = 0) -> Classifier:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-60, 60, (M, 2 * M)).astype(np.int16)
    weights[np.arange(2 * M)[None] // 2 >= np.arange(M)[:, None]] = 0
    check_exact(weights)
    thresholds = np.sort(rng.integers(-8000, 8000, (3, M, C - 1)).astype(np.int32), axis=2)
    return Classifier(rng.permutation(M).astype(np.int16), weights, thresholds, 256)


def test_bands_cover_every_row_once_and_stay_small():
    for height, width in ((1, 1), (48, 32), (700, 500), (3, 70_000)):
        rows = [r for band in bands(height, width) for r in range(height)[band]]
        assert rows == list(range(height))
        assert max((b.stop - b.start) * width for b in bands(height, width)) <= max(2**16, width)


def test_features_are_magnitudes_and_their_sums_around():
    rng = np.random.default_rng(0)
    y = rng.integers(-5, 6, (4, 5)).astype(np.int32)
    y[1, 2] = -(2**31)
    features = Features(1, 4, 5)
    features.add(0, magnitudes(y[None]))
    a = np.minimum(np.abs(y.astype(np.int64)), MAGNITUDE_LIMIT)
    around = np.pad(a, 1, mode="edge")
    expected = [[around[i : i + 3, j : j + 3].sum() for j in range(5)] for i in range(4)]
    assert (features.rows[0].reshape(4, 5) == a).all()
    assert (features.rows[1].reshape(4, 5) == expected).all()


def test_classes_are_those_of_integer_arithmetic():
    """float32 carries the sums; int64 says what they must be."""
    classifier = random_contexts(24)
    y = np.random.default_rng(1).integers(-90, 90, (24, 6, 7)).astype(np.int32)
    features = Features(24, 6, 7)
    thresholds = classifier.at(200)
    seen = set()
    for i, c in enumerate(classifier.order):
        forecast = classifier.weights[i].astype(np.int64)[: 2 * i] @ features.rows[: 2 * i].astype(
            np.int64
        )
        expected = (forecast[:, None] >= thresholds[i].astype(np.int64)).sum(1)
        got = classifier.classes(i, features, thresholds)
        assert (got == expected).all()
        assert (classifier.all_classes(y, thresholds)[i] == expected).all()
        seen |= set(got.tolist())
        features.add(i, magnitudes(y[c][None]))
    assert seen == {0, 1, 2, 3}


def test_counts_are_of_what_the_traversal_codes():
    classifier = random_contexts(6)
    y = np.random.default_rng(2).integers(-4, 5, (6, 5, 4)).astype(np.int32)
    y[3, 0, 0] = 500
    counts = classifier.counts(y, classifier.sort(y, 100), BINS)
    assert counts.shape == (6, 4, BINS + 1)
    assert (counts.sum((1, 2)) == 20).all()
    assert counts[3, :, BINS].sum() == 1
    for c in range(6):
        plain = count_values(y[c].reshape(-1), np.zeros(20, dtype=np.int64), 1, BINS)[0]
        assert (counts[c].sum(0) == plain).all()


def test_channels_that_are_0_throughout_can_be_left_out():
    classifier = random_contexts(40)
    y = np.random.default_rng(6).integers(-9, 10, (40, 5, 6)).astype(np.int32)
    kept = np.arange(40) % 3 > 0
    y[~kept] = 0
    some = classifier.among(kept)
    assert (some.sort(y, 200) == classifier.sort(y, 200)[kept[classifier.order]]).all()
    counts = some.counts(y, some.sort(y, 200), BINS)
    assert (counts[kept] == classifier.counts(y, classifier.sort(y, 200), BINS)[kept]).all()
    assert not counts[~kept].any()


def test_a_class_depends_on_earlier_channels_alone():
    classifier = random_contexts(12)
    rng = np.random.default_rng(3)
    y = rng.integers(-9, 10, (12, 3, 4)).astype(np.int32)
    changed = y.copy()
    changed[classifier.order[7]] += 5
    results = []
    for latents in (y, changed):
        features, rows = Features(12, 3, 4), []
        for i, c in enumerate(classifier.order):
            rows.append(classifier.classes(i, features, classifier.at(300)))
            features.add(i, magnitudes(latents[c][None]))
        results.append(np.stack(rows))
    assert (results[0][:8] == results[1][:8]).all()
    assert (results[0][8:] != results[1][8:]).any()


def test_weights_that_could_round_or_look_ahead_are_refused():
    weights = np.zeros((4, 8), dtype=np.int16)
    weights[3, :6] = 32767
    with pytest.raises(ValueError, match="exact"):
        check_exact(np.pad(weights, ((0, 200), (0, 400)), mode="edge"))
    weights[:] = 0
    weights[2, 4] = 1
    with pytest.raises(ValueError, match="not decoded"):
        check_exact(weights)


def test_latents_of_several_bands_come_back(monkeypatch):
    """A tall image is coded band by band; both directions agree on where."""
    codec = opened("adaptive")
    model = codec.entropy_model
    y = np.random.default_rng(4).integers(-2, 3, (codec.transforms.M, 300, 2)).astype(np.int32)
    for module in ("classes", "tabled"):
        monkeypatch.setattr(
            f"licodec.entropy.{module}.bands", lambda h, w: [slice(0, 7), slice(7, h)]
        )
    encoder = Encoder()
    z = model.side_information(y, 700)
    model.code_latents(encoder, 700, 300, 2, y, z)
    data = encoder.finish()
    assert (model.code_latents(Decoder(data), 700, 300, 2) == y).all()


def test_learning_finds_what_tells_calm_from_busy():
    """Channel 1 is as large as channel 0 says; a fitted forecast must order it so."""
    rng = np.random.default_rng(5)
    scale = np.exp(rng.normal(0, 1, (40, 1, 6, 6)))
    y = np.rint(rng.laplace(size=(40, 3, 6, 6)) * np.concatenate([scale, scale, scale], 1) * 3)
    latents = [torch.from_numpy(v)[None].half() for v in y]
    gains = torch.ones(2, 3)
    order = learning.busiest_first([v[0] for v in latents], gains[0])
    features, rates = learning.sample(latents, gains, torch.zeros(2), order, rng)
    weights = learning.fit(features, rates, 2, rng)
    thresholds = learning.thresholds(weights, features, rates, 2, 3)
    assert thresholds.shape == (2, 3, 2) and (np.diff(thresholds, axis=2) >= 0).all()
    classifier = Classifier(order, weights, thresholds, 256)
    whole = [v.astype(np.int32) for v in y]
    counts = sum(classifier.counts(v, classifier.sort(v, 0), BINS) for v in whole)[:, :, :-1]
    last = counts[order[2]].astype(float)
    spread = (last * np.abs(np.arange(BINS) - BINS // 2)).sum(1) / last.sum(1)
    assert spread[2] > 3 * spread[0]
    assert spread[0] < spread[1] < spread[2]


def test_samples_hold_the_back_projection_that_is_coded():
    y = torch.full((1, 2, 4, 4), 3.0)
    latents = [torch.cat([y, torch.full_like(y, 8.0)])]
    features, rates = learning.sample(
        latents, torch.ones(2, 2), torch.tensor([0, 0.5]), np.arange(2, dtype=np.int16),
        np.random.default_rng(0),
    )  # fmt: skip
    assert set(rates) == {0, 1}
    assert (features[0::2, rates == 0] == 3).all() and (features[0::2, rates == 1] == 7).all()


def test_thresholds_lie_where_the_spread_changes():
    """Three plateaus of unequal shares, told apart but for a step of the quantiles."""
    rng = np.random.default_rng(8)
    forecasts = rng.integers(0, 10_000, 20_000).astype(np.float32)
    spread = np.select([forecasts < 7000, forecasts < 8500], [0.5, 4], 30)
    magnitudes = np.abs(np.rint(rng.laplace(size=20_000) * spread)).astype(np.float32)
    cuts = learning.partition(forecasts, magnitudes, 3)
    assert np.abs(cuts - [7000, 8500]).max() < 10_000 / 32


@pytest.mark.parametrize("forecasts", [[5] * 8, [0] * 7 + [9], [1, 2, 3]])
def test_classes_beyond_what_forecasts_tell_apart_stay_empty(forecasts):
    forecasts = np.array(forecasts, dtype=np.float32)
    cuts = learning.partition(forecasts, np.arange(len(forecasts), dtype=np.float32), 4)
    assert cuts.shape == (3,) and (np.diff(cuts) >= 0).all()
    classes = (forecasts[:, None] >= cuts).sum(1)
    assert len(set(classes)) <= len(set(forecasts)) and (cuts <= forecasts.max() + 1).all()


def test_processes_fit_all_rows_between_them():
    rng = np.random.default_rng(9)
    x = np.repeat(np.abs(np.rint(rng.laplace(size=(1, 3000)) * 4)), 10, 0).astype(np.float32)
    rates = np.zeros(3000, dtype=np.int64)
    parts = [learning.fit(x, rates, 1, np.random.default_rng(0), i, 2) for i in (0, 1)]
    assert not (parts[0].any(1) & parts[1].any(1)).any()
    assert (parts[0] + parts[1])[1:].any(1).all()
    check_exact(parts[0] + parts[1])
