"""Folders of pictures: ``images/NAME.ext`` with ``masks/NAME.ext``.

A mask is a label map, a binary picture, or a folder ``masks/NAME/`` of binary pictures, one per
object. The mask folder may also be called ``labels``, ``annotations``, ``gt`` or ``groundtruth``;
a mask may end in ``_mask``, ``_seg``, ``_label`` or ``_segmentation``. An optional
``dataset.json`` holds ``{"name", "modality", "labels": {"1": "liver"}, "spacing": [row, column]}``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.dataset import SMALLEST_AREA, Dataset, Progress, Target, tight_box
from samrt.evaluation.formats import ReadOptions
from samrt.evaluation.formats.masks import labels_in, read_labels
from samrt.imaging.array import as_uint8
from samrt.imaging.read import read_image

__all__ = ["FolderDataset", "read_facts"]

_MASK_FOLDERS = ("masks", "labels", "annotations", "gt", "groundtruth")
_ENDINGS = ("", "_mask", "_seg", "_label", "_segmentation")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_facts(root: Path) -> dict[str, Any]:
    """Contents of ``dataset.json``; empty if there is none.

    Raises:
        DatasetError: it is no JSON object or its parts have other types than expected.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot read {path}: {' '.join(str(exc).split())}") from exc
    if not isinstance(facts, dict) or not isinstance(facts.get("labels", {}), dict):
        raise DatasetError(f"{path} must be an object and its labels an object of value: name")
    return facts


def spacing_of(facts: dict[str, Any], where: Path) -> tuple[float, float] | None:
    """``spacing`` of ``dataset.json``: millimetres, row then column."""
    value = facts.get("spacing")
    if value is None:
        return None
    try:
        row, column = (float(v) for v in value)
    except (TypeError, ValueError):
        row = column = 0.0
    if not (0 < row < 1e6 and 0 < column < 1e6):
        raise DatasetError(f"spacing in {where} is {value!r}, expected two positive numbers")
    return row, column


class FolderDataset(Dataset):
    """See the module."""

    kind = "folders"

    def __init__(self, path: Path, options: ReadOptions, progress: Progress) -> None:
        super().__init__(path)
        self._options = options
        self._labels: tuple[str, NDArray[np.int32]] | None = None
        facts = read_facts(path)
        images = _pictures(path / "images")
        masks = _mask_folder(path)
        names = {str(k): str(v) for k, v in facts.get("labels", {}).items()}
        common: dict[str, Any] = {
            "set": options.name or str(facts.get("name") or path.resolve().name),
            "modality": str(facts.get("modality") or options.modality),
            "spacing": spacing_of(facts, path),
        }
        without = 0
        for number, (stem, image) in enumerate(sorted(images.items())):
            progress("reading masks", number, len(images))
            found = _masks_of(masks, stem)
            without += not found
            for mask in found:
                self._add(image, mask, names, common, several=len(found) > 1)
        progress("reading masks", len(images), len(images))
        if without:
            self.remarks.append(f"{without} of {len(images)} images have no mask")

    def _add(
        self,
        image: Path,
        mask: Path,
        names: dict[str, str],
        common: dict[str, Any],
        *,
        several: bool,
    ) -> None:
        labels = read_labels(mask)
        place = mask.relative_to(self.path).as_posix()
        found = labels_in(labels, str(mask))
        for label, area in found:
            if area <= SMALLEST_AREA:
                self.dropped += 1
                continue
            plain = mask.stem if several else ("object" if len(found) == 1 else f"label {label}")
            picture = image.relative_to(self.path).as_posix()
            self.targets.append(
                Target(
                    key=f"{picture}#{mask.stem}:{label}",
                    image=picture,
                    name=names.get(str(label), plain),
                    label=label,
                    area_px=area,
                    size=(labels.shape[0], labels.shape[1]),
                    box=tight_box(labels == label),
                    mask=place,
                    **common,
                )
            )

    def read_image(self, target: Target) -> NDArray[np.uint8]:
        """The picture; deeper ones through the window."""
        found = read_image(self.path / target.image, window=self._options.window)
        array = found.array
        if found.window is not None and self._options.window is None:
            array = as_uint8(found.source, window="percentile").array
        if array.shape[:2] != target.size:
            raise DatasetError(
                f"{self.path / target.image} is {array.shape[:2]} and its mask "
                f"{self.path / target.mask} {target.size}: they must have the same size"
            )
        return array

    def read_mask(self, target: Target) -> NDArray[np.bool_]:
        """The mask file cut to one label."""
        if self._labels is None or self._labels[0] != target.mask:
            self._labels = (target.mask, read_labels(self.path / target.mask))
        labels = self._labels[1]
        if labels.shape != target.size:
            raise DatasetError(f"{self.path / target.mask} has changed its size while being used")
        mask: NDArray[np.bool_] = labels == target.label
        return mask


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing: expected pictures there and their masks beside")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _PICTURES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise DatasetError(f"{path} and {found[path.stem]} share a name: rename one")
        found[path.stem] = path
    if not found:
        raise DatasetError(f"{folder} holds no picture ({', '.join(_PICTURES)})")
    return found


def _mask_folder(root: Path) -> Path:
    for name in _MASK_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(
        f"{root} has images but no masks: expected one of {', '.join(_MASK_FOLDERS)}"
    )


def _masks_of(folder: Path, stem: str) -> list[Path]:
    if (folder / stem).is_dir():
        inside = sorted((folder / stem).iterdir())
        return [p for p in inside if p.suffix.lower() in _PICTURES and not p.name.startswith(".")]
    for ending in _ENDINGS:
        for suffix in _PICTURES:
            path = folder / f"{stem}{ending}{suffix}"
            if path.is_file():
                return [path]
    return []
