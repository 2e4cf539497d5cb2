"""ẑ of a hyperprior coded by the image's own distributions."""

import dataclasses

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import noise
from opened import opened
from safetensors.numpy import load_file
from small_checkpoints import ARCHES, with_z_distributions
from small_runs import M, N, settings

import licodec
from licodec.cli.main import main
from licodec.container import pack, unpack
from licodec.entropy.gaussian import MEAN_UNIT
from licodec.entropy.tables import count_channels
from licodec.errors import DamagedFileError, LicodecError, ModelMissingError, UsageError
from licodec.rangecoder import Decoder, Encoder
from licodec.training import config as configs
from licodec.training.codecs.hyperprior import z_distributions
from licodec.training.convert.export import export
from licodec.training.convert.import_checkpoint import import_checkpoint
from licodec.training.loop import train
from licodec.weights.file import Weights

every_arch = pytest.mark.parametrize("arch", ARCHES)
PREFIX = "z_distributions."


@pytest.fixture(scope="module")
def z_weights(hyper_weights, photo):
    return {arch: with_z_distributions(path, photo) for arch, path in hyper_weights.items()}


def encode(image, path, z_distributions="adaptive", **rate):
    return licodec.encode(image, weights=path, z_distributions=z_distributions, **rate)


def coded(path, image, quality):
    """The model that codes adaptively, the static one, the position, and ẑ's symbols."""
    codec, adaptive = (opened(weights=path, z_distributions=z) for z in ("static", "adaptive"))
    position = codec.weights.position(2 * quality)
    gain = codec.weights.gain(position) * np.float32(MEAN_UNIT)
    y = codec.transforms.analyze(np.asarray(image), gain)
    model = adaptive.entropy_model
    return model, codec.entropy_model, position, model.side_information(y, position)


def chosen(model, z, position):
    return model.z_distributions.choose(count_channels(z, 256)[:, None], position)


@every_arch
@pytest.mark.parametrize("quality", [0, 30, 100])
def test_round_trip(z_weights, photo, arch, quality):
    path = z_weights[arch]
    data, static = (encode(photo, path, z, quality=quality) for z in ("adaptive", "static"))
    assert unpack(data).adaptive and not unpack(static).adaptive
    # The same ŷ, coded otherwise.
    assert unpack(data).latents_crc32 == unpack(static).latents_crc32
    assert unpack(data).payload != unpack(static).payload
    out = licodec.decode(data, weights=path)
    assert out.tobytes() == licodec.decode(static, weights=path).tobytes()
    model, _, position, z = coded(path, photo, quality)
    assert chosen(model, z, position).any()


@every_arch
@pytest.mark.parametrize("size", [(1, 1), (17, 40), (97, 101)])
def test_any_size_and_alpha(z_weights, arch, size):
    image = noise(*size, "RGBA")
    data = encode(image, z_weights[arch], quality=60)
    assert licodec.decode(data, weights=z_weights[arch]).size == size


@every_arch
def test_size_is_the_information_of_the_tables(z_weights, photo, arch):
    """What ẑ and what tells its tables take in the stream, next to the static tables' ẑ."""
    model, static, position, z = coded(z_weights[arch], photo.resize((448, 320)), 0)
    sizes = {}
    for name, coder in (("adaptive", model), ("static", static)):
        encoder = Encoder()
        y = np.zeros((model.M, 20, 28), dtype=np.int32)
        sent = coder.code_latents(encoder, position, 20, 28, y, z)
        sizes[name] = len(encoder.finish())
        assert (coder.code_latents(Decoder(encoder.finish()), position, 20, 28) == sent).all()
    bits = [m.side_bits(z, position) / 8 for m in (model, static)]
    assert abs(bits[0] - bits[1]) > 10
    expected = sizes["static"] + bits[0] - bits[1]
    assert abs(sizes["adaptive"] - expected) <= 0.005 * sizes["adaptive"] + 24


