"""Weights files that are not what they must be: one line that names the file and what is wrong."""

import hashlib
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import noise
from opened import opened
from safetensors.numpy import save
from small_weights import small_weights

import licodec
from licodec.cli.main import main
from licodec.errors import ModelMissingError
from licodec.training.convert.export import write_weights
from licodec.training.convert.quality_axis import BEST
from licodec.weights import catalogue, schema
from licodec.weights import file as weights_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "hyperprior"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    found = {path.stem[:-9]: path for path in GOLDEN.glob("*.safetensors")}
    return {"adaptive": small_weights(folder), **found}


def changed(original, folder, tensors=None, metadata=None):
    """A copy with other tensors and metadata, None for none, under the name that its bytes ask for."""
    loaded = weights_file.load(original)
    own = {**loaded.tensors(""), **(tensors or {})}
    said = {**loaded.metadata, **(metadata or {})}
    return write_weights(
        folder, "odd", {k: v for k, v in own.items() if v is not None},
        {k: v for k, v in said.items() if v is not None}, {},
    )  # fmt: skip


def encode(path):
    for name in catalogue.models(path):
        codec = opened(name, path)
    if "z_distributions.prior" in codec.weights:
        opened(weights=path, z_distributions="adaptive")


Z, S = "mbt2018-mean-z", "mbt2018-mean-s"
KINDS = ["adaptive", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-attn", Z, S]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_checked(kind, originals, tmp_path):
    """Without it, of another shape, of another type, and, for floats, with a value that is not finite."""
    loaded = weights_file.load(originals[kind])
    encode(originals[kind])
    odd = weights_file.Weights(originals[kind])
    tensors = loaded.tensors({Z: "z_distributions.", S: "surprises."}.get(kind, ""))
    for name, tensor in list(tensors.items())[:: 1 if kind in ("adaptive", Z, S) else 5]:
        if name in ("z_distributions.prior", "surprises.order") or (kind, name) == (
            "adaptive",
            "z_prior",
        ):
            continue  # then factorized, ẑ with static tables, or no scale shifts
        broken = [None, tensor[None], tensor[..., :-1], tensor.astype(np.complex64)]
        if name == weights_file.BACK_PROJECTION:
            del broken[0]  # weights may have none
        if tensor.dtype.kind == "f":
            for value in (np.nan, np.inf):
                broken.append(tensor.copy())
                broken[-1].flat[-1] = value
        for value in broken:
            odd._tensors = {**loaded.tensors(""), name: value}
            if value is None:
                del odd._tensors[name]
            with pytest.raises(ModelMissingError) as caught:
                schema.check(odd)
            assert "\n" not in str(caught.value) and str(odd.path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        ("adaptive", "context.order", np.zeros(8)),
        ("adaptive", "context.weights", np.full((8, 16), 32767)),
        ("adaptive", "log_gain", np.full((2, 8), 1e4)),
        ("adaptive", "log_gain", np.zeros((0, 8))),
        ("adaptive", "class_prior", np.zeros((2, 8, 0, 257))),
        ("adaptive", "h_s.4.bias", np.full(8, 2**31 - 1)),
        ("adaptive", "h_s.0.bias", np.full(16, -(2**31))),
        (Z, "z_distributions.h_s.4.bias", np.full(8, 2**31 - 1)),
        (S, "surprises.order", np.zeros(12)),
        (S, "surprises.weights", np.full((12, 24), 1)),
        (S, "surprises.weights", np.tri(12, 24, -1) * 32767),
        (S, "surprises.blocks", np.full(11, 1)),
        (S, "surprises.blocks", np.array([1, 1, 1, 9, 0])),
        (S, "surprises.blocks", np.array([1, 1, 10])),
        (S, "surprises.own", np.full((12, 2), 32768)),
        (S, "surprises.table", np.full((64, 128), 65)),
        (S, "surprises.table", np.zeros((64, 64))),
        (S, "surprises.mixture", np.full((64, 64), 255)),
        (S, "surprises.mixture", np.eye(64) * 2**15 - np.ones((64, 64)) * 2**8),
        ("mbt2018", "scales", np.arange(64) - 1),
        ("mbt2018", "scales", np.arange(64, 0, -1)),
        ("mbt2018", "scale_thresholds", np.arange(63, 0, -1)),
        ("mbt2018", "z_prior", np.zeros((1, 8, 128))),
        ("mbt2018", "z_prior", np.zeros((3, 8, 129))),
        ("mbt2018", "z_prior", np.zeros((1, 8, 1))),
        ("mbt2018", "z_prior", np.zeros((1, 8, 2**13 + 1))),
        ("mbt2018", "z_median", np.full(8, 2**16 + 1)),
        ("mbt2018", "z_median", np.full(8, -(2**31))),
        ("mbt2018", "integer.h_s.2.limit", np.array([-(2**15), 511])),
        ("mbt2018", "integer.h_s.2.limit", np.array([-511, 2**20])),
        ("mbt2018", "integer.h_s.0.limit", np.array([5, -5])),
        ("mbt2018", "integer.h_s.0.shift", np.full(12, 1000)),
        ("mbt2018", "integer.h_s.0.bias", np.full(12, 2**50)),
    ],
)
def test_values_that_make_no_sense(kind, name, values, originals, tmp_path):
    before = weights_file.load(originals[kind]).numpy(name).dtype
    wider = values.astype(before if (values.astype(before) == values).all() else np.int32)
    wider = values.astype(np.int64) if values.size and values.max() > 2**31 else wider
    path = changed(originals[kind], tmp_path, {name: wider})
    with pytest.raises(ModelMissingError, match=path.name) as caught:
        encode(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "positions", [[0], [[0, 256]], [0.0, 256.0], [256, 0], [-1, 256], [0, 257]]
)
def test_odd_positions(positions, originals, tmp_path):
    path = changed(originals["adaptive"], tmp_path, {"positions": np.array(positions)})
    with pytest.raises(ModelMissingError, match="positions has values that make no sense"):
        encode(path)


