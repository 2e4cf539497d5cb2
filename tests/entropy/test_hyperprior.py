import dataclasses
import io

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import noise
from opened import opened
from PIL import Image
from skimage import data
from small_checkpoints import ARCHES, analyzed

import licodec
from licodec.architectures import BY_COMPRESSAI
from licodec.cli.main import main
from licodec.container import pack, unpack
from licodec.distortion import psnr_db
from licodec.entropy.gaussian import MEAN_UNIT
from licodec.entropy.hyperprior import Z_CURVATURE, Hyperprior, _cheapest
from licodec.entropy.integer_nets import FLOAT32_SUMS, largest_sum
from licodec.entropy.wavefronts import Wavefronts, fronts
from licodec.errors import DamagedFileError, LicodecError
from licodec.io.image import from_pillow
from licodec.networks.hyper import HyperNetworks
from licodec.payload import decode_latents, latents_crc32
from licodec.progress import watching
from licodec.rangecoder import Decoder, Encoder
from licodec.weights import catalogue
from licodec.weights import file as weights_file

every_arch = pytest.mark.parametrize("arch", ARCHES)


CONTEXT = [name for name, a in BY_COMPRESSAI.items() if a.has_context]


def model_of(path) -> Hyperprior:
    return opened(weights=path).entropy_model


def latents(model, h, w, seed=0, spread=2.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(model.M, h, w)) * spread * MEAN_UNIT).astype(np.int32)


@every_arch
@pytest.mark.parametrize("quality", [0, 50, 100])
def test_round_trip(hyper_weights, photo, arch, quality):
    path = hyper_weights[arch]
    codec, _, y = analyzed(path, photo, quality)
    data = licodec.encode(photo, quality, weights=path, device="cpu", effort=0)
    container = unpack(data)
    y_hat = decode_latents(codec, container)
    assert latents_crc32(y_hat) == container.latents_crc32
    # ŷ is y to the nearest step, counted from 0 or from a mean in 64ths of a step.
    assert np.abs(y_hat - y).max() <= MEAN_UNIT // 2
    if arch != "mbt2018-mean":
        assert (y_hat % MEAN_UNIT == 0).all()
    assert (y_hat != 0).mean() > 0.1
    image = licodec.decode(data, weights=path)
    assert image.size == photo.size and image.mode == "RGB"


@every_arch
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (17, 16), (31, 47), (97, 101), (65, 64)]
)
def test_any_size(hyper_weights, arch, size):
    image = noise(*size, "RGB")
    data = licodec.encode(image, 60, weights=hyper_weights[arch])
    assert licodec.decode(data, weights=hyper_weights[arch]).size == size


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
@every_arch
def test_modes(hyper_weights, arch, mode):
    image = noise(50, 33, mode)
    data = licodec.encode(image, 60, weights=hyper_weights[arch])
    out = licodec.decode(data, weights=hyper_weights[arch])
    assert out.mode == mode and out.size == image.size
    if mode.endswith("A"):
        assert out.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@every_arch
def test_every_sum_fits_float32(hyper_weights, arch):
    model = model_of(hyper_weights[arch])
    nets = [
        model.h_s,
        *([model.wavefronts.context, model.wavefronts.parameters] if arch in CONTEXT else []),
    ]
    for net in nets:
        for layer in net.layers:
            assert layer.dtype == torch.float32


@every_arch
def test_extreme_latents_survive(hyper_weights, arch):
    model = model_of(hyper_weights[arch])
    y = latents(model, 5, 9, spread=3)
    y[0, 0, :4] = [5000 * MEAN_UNIT, -5000 * MEAN_UNIT, 2**28, -(2**28)]
    z = model.side_information(y, 0)
    z[0, 0, 0] = 10**6
    encoder = Encoder()
    sent = model.code_latents(encoder, 100, 5, 9, y, z)
    assert np.abs(sent - y).max() <= MEAN_UNIT // 2
    assert (model.code_latents(Decoder(encoder.finish()), 100, 5, 9) == sent).all()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (9, 1), (4, 3), (7, 20)])
