"""What a run leaves behind: names of the files, and their bytes.

========  ====================================================================================
kind      file
========  ====================================================================================
mask      ``STEM.mask.png``, 8-bit grey, 0 and 255; with several prompts ``STEM.p0.mask.png``,
          with several masks per prompt ``STEM.m0.mask.png`` or ``STEM.p0.m0.mask.png``
overlay   ``STEM.overlay.png``, RGB; the best mask of each prompt, or every class
label     ``STEM.labels.png``, grey, 0 for background and prompt number + 1 elsewhere; 16 bit
          from 256 prompts on. Where masks overlap the one with the higher score wins, of equals
          the earlier prompt. Of a model without prompts: the number of the class, from 1
coco      ``STEM.coco.json``, COCO annotations with compressed RLE
polygons  ``STEM.polygons.geojson``, a GeoJSON feature per mask, holes included
npz       ``STEM.logits.npz``, see :mod:`samrt.imaging.logits`
seg       ``STEM.seg.dcm``, DICOM segmentation of the best mask of each prompt (DICOM input only)
rtstruct  ``STEM.rtstruct.dcm``, the same as DICOM structure set (DICOM input only)
capture   ``STEM.capture.dcm``, the overlay as secondary capture (DICOM input only)
========  ====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.imaging.derived.render import DERIVED_KINDS, DerivedOptions, render_derived
from samrt.imaging.logits import pack_logits
from samrt.imaging.overlay import OverlayItem, draw_overlay
from samrt.imaging.polygons import mask_to_geometry
from samrt.imaging.rle import mask_to_rle
from samrt.types import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

    from samrt.imaging.dicom.read import DicomOrigin

__all__ = [
    "OUTPUT_KINDS",
    "OutputNames",
    "Run",
    "label_map",
    "overlay_picture",
    "render",
    "shown_masks",
]

OUTPUT_KINDS = ("mask", "overlay", "label", "coco", "polygons", "npz")
"""Kinds that every picture has; those of DICOM images alone are ``DERIVED_KINDS``."""
_SUFFIXES = {
    "overlay": "overlay.png",
    "label": "labels.png",
    "coco": "coco.json",
    "polygons": "polygons.geojson",
    "npz": "logits.npz",
    "seg": "seg.dcm",
    "rtstruct": "rtstruct.dcm",
    "capture": "capture.dcm",
    "nifti": "mask.nii.gz",
}
_SCORE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class OutputNames:
    """Names of the files of one run.

    Attributes:
        folder: where they go.
        stem: what they begin with.
        prompts: number of prompts.
        masks: number of masks per prompt.
    """

    folder: Path
    stem: str
    prompts: int
    masks: int

    def mask(self, prompt: int, mask: int) -> Path:
        """Path of one mask."""
        parts = [self.stem]
        parts += [f"p{prompt}"] if self.prompts > 1 else []
        parts += [f"m{mask}"] if self.masks > 1 else []
        return self.folder / ".".join([*parts, "mask.png"])

    def single(self, kind: str) -> Path:
        """Path of a kind of which there is one file."""
        return self.folder / f"{self.stem}.{_SUFFIXES[kind]}"

    def all(self, kinds: Sequence[str]) -> list[Path]:
        """Every file of the given kinds, in the order of the kinds."""
        found: list[Path] = []
        for kind in kinds:
            if kind == "mask":
                grid = [(p, m) for p in range(self.prompts) for m in range(self.masks)]
                found += [self.mask(p, m) for p, m in grid]
            else:
                found.append(self.single(kind))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """All that the files of a run are made from.

    Attributes:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8, as shown to the model.
        file_name: name of the image file.
        predictions: one per prompt, each with the same number of masks.
        meta: JSON-ready facts about image and model that travel in the files.
        origin: of a DICOM image, for objects derived from it.
        derived: how these are written.
    """

    image: NDArray[np.uint8]
    file_name: str
    predictions: Sequence[Prediction]
    meta: Mapping[str, Any] = field(default_factory=dict)
    origin: DicomOrigin | None = None
    derived: DerivedOptions = field(default_factory=DerivedOptions)

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the image."""
        return self.image.shape[0], self.image.shape[1]