def test_qualities_lie_where_positions_say(originals, tmp_path):
    told = {"positions": np.array([20, 100, 256], np.int32)}
    weights = weights_file.Weights(changed(originals["adaptive"], tmp_path, told))
    assert [weights.position(step) for step in (0, 50, 100, 101, 199, 200)] == [
        20, 60, 100, 101, 254, 256
    ]  # fmt: skip


@pytest.mark.parametrize(
    "metadata",
    [{"groups": "0"}, {"groups": "three"}, {"groups": "3"}, {"groups": None}, {"arch": "vgg"},
     {"arch": "mbt2018"}, {"arithmetic": "9"}, {"arithmetic": None}],
)  # fmt: skip
def test_odd_metadata(metadata, originals, tmp_path):
    path = changed(originals["adaptive"], tmp_path, None, metadata)
    noise(20, 20, "RGB").save(tmp_path / "x.png")
    result = CliRunner().invoke(
        main, ["encode", str(tmp_path / "x.png"), "--weights", str(path), "-o", "-"]
    )
    assert result.exit_code == 4 and result.stderr.count("\n") == 1
    assert path.name in result.stderr and "internal" not in result.stderr


TENSORS = {
    "table": np.where(np.arange(6000).reshape(2, 3000) % 50, -(2**15), 40).astype(np.int16),
    "layer": np.random.default_rng(0).integers(-90, 90, (40, 30)).astype(np.int16),
    "wide": np.array([2**31 - 1, -(2**31), 128, -129, 127, -128] + 994 * [3], np.int32),
    "widest": np.array([2**63 - 1, -(2**63), 2**40] + 97 * [-1], np.int64),
    "ends": np.array([2**15 - 1, -(2**15), -1, 255, 256] * 200, np.int16),
    "floats": np.random.default_rng(1).standard_normal((30, 50)).astype(np.float16),
    "noise": np.random.default_rng(2).integers(-128, 128, 500).astype(np.int8),
    "none": np.zeros((0, 3), np.int16),
}


def stored(folder, tensors, base=None):
    metadata = {"arithmetic": weights_file.ARITHMETIC}
    return write_weights(folder, "odd", tensors, metadata, {}, base)


def test_tensors_are_deflated(tmp_path):
    path = stored(tmp_path, TENSORS)
    found = weights_file.load(path).tensors("")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and np.array_equal(found[name], tensor)
    entries = catalogue.header(path)
    size = {k: np.diff(entries[k]["data_offsets"])[0] for k in TENSORS}
    assert size["table"] < TENSORS["table"].nbytes / 8
    assert size["layer"] < 0.6 * TENSORS["layer"].nbytes
    assert size["noise"] == TENSORS["noise"].nbytes


