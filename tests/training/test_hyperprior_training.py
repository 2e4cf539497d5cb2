import dataclasses
import json
import math

import numpy as np
import pytest
import skimage.data
import torch
from conftest import noise
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import ARCHES, M, N, latents, settings
from small_weights import small_weights

import licodec
from licodec.architectures import ATTENTION, BY_NAME, HYPERPRIOR
from licodec.container import unpack
from licodec.errors import LicodecError, UsageError
from licodec.open_codec import codec_of
from licodec.options import DecodeOptions
from licodec.payload import decode_latents, latents_crc32
from licodec.training import config as configs
from licodec.training.checkpoint import load_checkpoint, stages_beside
from licodec.training.codecs.hyperprior import (
    HyperpriorNetwork,
    KnownTransforms,
)
from licodec.training.convert.compressai_state import compressai_class
from licodec.training.convert.export import export, write_weights
from licodec.training.convert.import_checkpoint import import_checkpoint
from licodec.training.data import Images
from licodec.training.loop import train
from licodec.training.stages.stage import make_stage
from licodec.training.start import attention, hyperprior
from licodec.weights.file import Weights, catalogue

TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")


def compressai(arch, state):
    """CompressAI's own network with a state of ours, every key accounted for."""
    network = compressai_class(BY_NAME[arch], N, latents(arch))
    network.load_state_dict({k: v for k, v in state.items() if k not in ("log_gain", "lambdas")})
    return network


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """{arch: path} of trained and exported nets, at one lambda."""
    out = tmp_path_factory.mktemp("hyperpriors")
    return {
        arch: export(train(settings(folder, out / arch, arch, steps=30, lr=3e-3)), None, "tiny")
        for arch in ARCHES
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arch", ARCHES)
def test_same_forward_pass_as_compressai(arch, training):
    """Under noise and under rounding, from one seed: its x̂, and its likelihoods as bits."""
    torch.manual_seed(3)
    theirs = compressai_class(BY_NAME[arch], N, latents(arch)).train(training)
    ours = HyperpriorNetwork(BY_NAME[arch], N, latents(arch), (0.013,), "noise").train(training)
    state = {
        k: v for k, v in theirs.state_dict().items() if "_reparam" not in k and "mask" not in k
    }
    assert not ours.load_state_dict(state, strict=False).unexpected_keys
    x = torch.rand(2, 3, 64, 128)
    torch.manual_seed(4)
    out = ours(x)
    torch.manual_seed(4)
    expected = theirs(x)
    bits = sum(-torch.log2(p).flatten(1).sum(1) for p in expected["likelihoods"].values())
    torch.testing.assert_close(out.x_hat, expected["x_hat"])
    torch.testing.assert_close(out.bpp, bits / (64 * 128))


@pytest.mark.parametrize("arch", ARCHES)
def test_export_is_compressais_state(exported, folder, arch):
    """It loads strictly, compresses and decompresses to what evaluation promised."""
    path = exported[arch]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["arch"] == BY_NAME[arch].compressai and json.loads(metadata["lambdas"]) == [
        0.013
    ]
    assert "arithmetic" not in metadata  # no weights file yet
    state = load_file(path)
    assert state["lambdas"].tolist() == [0.013]
    assert state["log_gain"].shape == (1, latents(arch)) and not state["log_gain"].any()
    network = compressai(arch, state).eval()
    image = Images(folder, 2, 64, torch.device("cpu")).validation[0]
    x = image[None, :, :128, :128].float() / 255
    coded = []
    network.g_s.register_forward_pre_hook(lambda module, inputs: coded.append(inputs[0]))
    with torch.no_grad():
        out = network.compress(x)
        x_hat = network.decompress(out["strings"], out["shape"])["x_hat"]
    ours = HyperpriorNetwork(BY_NAME[arch], N, latents(arch), (0.013,)).eval()
    known = ours.state_dict()
    usable = {k: v for k, v in state.items() if k in known and v.shape == known[k].shape}
    ours.load_state_dict(usable, strict=False)
    gaussians, conditional = network.gaussian_conditional, ours.conditional
    ours.conditional = lambda u, scales, means: conditional(
        u, gaussians.scale_table[gaussians.build_indexes(scales)], means
    )  # as its coder has them
    bpp, mse = ours.evaluate(x, 0)
    pixels = 128 * 128
    real = sum(len(s[0]) for s in out["strings"]) * 8 / pixels
    with torch.no_grad():
        forward = network(x)["x_hat"].clamp(0, 1)
    assert float(((forward - x) ** 2).mean()) == pytest.approx(float(mse), rel=0.01)
    with torch.no_grad():
        assert (coded[0] - ours.g_a(x)).abs().max() < 0.5 + 1e-3
    if not hasattr(ours, "context_prediction"):
        # With a context, both passes are estimates: they round about 0, the coder about the mean.
        assert float(((x_hat - x) ** 2).mean()) == pytest.approx(float(mse), rel=0.05)
    assert real == pytest.approx(float(bpp), rel=0.1, abs=16 * 8 / pixels)


@pytest.mark.parametrize("arch", ARCHES)
def test_an_export_becomes_weights_that_code(exported, tmp_path, photo, arch):
    path = import_checkpoint(exported[arch], BY_NAME[arch].compressai, None, tmp_path, arch)
    data = licodec.encode(photo, weights=path)
    container = unpack(data)
    codec = codec_of(container, DecodeOptions(weights=path, device="cpu"))
    assert latents_crc32(decode_latents(codec, container)) == container.latents_crc32
    assert codec.architecture.name == arch
    assert licodec.decode(data, weights=path).size == photo.size


def test_attention_may_have_more_latent_channels_than_others(folder, tmp_path, photo):
    """Trained, exported, imported and coded with M > N, which CompressAI's class does not know."""
    config = settings(folder, tmp_path / "run", "attention", lambdas=(0.005, 0.05))
    config.model.M = 20
    path = export(train(config), None, "wide")
    path = import_checkpoint(path, "cheng2020-attn", None, tmp_path, "wide")
    data = licodec.encode(photo, weights=path)
    container = unpack(data)
    codec = codec_of(container, DecodeOptions(weights=path, device="cpu"))
    y = decode_latents(codec, container)
    assert len(y) == 20 and latents_crc32(y) == container.latents_crc32
    assert licodec.decode(data, weights=path).size == photo.size


def test_tails_hold_nearly_all_of_z(exported):
    network = compressai("hyperprior", load_file(exported["hyperprior"]))
    bottleneck = network.entropy_bottleneck
    logits = bottleneck._logits_cumulative(bottleneck.quantiles, stop_gradient=True)
    mass = torch.sigmoid(logits.double())
    inside = (bottleneck.quantiles.abs() < 512).all(dim=(1, 2))
    assert inside.any()
    torch.testing.assert_close(
        mass[inside, 0, 0], torch.full((int(inside.sum()),), 5e-10).double(), rtol=0.05, atol=0
    )


@pytest.mark.parametrize("arch", ARCHES)
def test_every_parameter_is_trained(folder, tmp_path, arch):
    config = settings(folder, tmp_path, arch, lambdas=(0.005, 0.05), surrogate="noise")
    torch.manual_seed(0)
    stage = make_stage(config, Images(folder, 2, 64, torch.device("cpu")), torch.device("cpu"))
    loss, _ = stage.loss(stage.model, np.random.default_rng(0))
    loss.backward()
    for name, parameter in stage.model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (not name.endswith("quantiles")), name


def test_loss_falls_at_two_rates(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hyperprior, "_start_rate", lambda *_: None)  # which leaves little to learn
    short = settings(folder, tmp_path / "a", "hyperprior", (0.002, 0.05), steps=1, lr=1e-9)
    short.train.bottleneck_lr, short.train.ema = 1e-9, 0.0
    long = settings(folder, tmp_path / "b", "hyperprior", (0.002, 0.05), steps=60, lr=5e-4)
    long.train.bottleneck_lr, long.train.clip, long.data.batch = 1e-2, 10.0, 4
    first, last = (load_checkpoint(train(c))["history"][-1] for c in (short, long))
    assert last["val_objective"] < 0.95 * first["val_objective"]
    assert last["val_bpp"][0] < last["val_bpp"][1] and last["val_psnr"][0] < last["val_psnr"][1]


def test_one_rate_is_compressais_plain_network(folder, tmp_path):
    """A single gain goes into the transforms: the start's x̂ and latents stay what they were."""
    images = Images(folder, 2, 64, torch.device("cpu"))
    states = []
    for lambdas in ((0.013,), (0.013, 0.05)):
        torch.manual_seed(0)
        config = settings(folder, tmp_path, "hyperprior", lambdas)
        states.append(make_stage(config, images, torch.device("cpu")).model)
    plain, gained = states
    assert not plain.log_gain.requires_grad and not plain.log_gain.any()
    x = images.validation[0][None, :, :128, :128].float() / 255
    gain = gained.log_gain[0].exp()[None, :, None, None]
    torch.testing.assert_close(plain.g_a(x), gained.g_a(x) * gain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        plain.g_s(plain.g_a(x)), gained.g_s(gained.g_a(x)), rtol=1e-4, atol=1e-4
    )


def test_starts_from_factorized_weights_or_from_its_own(folder, tmp_path, exported):
    factorized = settings(folder, tmp_path / "f", "hyperprior", (0.013, 0.05))
    factorized.model.arch = "factorized"
    weights = export(train(factorized), tmp_path, "factorized")
    names = ("g_a.0.weight", "g_s.6.bias", "log_gain")
    config = settings(folder, tmp_path / "h", "autoregressive", (0.013, 0.05), init=str(weights))
    images = Images(folder, 2, 64, torch.device("cpu"))
    model = make_stage(config, images, torch.device("cpu")).model
    for name in names:
        torch.testing.assert_close(model.state_dict()[name], Weights(weights).torch(name)[""])
    state = Weights(weights).torch("")
    fewer = settings(folder, tmp_path / "h", "autoregressive", (0.013, 0.05), init=str(weights))
    fewer.model.M -= 3
    model = make_stage(fewer, images, torch.device("cpu")).model
    x = torch.stack([i[:, :64, :64] for i in images.train]).float() / 255
    y = make_stage(config, images, torch.device("cpu")).model.g_a(x)
    spread = (y.std((0, 2, 3)) * state["log_gain"][-1].float().exp()).tolist()
    kept = sorted(range(len(spread)), key=lambda c: -spread[c])[: fewer.model.M]
    shared = [
        c for c in range(M) if any(torch.equal(row, y[:, c]) for row in model.g_a(x).unbind(1))
    ]
    assert len(shared) == fewer.model.M and len({*kept} - {*shared}) <= 1
    assert torch.equal(model.log_gain[1], state["log_gain"][1][shared])
    with torch.no_grad():
        z = model.hyper_latents(model.g_a(x) * model.log_gain[1].exp()[:, None, None])
    assert z.round().any()  # where ẑ is 0 throughout, h_s learns nothing of it
    again = settings(folder, tmp_path / "o", "hyperprior", init=str(exported["hyperprior"]))
    state = make_stage(again, images, torch.device("cpu")).model.state_dict()
    for name, value in load_file(exported["hyperprior"]).items():
        if name in state and state[name].shape == value.shape:
            torch.testing.assert_close(state[name], value)
    two = settings(folder, tmp_path / "t", "hyperprior", (0.013, 0.05), init=again.train.init)
    known = load_file(exported["hyperprior"])["entropy_bottleneck.matrices.0"]
    rates = make_stage(two, images, torch.device("cpu")).model.entropy_bottleneck
    assert torch.equal(rates.state_dict()["matrices.0"], known.repeat(2, 1, 1))
    wrong = settings(folder, tmp_path / "w", "autoregressive", init=str(exported["hyperprior"]))
    with pytest.raises(UsageError, match="does not fit"):
        make_stage(wrong, images, torch.device("cpu"))


def test_every_rate_has_its_own_tables_of_z(folder, tmp_path):
    config = settings(folder, tmp_path, "hyperprior", (0.002, 0.05), steps=10, bottleneck_lr=1e-2)
    run = train(config)
    state = export(run, tmp_path, "two")
    ema, plain = load_checkpoint(run)["ema"], load_file(state)
    assert (ema["unit"] != 1).any() and "unit" not in plain
    models = [HyperpriorNetwork(HYPERPRIOR, N, M, (0.002, 0.05)).eval() for _ in range(2)]
    for model, own in zip(models, (ema, plain), strict=True):
        known = [k for k in model.state_dict() if k in own and not k.endswith(TABLES)]
        model.load_state_dict({k: own[k] for k in known}, strict=False)
    x = Images(folder, 2, 64, torch.device("cpu")).validation[0][None, :, :128, :128].float() / 255
    for k in range(2):
        trained, exported = (model.evaluate(x, k) for model in models)
        torch.testing.assert_close(trained, exported, rtol=1e-3, atol=1e-6)
    assert models[0].evaluate(x, 1)[0] > models[0].evaluate(x, 0)[0]
    path = import_checkpoint(state, "mbt2018-mean", folder, tmp_path, "two")
    (stage,) = json.loads(path.with_suffix(".json").read_text())["stages"]
    assert stage["steps"] == 10
    beside = state.with_suffix(".json")
    stage |= {"config": 5}
    deep = '{"stages": ' + "[" * 10**5
    for odd in ("[]", '{"stages": [1]}', '{"stages": 3}', deep, json.dumps({"stages": [stage]})):
        beside.write_text(odd)
        assert stages_beside(state) == []
    again = import_checkpoint(state, "mbt2018-mean", folder, tmp_path / "again", "two")
    assert again.name == path.name
    assert "stages" not in json.loads(again.with_suffix(".json").read_text())
    tables = Weights(path).numpy("z_prior")
    assert tables.shape[:2] == (2, N) and (tables[0] != tables[1]).any()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))
    for quality in (0, 30, 100):
        data = licodec.encode(image, quality=quality, weights=path)
        assert licodec.decode(data, weights=path).size == image.size
    odd = load_file(state)
    odd["entropy_bottleneck.quantiles"][N:] += 1
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(UsageError, match="medians differ"):
        import_checkpoint(tmp_path / "odd.safetensors", "mbt2018-mean", folder, tmp_path, "odd")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHES)
