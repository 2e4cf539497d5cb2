"""The one door to compressai.

CPU builds of torch lack two operators that torchvision's import registers shapes for, and
compressai imports torchvision. Declaring them first makes the import succeed; nothing calls them.
"""

import warnings

import torch

from licodec.errors import UsageError


class CompressAIMissingError(UsageError, ImportError):
    """It is not installed: encoding and decoding do without."""


_missing = []
for _name, _schema in (
    ("nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ("qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
):
    try:
        getattr(torch.ops.torchvision, _name)
    except (AttributeError, RuntimeError):
        _missing.append((_name, _schema))
if _missing:
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _name, _schema in _missing:
        _library.define(_name + _schema)  # type: ignore[no-untyped-call]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from compressai.entropy_models import EntropyBottleneck, GaussianConditional
        from compressai.zoo.image import model_architectures
    except ImportError as error:
        raise CompressAIMissingError(
            "training and import need CompressAI: pip install 'licodec[train]'"
        ) from error

__all__ = [
    "EntropyBottleneck",
    "GaussianConditional",
    "model_architectures",
]
