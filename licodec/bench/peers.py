"""Every codec that the benchmark knows, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PIL import Image

from licodec.architectures import TABLE
from licodec.bench.compressai_peer import CompressAI
from licodec.bench.interface import Peer, Settings
from licodec.bench.licodec_peer import Licodec
from licodec.bench.pillow_peers import PILLOW_CODECS
from licodec.errors import LicodecError, UsageError

ADAPTERS: dict[str, Callable[[Settings], Peer]] = {
    **{f"licodec-{a.name}": partial(Licodec, model=a.name) for a in TABLE},
    **{codec.name: codec for codec in PILLOW_CODECS},
}


def default() -> list[str]:
    """The codecs of a run that names none: all but licodec's models that lack weights."""
    return [
        name
        for name, codec in ((name, make(name, Settings())) for name in ADAPTERS)
        if not isinstance(codec, Licodec) or codec.missing() is None
    ]


_ALIASES = {
    "jxl": "jpegxl",
    "jpeg-xl": "jpegxl",
    "jpg": "jpeg",
    "jp2": "jpeg2000",
    "j2k": "jpeg2000",
}


def canonical(name: str) -> str:
    """A codec's name for one of its spellings; any other name as it is."""
    known = _ALIASES.get(name.lower(), name.lower())
    return known if known in ADAPTERS else name


def make(name: str, settings: Settings) -> Peer:
    """The adapter of a codec's name.

    Raises:
        UsageError: neither a known codec nor an architecture with a checkpoint.
    """
    if name in ADAPTERS:
        return ADAPTERS[name](settings)
    architectures = dict(settings.checkpoints)
    if name in architectures:
        return CompressAI(settings, name)
    known = ", ".join([*ADAPTERS, *architectures])
    raise UsageError(f"no codec named {name!r}; there are {known}")


def version(codec: Peer) -> str:
    """The codec's version, without running it.

    Raises:
        LicodecError: it is not here; the message says why.
    """
    reason = codec.missing()
    if reason:
        raise LicodecError(reason)
    return codec.version()


def check(codec: Peer) -> None:
    """Round-trip a small image.

    Raises:
        LicodecError: the codec cannot run here; the message says why.
    """
    reason = codec.missing()
    if reason:
        raise LicodecError(reason)
    image = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    try:
        decoded = codec.decode(codec.encode(image, codec.qualities[len(codec.qualities) // 2]))
    except LicodecError:
        raise
    except Exception as error:  # whatever a foreign library throws, the run goes on without it
        raise LicodecError(f"{type(error).__name__}: {error}") from error
    if decoded.size != image.size:
        raise LicodecError(f"decodes {image.size} pixels to {decoded.size}")
