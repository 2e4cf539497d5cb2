import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import noise
from opened import opened
from PIL import Image
from skimage import data

import licodec
from licodec.codec import verify_latents
from licodec.container import pack, unpack
from licodec.entropy import tabled
from licodec.entropy.tabled import code_used, used_odds
from licodec.entropy.tables import BINS, PMF_TOTAL, information
from licodec.errors import (
    DamagedFileError,
    ModelMissingError,
    NewerFileError,
    UnsupportedImageError,
    UsageError,
)
from licodec.open_codec import is_precise
from licodec.payload import decode_latents, latents_crc32
from licodec.rangecoder import Decoder, Encoder
from licodec.training.convert.export import write_weights
from licodec.weights import file as weights_file
from licodec.weights.file import Weights, catalogue

MODELS = ("adaptive", "factorized")


def psnr(a: Image.Image, b: Image.Image) -> float:
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return float(10 * np.log10(255**2 / max(1e-9, (difference**2).mean())))


@pytest.mark.parametrize("model", [*MODELS, "hyperprior"])
def test_round_trip_is_good_and_small(photo, model):
    data = licodec.encode(photo, quality=60, model=model)
    image = licodec.decode(data)
    assert image.mode == "RGB" and image.size == photo.size
    assert psnr(image, photo) > 28
    assert len(data) < photo.width * photo.height * 3 / 8


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 40), (40, 1), (2, 3), (15, 16), (16, 16), (17, 16), (31, 47), (97, 101), (1, 257)],
)
@pytest.mark.parametrize("model", [*MODELS, "hyperprior"])
def test_any_size(size, model):
    image = noise(*size, "RGB")
    out = licodec.decode(licodec.encode(image, quality=90, model=model))
    assert out.size == size
    assert psnr(out, image) > 20


def test_quality_orders_rate_and_distortion(photo):
    sizes, quality = [], []
    for q in (0, 25, 50, 75, 100):
        data = licodec.encode(photo, quality=q)
        sizes.append(len(data))
        quality.append(psnr(licodec.decode(data), photo))
    assert sizes == sorted(sizes)
    assert quality == sorted(quality)


