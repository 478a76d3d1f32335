"""The errors samrt raises.

Every error that a caller can cause derives from :class:`SamrtError` and from the builtin
that fits it, so both ``except samrt.SamrtError`` and ``except ValueError`` work. A message
is one line that says what is wrong, what was got, what is expected and how to fix it.
Anything else that escapes from samrt is a bug in samrt.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BundleError",
    "DatasetError",
    "DownloadError",
    "ExtraUnavailableError",
    "ImageError",
    "KernelError",
    "ModelNotFoundError",
    "OptionError",
    "OutputError",
    "PromptError",
    "SamrtError",
    "VerificationError",
]


class SamrtError(Exception):
    """Base of every error that samrt raises on purpose."""


class ImageError(SamrtError, ValueError):
    """An image file or array cannot be used: damaged, empty, too large, wrong shape or dtype."""


class PromptError(SamrtError, ValueError):
    """A box, point, label or mask prompt is malformed or does not fit the image or the model."""


class BundleError(SamrtError, ValueError):
    """A model bundle or an image embedding is damaged or belongs to another model or version."""


class BackendError(SamrtError, RuntimeError):
    """An inference runtime refused a model, failed while running it or returned nonsense."""


class BackendUnavailableError(SamrtError, ImportError):
    """A known backend cannot be used here because something it needs is not installed."""


class ExtraUnavailableError(SamrtError, ImportError):
    """A file format needs an optional package that is not installed."""


class KernelError(SamrtError, ImportError):
    """The C++ extension of samrt is missing or cannot be loaded."""


class DatasetError(SamrtError, ValueError):
    """A data set cannot be evaluated: missing, malformed, or parts that do not fit together."""


class VerificationError(SamrtError, ValueError):
    """An engine does not compute what the model that it was made from does."""


class OutputError(SamrtError, OSError):
    """A result cannot be written: the file exists, the folder is missing or not writable."""


class DownloadError(SamrtError, OSError):
    """A checkpoint cannot be downloaded: no network, another file than expected, broken off."""


class ModelNotFoundError(SamrtError, LookupError):
    """No bundled model and no bundle folder has the given name."""


class OptionError(SamrtError, ValueError):
    """An option has a value that does not exist or that the model does not offer."""
