"""CompressAI's networks with a user's checkpoint, as codecs of whole files.

The file: quality u8, width u16, height u16, shape of the hyper-latents 2 x u16, then each string
with its length u32 before it; little-endian. CompressAI's own example container is a byte longer.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# This import makes `import compressai` possible on CPU builds of torch, so it stands first.
from licodec.training.codecs import compressai_layers  # noqa: F401  isort: skip
from compressai.zoo.image import model_architectures
from compressai.zoo.pretrained import load_pretrained
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from licodec.bench.complexity import Complexity, parameters
from licodec.errors import LicodecError

_HEADER = struct.Struct("<BHHHH")


def unknown(architecture: str) -> str | None:
    """Why there is no such architecture, if there is none."""
    if architecture in model_architectures:
        return None
    return f"CompressAI has {', '.join(model_architectures)}"


def load(architecture: str, file: Path, device: str) -> Any:
    """The network, ready to compress.

    Raises:
        LicodecError: the file is no checkpoint of this architecture.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        for key in ("network", "state_dict", "model_state_dict"):
            if key in checkpoint:
                checkpoint = checkpoint[key]
        network = model_architectures[architecture].from_state_dict(load_pretrained(checkpoint))
    except (
        pickle.UnpicklingError
    ) as error:  # whose advice, to load what may run code, is not passed on
        raise LicodecError(f"{file}: no checkpoint of {architecture}") from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError) as error:
        line = str(error).strip().split("\n")[0]
        raise LicodecError(f"{file}: no checkpoint of {architecture} ({line})") from error
    network.update()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().to(device)


@torch.inference_mode()
def encode(network: Any, image: Image.Image, quality: int) -> bytes:
    pixels = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 255
    height, width = pixels.shape[2:]
    right, bottom = (-side % _multiple(network) for side in (width, height))
    x = F.pad(pixels, (0, right, 0, bottom), mode="replicate")
    out = network.compress(x.to(_device(network)))
    header = _HEADER.pack(quality, width, height, *out["shape"])
    strings = [batch[0] for batch in out["strings"]]
    return header + b"".join(struct.pack("<I", len(s)) + s for s in strings)


@torch.inference_mode()
def decode(network: Any, data: bytes) -> Image.Image:
    _, width, height, *shape = _HEADER.unpack_from(data)
    strings, at = [], _HEADER.size
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        strings.append([data[at + 4 : at + 4 + length]])
        at += 4 + length
    x_hat = network.decompress(strings, tuple(shape))["x_hat"]
    samples = (x_hat[0, :, :height, :width].clamp(0, 1) * 255).round().byte()
    return Image.fromarray(samples.permute(1, 2, 0).contiguous().cpu().numpy())


_DECODERS = ("g_s", "h_s", "h_mean_s", "h_scale_s", "entropy_parameters", "context_prediction")


def decoder_complexity(network: Any, width: int, height: int) -> Complexity:
    """g_s, and h_s and the entropy parameters where the architecture has them."""
    multiple = _multiple(network)
    x = torch.zeros(1, 3, -(-height // multiple) * multiple, -(-width // multiple) * multiple)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x.to(_device(network)))
    total = Complexity(0, 0)
    for name in _DECODERS:
        if hasattr(network, name):
            operations = counter.flop_counts[f"{type(network).__name__}.{name}"]
            macs = sum(operations.values()) // 2
            total += Complexity(macs, parameters(getattr(network, name)))
    return total


def _multiple(network: Any) -> int:
    return max(64, int(network.downsampling_factor))


def _device(network: Any) -> torch.device:
    device: torch.device = next(network.parameters()).device
    return device
