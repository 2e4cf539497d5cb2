import numpy as np
import pytest
from small_everyday import latents, tensors

from licodec.entropy import quadtree
from licodec.entropy.quadtree import CLASSES, ORDERS, Quadtree, code_classes
from licodec.rangecoder import Decoder, Encoder

model = Quadtree(tensors())


def round_trip(y, position, visible=None):
    _, h, w = y.shape
    side = model.side_information(y.copy(), position, visible)
    encoder = Encoder()
    y_hat = model.code_latents(encoder, position, h, w, y, side, visible)
    decoded = model.code_latents(Decoder(encoder.finish()), position, h, w, None, None, visible)
    assert np.array_equal(y_hat, decoded)
    return y_hat


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 4), (9, 14), (1, 40)])
@pytest.mark.parametrize("position", [0, 300, 512])
def test_latents_come_back(shape, position):
    y = latents(*shape)
    y_hat = round_trip(y, position)
    assert y_hat.shape == y.shape


def test_no_latent_is_further_off_than_a_step_unless_its_scale_is_least():
    y = latents(8, 8)
    side = model.side_information(y.copy(), 512)
    coded = sum(len(classes) for _, classes in side.symbols)
    far = np.abs(side.y_hat.astype(int) - y) > 16
    assert coded > 0
    assert far.sum() <= y.size - coded


@pytest.mark.parametrize("largest", [3e4, 1e6])
def test_latents_far_outside_of_their_tables_come_back(largest):
    y = latents(6, 6, largest=largest)
    assert np.abs(round_trip(y, 256).astype(int)).max() > 20000


def test_bands_are_part_of_the_order_and_do_not_change_what_is_seen(monkeypatch):
    y = latents(24, 16)
    whole = round_trip(y, 256)
    monkeypatch.setattr(quadtree, "_POSITIONS", 64)
    assert len(quadtree.bands(24, 16)) == 6
    assert np.array_equal(round_trip(y, 256), whole)


def test_hidden_latents_are_not_coded():
    y = latents(8, 8)
    visible = np.zeros((8, 8), np.bool_)
    visible[:3, :5] = True
    sizes = [
        sum(len(c) for _, c in model.side_information(y.copy(), 256, v).symbols)
        for v in (None, visible)
    ]
    assert 0 < sizes[1] <= 3 * 5 * 16 < sizes[0]
    round_trip(y, 256, visible)


def test_every_step_takes_each_cell_by_one_group_and_each_group_takes_all_cells():
    for step in range(4):
        assert len({order[step] for order in ORDERS}) == 4
    assert all(len(set(order)) == 4 for order in ORDERS)


def test_values_of_all_classes_come_back_however_large():
    rng = np.random.default_rng(3)
    classes = rng.integers(1, CLASSES, 5000).astype(np.uint8)
    values = np.rint(rng.standard_cauchy(5000) * 20).clip(-(2**20), 2**20).astype(np.int32)
    tables = model.distributions.tables(256, None)
    encoder = Encoder()
    code_classes(encoder, values, classes, tables)
    found = code_classes(Decoder(encoder.finish()), None, classes, tables)
    assert np.array_equal(found, values)


def test_side_bits_are_what_z_takes():
    y = latents(32, 32)
    side = model.side_information(y, 256)
    encoder = Encoder()
    model._code_z(encoder, 256, 32, 32, side.z)
    assert abs(model.side_bits(side, 256) / 8 - len(encoder.finish())) < 16


@pytest.mark.parametrize("position", [0, 512])
def test_latents_of_0_take_a_word_and_come_back(position):
    y = np.zeros((16, 40, 24), np.int16)
    side = model.side_information(y, position)
    encoder = Encoder()
    model.code_latents(encoder, position, 40, 24, y, side)
    data = encoder.finish()
    assert len(data) <= 4 and model.side_bits(side, position) == 0
    assert not model.code_latents(Decoder(data), position, 40, 24).any()