def test_released_weights_can_be_trained_on(folder, tmp_path, arch):
    """Their integers as floats: what they say of an image is what the run said that they are from."""
    lambdas = (0.002, 0.05)
    run = train(settings(folder, tmp_path / "run", arch, lambdas, steps=30, lr=3e-3))
    path = import_checkpoint(
        export(run, None, "two"), BY_NAME[arch].compressai, folder, tmp_path, arch
    )
    config = settings(
        folder, tmp_path / "on", arch, lambdas, init=str(path), steps=1, lr=1e-9, bottleneck_lr=1e-9
    )
    images = Images(folder, 2, 64, torch.device("cpu"))
    ema = load_checkpoint(run)["ema"]
    was = HyperpriorNetwork(BY_NAME[arch], N, latents(arch), lambdas)
    was.load_state_dict({k: v for k, v in ema.items() if not k.endswith(TABLES)}, strict=False)
    now = make_stage(config, images, torch.device("cpu")).model
    assert (now.unit != 1).any()
    sizes = [float(m.weight.detach().std()) for m in now.h_s.modules() if hasattr(m, "weight")]
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-3)
    x = images.validation[0][None, :, :128, :128].float() / 255
    for k in range(2):
        expected, found = (model.eval().evaluate(x, k) for model in (was, now))
        torch.testing.assert_close(found[0], expected[0], rtol=0.01, atol=1e-3)
        torch.testing.assert_close(found[1], expected[1], rtol=0.01, atol=1e-5)
    recipe = json.loads(export(train(config), None, "on").with_suffix(".json").read_text())
    assert [stage["steps"] for stage in recipe["stages"]] == [30, 1]
    other = "hyperprior" if arch == "autoregressive" else "autoregressive"
    if arch != "attention":  # of another architecture, the transforms alone
        config = settings(folder, tmp_path / "t", other, lambdas, init=str(path))
        model = make_stage(config, images, torch.device("cpu")).model
        torch.testing.assert_close(model.g_a[0].weight, now.g_a[0].weight)
        assert not torch.equal(model.h_a[0].weight, now.h_a[0].weight)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"arch": "foo"}, "'foo' is not known"),
        ({"lambdas": "null"}, "no list of lambdas"),
        ({"lambdas": "[-1]"}, "no list of lambdas"),
        ({"lambdas": "[" * 10**5}, "no list of lambdas"),
        ({"z_median": None}, "z_median"),
        ({"integer.h_s.2.bias": None}, "integer.h_s.2.bias"),
    ],
)
def test_released_weights_that_were_altered(exported, folder, tmp_path, odd, reason):
    path = import_checkpoint(exported["hyperprior"], "mbt2018-mean", None, tmp_path, "one")
    with safe_open(path, "np") as file:
        metadata = file.metadata() | {k: v for k, v in odd.items() if v is not None}
        tensors = {k: file.get_tensor(k) for k in file.keys() if odd.get(k, "") is not None}
    config = settings(folder, tmp_path / "o", "hyperprior", init=str(
        write_weights(tmp_path / "odd", "odd", tensors, metadata, {})
    ))  # fmt: skip
    images = Images(folder, 2, 64, torch.device("cpu"))
    with pytest.raises(LicodecError, match=reason):
        make_stage(config, images, torch.device("cpu"))
    torn = tmp_path / path.name.replace("one", "torn")
    torn.write_bytes(path.read_bytes()[:-1] + b"x")
    config = settings(folder, tmp_path / "o", "hyperprior", init=str(torn))
    with pytest.raises(LicodecError, match="torn-.*(no readable weights|was altered)"):
        make_stage(config, images, torch.device("cpu"))