def test_quality_is_continuous(photo):
    """Between the qualities of two anchors, too, each step takes some more bytes, and none takes many."""
    sizes = [len(licodec.encode(photo, quality=q)) for q in range(40, 61, 5)]
    assert all(1.02 < b / a < 1.3 for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("quality", [0, 33.5, 100])
def test_decoder_returns_the_very_latents(photo, model, quality):
    codec = opened(model)
    step = round(2 * quality)
    position = codec.weights.position(step)
    gain, share = codec.weights.gain(position), codec.weights.back_projection(position)
    y = codec.transforms.analyze(np.asarray(photo), gain, is_precise(step), share)
    container = unpack(licodec.encode(photo, quality=quality, model=model, device="cpu"))
    assert container.latents_crc32 == latents_crc32(y)
    assert (decode_latents(codec, container) == y).all()


def test_rate_is_the_information_of_the_tables():
    image = noise(512, 384, "RGB", seed=4)
    container = unpack(licodec.encode(image, quality=100, model="adaptive"))
    codec = opened("adaptive")
    model = codec.entropy_model
    position = codec.weights.position(container.quality_step)
    decoder = Decoder(container.payload)
    z = model.code_side(decoder, position, None)
    y = decode_latents(codec, container)
    bits = model.z_bits(z, position)
    assert container.side_bytes == -(-int(np.ceil(bits)) // 8)
    counts = model.classifier.counts(y, model.classifier.sort(y, position), BINS)
    used = y.any((1, 2))
    counts[~used] = 0
    tables = model.tables(position, z)
    bits += information(counts, tables)
    bits += information(np.stack([~used, used], 1).astype(np.int64), used_odds(tables, y[0].size))
    assert bits <= 8 * len(container.payload) <= bits * 1.002 + 64


def test_one_traversal_for_both_directions(photo):
    """Extreme latents, escapes included, survive both models."""
    rng = np.random.default_rng(5)
    M = opened("adaptive").transforms.M
    y = rng.integers(-3, 4, (M, 2, 3)).astype(np.int32)
    y[0] = [[0, 127, 128], [-128, -129, 100_000]]
    for name in MODELS:
        model = opened(name).entropy_model
        encoder = Encoder()
        z = model.side_information(y, 300)
        model.code_latents(encoder, 300, 2, 3, y, z)
        decoded = model.code_latents(Decoder(encoder.finish()), 300, 2, 3)
        assert (decoded == y).all()


@pytest.mark.parametrize("visible_share", [1, 0.5])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_how_many_channels_an_encoder_takes_at_once_shows_nowhere(name, visible_share, monkeypatch):
    codec = opened(name)
    model = codec.entropy_model
    rng = np.random.default_rng(6)
    y = rng.integers(-3, 4, (codec.transforms.M, 20, 24)).astype(np.int32)
    for channel in (0, 7, 8, 100, codec.transforms.M - 1):
        y[channel, 3, 4:7] = [128, -129, 100_000]
    visible = rng.random((20, 24)) < visible_share
    y *= visible
    side = model.side_information(y, 300, visible)
    streams, parts = [], []
    for groups in (tabled._groups, lambda order, y, band: _singles(order)):
        monkeypatch.setattr(
            tabled, "_groups", lambda *a, groups=groups: parts.append([*groups(*a)]) or parts[-1]
        )
        encoder = Encoder()
        assert (model.code_latents(encoder, 300, 20, 24, y, side, visible) == y).all()
        streams.append(encoder.finish())
    assert 4 <= len(parts[0]) <= 7 and len(parts[1]) == len(y)
    assert streams[0] == streams[1]
    monkeypatch.undo()
    assert (model.code_latents(Decoder(streams[0]), 300, 20, 24, visible=visible) == y).all()


def _singles(order):
    return [slice(i, i + 1) for i in range(len(order))]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_channel_without_latents_costs_a_flag(name):
    codec = opened(name)
    model = codec.entropy_model
    y = np.zeros((codec.transforms.M, 20, 20), dtype=np.int32)
    y[7, 3, 4] = 2
    sent = Encoder()
    side = model.side_information(y, 300)
    assert side.used.tolist() == [c == 7 for c in range(len(y))]
    model.code_latents(sent, 300, 20, 20, y, side)
    assert (model.code_latents(Decoder(sent.finish()), 300, 20, 20) == y).all()
    told = Encoder()
    tables = np.zeros((3, 1, BINS + 1), dtype=np.int64)
    tables[:, 0, BINS // 2] = PMF_TOTAL - np.array([0, 2**12, 2**22])
    flags = np.array([False, True, True])
    assert (code_used(told, tables, 400, flags) == flags).all()
    assert (code_used(Decoder(told.finish()), tables, 400, None) == flags).all()
    assert code_used(Encoder(), tables, 255, None).all()


def test_a_flag_costs_what_the_tables_lead_to_expect():
    """One nonzero latent expected: silent and used are as likely as each other."""
    tables = np.zeros((800, 1, BINS + 1), dtype=np.int64)
    tables[:, 0, BINS // 2] = PMF_TOTAL - PMF_TOTAL // 512
    encoder = Encoder()
    code_used(encoder, tables, 512, np.arange(800) % 2 == 0)
    assert 100 <= len(encoder.finish()) <= 104


@pytest.fixture(scope="module")
def crop():
    return Image.fromarray(data.coffee()[100:300, 100:420])


def test_adaptive_pays_for_itself_on_photographs(crop):
    adaptive, factorized = (len(licodec.encode(crop, quality=60, model=m)) for m in MODELS)
    assert adaptive < 0.9 * factorized


def test_an_echo_is_worth_its_bits(crop, monkeypatch):
    """At high quality, R + λ·255²·mse is lower with it."""

    def cost(encoded):
        weights = opened("adaptive").weights
        error = np.asarray(licodec.decode(encoded), float) - np.asarray(crop, float)
        bpp = 8 * len(encoded) / (crop.width * crop.height)
        return bpp + weights.lmbda(weights.position(188)) * float((error**2).mean())

    with_back_projection = cost(licodec.encode(crop, 94, "adaptive"))
    monkeypatch.setattr(Weights, "back_projection", lambda self, position: 0.0)
    assert with_back_projection < 0.97 * cost(licodec.encode(crop, 94, "adaptive"))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_mode_and_alpha_are_kept(mode):
    image = noise(50, 37, mode)
    out = licodec.decode(licodec.encode(image, quality=80))
    assert out.mode == mode
    if mode.endswith("A"):
        assert (np.asarray(out)[..., -1] == np.asarray(image)[..., -1]).all()
    assert psnr(out.convert("RGB"), image.convert("RGB")) > 25


def test_grey_costs_less_than_colour(photo):
    assert len(licodec.encode(photo.convert("L"))) < len(licodec.encode(photo))


def test_metadata_is_kept_and_stripped(photo):
    icc = b"profile" * 60
    exif = Image.Exif()
    exif[0x010E] = "a description"
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", icc_profile=icc, exif=exif, xmp=b"<x:xmpmeta/>")
    image = Image.open(buffer)
    data = licodec.encode(image)
    kept = licodec.decode(data)
    assert kept.info["icc_profile"] == icc
    assert kept.info["xmp"] == b"<x:xmpmeta/>"
    assert kept.getexif()[0x010E] == "a description"
    assert not licodec.decode(licodec.encode(image, strip=True)).info
    assert not licodec.decode(data, strip=True).info


def test_wrong_latents_are_never_shown(encoded):
    import dataclasses

    container = unpack(encoded)
    altered = dataclasses.replace(container, latents_crc32=container.latents_crc32 ^ 1)
    with pytest.raises(DamagedFileError, match="latents|pixels"):
        licodec.decode(pack(altered))
    shuffled = dataclasses.replace(container, payload=container.payload[::-1])
    with pytest.raises(DamagedFileError):
        licodec.decode(pack(shuffled))


def test_missing_weights_are_named(encoded):
    import dataclasses

    foreign = pack(dataclasses.replace(unpack(encoded), model_hash=b"\xaa\xbb\xcc\xdd"))
    with pytest.raises(ModelMissingError, match="aabbccdd"):
        licodec.decode(foreign)


def test_pillow_gets_an_os_error_of_the_same_cause(encoded):
    import dataclasses

    newer = bytearray(encoded)
    newer[5] ^= 7
    whole = unpack(encoded)
    foreign = pack(dataclasses.replace(whole, model_hash=b"\xaa\xbb\xcc\xdd"))
    for content, cause in [
        (encoded[:-9], DamagedFileError), (encoded[:20], DamagedFileError), (bytes(newer), NewerFileError),
        (foreign, ModelMissingError),
    ]:  # fmt: skip
        with pytest.raises(cause) as refusal:
            Image.open(io.BytesIO(content)).load()
        assert isinstance(refusal.value, OSError)
        with pytest.raises(cause) as direct:
            licodec.decode(content)
        assert str(refusal.value) == str(direct.value)
        assert not isinstance(direct.value, OSError)


def test_altered_weights_are_refused(tmp_path):
    path = catalogue.resolve("adaptive")[1]
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    copy = tmp_path / path.name
    copy.write_bytes(altered)
    with pytest.raises(ModelMissingError, match="altered"):
        weights_file.load(copy)


@pytest.mark.parametrize("quality", [-1, 101, float("nan")])
def test_quality_out_of_range(photo, quality):
    with pytest.raises(UsageError):
        licodec.encode(photo, quality=quality)


@pytest.mark.parametrize("thing", ["photo.png", Path("photo.png"), None, b"x"])
def test_what_is_no_image_is_said_with_how_to_get_one(thing):
    with pytest.raises(
        UsageError, match=r"Pillow image or an array is wanted, not \w+; Image.open\(path\)"
    ):
        licodec.encode(thing)


@pytest.mark.parametrize("thing", ["photo.lic", Path("photo.lic"), None, np.zeros(8), 5])
@pytest.mark.parametrize("take", [licodec.decode, licodec.info, verify_latents])
def test_what_is_no_file_is_said_with_how_to_get_one(thing, take):
    with pytest.raises(UsageError, match=r"bytes of a .lic file are wanted, not \w+; Path\(path\)"):
        take(thing)


@pytest.mark.parametrize("limit", ["x", None])
def test_a_limit_is_a_number(photo, encoded, limit):
    for work in (licodec.encode, licodec.decode, licodec.info):
        with pytest.raises(UsageError, match="max_pixels is a number"):
            work(photo if work is licodec.encode else encoded, max_pixels=limit)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(UnsupportedImageError, match="without pixels"):
        licodec.encode(Image.new("RGB", size))


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_bytes_will_do(encoded, kind):
    assert licodec.info(kind(encoded)) == licodec.info(encoded)
    assert licodec.decode(kind(encoded)).size == (150, 100)


@pytest.mark.parametrize(
    "argument", [{"model": 5}, {"model": b"1234"}, {"device": "abacus"}, {"precision": "float8"}]
)
def test_arguments_that_make_no_sense(photo, argument):
    with pytest.raises(UsageError):
        licodec.encode(photo, **argument)


def test_unknown_model(photo):
    with pytest.raises(UsageError, match="no model"):
        licodec.encode(photo, model="hyperbolic")


def test_weights_without_side_tables_say_so(photo, tmp_path):
    whole = weights_file.load(catalogue.resolve("adaptive")[1])
    tensors = {k: v for k, v in whole.tensors("").items() if k != "z_prior"}
    path = write_weights(tmp_path, "partial", tensors, whole.metadata, {})
    with pytest.raises(UsageError, match="offers factorized, not adaptive"):
        licodec.encode(photo, model="adaptive", weights=path)
    container = unpack(licodec.encode(photo, weights=path))
    assert not container.adaptive
    with pytest.raises(DamagedFileError, match="flag"):
        licodec.decode(pack(dataclasses.replace(container, adaptive=True)), weights=path)
