"""Files of what everything mode has found: overlay, label map, COCO, polygons, single masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OutputError
from samrt.everything.findings import Findings

__all__ = ["EVERYTHING_KINDS", "label_map", "overlay", "render", "targets"]

EVERYTHING_KINDS = ("overlay", "label", "coco", "polygons", "mask")
_SUFFIXES = {
    "overlay": "overlay.png",
    "label": "labels.png",
    "coco": "coco.json",
    "polygons": "polygons.geojson",
}
_DIGITS = 6
_MOST_LABELS = 65535


def targets(folder: Path, stem: str, kind: str, count: int) -> list[Path]:
    """Files of one kind; of ``mask`` one per mask, numbered from 0 with equal width."""
    if kind != "mask":
        return [folder / f"{stem}.{_SUFFIXES[kind]}"]
    digits = len(str(max(count - 1, 0)))
    return [folder / f"{stem}.m{index:0{digits}d}.mask.png" for index in range(count)]


def render(
    found: Findings,
    image: NDArray[np.uint8],
    folder: Path,
    stem: str,
    kinds: Sequence[str],
    *,
    file_name: str,
    facts: Mapping[str, Any],
) -> dict[Path, bytes]:
    """Make the bytes of all files; nothing is written.

    Args:
        found: the masks.
        image: ``(H, W)`` or ``(H, W, 3)`` uint8, as shown to the model.
        folder: where the files are to go.
        stem: what their names begin with.
        kinds: of :data:`EVERYTHING_KINDS`.
        file_name: name of the image, for COCO.
        facts: JSON-ready, about image and model; they travel in the JSON files.

    Raises:
        OutputError: more masks than a label map can number.
    """
    files: dict[Path, bytes] = {}
    for kind in kinds:
        paths = targets(folder, stem, kind, len(found))
        if kind == "mask":
            for index, path in enumerate(paths):
                files[path] = _png(found.mask(index).astype(np.uint8) * np.uint8(255))
        elif kind == "overlay":
            files[paths[0]] = _png(overlay(found, image), level=3)
        elif kind == "label":
            files[paths[0]] = _png(label_map(found))
        elif kind == "coco":
            files[paths[0]] = _json(_coco(found, file_name, facts))
        else:
            files[paths[0]] = _json(_polygons(found, facts))
    return files


def label_map(found: Findings) -> NDArray[Any]:
    """``(H, W)`` uint8, from 256 masks on uint16: 0 background, else mask number + 1.

    Where masks overlap the smaller one shows, which is mostly a part of the larger.

    Raises:
        OutputError: more than 65535 masks.
    """
    if len(found) > _MOST_LABELS:
        raise OutputError(
            f"{len(found)} masks do not fit into a label map of {_MOST_LABELS}: raise the "
            "thresholds, or write coco"
        )
    labels = np.zeros(found.size, np.uint8 if len(found) < 256 else np.uint16)
    for index in found.by_area():
        labels[found.mask(index)] = index + 1
    return labels


def overlay(found: Findings, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with every mask in a colour of its own, small ones above large ones."""
    from samrt.imaging.colours import distinct
    from samrt.imaging.overlay import draw_masks

    order = found.by_area()
    palette = distinct(len(order))
    colours = [palette[place % len(palette)] for place in range(len(order))]
    return np.asarray(draw_masks(image, (found.mask(index) for index in order), colours))


def _png(array: NDArray[Any], level: int = 6) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, allow_nan=False) + "\n").encode()


def _coco(found: Findings, file_name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    height, width = found.size
    annotations = []
    for index, record in enumerate(found.records("coco_rle")):
        x, y, w, h = record["bbox"]
        annotations.append(
            {
                "id": index + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": record["segmentation"],
                "area": record["area"],
                "bbox": [x, y, w + 1, h + 1] if record["area"] else [0, 0, 0, 0],
                "score": round(record["predicted_iou"], _DIGITS),
                "stability": round(record["stability_score"], _DIGITS),
                "point_coords": record["point_coords"],
                "crop_box": record["crop_box"],
            }
        )
    return {
        "info": {"description": "masks predicted by samrt", **facts},
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }


def _polygons(found: Findings, facts: Mapping[str, Any]) -> dict[str, Any]:
    from samrt.imaging.polygons import mask_to_geometry

    features = [
        {
            "type": "Feature",
            "geometry": mask_to_geometry(found.mask(index)),
            "properties": {
                "mask_index": index,
                "score": round(float(found.masks.scores[index]), _DIGITS),
                "stability": round(float(found.masks.stability[index]), _DIGITS),
                "area_px": found.area(index),
            },
        }
        for index in range(len(found))
    ]
    return {"type": "FeatureCollection", "features": features, "samrt": dict(facts)}