def test_odd_checkpoints_are_refused(folder, tmp_path):
    run = train(settings(folder, tmp_path / "run", "hyperprior"))
    good = torch.load(run, weights_only=True)
    broken = good["ema"] | {"log_gain": good["ema"]["log_gain"] * math.nan}
    lacking = {k: v for k, v in good["ema"].items() if k != "g_a.0.weight"}
    narrow = good["config"] | {"model": good["config"]["model"] | {"N": 4}}
    cases = [
        ({"ema": 1, "config": 2}, "not a licodec checkpoint"),
        (good | {"config": None}, "not a licodec checkpoint"),
        (good | {"config": {"data": {}, "model": {}, "train": {}}}, "not a licodec checkpoint"),
        ({k: v for k, v in good.items() if k != "step"}, "not a licodec checkpoint"),
        (good | {"ema": [1]}, "not a licodec checkpoint"),
        (good | {"ema": broken}, "log_gain is not finite"),
        (good | {"ema": lacking}, "lacks g_a.0.weight"),
        (good | {"ema": {}}, "lacks"),
        (good | {"config": narrow}, "does not fit its config"),
    ]
    for i, (state, reason) in enumerate(cases):
        torch.save(state, tmp_path / "odd.pt")
        with pytest.raises(UsageError, match=reason):
            export(tmp_path / "odd.pt", tmp_path / "out", f"case{i}")
    for name in ("../evil", "a/b", "", "a\0", "a" * 101):
        with pytest.raises(UsageError, match="is no name"):
            export(run, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_small_images_start_a_hyperprior(tmp_path):
    """Smaller than the patches that its start would like to see."""
    for i in range(4):
        noise(80, 80, "RGB", i).save(tmp_path / f"{i}.png")
    images = Images(tmp_path, 1, 64, torch.device("cpu"))
    weights = catalogue.resolve("adaptive")[1]
    config = settings(tmp_path, tmp_path / "o", "hyperprior", init=str(weights))
    config.model = dataclasses.replace(config.model, N=128, M=256)
    assert make_stage(config, images, torch.device("cpu")).model.log_gain.shape == (1, 256)


def test_weights_without_lambdas_start_one_rate(exported, folder, tmp_path):
    state = load_file(exported["hyperprior"])
    del state["lambdas"]
    save_file(state, tmp_path / "one.safetensors")
    path = import_checkpoint(tmp_path / "one.safetensors", "mbt2018-mean", None, tmp_path, "one")
    images = Images(folder, 2, 64, torch.device("cpu"))
    config = settings(folder, tmp_path / "o", "hyperprior", init=str(path))
    assert not make_stage(config, images, torch.device("cpu")).model.log_gain.any()
    config = settings(folder, tmp_path / "o", "hyperprior", (0.01, 0.1), init=str(path))
    with pytest.raises(UsageError, match="tells no lambda"):
        make_stage(config, images, torch.device("cpu"))


def test_known_transforms_learn_the_rate_of_rounded_latents():
    torch.manual_seed(0)
    u, means = 3 * torch.randn(1, M, 8, 8), torch.randn(1, M, 8, 8)
    scales = torch.rand(1, M, 8, 8)
    model = KnownTransforms(HYPERPRIOR, N, M, (0.013,))
    evaluated = HyperpriorNetwork(HYPERPRIOR, N, M, (0.013,)).eval().conditional(u, scales, means)
    torch.testing.assert_close(model.conditional(u, scales, means), evaluated)


def test_transforms_can_stay_as_they_are(folder, tmp_path, exported):
    init = str(exported["hyperprior"])
    config = settings(
        folder,
        tmp_path,
        "hyperprior",
        (0.013, 0.05),
        init=init,
        stage="rate",
        ema=0.0,
        bottleneck_lr=1e-3,
    )
    was, now = load_file(init), load_checkpoint(train(config))["ema"]
    for name, value in now.items():
        if name.startswith(("g_a.", "g_s.", "h_a.", "h_s.")) and name.endswith("weight"):
            assert torch.equal(value, was[name]) == name.startswith("g_"), name
    assert torch.equal(now["log_gain"][0], was["log_gain"][0])
    with pytest.raises(UsageError, match="stage rate needs"):
        train(settings(folder, tmp_path / "fresh", "hyperprior", init="fresh", stage="rate"))


def test_a_context_starts_from_a_hyperprior_and_shares_its_weights(
    folder, tmp_path, exported, photo
):
    base = import_checkpoint(exported["hyperprior"], "mbt2018-mean", None, tmp_path, "base")
    config = settings(folder, tmp_path / "run", "autoregressive", init=str(base), stage="context")
    images = Images(folder, 2, 64, torch.device("cpu"))
    model = make_stage(config, images, torch.device("cpu")).model
    z_hat, y_hat = torch.randn(1, N, 3, 3).round(), (3 * torch.randn(1, M, 12, 12)).round()
    with torch.no_grad():
        scales, means = model.h_s(z_hat).chunk(2, 1)
        passed = model.parameters_of(z_hat, y_hat)
    # At first, scales and means of the hyperprior pass, whatever the context sees.
    torch.testing.assert_close(passed[0].clamp(min=0), scales.clamp(min=0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(passed[1], means, atol=1e-4, rtol=1e-3)
    frozen = ("g_a.", "g_s.", "h_a.", "h_s.")
    was = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoint = train(config)
    now = load_checkpoint(checkpoint)["ema"]
    assert all(torch.equal(now[k], was[k]) for k in was if k.startswith(frozen))
    assert not torch.equal(now["context_prediction.weight"], was["context_prediction.weight"])
    state = export(checkpoint, None, "tiny")
    path = import_checkpoint(state, "mbt2018", None, tmp_path, "own", base)
    whole = import_checkpoint(state, "mbt2018", None, tmp_path / "whole", "own")
    assert "g_a.0.weight" not in catalogue.header(path)
    assert Weights(path).tensors("").keys() == Weights(whole).tensors("").keys()
    data = licodec.encode(photo, weights=path)
    assert licodec.decode(data, weights=path).size == photo.size
    on = settings(folder, tmp_path / "on", "autoregressive", init=str(path), stage="context")
    again = make_stage(on, images, torch.device("cpu")).model
    model.load_state_dict(now)
    u = 3 * torch.randn(1, M, 16, 16)
    with torch.no_grad():
        bits, found = (float(net.bits(u)[0]) for net in (model, again))
    assert found == pytest.approx(bits, rel=0.05)


@pytest.mark.parametrize(
    ("init", "reason"),
    [("klt", "stage context needs"), ("factorized", "no weights of hyperprior"), ("rates", "stay")],
)
def test_where_a_context_cannot_start(folder, tmp_path, exported, init, reason):
    lambdas = (0.013,)
    if init == "factorized":
        init = str(small_weights(tmp_path))
    elif init == "rates":
        path = import_checkpoint(exported["hyperprior"], "mbt2018-mean", None, tmp_path, "base")
        init, lambdas = str(path), (0.013, 0.05)
    images = Images(folder, 2, 64, torch.device("cpu"))
    with pytest.raises(UsageError, match=reason):
        config = settings(folder, tmp_path, "autoregressive", lambdas, init=init, stage="context")
        make_stage(config, images, torch.device("cpu"))


def test_attention_starts_as_a_transform_of_blocks():
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None]
    x = picture[:, :, :256, :256].float() / 255

    class Crops:
        def crops(self, rng, batch, patch):
            return picture[:, :, :patch, :patch].repeat(2, 1, 1, 1)

    torch.manual_seed(0)
    model = HyperpriorNetwork(ATTENTION, 32, 32, (0.013,)).eval()
    with torch.no_grad():
        fresh = ((model.g_s(model.g_a(x)) - x) ** 2).mean()
        attention.karhunen_loeve(model, Crops(), 0)
        begun = ((model.g_s(model.g_a(x)) - x) ** 2).mean()
    # 32 of the 768 components of 16x16 pixels.
    assert begun < 0.05 * fresh and -10 * torch.log10(begun) > 22


def test_sizes_that_are_no_multiple_of_64():
    model = HyperpriorNetwork(HYPERPRIOR, N, M, (0.013,)).eval()
    bpp, mse = model.evaluate(torch.rand(1, 3, 65, 40), 0)
    assert torch.isfinite(bpp) and torch.isfinite(mse)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"arch": "transformer"}}, "model.arch"),
        ({"model": {"arch": "hyperprior"}, "data": {"patch": 80}}, "64"),
        ({"model": {"arch": "hyperprior"}, "train": {"steps": 1, "surrogate": "x"}}, "surrogate"),
        ({"regularizer": {}}, "hyperprior"),
        ({"model": {"arch": "hyperprior"}, "regularizer": {"alpha": -1.0}}, "alpha"),
        ({"model": {"arch": "hyperprior"}, "regularizer": {"beta": 1.0}}, "regularizer.beta"),
    ],
)
def test_bad_configs(changes, reason):
    raw = {"train": {"steps": 1}, **changes}
    raw["model"] = {"lambdas": [0.01], **raw.get("model", {})}
    with pytest.raises(UsageError, match=reason):
        configs.from_dict(raw)