def test_fronts_come_after_all_that_the_mask_sees(h, w):
    time = np.full(h * w, -1)
    for t, front in enumerate(fronts(h, w)):
        time[front] = t
    assert (time >= 0).all() and len(fronts(h, w)) <= 3 * h + w
    time = time.reshape(h, w)
    for i in range(h):
        for j in range(w):
            for di, dj in [(-a, b) for a in (1, 2) for b in range(-2, 3)] + [(0, -1), (0, -2)]:
                if 0 <= i + di and 0 <= j + dj < w:
                    assert time[i + di, j + dj] < time[i, j]


@pytest.mark.parametrize("arch", CONTEXT)
def test_the_encoder_predicts_in_parallel_what_the_decoder_will_front_by_front(
    hyper_weights, arch, monkeypatch
):
    model = model_of(hyper_weights[arch])
    predicted: dict[int, list] = {}
    original = Wavefronts._predict

    def spy(self, hyper, neighbours, places):
        index, mean = original(self, hyper, neighbours, places)
        for row, place in enumerate(places.tolist()):
            predicted.setdefault(place, []).append((index[row].copy(), mean[row].copy()))
        calls.append(len(places))
        return index, mean

    monkeypatch.setattr(Wavefronts, "_predict", spy)
    y = latents(model, 12, 20)
    calls: list[int] = []
    encoder = Encoder()
    model.code_latents(encoder, 0, 12, 20, y, model.side_information(y, 0))
    assert calls == [240]
    calls = []
    model.code_latents(Decoder(encoder.finish()), 0, 12, 20)
    assert len(calls) == 3 * 11 + 20
    assert len(predicted) == 240
    for (index, mean), (index_again, mean_again) in predicted.values():
        assert (index == index_again).all() and (mean == mean_again).all()
    assert np.concatenate([mean for (_, mean), _ in predicted.values()]).std() > 1


@every_arch
def test_integer_parameters_follow_the_float_networks(hyper_weights, arch, monkeypatch):
    """Scales and means of the whole integer path, on latents of an image."""
    path = hyper_weights[arch]
    codec = opened(weights=path)
    model = codec.entropy_model
    saved = torch.load(path.parent / f"{arch}.pt", weights_only=True)
    networks = HyperNetworks.from_state_dict(BY_COMPRESSAI[arch], saved["state_dict"])
    gain = codec.weights.gain(0) * np.float32(MEAN_UNIT)
    y = codec.transforms.analyze(np.asarray(noise(192, 128, "RGB", 3)), gain)
    z = model.side_information(y, 0)
    seen = []
    decide = model.decide

    def spy(outputs):
        seen.append(outputs.clone())
        return decide(outputs)

    monkeypatch.setattr(model.wavefronts or model, "decide", spy)
    y_hat = model.code_latents(Encoder(), 0, 8, 12, y, z)
    z_hat = torch.from_numpy(z).float() + torch.from_numpy(model.z_median)[:, None, None] / 4
    with torch.no_grad():
        scales, means = networks.parameters_of(
            z_hat[None], torch.from_numpy(y_hat)[None].float() / MEAN_UNIT
        )
    outputs = torch.cat(seen).T.reshape(-1, 8, 12)
    got_scales = outputs[: model.M] / 1024
    assert (got_scales - scales[0]).abs().mean() < 0.02 * scales.abs().mean()
    if arch != "bmshj2018-hyperprior":
        got_means = outputs[model.M :] / MEAN_UNIT
        assert means.std() > 0.01
        assert (got_means - means[0]).abs().mean() < 0.02 * means.abs().mean() + 1 / MEAN_UNIT