def test_large_float16_tensors_keep_7_bits_of_mantissa(tmp_path):
    rng = np.random.default_rng(0)
    large, small = (rng.standard_normal(n).astype(np.float16) for n in (20_000, 200))
    large[:4] = 65504, -65504, 1 + 2**-8, 1 + 3 * 2**-8
    path = stored(tmp_path, {"large": large, "small": small})
    found = weights_file.load(path).tensors("")
    assert np.array_equal(found["small"], small)
    assert found["large"][:4].tolist() == [65280, -65280, 1, 1 + 2**-6]
    assert not (found["large"].view(np.uint16) & 7).any()
    assert np.allclose(found["large"], large, rtol=2**-8, atol=2**-20)
    again = weights_file.load(stored(tmp_path, found))
    assert again.hash == weights_file.load(path).hash


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        (["i2", [40, 31]], None),
        (["i2", [40, 29]], None),
        (["i2", [-40, -30]], None),
        (["i2", [2**40, 2**40]], None),
        (["i2", [40, 30.0]], None),
        (["i4", [40, 30]], None),
        (["i1", [40, 30]], None),
        (["O", [40, 30]], None),
        (["i2"], None),
        (3, None),
        (["i2", [40, 30]], b""),
        (["i2", [40, 30]], b"no zlib stream"),
        (["i2", [2**24]], 2 * zlib.compress(bytes(2**26), 9)),
    ],
)
def test_tensors_that_do_not_inflate(entry, data, tmp_path):
    own, told = weights_file.deflated({"layer": TENSORS["layer"]})
    assert json.loads(told["deflated"]) == {"layer": ["i2", [40, 30]]}
    own = own if data is None else {"layer": np.frombuffer(data, np.uint8)}
    metadata = {"arithmetic": weights_file.ARITHMETIC, "deflated": json.dumps({"layer": entry})}
    content = save(own, metadata)
    path = tmp_path / f"odd-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelMissingError, match=path.name) as caught:
        weights_file.load(path)
    assert "\n" not in str(caught.value)


def test_equal_tensors_are_shared(tmp_path):
    base = weights_file.load(stored(tmp_path / "base", TENSORS))
    altered = TENSORS["wide"] + np.int32(1)
    path = stored(tmp_path, TENSORS | {"wide": altered}, base)
    assert [k for k in catalogue.header(path) if k != "__metadata__"] == ["wide"]
    with pytest.raises(ModelMissingError, match=f"{base.hash.hex()}.*not installed"):
        weights_file.load(path)
    shutil.copy(base.path, tmp_path)
    found = weights_file.load(path).tensors("")
    assert np.array_equal(found.pop("wide"), altered)
    assert found.keys() == TENSORS.keys() - {"wide"}
    assert all(np.array_equal(found[name], TENSORS[name]) for name in found)


def test_what_has_nothing_in_common_shares_nothing(tmp_path):
    base = weights_file.load(stored(tmp_path / "base", {"other": TENSORS["wide"]}))
    path = stored(tmp_path, TENSORS, base)
    assert "shared" not in catalogue.header(path)["__metadata__"]
    assert weights_file.load(path).tensors("").keys() == TENSORS.keys()


def test_a_recipe_stays_with_its_weights(tmp_path):
    metadata = {"arithmetic": weights_file.ARITHMETIC}
    path = write_weights(tmp_path, "odd", TENSORS, metadata, {"steps": 7})
    assert write_weights(tmp_path, "odd", TENSORS, metadata, {"poorer": 1}) == path
    assert json.loads(path.with_suffix(".json").read_text())["steps"] == 7


@pytest.mark.parametrize(
    "told",
    ["[]", "3", '{"x": ["a"]}', '{"00": ["a"]}', '{"00000000": 3}', "{", '{"00000000": [["a"]]}'],
)
def test_shares_that_make_no_sense(tmp_path, told):
    metadata = {"arithmetic": weights_file.ARITHMETIC, "shared": told}
    path = write_weights(tmp_path, "odd", TENSORS, metadata, {})
    with pytest.raises(ModelMissingError) as caught:
        weights_file.load(path)
    assert "\n" not in str(caught.value)


def test_a_share_that_is_not_there(tmp_path):
    base = stored(tmp_path, {"a": TENSORS["wide"]})
    metadata = {
        "arithmetic": weights_file.ARITHMETIC,
        "shared": json.dumps({base.stem[-8:]: ["b"]}),
    }
    path = write_weights(tmp_path, "other", {"c": TENSORS["wide"]}, metadata, {})
    with pytest.raises(ModelMissingError, match="has no b to share"):
        weights_file.load(path)


def with_header(text):
    return struct.pack("<Q", len(text)) + text