def test_the_encoder_sends_zeros_where_they_cost_less(z_weights, photo):
    model, _, position, z = coded(z_weights["mbt2018"], photo, 50)
    counts = count_channels(z, 256)[:, None]
    own, distributions = chosen(model, z, position), model.z_distributions
    none = np.zeros_like(own)
    assert distributions.bits(counts, own, position) < distributions.bits(counts, none, position)
    other = np.roll(counts, 100, axis=-1)  # an image that the nets cannot describe
    assert not distributions.choose(np.zeros_like(counts), position).any()
    best = distributions.choose(other, position)
    assert distributions.bits(other, best, position) <= distributions.bits(other, none, position)


def test_values_beyond_the_tables_survive(z_weights, photo):
    model, _, position, z = coded(z_weights["mbt2018-mean"], photo, 50)
    z[0, 0, 0], z[1, 0, 0] = 10**6, -(10**6)
    encoder = Encoder()
    h, w = 4 * z.shape[1], 4 * z.shape[2]
    y = np.zeros((model.M, h, w), dtype=np.int32)
    sent = model.code_latents(encoder, position, h, w, y, z)
    assert (model.code_latents(Decoder(encoder.finish()), position, h, w) == sent).all()


def test_rate_control(z_weights, photo):
    path = z_weights["mbt2018-mean"]
    wanted = len(encode(photo, path, quality=60))
    data = encode(photo, path, target_size=wanted)
    assert unpack(data).adaptive and 0.98 * wanted <= len(data) <= wanted


@every_arch
def test_damaged_files_raise_the_one_error(z_weights, arch):
    path = z_weights[arch]
    data = encode(noise(70, 40, "RGB"), path, quality=60)
    broken = [data[:length] for length in range(0, len(data), 9)]
    broken += [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(0, len(data), 7)]
    for bad in broken:
        with pytest.raises(LicodecError):
            licodec.decode(bad, weights=path)


