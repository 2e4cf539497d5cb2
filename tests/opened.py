"""Codecs for tests that look inside."""

from licodec.open_codec import Codec, open_codec
from licodec.options import EncodeOptions


def opened(model=None, weights=None, device="cpu", **others) -> Codec:
    """The codec of a model or of a weights file."""
    return open_codec(EncodeOptions(model=model, weights=weights, device=device, **others))[0]
