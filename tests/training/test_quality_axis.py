"""`licodec qualities`: -q as a PSNR on photographs."""

import hashlib
import json

import numpy as np
import pytest
import small_everyday
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save
from skimage import data
from small_weights import small_weights

from licodec.cli.main import main
from licodec.open_codec import open_codec
from licodec.options import EncodeOptions
from licodec.training.convert import quality_axis
from licodec.training.convert.export import write_weights
from licodec.training.fit import everyday_back_projection
from licodec.weights import catalogue
from licodec.weights.file import STEPS, Weights


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, picture in enumerate((data.astronaut(), data.coffee())):
        Image.fromarray(picture[100:260, 100:292]).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    return small_weights(tmp_path)


def measured(path, photographs):
    codec, _ = open_codec(EncodeOptions(weights=path))
    images = quality_axis.photographs(photographs)
    return quality_axis._measured(codec, images, [0, 40, 100, 160, 200])


def test_positions_lie_where_the_wanted_psnr_is():
    psnr = np.linspace(quality_axis.WORST - 3, quality_axis.BEST + 3, 5)
    found = quality_axis.positions(psnr, np.arange(5) * STEPS)
    told = np.interp(found, np.arange(5) * STEPS, psnr)
    wanted = np.linspace(quality_axis.WORST, quality_axis.BEST, len(found))
    assert np.abs(told - wanted).max() < 0.02


def test_a_model_that_does_not_reach_as_far_stays_at_its_end():
    psnr = np.array([quality_axis.WORST + 2, quality_axis.WORST + 1.9, quality_axis.BEST - 4])
    found = quality_axis.positions(psnr, np.arange(3) * STEPS)
    assert found[0] == found[1] and found[-1] == found[-5] == 2 * STEPS
    assert (np.diff(found) >= 0).all()


def test_each_quality_gets_its_psnr(photographs, tmp_path, monkeypatch):
    shipped = catalogue.resolve("adaptive")[1]
    ends = measured(shipped, photographs)[[0, -1]]
    low, high = ends[0] + 2, ends[1] - 1
    monkeypatch.setattr(quality_axis, "WORST", low)
    monkeypatch.setattr(quality_axis, "BEST", high)
    made = quality_axis.with_qualities(shipped, photographs, tmp_path / "out")
    wanted = low + (high - low) * np.array([0, 0.2, 0.5, 0.8, 1])
    assert np.abs(measured(made, photographs) - wanted).max() < 0.3


