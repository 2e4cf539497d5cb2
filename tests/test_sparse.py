"""Files whose few bytes ask for much work."""

import dataclasses
import math

import pytest
from click.testing import CliRunner
from PIL import Image
from small_weights import small_weights

import licodec
from licodec import codec, container
from licodec.cli.main import main
from licodec.codec import verify_latents
from licodec.container import least_payload, pack, unpack


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights"))


def sparse(data, width, height, payload=600):
    return pack(
        dataclasses.replace(unpack(data), width=width, height=height, payload=bytes(payload))
    )


@pytest.mark.parametrize("size", [(16384, 16384), (2**12, 2**10), (16, 2**20), (2**24, 16)])
def test_few_bytes_for_many_pixels_are_refused_before_any_is_decoded(encoded, size, monkeypatch):
    monkeypatch.setattr(codec, "decode_latents", lambda *arguments: pytest.fail("decoded"))
    data = sparse(encoded, *size, least_payload(*size) - 1)
    for take in (licodec.decode, verify_latents):
        with pytest.raises(licodec.TooLargeError, match=r"bytes are few for .* --max-pixels \d+"):
            take(data)


def test_a_limit_of_the_callers_own_takes_them(encoded, tmp_path):
    """As the message has it; what comes next is that 600 bytes do not decode."""
    (tmp_path / "x.lic").write_bytes(sparse(encoded, 4096, 2048))
    said = CliRunner().invoke(main, ["decode", str(tmp_path / "x.lic")]).stderr
    wanted = said.split("--max-pixels ")[1].split()[0]
    assert int(wanted) == 4096 * 2048
    small = sparse(encoded, 64, 64)
    assert unpack(small).width == 64
    most = container.MAX_PIXELS
    with pytest.raises(licodec.TooLargeError, match=f"--max-pixels {most + 1} "):
        container.refuse_sparse(unpack(sparse(encoded, 2**14, 2**14)), most)
    for limit in (int(wanted), most + 1):
        container.refuse_sparse(unpack(sparse(encoded, 4096, 2048)), limit)


def test_what_is_asked_for_grows_with_the_pixels_from_a_megapixel_on():
    assert least_payload(1, 1) == least_payload(1024, 1024) == least_payload(16, 2**14) == 0
    assert least_payload(1024, 1025) == 1
    assert least_payload(2**14, 2**14) == (2**28 - 2**20) // 2**12
    assert least_payload(1, 2**20) == least_payload(64, 2**20) > least_payload(2**12, 2**12)
    assert math.isclose(least_payload(2**14, 2**13) * 2, least_payload(2**14, 2**14), rel_tol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1100, 1000), (16, 2**15), (2**15, 3)])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_what_is_encoded_is_decoded(weights, size, mode):
    """A flat image, and one of which nothing is visible, which takes next to nothing."""
    image = Image.new(mode, size)
    data = licodec.encode(image, 0, weights=weights)
    payload = unpack(data).payload
    assert len(payload) >= least_payload(*size)
    if mode == "RGBA":
        assert len(payload) == least_payload(*size) and not payload[-1]
    decoded = licodec.decode(data, weights=weights)
    assert decoded.size == size and decoded.mode == mode
    assert verify_latents(data, weights=weights) == unpack(data).latents_crc32
