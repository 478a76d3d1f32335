"""Pictures in, results out: image files and arrays to uint8, masks to PNG, RLE, polygons, NPZ.

Scanners' files live in the rooms below: ``dicom`` reads frames, ``volumes`` reads series and NIfTI,
``derived`` writes DICOM segmentations, structure sets and captures. Importing this package loads
numpy only; Pillow and optional packages come with the module that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samrt.imaging.array import Window, WindowedImage, as_uint8
    from samrt.imaging.overlay import OverlayItem, draw_overlay
    from samrt.imaging.polygons import mask_to_geometry
    from samrt.imaging.read import LoadedImage, read_image
    from samrt.imaging.rle import mask_to_rle, rle_to_mask
    from samrt.imaging.sniff import ImageLimits
    from samrt.imaging.volumes.nifti import write_nifti
    from samrt.imaging.volumes.segment import segment_plane
    from samrt.imaging.volumes.slices import read_volume, slice_image
    from samrt.imaging.volumes.volume import Volume, plane_of
    from samrt.imaging.write import write_files

__all__ = [
    "ImageLimits",
    "LoadedImage",
    "OverlayItem",
    "Volume",
    "Window",
    "WindowedImage",
    "as_uint8",
    "draw_overlay",
    "mask_to_geometry",
    "mask_to_rle",
    "plane_of",
    "read_image",
    "read_volume",
    "rle_to_mask",
    "segment_plane",
    "slice_image",
    "write_files",
    "write_nifti",
]

_HOME = {
    **dict.fromkeys(("Window", "WindowedImage", "as_uint8"), "samrt.imaging.array"),
    **dict.fromkeys(("OverlayItem", "draw_overlay"), "samrt.imaging.overlay"),
    **dict.fromkeys(("LoadedImage", "read_image"), "samrt.imaging.read"),
    **dict.fromkeys(("mask_to_rle", "rle_to_mask"), "samrt.imaging.rle"),
    **dict.fromkeys(("Volume", "plane_of"), "samrt.imaging.volumes.volume"),
    **dict.fromkeys(("read_volume", "slice_image"), "samrt.imaging.volumes.slices"),
    "segment_plane": "samrt.imaging.volumes.segment",
    "write_nifti": "samrt.imaging.volumes.nifti",
    "ImageLimits": "samrt.imaging.sniff",
    "mask_to_geometry": "samrt.imaging.polygons",
    "write_files": "samrt.imaging.write",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'samrt.imaging' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