@every_arch
def test_a_payload_that_lies_is_noticed(z_weights, hyper_weights, arch):
    path = z_weights[arch]
    data = encode(noise(70, 40, "RGB"), path, quality=60)
    container = unpack(data)
    rng = np.random.default_rng(0)
    payloads = [b"", bytes(40), b"\xff" * 40, *(rng.bytes(60) for _ in range(8))]
    for at in range(0, len(container.payload) // 2, 5):
        flipped = bytearray(container.payload)
        flipped[at] ^= 16
        payloads.append(bytes(flipped))
    lies = [dataclasses.replace(container, payload=p, side_bytes=0) for p in payloads]
    for lying in (*lies, dataclasses.replace(container, adaptive=False)):
        with pytest.raises(DamagedFileError):
            licodec.decode(pack(lying), weights=path)


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_command_line_and_info(z_weights, tmp_path, monkeypatch):
    path, png, lic = z_weights["mbt2018-mean"], tmp_path / "a.png", tmp_path / "a.lic"
    noise(64, 48, "RGB").save(png)
    done = run("encode", png, "--weights", path, "--z-distributions", "adaptive")
    assert done.exit_code == 0, done.stderr
    assert licodec.info(lic.read_bytes())["model"] == "unknown"
    assert "unknown@" in run("info", lic).stdout
    monkeypatch.setenv("LICODEC_WEIGHTS", str(path.parent))
    described = licodec.info(lic.read_bytes())
    assert described["model"] == "hyperprior" and described["distributions"] == "adaptive"
    assert described["streams"]["side"] > 0
    assert "quality 50, adaptive distributions (side" in run("info", lic).stdout
    assert run("verify", "--deep", lic).exit_code == 0
    assert run("decode", lic, "-o", tmp_path / "b.png").exit_code == 0
    assert run("encode", png, "-f", "--weights", path).exit_code == 0
    assert licodec.info(lic.read_bytes())["distributions"] == "static"
    assert "adaptive" not in run("info", lic).stdout


@pytest.mark.parametrize("model", ["adaptive", "factorized"])
def test_models_without_a_hyperprior_are_refused(photo, tmp_path, model):
    photo.save(tmp_path / "a.png")
    done = run("encode", tmp_path / "a.png", "-m", model, "--z-distributions", "adaptive")
    expected = f"--z-distributions adaptive needs a model with a hyperprior, not {model}"
    assert done.exit_code == 2 and done.stderr == f"licodec: {expected}\n"
    assert not (tmp_path / "a.lic").exists()
    with pytest.raises(UsageError, match=expected):
        licodec.encode(photo, model=model, z_distributions="adaptive")


def test_weights_without_the_nets_are_refused(hyper_weights, photo, tmp_path):
    path = hyper_weights["mbt2018"]
    photo.save(tmp_path / "a.png")
    done = run("encode", tmp_path / "a.png", "--weights", path, "--z-distributions", "adaptive")
    expected = f"{path.name} offers no --z-distributions but static"
    assert done.exit_code == 2 and done.stderr == f"licodec: {expected}\n"
    with pytest.raises(UsageError, match="no z-distributions 'own'"):
        encode(photo, path, "own")


def stage_b(folder, out, init, arch="hyperprior", **changes):
    changes = {"steps": 30, "lr": 3e-3, "bottleneck_lr": 1e-2, **changes}
    config = settings(
        folder, out, arch, (0.013, 0.05), stage="distributions", init=str(init), **changes
    )
    small = {"width": 16, "z_channels": 2, "groups": 4, "kernel_size": 5}
    config.model = dataclasses.replace(config.model, **small)
    return config


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Checkpoints of a hyperprior and, on top, of the nets over ẑ's distributions."""
    out = tmp_path_factory.mktemp("z")
    a = train(settings(folder, out / "a", "hyperprior", (0.013, 0.05), steps=20, lr=1e-3))
    return a, train(stage_b(folder, out / "b", a))


def test_trained_nets_come_into_the_weights_and_code(trained, folder, tmp_path, photo):
    paths = []
    for i, checkpoint in enumerate(trained):
        exported = export(checkpoint, tmp_path / str(i), "tiny")
        paths.append(import_checkpoint(exported, "mbt2018-mean", str(folder), tmp_path, f"w{i}"))
    plain, own = (Weights(path).tensors("") for path in paths)
    assert {k for k in own if k not in plain} == {k for k in own if k.startswith(PREFIX)}
    for name, value in plain.items():
        assert (own[name] == value).all(), name
    assert own[f"{PREFIX}prior"].shape == (2, N, 257) and own[f"{PREFIX}h_s.4.weight"].any()
    for quality in (0, 100):
        data = encode(photo, paths[1], quality=quality)
        assert licodec.decode(data, weights=paths[1]).size == photo.size
    with pytest.raises(UsageError):
        encode(photo, paths[0])
    on = train(stage_b(folder, tmp_path / "on", paths[0], steps=1))
    exported = export(on, tmp_path / "2", "tiny")
    path = import_checkpoint(exported, "mbt2018-mean", str(folder), tmp_path, "on")
    own = Weights(path).tensors("")
    assert own[f"{PREFIX}h_s.4.weight"].any()  # nets for weights that had none
    bias, shift = "integer.h_s.2.bias", "integer.h_s.2.shift"
    was, now = (np.ldexp(w[bias].astype(float), -w[shift].astype(int)) for w in (plain, own))
    np.testing.assert_allclose(now, was, rtol=1e-3, atol=0.01)


def test_the_network_below_is_frozen_and_the_nets_learn(trained, folder, tmp_path):
    from licodec.training.checkpoint import load_checkpoint
    from licodec.training.data import Images
    from licodec.training.stages.stage import make_stage

    a, b = (load_checkpoint(path) for path in trained)
    for name, value in a["ema"].items():
        assert value.equal(b["ema"][name]), name
    assert b["ema"][f"{PREFIX}h_s.layers.4.weight"].any()
    config = stage_b(folder, tmp_path, trained[0])
    stage = make_stage(config, Images(folder, 2, 64, torch.device("cpu")), torch.device("cpu"))
    with torch.no_grad():
        losses = [
            float(nets.rates(stage.counts.values.float(), stage.counts.rate)[0])
            for nets in (stage.nets, z_distributions(config, b["ema"]))
        ]
    assert losses[1] < losses[0] - 0.01


def test_resume_goes_on(trained, folder, tmp_path):
    train(stage_b(folder, tmp_path, trained[0], steps=3))
    path = train(stage_b(folder, tmp_path, trained[0], steps=5), resume=True)
    assert export(path, tmp_path, "again").exists()


def test_nets_for_other_rates_are_no_part_of_a_checkpoint(trained, tmp_path):
    exported = load_file(export(trained[1], tmp_path, "tiny"))
    state = {k: torch.from_numpy(v) for k, v in exported.items()}
    state[f"{PREFIX}prior"] = state[f"{PREFIX}prior"][:1]
    lambdas = state.pop("lambdas")
    torch.save({"state_dict": state, "lambdas": lambdas.tolist(), "log_gain": state["log_gain"]},
               tmp_path / "c.pt")  # fmt: skip
    with pytest.raises(UsageError, match="z-distributions"):
        import_checkpoint(tmp_path / "c.pt", "mbt2018-mean", None, tmp_path, "w")


@pytest.mark.parametrize(
    ("train_section", "regularizer", "reason"),
    [
        ({"stage": "joint", "init": "a.pt"}, {}, "train.stage is transforms, rate, distributions"),
        ({"stage": "distributions", "init": "klt"}, {}, "needs a trained hyperprior"),
        ({"stage": "distributions", "init": "a.pt"}, {"regularizer": {}}, "stage transforms"),
    ],
)
def test_bad_configs(train_section, regularizer, reason):
    raw = {"model": {"arch": "hyperprior", "N": N, "M": M, "classes": 1, "lambdas": [0.01]}}
    with pytest.raises(UsageError, match=reason):
        configs.from_dict({**raw, "train": {"steps": 1, **train_section}, **regularizer})


def test_a_start_with_other_rates_is_refused(trained, folder, tmp_path):
    """The codec stays as it was; other rates would be another codec."""
    from licodec.training.data import Images
    from licodec.training.stages.stage import make_stage

    config = stage_b(folder, tmp_path, trained[0])
    config.model.lambdas = (0.013, 0.06)
    images = Images(folder, 2, 64, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"\[0.013, 0.05\], which stay"):
        make_stage(config, images, torch.device("cpu"))


def test_a_run_is_not_imported_and_its_export_is_no_weights_file(trained, tmp_path, photo):
    with pytest.raises(UsageError, match="licodec export"):
        import_checkpoint(trained[1], "mbt2018-mean", None, tmp_path, "w")
    with pytest.raises(ModelMissingError, match="licodec import"):
        licodec.encode(photo, weights=export(trained[1], tmp_path, "tiny"))


def test_the_hash_of_other_weights_is_refused(z_weights, photo):
    path = z_weights["mbt2018-mean"]
    licodec.encode(photo, model=f"hyperprior@{path.stem[-8:]}", weights=path)
    with pytest.raises(UsageError, match="is not hyperprior@00000000"):
        licodec.encode(photo, model="hyperprior@00000000", weights=path)


@pytest.mark.parametrize("weights", [3, [1], b"abc", ""])
def test_weights_are_named_by_a_path(photo, weights):
    with pytest.raises(UsageError, match="weights are named by a path"):
        licodec.encode(photo, weights=weights)
    with pytest.raises(UsageError, match="a model is named by a string"):
        licodec.encode(photo, model=weights or 5, z_distributions="adaptive")


def test_a_start_that_holds_no_hyperprior_is_refused(folder, tmp_path):
    from licodec.training.data import Images
    from licodec.training.stages.stage import make_stage

    factorized = settings(folder, tmp_path / "f", "hyperprior", (0.013, 0.05), steps=1)
    factorized.model.arch = "factorized"
    config = stage_b(folder, tmp_path / "h", train(factorized))
    images = Images(folder, 2, 64, torch.device("cpu"))
    with pytest.raises(UsageError, match="no trained hyperprior"):
        make_stage(config, images, torch.device("cpu"))
