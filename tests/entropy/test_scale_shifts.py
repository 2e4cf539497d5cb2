import numpy as np
import pytest
import torch
from conftest import noise
from opened import opened
from small_checkpoints import analyzed, with_scale_shifts

import licodec
from licodec.container import unpack
from licodec.entropy.gaussian import MEAN_UNIT, MIXTURE_TOTAL, Gaussians
from licodec.entropy.hyperprior import Hyperprior
from licodec.entropy.scale_shifts import (
    NEAR_LIMIT,
    REACH,
    SHIFT_UNIT,
    ScaleShifts,
    chessboard,
    four,
)
from licodec.payload import decode_latents, latents_crc32
from licodec.rangecoder import Decoder, Encoder
from licodec.training.convert.import_checkpoint import SCALES
from licodec.training.fit import scale_shifts as learning
from licodec.weights import file as weights_file
from licodec.weights.schema import check

ARCHES = ("bmshj2018-hyperprior", "mbt2018-mean")
every_arch = pytest.mark.parametrize("arch", ARCHES)


@pytest.fixture(scope="module")
def shifted_weights(hyper_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shifted_weights")
    return {arch: with_scale_shifts(hyper_weights[arch], folder, arch) for arch in ARCHES}


@every_arch
@pytest.mark.parametrize("quality", [0, 60, 100])
def test_round_trip(shifted_weights, photo, arch, quality):
    path = shifted_weights[arch]
    codec, position, y = analyzed(path, photo, quality)
    container = unpack(licodec.encode(photo, quality, weights=path, device="cpu", effort=0))
    y_hat = decode_latents(codec, container)
    assert latents_crc32(y_hat) == container.latents_crc32
    assert np.abs(y_hat - y).max() <= MEAN_UNIT // 2
    model = codec.entropy_model
    assert (model.quantize(y, model.side_information(y, position), position) == y_hat).all()
    shifted = model.scale_shifts.own
    assert shifted[:, 1].any()


@every_arch
def test_scale_shifts_change_what_is_coded(hyper_weights, shifted_weights, photo, arch):
    without, with_them = (
        unpack(licodec.encode(photo, 50, weights=found[arch], device="cpu")).payload
        for found in (hyper_weights, shifted_weights)
    )
    assert without != with_them


def test_a_codec_with_a_context_has_none(hyper_weights, tmp_path):
    path = with_scale_shifts(hyper_weights["mbt2018"], tmp_path, "odd")
    image = noise(40, 50, "RGB")
    with_them = licodec.encode(image, 60, weights=path)
    without = licodec.encode(image, 60, weights=hyper_weights["mbt2018"])
    assert unpack(with_them).payload == unpack(without).payload


@every_arch
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 16), (1100, 30)])
def test_any_size(shifted_weights, arch, size):
    data = licodec.encode(noise(*size, "RGB"), 60, weights=shifted_weights[arch])
    assert licodec.decode(data, weights=shifted_weights[arch]).size == size


@every_arch
def test_extreme_latents_survive(shifted_weights, arch):
    codec = opened(weights=shifted_weights[arch])
    model = codec.entropy_model
    y = (np.random.default_rng(0).normal(size=(model.M, 5, 9)) * 3 * MEAN_UNIT).astype(np.int32)
    y[0, 0, :4] = [5000 * MEAN_UNIT, -5000 * MEAN_UNIT, 2**28, -(2**28)]
    encoder = Encoder()
    sent = model.code_latents(encoder, 100, 5, 9, y, model.side_information(y, 0))
    assert np.abs(sent - y).max() <= MEAN_UNIT // 2
    assert (model.code_latents(Decoder(encoder.finish()), 100, 5, 9) == sent).all()


class Recorder:
    """Stands for the Gaussians: notes what it is asked to code, and gives back the values."""

    def __init__(self):
        self.calls = []

    def code(self, coder, values, index, mean):
        self.calls.append((values.copy(), index.copy()))
        return values


