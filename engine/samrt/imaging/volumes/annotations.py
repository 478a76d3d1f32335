"""Masks of a volume as COCO run lengths and polygons, one entry per object and slice.

Coordinates are pixels of the slices of a plane as :class:`samrt.imaging.volumes.volume.Plane` turns
them; slices are counted from 0 in the same plane. Both files name the plane.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samrt.imaging.polygons import mask_to_geometry
from samrt.imaging.rle import mask_to_rle

if TYPE_CHECKING:
    from samrt.imaging.volumes.volume import Plane
    from samrt.propagation import SliceMask, VolumeMask

__all__ = ["coco_document", "polygons_document"]

_SCORE_DIGITS = 6


def coco_document(
    found: Sequence[VolumeMask], plane: Plane, file_name: str, meta: Mapping[str, Any]
) -> bytes:
    """COCO annotations: each slice of the plane is an image with the id slice + 1.

    Args:
        found: one per prompt, with masks in pixels of the plane.
        plane: of the volume.
        file_name: of the volume; every image has it, and its ``slice``.
        meta: JSON-ready facts about volume and model.
    """
    count, height, width = plane.shape
    annotations: list[dict[str, Any]] = []
    for prompt, item in _slices(found):
        x0, y0, x1, y1 = item.box
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": item.index + 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": mask_to_rle(item.mask),
                "area": item.area_px,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                **_figures(item, prompt),
            }
        )
    images = [
        {"id": k + 1, "file_name": file_name, "width": width, "height": height, "slice": k}
        for k in range(count)
    ]
    about = {"description": "masks predicted by samrt", "plane": plane.name, **meta}
    return _json(
        {
            "info": about,
            "images": images,
            "categories": [{"id": 1, "name": "object"}],
            "annotations": annotations,
        }
    )


def polygons_document(found: Sequence[VolumeMask], plane: Plane, meta: Mapping[str, Any]) -> bytes:
    """A GeoJSON feature per object and slice, holes included; see :func:`coco_document`."""
    features = [
        {
            "type": "Feature",
            "geometry": mask_to_geometry(item.mask),
            "properties": {**_figures(item, prompt), "area_px": item.area_px},
        }
        for prompt, item in _slices(found)
    ]
    about = {"plane": plane.name, "slices": plane.shape[0], **meta}
    return _json({"type": "FeatureCollection", "features": features, "samrt": about})


def _slices(found: Sequence[VolumeMask]) -> Iterator[tuple[int, SliceMask]]:
    """Prompt number and slice of all masks that hold something."""
    for prompt, one in enumerate(found):
        for item in one.slices:
            if item.area_px:
                yield prompt, item


def _figures(item: SliceMask, prompt: int) -> dict[str, Any]:
    return {
        "slice": item.index,
        "prompt_index": prompt,
        "mask_index": 0,
        "score": round(item.score, _SCORE_DIGITS),
        "stability": round(item.stability, _SCORE_DIGITS),
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, allow_nan=False) + "\n").encode()
