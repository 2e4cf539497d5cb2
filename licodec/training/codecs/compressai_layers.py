"""The one door to compressai.

CPU builds of torch lack two operators that torchvision's import registers shapes for, and
compressai imports torchvision. Declaring them first makes the import succeed; nothing calls them.
"""

import warnings

import torch

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
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.zoo.image import model_architectures

__all__ = [
    "EntropyBottleneck",
    "GaussianConditional",
    "model_architectures",
]
