"""Image.open("x.lic") and image.save("x.lic"); torch is loaded only when pixels are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from typing import IO, Any

from PIL import Image, ImageFile

from licodec.container import HEADER_BYTES, MAX_PIXELS, SIGNATURE, unpack, unpack_header
from licodec.errors import DamagedFileError, LicodecError, ModelMissingError, NewerFileError
from licodec.options import EncodeOptions


class _DamagedImage(DamagedFileError, OSError):
    pass


class _NewerImage(NewerFileError, OSError):
    pass


class _ModelMissing(ModelMissingError, OSError):
    pass


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Of a file that cannot be decoded, Pillow's users expect an OSError; it stays what it is besides."""
    try:
        yield
    except LicodecError as error:
        for kind in (_DamagedImage, _NewerImage, _ModelMissing):
            if isinstance(error, kind.__bases__[0]):
                raise kind(str(error)) from error
        raise


class LicImageFile(ImageFile.ImageFile):
    """A .lic file: opening reads the header, `load` decodes."""

    format = "LIC"
    format_description = "licodec learned image"
    _encoded = False
    """As copies are, which are made of pixels."""

    def _open(self) -> None:
        assert self.fp is not None
        with _os_errors():
            header = unpack_header(self.fp.read(HEADER_BYTES))
        self._size = (header.width, header.height)
        self._mode = header.mode
        self._encoded = True

    def verify(self) -> None:
        """Hold the file against its checksum; as with Pillow's own, nothing can be loaded afterwards.

        Raises:
            LicodecError: it is damaged.
        """
        if self._encoded and self.fp is not None:
            from licodec.io import files

            self.fp.seek(0)
            with _os_errors():
                unpack(files.read_stream(self.fp, MAX_PIXELS))
        super().verify()

    def load(self) -> Any:
        if self._encoded and self.fp is not None:
            from licodec.codec import decode
            from licodec.io import files

            self.fp.seek(0)
            with _os_errors():
                image = decode(files.read_stream(self.fp, MAX_PIXELS))
            self.im = image.im
            self.info.update(image.info)
            self._exif = None  # what it was before there was any
            self._encoded = False
            if self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)

    def getexif(self) -> Image.Exif:
        """The EXIF, which is known once the file is decoded."""
        self.load()
        return super().getexif()


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    from licodec.codec import encode

    # Others are for other formats, as Pillow's own plugins see it.
    known = {field.name for field in fields(EncodeOptions)}
    given = getattr(image, "encoderinfo", {})
    told = {key: given[key] for key in ("exif", "icc_profile", "xmp") if given.get(key)}
    if told:  # in place of the image's own, as with Pillow's formats
        image = image.copy()
        image.info.update(told)
        if isinstance(image.info.get("exif"), Image.Exif):
            image.info["exif"] = image.info["exif"].tobytes()
    file.write(encode(image, **{k: v for k, v in given.items() if k in known}))


def register() -> None:
    """Make Pillow know .lic."""
    Image.register_open(
        LicImageFile.format, LicImageFile, lambda prefix: prefix.startswith(SIGNATURE)
    )
    Image.register_save(LicImageFile.format, _save)
    Image.register_extension(LicImageFile.format, ".lic")
    Image.register_mime(LicImageFile.format, "image/x-licodec")