JUNK = {
    "nothing": b"",
    "text": b"not weights at all\n",
    "deep": with_header(b"[" * 100_000),
    "deeper": with_header(b'{"__metadata__":' + b'{"a":' * 100_000),
    "list": with_header(b"[]"),
    "no metadata": with_header(b"{}"),
    "metadata no map": with_header(b'{"__metadata__": 3}'),
    "arch no text": with_header(b'{"__metadata__": {"arch": []}}'),
    "cut": with_header(json.dumps({
        "__metadata__": {}, "a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()),
    "offsets": with_header(b'{"__metadata__": {}, "a": {"data_offsets": []}}'),
    "entry": with_header(b'{"__metadata__": {}, "a": 3}'),
    "long": struct.pack("<Q", 2**60) + b"{}",
    "type": with_header(json.dumps({
        "__metadata__": {"arithmetic": "2"},
        "log_gain": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()) + b"\0\0",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(JUNK))
def test_what_is_no_weights_file(kind, tmp_path):
    path = tmp_path / "junk-00000000.safetensors"
    path.write_bytes(JUNK[kind])
    noise(20, 20, "RGB").save(tmp_path / "x.png")
    for arguments in (["--weights", str(path)], ["-m", str(path)]):
        result = CliRunner().invoke(
            main, ["encode", str(tmp_path / "x.png"), "-o", "-", *arguments]
        )
        assert result.exit_code == 4 and result.stderr.count("\n") == 1, result.stderr
        assert path.name in result.stderr and "internal" not in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_junk_among_the_weights_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path))
    for name, content in JUNK.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert licodec.decode(licodec.encode(noise(20, 20, "RGB"))).size == (20, 20)
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == 0 and "adaptive@" in result.stdout
    assert result.stderr.count("licodec: note: ") == result.stderr.count("\n") == len(JUNK) - 1


def test_damaged_weights_that_are_asked_for_are_refused(originals, tmp_path, monkeypatch):
    shipped = catalogue.resolve("adaptive")[1]
    encoded = licodec.encode(noise(20, 20, "RGB"), model="adaptive")
    monkeypatch.setattr(catalogue, "folders", lambda: [tmp_path])
    damaged = tmp_path / shipped.name
    for content in (JUNK["text"], originals["adaptive"].read_bytes()):
        damaged.write_bytes(content)
        weights_file.load.cache_clear()
        with pytest.raises(ModelMissingError, match=str(damaged)):
            licodec.decode(encoded)
        with pytest.raises(ModelMissingError, match=str(damaged)):
            licodec.encode(noise(20, 20, "RGB"), model=f"adaptive@{shipped.stem[-8:]}")


def test_a_damaged_file_does_not_hide_a_good_one_of_its_name(originals, tmp_path, monkeypatch):
    shipped = catalogue.resolve("adaptive")[1]
    encoded = licodec.encode(noise(20, 20, "RGB"), model="adaptive")
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path))
    damaged = tmp_path / shipped.name
    for content in (b"", JUNK["text"], originals["adaptive"].read_bytes()):
        damaged.write_bytes(content)
        assert catalogue.by_hash(bytes.fromhex(shipped.stem[-8:])) == shipped
        assert licodec.decode(encoded).size == (20, 20)
        assert licodec.info(encoded)["model"] == "adaptive"
        for model in ("adaptive", f"adaptive@{shipped.stem[-8:]}"):
            assert licodec.encode(noise(20, 20, "RGB"), model=model) == encoded
    shutil.copy(shipped, damaged)
    assert catalogue.by_hash(bytes.fromhex(shipped.stem[-8:])) == damaged


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 2500, "loop", "file", "nowhere", "\udcff"])
def test_a_folder_of_weights_that_cannot_be_looked_into(tmp_path, monkeypatch, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path / name))
    assert catalogue.resolve("adaptive")[1].parent != tmp_path / name
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == 0 and "names no folder" in result.stderr


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(5, "Input/output error")])
def test_a_folder_of_weights_that_cannot_be_listed(tmp_path, monkeypatch, error):
    original = Path.glob

    def glob(self, pattern):
        if self == tmp_path:
            raise error
        return original(self, pattern)

    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(Path, "glob", glob)
    assert catalogue.resolve("adaptive")[1].is_file()


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "loop.safetensors", "\0.safetensors"])
def test_weights_of_odd_names_are_one_line(tmp_path, name, encoded):
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    for code in (
        lambda: licodec.decode(encoded, weights=tmp_path / name),
        lambda: licodec.encode(noise(20, 20, "RGB"), weights=tmp_path / name),
    ):
        with pytest.raises(ModelMissingError) as caught:
            code()
        assert "\n" not in str(caught.value)


