"""One error family; the exit code of each cause is the command line's."""


class LicodecError(Exception):
    """Anything that licodec refuses; str() is one line for a person."""

    exit_code = 1


class UsageError(LicodecError):
    """Arguments or a config that make no sense together."""

    exit_code = 2


class DamagedFileError(LicodecError):
    """The file is no .lic file, or is not what its encoder wrote."""

    exit_code = 3


class ModelMissingError(LicodecError):
    """The weights that a file or an argument names are not installed, or are not intact."""

    exit_code = 4


class UnsupportedImageError(LicodecError):
    """An input image that could not be kept without silent loss."""