@every_arch
def test_rate_is_that_of_the_float_likelihoods(hyper_weights, arch):
    """A file takes at most 0.5 % and 24 bytes more than the float networks' likelihoods promise."""
    from licodec.training.codecs.compressai_layers import EntropyBottleneck

    path = hyper_weights[arch]
    codec = opened(weights=path)
    model = codec.entropy_model
    saved = torch.load(path.parent / f"{arch}.pt", weights_only=True)
    networks = HyperNetworks.from_state_dict(BY_COMPRESSAI[arch], saved["state_dict"])
    bottleneck = EntropyBottleneck(model.N)
    prefix = "entropy_bottleneck."
    state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if prefix in k}
    bottleneck.load_state_dict({k: v for k, v in state.items() if k[0] != "_"}, strict=False)
    image = Image.fromarray(np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    image = image.resize((512, 384))
    data = licodec.encode(image, 100, weights=path, device="cpu")
    container = unpack(data)
    y_hat = torch.from_numpy(decode_latents(codec, container))[None].float() / MEAN_UNIT
    gain = codec.weights.gain(codec.weights.position(200)) * np.float32(MEAN_UNIT)
    y = codec.transforms.analyze(np.asarray(image), gain)
    z_hat = torch.from_numpy(model.side_information(y, 0)).float()
    z_hat += torch.from_numpy(model.z_median)[:, None, None] / 4
    with torch.no_grad():
        scales, means = networks.parameters_of(z_hat[None], y_hat)
        if arch == "mbt2018-mean":
            y_hat = (torch.from_numpy(y)[None] / MEAN_UNIT - means).round() + means
        scales = scales.clamp(min=0.11).double()
        distance = (y_hat - means).abs().double()
        normal = torch.distributions.Normal(0.0, 1.0)
        likelihood = normal.cdf((0.5 - distance) / scales) - normal.cdf((-0.5 - distance) / scales)
        bits = -likelihood.clamp(min=1e-9).log2().sum()
        bits -= bottleneck._likelihood(z_hat.reshape(model.N, 1, -1))[0].log2().sum()
    assert bits > 8 * 2000
    assert float(bits) / 8 * 0.9 < len(data) <= float(bits) / 8 * 1.005 + 24


def test_large_images_go_through_in_tiles_that_do_not_show(hyper_weights, monkeypatch):
    from licodec.entropy import hyperprior

    for arch, path in hyper_weights.items():
        model = model_of(path)
        y = latents(model, 40, 56)
        whole = model.side_information(y, 0)
        results = []
        for tile in (64, 3):
            monkeypatch.setattr(hyperprior, "_TILE", tile)
            encoder = Encoder()
            results.append(model.code_latents(encoder, 0, 40, 56, y, whole))
            again = model.code_latents(Decoder(encoder.finish()), 0, 40, 56)
            assert (again == results[-1]).all()
        assert (results[0] == results[1]).all(), arch


@every_arch
def test_damaged_files_raise_the_one_error(hyper_weights, arch):
    path = hyper_weights[arch]
    data = licodec.encode(noise(70, 40, "RGB"), 60, weights=path)
    for length in range(0, len(data), 7):
        with pytest.raises(LicodecError):
            licodec.decode(data[:length], weights=path)
    for at in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(LicodecError):
            licodec.decode(bytes(flipped), weights=path)


@every_arch
def test_a_payload_that_lies_is_noticed(hyper_weights, arch):
    """Behind a valid checksum, other payloads decode to other latents, or not at all."""
    path = hyper_weights[arch]
    data = licodec.encode(noise(70, 40, "RGB"), 60, weights=path)
    container = unpack(data)
    rng = np.random.default_rng(0)
    payloads = [b"", bytes(40), b"\xff" * 40, *(rng.bytes(60) for _ in range(12))]
    for at in range(0, len(container.payload), 9):
        flipped = bytearray(container.payload)
        flipped[at] ^= 16
        payloads.append(bytes(flipped))
    noticed = 0
    for payload in payloads:
        lying = pack(dataclasses.replace(container, payload=payload, side_bytes=0))
        try:
            image = licodec.decode(lying, weights=path)
        except DamagedFileError:
            noticed += 1
        else:  # the last bits of a range coder's stream may say nothing
            assert image.tobytes() == licodec.decode(data, weights=path).tobytes()
    assert noticed >= len(payloads) - 2
    with pytest.raises(DamagedFileError, match="flag"):
        licodec.decode(pack(dataclasses.replace(container, adaptive=True)), weights=path)


@every_arch
def test_the_least_payload_holds(hyper_weights, arch, monkeypatch):
    """An encoder fills it up with zeros; a decoder refuses less before it computes anything."""
    path = hyper_weights[arch]
    image = noise(70, 40, "RGB")
    shorter = unpack(licodec.encode(image, 0, weights=path))
    latents = 24 * 5 * 3
    assert len(shorter.payload) < latents
    monkeypatch.setattr("licodec.open_codec.LATENTS_PER_BYTE", 1)
    container = unpack(licodec.encode(image, 0, weights=path))
    assert container.payload == shorter.payload.ljust(latents, b"\0")
    assert licodec.decode(pack(container), weights=path).size == image.size
    monkeypatch.setattr(Hyperprior, "code_latents", None)
    with pytest.raises(DamagedFileError, match="bytes cannot hold 70x40"):
        licodec.decode(pack(shorter), weights=path)


@every_arch
def test_rate_control(hyper_weights, photo, arch, monkeypatch):
    path = hyper_weights[arch]

    def encode(**rate):
        return licodec.encode(photo, weights=path, device="cpu", **rate)

    def psnr(data):
        return psnr_db(from_pillow(photo), np.asarray(licodec.decode(data, weights=path)))

    wanted = len(encode(quality=60))
    data = encode(target_size=wanted)
    assert 0.95 * wanted <= len(data) <= wanted
    assert data == encode(quality=licodec.info(data)["quality"])
    # Networks of random weights do not gain PSNR with rate; what the search is told must be right.
    measured = {}

    def search(measure, wanted):
        measured.update({step: measure(step) for step in (0, 200, 77)})
        return 77

    monkeypatch.setattr("licodec.target_search.lowest_with_psnr", search)
    assert encode(target_psnr=30) == encode(quality=38.5)
    assert measured == {step: psnr(encode(quality=step / 2)) for step in measured}
    assert len(set(measured.values())) == 3


@every_arch
def test_what_psnr_is_measured_on_is_what_the_decoder_gets(hyper_weights, arch):
    model = model_of(hyper_weights[arch])
    y = latents(model, 9, 6)
    encoder = Encoder()
    z = model.side_information(y, 70)
    sent = model.code_latents(encoder, 70, 9, 6, y, z)
    assert (model.quantize(y, z, 70) == sent).all()


def test_a_batch_on_threads(hyper_weights, tmp_path):
    """Two architectures' worth of files, encoded and decoded at once, are those of one thread."""
    for i in range(4):
        noise(150, 90, "RGB", i).save(tmp_path / f"{i}.png")
    sources = [str(tmp_path / f"{i}.png") for i in range(4)]
    for arch in CONTEXT:
        given = ["--weights", str(hyper_weights[arch]), "--output-dir"]
        lic, back = tmp_path / f"{arch}.lics", tmp_path / f"{arch}.pngs"
        done = CliRunner().invoke(main, ["encode", *sources, *given, str(lic), "-j", "4"])
        assert done.exit_code == 0, done.stderr
        done = CliRunner().invoke(main, ["decode", "-r", str(lic), *given, str(back), "-j", "4"])
        assert done.exit_code == 0 and "4 done" in done.stderr
        for i, source in enumerate(sources):
            with Image.open(source) as image:
                alone = licodec.encode(image, weights=hyper_weights[arch])
            container = unpack((lic / f"{i}.lic").read_bytes())
            assert container.latents_crc32 == unpack(alone).latents_crc32
    assert torch.backends.mkldnn.enabled


def test_every_long_loop_is_heard(hyper_weights, photo):
    heard = set()
    with watching(lambda stage, share: heard.add(stage)):
        licodec.decode(
            licodec.encode(photo, weights=hyper_weights["mbt2018"]),
            weights=hyper_weights["mbt2018"],
        )
    transforms = {"analysis", "synthesis"}
    assert heard - transforms == {"hyper-analysis", "hyper-synthesis", "parameters", "latents"}


def test_info_names_the_model_of_installed_weights(hyper_weights, monkeypatch):
    path = hyper_weights["mbt2018"]
    data = licodec.encode(noise(64, 64, "RGB"), 60, weights=path)
    assert licodec.info(data)["model"] == "unknown"
    monkeypatch.setenv("LICODEC_WEIGHTS", str(path.parent))
    described = licodec.info(data)
    assert described["model"] == "autoregressive"
    assert described["streams"]["side"] > 0
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (64, 64)


def test_the_bench_runs_every_model_that_has_weights(hyper_weights, monkeypatch):
    from licodec.bench import peers
    from licodec.bench.interface import Settings

    names = [f"licodec-{BY_COMPRESSAI[arch].name}" for arch in ARCHES]
    monkeypatch.setattr(catalogue, "folders", lambda: [])
    assert not set(names) & set(peers.default())
    monkeypatch.undo()
    monkeypatch.setenv("LICODEC_WEIGHTS", str(hyper_weights["mbt2018"].parent))
    assert set(names) <= set(peers.default())
    macs = []
    for name in names:
        codec = peers.make(name, Settings())
        peers.check(codec)
        assert "weights" in peers.version(codec)
        macs.append(codec.decoder_complexity(64, 64).macs)
    assert min(macs) > 10**6 and macs[2] > macs[1]


def test_bound_of_a_stored_file_holds(hyper_weights):
    """What the loader computes from the file's own integers stays below 2^24."""
    for arch, path in hyper_weights.items():
        stored = weights_file.load(path)
        names = {k.rsplit(".", 1)[0] for k in stored.tensors("integer.")}
        assert len(names) >= 3
        model = model_of(path)
        limit = 511
        for i, layer in enumerate(model.h_s.layers):
            own = stored.tensors(f"integer.h_s.{i}.")
            bound = largest_sum(
                own[f"integer.h_s.{i}.weight"], own[f"integer.h_s.{i}.bias"], layer.spec, limit
            )
            assert bound < FLOAT32_SUMS, arch
            limit = int(np.abs(own[f"integer.h_s.{i}.limit"]).max())


def test_z_is_rounded_to_what_costs_least():
    """Like the nearest step where all cost the same; else like a search over all steps."""
    torch.manual_seed(0)
    z = 3 * torch.randn(5, 6, 7)
    same = torch.full((5, 129), 7.0)
    assert torch.equal(_cheapest(z, same), z.round().int())
    bits = 0.2 + (torch.arange(129) - 64).abs().float().sqrt() * torch.rand(5, 1) * 6
    steps = torch.arange(-20, 21)
    costs = bits[:, None, None, 44:85] + Z_CURVATURE * (z[..., None] - steps) ** 2
    found = _cheapest(z, bits)
    assert torch.equal(found, steps[costs.argmin(-1)].int())
    assert 0 < (found != z.round().int()).float().mean() < 0.3
    assert torch.equal(_cheapest(torch.tensor([[[70.4]]]), bits[:1]), torch.tensor([[[70]]]).int())


def test_cheaper_z_takes_fewer_bits(monkeypatch):
    """No symbol takes more bits than that of the nearest step, and at the lowest rate many take fewer."""
    image = Image.fromarray(data.coffee()[100:300, 100:420])
    codec, position, y = analyzed(catalogue.resolve("hyperprior")[1], image, 0)
    model = codec.entropy_model
    cheapest = model.side_information(y, position)
    monkeypatch.setattr("licodec.entropy.hyperprior.Z_CURVATURE", 1e9)
    nearest = model.side_information(y, position)
    assert np.abs(cheapest - nearest).max() == 1
    assert model.side_bits(cheapest, position) < 0.9 * model.side_bits(nearest, position)
