"""A folder with ``index.json``: one record per target, areas and boxes known beforehand.

A record holds ``set, image, mask, label_value, target, box_xyxy, area_px, width, height`` and may
hold ``modality``, ``subset`` (where a set is a collection), ``case`` (the patient, of whom there
may be several images) and ``spacing`` (millimetres, row then column). Paths are relative to the
folder. The target is ``mask == label_value``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.dataset import SMALLEST_AREA, Dataset, Target, tight_box
from samrt.evaluation.formats.masks import read_labels
from samrt.imaging.read import read_image

__all__ = ["IndexDataset"]


class IndexDataset(Dataset):
    """See the module."""

    kind = "index"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._labels: tuple[str, NDArray[np.int32]] | None = None
        source = path / "index.json"
        try:
            rows = json.loads(source.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise DatasetError(f"cannot read {source}: {' '.join(str(exc).split())}") from exc
        if not isinstance(rows, list):
            raise DatasetError(f"{source} holds no list of records")
        for number, row in enumerate(rows):
            target = _target(row, number, source)
            if target.area_px > SMALLEST_AREA:
                self.targets.append(target)
            else:
                self.dropped += 1

    def read_image(self, target: Target) -> NDArray[np.uint8]:
        """The picture file of a target."""
        array = read_image(self.path / target.image).array
        if array.shape[:2] != target.size:
            raise DatasetError(
                f"{self.path / target.image} is {array.shape[:2]}, index.json says {target.size}"
            )
        return array

    def read_mask(self, target: Target) -> NDArray[np.bool_]:
        """The mask of a target, checked against its record."""
        if self._labels is None or self._labels[0] != target.mask:
            self._labels = (target.mask, read_labels(self.path / target.mask))
        mask: NDArray[np.bool_] = self._labels[1] == target.label
        if mask.shape != target.size or int(mask.sum()) != target.area_px:
            raise DatasetError(
                f"{self.path / target.mask} has {int(mask.sum())} pixels of label {target.label} "
                f"in {mask.shape}, index.json says {target.area_px} in {target.size}"
            )
        if tight_box(mask) != target.box:
            raise DatasetError(
                f"label {target.label} of {self.path / target.mask} has the box "
                f"{tight_box(mask)}, index.json says {target.box}"
            )
        return mask


def _target(row: Any, number: int, source: Path) -> Target:
    try:
        x0, y0, x1, y1 = (int(v) for v in row["box_xyxy"])
        image, mask, label = str(row["image"]), str(row["mask"]), int(row["label_value"])
        spacing = row.get("spacing")
        target = Target(
            key=f"{image}#{Path(mask).stem}:{label}",
            set=str(row["set"]),
            image=image,
            name=str(row["target"]),
            modality=str(row.get("modality") or "unknown"),
            label=label,
            area_px=int(row["area_px"]),
            size=(int(row["height"]), int(row["width"])),
            box=(x0, y0, x1, y1),
            spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
            mask=mask,
            part=None if row.get("subset") is None else str(row["subset"]),
            case=None if row.get("case") is None else str(row["case"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
        raise DatasetError(
            f"record {number} of {source} is malformed ({type(exc).__name__}: {exc}): see the "
            "format in samrt eval --help"
        ) from exc
    for name in (image, mask):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"record {number} of {source} points outside the folder: {name}")
    return target
