"""Export and training side of samrt: checkpoints to proven bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrt_export.exporter import export, load_reference

__all__ = ["export", "load_reference"]


def __getattr__(name: str) -> Any:
    """Load torch and onnx when they are needed, not before."""
    if name in __all__:
        from samrt_export import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
