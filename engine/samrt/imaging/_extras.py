"""The one gate to optional packages of image formats."""

from __future__ import annotations

from importlib import import_module, metadata
from types import ModuleType

from samrt.errors import ExtraUnavailableError

__all__ = ["installed_version", "need"]


def need(module: str, purpose: str, extra: str = "dicom") -> ModuleType:
    """Import an optional module.

    Args:
        module: its import name.
        purpose: what it is needed for, to follow "is needed to".
        extra: the extra of samrt that installs it.

    Raises:
        ExtraUnavailableError: it is not installed or cannot be loaded.
    """
    try:
        return import_module(module)
    except ImportError as exc:
        package = module.split(".", maxsplit=1)[0]
        raise ExtraUnavailableError(
            f"the package {package} is needed to {purpose} and cannot be loaded "
            f"({' '.join(str(exc).split())}): pip install 'samrt[{extra}]'"
        ) from exc


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or ``None``; nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
