"""Arguments of any kind give a result or a LicodecError of one line."""

import pytest
from conftest import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_arguments import DECODING, ENCODING, VALUES, call
from small_weights import small_weights

import licodec
from licodec import codec


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = small_weights(tmp_path_factory.mktemp("weights"))
    return path, licodec.encode(noise(6, 5, "RGB"), weights=path)


def each(function, first, path, names):
    for name in names:
        for value in VALUES:
            try:
                function(first, **{"weights": path, name: value})
            except licodec.LicodecError as error:
                assert str(error) and "\n" not in str(error), (name, value)


def test_each_argument_of_encode(small):
    each(licodec.encode, noise(6, 5, "RGB"), small[0], ENCODING)


def test_each_argument_of_decode(small):
    each(licodec.decode, small[1], small[0], DECODING)


@pytest.mark.parametrize("function", [licodec.info, codec.verify_latents])
def test_the_limit_of_info_and_verify(small, function):
    path, encoded = small
    for value in VALUES:
        options = {} if function is licodec.info else {"weights": path}
        for data in (encoded, value):
            try:
                function(data, value, **options)
            except licodec.LicodecError as error:
                assert str(error) and "\n" not in str(error), value


@settings(max_examples=60)
@given(st.binary(min_size=4, max_size=12))
def test_several_at_once(small, data):
    call(data, small[1], weights=small[0])
