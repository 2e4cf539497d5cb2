"""licodec: a learned image codec.

    data = licodec.encode(image, quality=50)      # Pillow image → bytes of a .lic file
    image = licodec.decode(data)
    licodec.encode_file("photo.png", "photo.lic", quality=50)
    licodec.decode_file("photo.lic", "photo.jpg")
    image = Image.open("photo.lic")               # Pillow reads .lic after `import licodec`
    model = licodec.torch_model("hyperprior")     # g_a, g_s, h_a, h_s as a torch.nn.Module

Importing this package loads neither torch nor numpy; the first encode or decode does.
"""

from __future__ import annotations

from licodec import signals

signals.guard()

from typing import TYPE_CHECKING, Any

from licodec import memory
from licodec.errors import (
    DamagedFileError,
    FileAccessError,
    LicodecError,
    ModelMissingError,
    NewerFileError,
    OutOfMemoryError,
    TooLargeError,
    UnreachableTargetError,
    UnsupportedImageError,
    UsageError,
)
from licodec.info import describe as info
from licodec.pillow_plugin import register as _register

if TYPE_CHECKING:
    from licodec.codec import decode, encode
    from licodec.file_functions import decode_file, encode_file

    torch_model: Any

__version__ = "0.1.0"

__all__ = [
    "DamagedFileError",
    "FileAccessError",
    "LicodecError",
    "ModelMissingError",
    "NewerFileError",
    "OutOfMemoryError",
    "TooLargeError",
    "UnreachableTargetError",
    "UnsupportedImageError",
    "UsageError",
    "__version__",
    "decode",
    "decode_file",
    "encode",
    "encode_file",
    "info",
    "torch_model",
]

_register()


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in ("encode", "decode", "encode_file", "decode_file"):
        memory.need_numpy()
    if name in ("encode", "decode"):
        from licodec import codec

        return getattr(codec, name)
    if name in ("encode_file", "decode_file"):
        from licodec import file_functions

        return getattr(file_functions, name)
    if name == "torch_model":
        from licodec.interface import named

        return named("licodec.torch_models:torch_model")
    raise AttributeError(f"module 'licodec' has no attribute {name!r}")