def test_the_command_keeps_all_else(weights, photographs, tmp_path):
    weights.with_suffix(".json").write_text('{"sha256": "of the old file", "steps": 7}')
    command = ["qualities", weights, photographs, "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert result.exit_code == 0, result.stderr
    old, new = Weights(weights), Weights(next((tmp_path / "out").glob("*.safetensors")))
    assert str(new.path) == result.stdout.strip()
    assert set(new.tensors("")) - set(old.tensors("")) == {"positions"}
    for name, tensor in old.tensors("").items():
        np.testing.assert_array_equal(new[name], tensor)
    assert new.metadata == old.metadata
    recipe = json.loads(new.path.with_suffix(".json").read_text())
    assert recipe["steps"] == 7 and recipe["sha256"].startswith(new.hash.hex())
    assert len(recipe["qualities"]["psnr"]) == 11


def test_a_second_time_measures_the_whole_axis_again(weights, photographs, tmp_path):
    first = quality_axis.with_qualities(weights, photographs, tmp_path / "first")
    narrow = {**Weights(first).tensors(""), "positions": np.array([3, 4], np.int32)}
    path = write_weights(tmp_path / "narrow", "small", narrow, Weights(first).metadata, {})
    again = quality_axis.with_qualities(path, photographs, tmp_path / "again")
    assert np.array_equal(Weights(again)["positions"], Weights(first)["positions"])


def test_what_is_shared_counts_as_there(weights, photographs, tmp_path):
    made = quality_axis.with_qualities(weights, photographs, weights.parent, weights)
    assert catalogue.models(made) == catalogue.models(weights) == ("adaptive", "factorized")
    assert made.stat().st_size < weights.stat().st_size / 2


@pytest.mark.parametrize("recipe", ["{", "null", "[1, 2]", "3", "[" * 10_000])
def test_a_damaged_recipe_is_no_recipe(weights, photographs, tmp_path, recipe):
    weights.with_suffix(".json").write_text(recipe)
    made = quality_axis.with_qualities(weights, photographs, tmp_path / "out")
    assert json.loads(made.with_suffix(".json").read_text()).keys() == {"sha256", "qualities"}


def shard(folder):
    (folder / "x.tar").write_bytes(b"no shard")


def sixteen_bits(folder):
    Image.fromarray(np.full((80, 80), 30_000, np.uint16)).save(folder / "x.png")


def tiny(folder):
    for path in folder.iterdir():
        path.unlink()
    Image.new("RGB", (63, 80)).save(folder / "x.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(shard, "no readable shard"), (sixteen_bits, "8 bits"), (tiny, "no image of 64 pixels")],
)
def test_odd_photographs_are_one_line(weights, photographs, tmp_path, spoil, message):
    spoil(photographs)
    command = ["qualities", str(weights), str(photographs), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_file_where_the_folder_should_be(weights, photographs):
    command = ["qualities", str(weights), str(photographs), "-o", str(weights)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "not a folder" in result.stderr


def test_one_rate_alone_is_refused(weights, photographs, tmp_path):
    source = Weights(weights)
    one = {k: v[:1] if len(v) == 2 else v for k, v in source.tensors("").items()}
    told = {**source.metadata, "lambdas": "[0.01]"}
    alone = write_weights(tmp_path / "one", "one", one, told, {})
    command = ["qualities", str(alone), str(photographs), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "one rate alone" in result.stderr
    assert not (tmp_path / "out").exists()


def test_everyday_gets_its_back_projection(photographs, tmp_path):
    """With random transforms none pays."""
    folder = tmp_path / "weights"
    folder.mkdir()
    source = small_everyday.weights(folder, (1.0, 1.0, 1.0))
    made = Weights(quality_axis.with_qualities(source, photographs, tmp_path / "out"))
    assert made["echo"].tolist() == [0, 0, 0] and "positions" in made


def test_each_anchor_has_the_strength_of_the_least_cost(monkeypatch):
    """Unless it wins less than the time is worth."""
    bends, best = (0.0, 0.004, 0.4), 0.5

    class Codec:
        def __init__(self, tensors, photographs):
            pass

        def cost(self, i, k, lmbda, strength):
            return 1 + bends[k] * ((strength - best) ** 2 - best**2)

        def coded(self, i, k, strength):
            return 0, 3 if strength == best else 30

    monkeypatch.setattr(everyday_back_projection, "_Anchors", Codec)
    photograph = np.zeros((1, 1, 3), np.uint8)
    strengths, psnr = everyday_back_projection.anchors({}, [1, 2, 3], [photograph] * 4)
    assert strengths.tolist() == [0, 0, best]
    assert np.allclose(psnr, [38.13, 38.13, 48.13], atol=0.01)


def test_weights_do_not_choose_another_folder(photographs, weights, tmp_path):
    source = Weights(weights)
    metadata = source.metadata | {"name": "../escaped"}
    data = save(dict(source.tensors("")), {k: v for k, v in metadata.items() if k != "deflated"})
    path = tmp_path / f"odd-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    path.write_bytes(data)
    result = CliRunner().invoke(
        main, ["qualities", str(path), str(photographs), "-o", str(tmp_path / "out" / "inner")]
    )
    assert result.exit_code == 2 and "is no name for weights" in result.stderr
    assert not (tmp_path / "out").exists()