def render(run: Run, names: OutputNames, kinds: Sequence[str]) -> dict[Path, bytes]:
    """Make the bytes of every file of the given kinds; nothing is written."""
    files: dict[Path, bytes] = {}
    for kind in kinds:
        if kind == "mask":
            for p, prediction in enumerate(run.predictions):
                for m, mask in enumerate(prediction.masks):
                    files[names.mask(p, m)] = _png(np.where(mask, np.uint8(255), np.uint8(0)))
        elif kind in DERIVED_KINDS:
            files[names.single(kind)] = render_derived(run, kind)
        else:
            files[names.single(kind)] = _RENDERERS[kind](run)
    return files


def label_map(predictions: Sequence[Prediction], size: tuple[int, int]) -> NDArray[Any]:
    """Number each pixel by the prompt whose best mask holds it.

    Returns:
        ``(H, W)`` uint8, uint16 from 256 prompts on: 0 background, else prompt number + 1. The
        higher score wins where masks overlap, of equal scores the earlier prompt. Of a model
        without prompts the number of the class, from 1.
    """
    shown = shown_masks(predictions)
    labels = np.zeros(size, np.uint8 if len(shown) < 256 else np.uint16)
    for index in sorted(range(len(shown)), key=lambda i: (shown[i].score or 0.0, -i)):
        labels[shown[index].mask] = index + 1
    return labels


def shown_masks(predictions: Sequence[Prediction]) -> list[OverlayItem]:
    """The best mask of each prompt; all masks of a model without prompts, which are classes."""
    items: list[OverlayItem] = []
    for p in predictions:
        kept = range(len(p.masks)) if p.prompt.is_empty else (p.best,)
        items += [OverlayItem(p.masks[m], p.prompt, float(p.scores[m])) for m in kept]
    return items


def _png(array: NDArray[Any], level: int = 6) -> bytes:
    from PIL import Image as PillowImage

    buffer = BytesIO()
    PillowImage.fromarray(array).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def overlay_picture(run: Run) -> Image:
    """The overlay, before it is packed."""
    return draw_overlay(run.image, shown_masks(run.predictions))


def _overlay(run: Run) -> bytes:
    return _png(np.asarray(overlay_picture(run)), level=3)


def _labels(run: Run) -> bytes:
    return _png(label_map(run.predictions, run.size))


def _figures(prediction: Prediction, prompt: int, mask: int) -> dict[str, Any]:
    return {
        "prompt_index": prompt,
        "mask_index": mask,
        "score": round(float(prediction.scores[mask]), _SCORE_DIGITS),
        "stability": round(float(prediction.stability[mask]), _SCORE_DIGITS),
    }


def _coco(run: Run) -> bytes:
    height, width = run.size
    annotations: list[dict[str, Any]] = []
    classes = 0
    for p, prediction in enumerate(run.predictions):
        if prediction.prompt.is_empty:
            classes = len(prediction.masks)
        for m, mask in enumerate(prediction.masks):
            x0, y0, x1, y1 = (float(v) for v in prediction.boxes[m])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": m + 1 if classes else 1,
                    "iscrowd": 0,
                    "segmentation": mask_to_rle(mask),
                    "area": int(prediction.areas_px[m]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    **_figures(prediction, p, m),
                }
            )
    names = [f"class {k + 1}" for k in range(classes)] or ["object"]
    return _json(
        {
            "info": {"description": "masks predicted by samrt", **run.meta},
            "images": [{"id": 1, "file_name": run.file_name, "width": width, "height": height}],
            "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)],
            "annotations": annotations,
        }
    )


def _polygons(run: Run) -> bytes:
    features = [
        {
            "type": "Feature",
            "geometry": mask_to_geometry(mask),
            "properties": {
                **_figures(prediction, p, m),
                "area_px": int(prediction.areas_px[m]),
            },
        }
        for p, prediction in enumerate(run.predictions)
        for m, mask in enumerate(prediction.masks)
    ]
    return _json({"type": "FeatureCollection", "features": features, "samrt": dict(run.meta)})


def _npz(run: Run) -> bytes:
    return pack_logits(run.predictions, run.size, run.meta)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, allow_nan=False) + "\n").encode()


_RENDERERS: dict[str, Callable[[Run], bytes]] = {
    "overlay": _overlay,
    "label": _labels,
    "coco": _coco,
    "polygons": _polygons,
    "npz": _npz,
}