def test_scales_and_means_are_moved_as_the_format_says():
    """Against loops over every latent, in whole numbers."""
    rng = np.random.default_rng(1)
    M, h, w = 5, 4, 6
    order = rng.permutation(M).astype(np.int16)
    starts = [0, 1, 1, 3, 4]
    behind = np.arange(2 * M) // 2 < np.array(starts)[:, None]
    weight = (rng.integers(-3000, 3000, (M, 2 * M)) * behind).astype(np.int16)
    own = np.array([[900, 700], [0, 0], [-800, 0], [0, 0], [0, -500]], np.int16)
    table = learning.of_magnitudes(SCALES)
    y = (rng.normal(size=(M, h * w)) * 5 * MEAN_UNIT).astype(np.int32)
    y[:, 3] *= 40  # beyond the table's reach, and the limit of neighbours
    mean = rng.integers(-100, 100, (M, h * w)).astype(np.int32)
    index = rng.integers(0, 64, (M, h * w)).astype(np.uint8)
    recorder = Recorder()
    model = ScaleShifts(order, np.array([1, 2, 1, 1]), weight, own, table)
    y_hat = model.code(None, recorder, y, index, mean, h, w)

    shown = np.zeros((M, h, w), int)
    steps = np.zeros((M, h, w), int)
    expected_calls, moved_means = [], 0
    for block in ([0], [1, 2], [3], [4]):
        halves = [[], []]
        for p in range(h * w):
            halves[(p // w + p % w) % 2 if own[block].any() else 0].append(p)
        for half in [part for part in halves if part]:
            values, indices, updates = [], [], []
            for i in block:
                c = order[i]
                for p in half:
                    row, column = divmod(p, w)
                    forecast = 0
                    for j in range(starts[i]):
                        around = sum(
                            shown[order[j], min(max(row + a, 0), h - 1), min(max(column + b, 0), w - 1)]
                            for a in (-1, 0, 1) for b in (-1, 0, 1)
                        )  # fmt: skip
                        forecast += int(weight[i, 2 * j]) * shown[order[j], row, column]
                        forecast += int(weight[i, 2 * j + 1]) * around
                    beside = [
                        (row - 1, column),
                        (row + 1, column),
                        (row, column - 1),
                        (row, column + 1),
                    ]
                    beside = [(a, b) for a, b in beside if 0 <= a < h and 0 <= b < w]
                    forecast += int(own[i, 0]) * sum(shown[c][at] for at in beside)
                    near = sum(max(-NEAR_LIMIT, min(NEAR_LIMIT, steps[c][at])) for at in beside)
                    about = mean[c, p] + (int(own[i, 1]) * near >> 8)
                    moved_means += about != mean[c, p]
                    step = (int(y[c, p]) - about + 32) // 64
                    assert y_hat[c, p] == step * 64 + about
                    values.append(step)
                    further = (forecast + SHIFT_UNIT // 2) // SHIFT_UNIT
                    indices.append(min(max(int(index[c, p]) + further, 0), 63))
                    score = table[index[c, p], min(abs(step), REACH - 1)]
                    updates.append((c, row, column, step, score))
            for c, row, column, step, score in updates:
                steps[c, row, column], shown[c, row, column] = step, score
            expected_calls.append((values, indices))
    assert moved_means > 20
    assert len(recorder.calls) == len(expected_calls) == 7
    for (values, index_), (expected_values, expected_index) in zip(
        recorder.calls, expected_calls, strict=True
    ):
        assert values.tolist() == expected_values
        assert index_.tolist() == expected_index
    assert recorder.calls[4][1].tolist() != index[order[3]].tolist()


def test_a_chessboard_has_each_position_once():
    for h, w in ((1, 1), (1, 5), (4, 3)):
        first, second = chessboard(h, w)
        assert sorted([*first, *second]) == list(range(h * w))
        board = np.zeros((h, w), int)
        board.flat[first] = 1
        assert (four(board[None])[0, first] == 0).all()  # no neighbour is of the same half


def test_scores_are_slopes_of_the_log_likelihood():
    table = learning.of_magnitudes(SCALES)
    normal = torch.distributions.Normal(0, 1)
    for s in (5, 20, 40):
        sigma = torch.tensor(SCALES[s], dtype=torch.float64, requires_grad=True)
        for magnitude in (0, 1, 3):
            low, high = (magnitude - 0.5) / sigma, (magnitude + 0.5) / sigma
            p = normal.cdf(high) - normal.cdf(low)
            if float(p.detach()) < 1e-9:
                continue
            (slope,) = torch.autograd.grad(p.log(), sigma)
            expected = float(np.clip(slope * sigma.detach() * 16, -64, 64))
            assert abs(table[s, magnitude] - expected) < 1


def test_mixtures_find_the_scales_that_latents_have():
    rng = np.random.default_rng(0)
    n = 200_000
    sigma = np.where(rng.random(n) < 0.7, SCALES[20], SCALES[30])
    magnitude = np.abs(np.rint(rng.normal(size=n) * sigma)).astype(np.int16)
    mixture = learning._mixture(np.full(n, 20, np.uint8), magnitude, learning._shapes(SCALES))
    assert (mixture.astype(int).sum(1) == MIXTURE_TOTAL).all() and (mixture >= 0).all()
    shares = mixture[20] / MIXTURE_TOTAL
    assert shares[:26].sum() == pytest.approx(0.7, abs=0.1)
    assert np.log(SCALES) @ shares == pytest.approx(
        0.7 * np.log(SCALES[20]) + 0.3 * np.log(SCALES[30]), abs=0.02
    )
    assert mixture[50, 50] > 0.9 * MIXTURE_TOTAL  # nothing was seen of it


def test_tables_are_mixed_by_their_shares():
    scales = np.round(SCALES * 2**16).astype(np.int32)
    mixture = np.eye(64, dtype=np.int16) * MIXTURE_TOTAL
    mixture[10, 10], mixture[10, 14] = MIXTURE_TOTAL * 3 // 4, MIXTURE_TOTAL // 4
    plain, mixed = Gaussians(scales), Gaussians(scales, mixture)
    for i, (one, other) in enumerate(zip(plain.centred, mixed.centred, strict=True)):
        expected = (3 * one + plain.centred[14]) // 4 if i == 10 else one
        assert (other == expected).all() and (other != one).any() == (i == 10)


def fake_samples(n, seed):
    """Latents whose scales share a hidden factor that the index does not tell, and which follow their
    neighbours."""
    rng = np.random.default_rng(seed)
    M = 6
    table = learning.of_magnitudes(SCALES)
    scale = rng.integers(18, 30, (M, n)).astype(np.uint8)
    sigma = SCALES[scale] * np.exp(rng.normal(size=n) * 0.7)
    near = np.zeros((M, 2, n), np.int16)
    near[:, 1] = np.where(np.arange(n) % 2, np.rint(rng.normal(size=(M, n)) * 4), 0)
    residual = np.rint(rng.normal(size=(M, n)) * sigma * 64 + 16 * near[:, 1]).astype(np.int16)
    shown = table[scale, np.minimum(np.abs(residual + 32) // 64, REACH - 1)]
    features = np.stack([shown, 9 * shown.astype(np.int16)], 1).astype(np.int16)
    return learning.Samples(residual, scale, features, near)


def test_what_is_learnt_saves_bits_on_other_samples(monkeypatch):
    monkeypatch.setattr(learning, "_sample", lambda *arguments: fake_samples(20_000, 0))
    monkeypatch.setattr(learning, "_ALONE", 4)
    monkeypatch.setattr(learning, "_TOGETHER", 2)
    found = learning.fit(None, None, None, None, SCALES)
    other = fake_samples(20_000, 1).ordered(found["surprises.order"])
    shapes = learning._shapes(SCALES)

    def bits(magnitude, index, mixture):
        return -np.log2((mixture / MIXTURE_TOTAL) @ shapes)[index, magnitude].mean()

    own = found["surprises.own"]
    assert own[:4, 1] == pytest.approx(np.full(4, 16 * 256), rel=0.1)
    assert found["surprises.blocks"].tolist() == [1, 1, 1, 1, 2] and not own[4:].any()
    identity = np.eye(64) * MIXTURE_TOTAL
    before = bits(other.magnitude(np.zeros(6, int)), other.scale, identity)
    centred = other.magnitude(own[:, 1].astype(int))
    without = bits(centred, other.scale, identity)
    assert without < before - 0.05
    forecasts = found["surprises.weights"].astype(int) @ other.features.reshape(12, -1).astype(int)
    moved = np.floor(forecasts / SHIFT_UNIT + 0.5) + other.scale
    moved = moved.clip(0, 63).astype(int)
    assert bits(centred, moved, found["surprises.mixture"]) < without - 0.1


def test_too_few_samples_teach_nothing(monkeypatch):
    monkeypatch.setattr(learning, "_sample", lambda *arguments: fake_samples(1000, 0))
    assert learning.fit(None, None, None, None, SCALES) == {}


def test_import_learns_from_photographs(tmp_path, monkeypatch):
    from small_checkpoints import checkpoint

    from licodec.training.convert.import_checkpoint import import_checkpoint

    monkeypatch.setattr(learning, "LEAST", 100)
    (tmp_path / "images").mkdir()
    for seed in range(3):
        noise(130, 140, "RGB", seed).save(tmp_path / "images" / f"{seed}.png")
    for arch in (*ARCHES, "mbt2018"):
        checkpoint(arch, tmp_path / "c.pt")
        path = import_checkpoint(tmp_path / "c.pt", arch, tmp_path / "images", tmp_path, arch)
        loaded = weights_file.load(path)
        check(loaded)
        assert ("surprises.order" in loaded) == (arch in ARCHES)
        data = licodec.encode(noise(70, 50, "RGB"), 70, weights=path)
        assert licodec.decode(data, weights=path).size == (70, 50)
        assert (Hyperprior(loaded).scale_shifts is not None) == (arch in ARCHES)
