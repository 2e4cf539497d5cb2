"""A checkpoint of a codec with a hyperprior as a state of CompressAI's class, for `licodec import`."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from licodec.training.codecs.factorized import DistributionNets
from licodec.training.codecs.hyperprior import z_distributions
from licodec.training.config import Config
from licodec.training.convert.compressai_state import compressai_state
from licodec.training.convert.export_factorized import distribution_tensors
from licodec.weights.catalogue import Z_DISTRIBUTIONS


def hyperprior_state(
    config: Config, ema: dict[str, Tensor], photographs: str
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The state and `log_gain`, in float32, with what codes ẑ by the image's own distributions, if that was
    trained, as weights hold it; and metadata of its own."""
    nets = z_distributions(config, ema)
    plain = {k: v for k, v in ema.items() if not k.startswith(Z_DISTRIBUTIONS)}
    tensors = {k: v.numpy() for k, v in compressai_state(config, plain).items()}
    tensors |= {} if nets is None else z_tensors(nets)
    return tensors, {"arch": config.model.architecture.compressai}


def z_tensors(nets: DistributionNets) -> dict[str, NDArray[Any]]:
    """What codes ẑ by the image's own distributions, as a weights file names it.

    Raises:
        UsageError: their tables are not set yet.
    """
    return {f"{Z_DISTRIBUTIONS}{k}": v for k, v in distribution_tensors(nets).items()}