def test_own_weights_are_told_from_released_ones(originals, tmp_path, monkeypatch):
    """Those that are exported beside the shipped ones, under a name that comes before theirs."""
    shipped = catalogue.resolve("adaptive")[1]
    shutil.copy(shipped, tmp_path / shipped.name)
    own = originals["adaptive"]
    shutil.copy(own, tmp_path / f"a-{own.stem[-8:]}.safetensors")
    monkeypatch.setattr(catalogue, "folders", lambda: [tmp_path])
    assert catalogue.resolve("adaptive")[1] == tmp_path / shipped.name
    assert catalogue.resolve(f"adaptive@{own.stem[-8:]}")[1].name.startswith("a-")
    lines = CliRunner().invoke(main, ["models"]).stdout.splitlines()
    assert ["your own" in line for line in lines] == [False, False, True, True]
    rows = json.loads(CliRunner().invoke(main, ["models", "--json"]).stdout)
    assert [row["released"] for row in rows] == [True, True, False, False]


def test_what_is_released_is_known():
    shipped = Path(licodec.__file__).parent.parent / "weights"
    for path in shipped.glob("natural-*.safetensors"):
        assert catalogue.is_released(path), f"{path.name}: its hash belongs into catalogue.RELEASED"
        shared = json.loads(catalogue.header(path)["__metadata__"].get("shared", "{}"))
        assert set(shared) <= set(catalogue.RELEASED)
        weights = weights_file.load(path)
        last = (len(weights["log_gain"]) - 1) * weights_file.STEPS
        recipe = json.loads(path.with_suffix(".json").read_text())
        goes_beyond = recipe["qualities"]["psnr"][-1] > BEST
        assert (weights.position(200) < last) if goes_beyond else (weights.position(200) == last)
        assert 0 <= weights.position(0) < weights.position(200) <= last


@pytest.mark.parametrize(
    ("name", "start", "end", "shape"),
    [("b", 8, 16, [3]), ("b", 8, 16, [-2]), ("b", 8, 16, [2.0]),
     ("b", 12, 8, [0]), ("b", -8, 0, [2]), ("b", 8, 24, [4]), ("b", 8, 16, [True, 2])],
)  # fmt: skip
def test_tensors_that_lie_elsewhere(name, start, end, shape):
    entries = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]},
    }
    with pytest.raises((ValueError, TypeError)):
        weights_file.parsed(with_header(json.dumps(entries).encode()) + bytes(16))


def test_tensors_that_share_bytes():
    """However many there are, together they have no more than the file."""
    entry = {"dtype": "U8", "shape": [2**16], "data_offsets": [0, 2**16]}
    entries = {str(i): entry for i in range(2)}
    with pytest.raises(ValueError, match="in another tensor"):
        weights_file.parsed(with_header(json.dumps(entries).encode()) + bytes(2**16))


def test_tensors_are_read_as_safetensors_reads_them():
    from safetensors.torch import load, save

    rng = np.random.default_rng(0)
    tensors = {
        str(dtype): torch.from_numpy(rng.integers(-90, 90, (3, 5))).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64,
                      torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    }  # fmt: skip
    tensors |= {"empty": torch.zeros(0, 3), "one": torch.tensor(2.5)}
    data = save(tensors, {"name": "x"})
    metadata, found = weights_file.parsed(data)
    assert metadata == {"name": "x"} and found.keys() == tensors.keys()
    for key, tensor in load(data).items():
        assert found[key].shape == tuple(tensor.shape)
        assert (found[key] == tensor.to(torch.float64).numpy()).all()
        assert found[key].flags.writeable and found[key].flags.aligned


@pytest.mark.parametrize(
    "told",
    [
        "[0.01]",
        "[0.01, 0]",
        "[0.01, -1]",
        "[0.01, NaN]",
        "[1e999, 1]",
        f"[{10**400}, 1]",
        '["a", "b"]',
        "[true, 1]",
        "{}",
        "3",
        "",
        "[[",
    ],
)
def test_odd_lambdas(originals, tmp_path, told):
    path = changed(originals["mbt2018-mean"], tmp_path, metadata={"lambdas": told})
    with pytest.raises(ModelMissingError) as caught:
        encode(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
