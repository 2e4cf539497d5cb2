"""The quality that serves a target best, found by coding a picture at several."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licodec.cheapest import code_cheaply
from licodec.container import pack, pack_chunks
from licodec.distortion import psnr_db
from licodec.io.image import Picture
from licodec.open_codec import Codec, Latents, is_precise
from licodec.payload import Coded
from licodec.progress import trials
from licodec.quantize import quantize
from licodec.rate_control import Target, highest_within_size, lowest_with_psnr

_USUAL_TRIALS = 8


def code_for_target(codec: Codec, picture: Picture, target: Target, rounds: int) -> Coded:
    """The file that serves a target best, without its chunks; `rounds` are of the search at each quality.

    Raises:
        UnreachableTargetError: no quality is small or good enough.
    """
    trials = _Trials(codec, picture, rounds)
    try:
        return trials.best(target)
    finally:
        vars(trials).clear()  # its caches hold it, and it the picture, until garbage is collected


class _Trials:
    """A picture coded at several qualities.

    The features are made once for all qualities without back-projection, and once for all with it.
    """

    def __init__(self, codec: Codec, picture: Picture, rounds: int) -> None:
        self.codec, self.picture, self.rounds = codec, picture, rounds
        # A second time only where bf16 serves the lower qualities alone.
        self._features = cache(self._make_features)
        self._latents = lru_cache(maxsize=1)(self._make_latents)
        self._coded = lru_cache(maxsize=1)(self._code)
        self.size, self.psnr = cache(self._size), cache(self._psnr)
        self.chunk_bytes = len(pack_chunks(picture.chunks))
        self._begin: Callable[[], None] = lambda: None

    def best(self, target: Target) -> Coded:
        height, width = self.picture.color.shape[:2]
        wanted = target.bytes(height * width)
        with trials(_USUAL_TRIALS) as self._begin:
            if wanted is None:
                assert target.psnr is not None
                step = lowest_with_psnr(self.psnr, target.psnr)
            else:
                step = highest_within_size(self.size, wanted)
        return self._coded(step)

    def _make_features(self, reduced: bool, back_projected: bool) -> NDArray[np.float32]:
        return self.codec.transforms.features(self.picture.color, not reduced, back_projected)

    def _make_latents(self, step: int) -> tuple[Latents, Any]:
        self._begin()
        codec = self.codec
        share = codec.back_projection(step)
        features = self._features(codec.transforms.is_reduced(is_precise(step)), share > 0)
        analyze = partial(quantize, features, codec.gain(step), share)
        return codec.search(self.picture, analyze, step, self.rounds)

    def _code(self, step: int) -> Coded:
        y, side = self._latents(step)
        return code_cheaply(self.codec, self.picture, y, step, side)

    def _size(self, step: int) -> int:
        return len(pack(self._coded(step).container)) + self.chunk_bytes

    def _psnr(self, step: int) -> float:
        codec, picture = self.codec, self.picture
        if codec.architecture.is_exact:
            color = self._coded(step).color
            assert color is not None
        else:
            height, width = picture.color.shape[:2]
            y_hat = codec.entropy_model.quantize(*self._latents(step), codec.position(step))
            color = codec.synthesize(y_hat, height, width, picture.mode, step)
        return psnr_db(picture, color)
