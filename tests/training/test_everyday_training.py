import numpy as np
import pytest
import torch
from PIL import Image
from small_everyday import network, tensors

import licodec
from licodec.errors import UsageError
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.everyday import Everyday, cells_of, shuffle, spread, unshuffle
from licodec.training.convert.export import export
from licodec.training.convert.quantize_everyday import dequantized
from licodec.training.data import Images
from licodec.training.loop import train
from licodec.training.start.everyday import initialize


def settings(folder, **more):
    return configs.from_dict({
        "data": {"path": str(folder), "holdout": 1, "patch": 64, "batch": 2, "graphics": 0.5},
        "model": {"arch": "everyday", "N": 12, "M": 16, "fine": 1, "coarse": 1,
                  "lambdas": [0.002, 0.02, 0.2]},
        "train": {"steps": 2, "precision": "float32", "out": str(folder / "out"), **more},
    })  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    from skimage import data

    for i, picture in enumerate((data.astronaut(), data.coffee(), data.chelsea())):
        Image.fromarray(picture[:300, :300]).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.slow
def test_a_run_resumes_exports_and_its_weights_code(folder):
    config = settings(folder)
    checkpoint = train(config)
    config.train.steps = 3
    train(config, resume=True)
    weights = export(checkpoint, folder / "weights", "mine")
    image = Image.open(folder / "0.png")
    data = licodec.encode(image, 60, weights=weights)
    assert licodec.decode(data, weights=weights).size == image.size
    again = settings(folder, init=str(weights), out=str(folder / "again"))
    train(again)


@pytest.mark.slow
def test_the_rate_alone_learns_while_transforms_stay(folder):
    first = train(settings(folder))
    config = settings(folder, init=str(first), stage="rate", out=str(folder / "rate"), warmup=1)
    before, after = (load_checkpoint(str(path))["ema"] for path in (first, train(config)))
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"h_a", "h_s", "steps", "log_scale", "log_z_scale", "rate_features"}
    weights = export(folder / "rate" / "checkpoint.pt", folder / "weights", "mine")
    image = Image.open(folder / "0.png")
    assert licodec.decode(licodec.encode(image, 60, weights=weights), weights=weights).size == (
        300,
        300,
    )


def test_the_start_is_a_block_transform_that_works(folder):
    config = settings(folder)
    net = Everyday(12, 16, 1, 1, config.model.lambdas)
    images = Images(folder, 1, 256, torch.device("cpu"))
    initialize(net, config, images)
    x = images.train[0][:, :256, :256].permute(1, 2, 0)[None].float() / 255
    with torch.no_grad():
        low, high = (net.code(x, torch.tensor([t]), False) for t in (0.0, 2.0))
    assert float(low[0]) < float(high[0])
    assert -10 * float(high[1].log10()) > 20


def test_integers_become_the_network_again():
    net = network()
    state = dequantized(net, tensors())
    x = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    other = Everyday(8, 16, 1, 1, net.lambdas, hyper_width=8, z_channels=4, width=12)
    other.load_state_dict(state)
    with torch.no_grad():
        for a, b in zip(
            net.code(x, torch.tensor([1.0]), False),
            other.code(x, torch.tensor([1.0]), False),
            strict=True,
        ):
            assert torch.allclose(a, b, rtol=0.05, atol=0.05)


def test_further_blocks_of_an_encoder_begin_as_nothing():
    net = network()
    deeper = Everyday(
        8, 16, 1, 1, net.lambdas, encoder_fine=1, encoder_coarse=2, hyper_width=8, z_channels=4, width=12
    )  # fmt: skip
    deeper.load_state_dict(dequantized(deeper, tensors()))
    same = Everyday(8, 16, 1, 1, net.lambdas, hyper_width=8, z_channels=4, width=12)
    same.load_state_dict(dequantized(same, tensors()))
    x = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        for a, b in zip(
            *(n.code(x, torch.tensor([1.0]), False) for n in (deeper, same)), strict=True
        ):
            assert torch.equal(a, b)
    assert len(deeper.g_a.coarse) == 3 and len(deeper.g_s.coarse) == 1


@pytest.mark.slow
def test_weights_with_a_deeper_encoder_code_and_become_a_module(folder):
    config = settings(folder)
    config.model.encoder_fine = config.model.encoder_coarse = 1
    weights = export(train(config), folder / "weights", "deeper")
    image = Image.open(folder / "0.png")
    data = licodec.encode(image, 60, weights=weights)
    assert licodec.decode(data, weights=weights).size == image.size
    assert licodec.torch_model(weights=weights).g_a is not None


def test_a_file_that_does_not_fit_is_refused(folder):
    bad = folder / "bad.safetensors"
    bad.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="train.init"):
        train(settings(folder, init=str(bad)))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("model", "M", 18), ("data", "patch", 80), ("train", "stage", "joint"), ("data", "scale", [2.0])],
)  # fmt: skip
def test_configs_that_cannot_run_are_refused(folder, section, key, value):
    raw = configs.to_dict(settings(folder))
    raw[section][key] = value
    with pytest.raises(UsageError):
        configs.from_dict(raw)


def test_cells_are_put_back_where_they_came_from():
    y = torch.rand(2, 4, 6, 8)
    assert torch.equal(sum(spread(cells_of(y, i), i) for i in range(4)), y)
    assert torch.equal(shuffle(unshuffle(y, 2), 2), y)


def test_lossless_files_take_the_place_of_lossy_ones_and_are_not_shrunk(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    image = Image.fromarray(pixels)
    image.save(tmp_path / "one.webp", lossless=True)
    image.save(tmp_path / "two.jpg")
    image.save(tmp_path / "three.webp", quality=80)
    images = Images(tmp_path, 0, 32, torch.device("cpu"), scale=(0.5,))
    assert sorted(tuple(i.shape[1:]) for i in images.train) == [(64, 64), (64, 64), (128, 128)]


def test_images_of_any_size_start_a_run(folder):
    with Image.open(folder / "0.png") as image:
        image.crop((0, 0, 203, 101)).save(folder / "small.png")
    config = settings(folder)
    images = Images(folder, 1, 64, torch.device("cpu"))
    net = Everyday.of(config.model)
    initialize(net, config, images)
    assert net.g_a.cell.weight.abs().sum() > 0 and torch.isfinite(net.log_gain).all()
