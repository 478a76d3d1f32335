"""Files of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop".

An ``.npz`` holds ``imgs`` ``(H, W)``, ``(H, W, 3)`` or ``(D, H, W)``, 0 to 255, labels ``gts``
``(H, W)`` or ``(D, H, W)``, and may hold ``boxes`` ``(N, 4)`` XYXY, one per label of a picture in
ascending order, and ``spacing`` ``(x, y[, z])`` in millimetres. Answers are written as ``segs``.
Pickled objects are never read.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError
from samrt.evaluation.dataset import Dataset, Progress, Solid, Target
from samrt.evaluation.formats import ReadOptions
from samrt.evaluation.formats.volume import MOST_VOXELS, as_labels, label_counts, slice_targets

__all__ = ["NpzDataset", "read_arrays"]

_MODALITIES = ("CT", "MR", "US", "XRay", "X-Ray", "Dermoscopy", "Endoscopy", "Fundus", "OCT",
               "Mammography", "Mamography", "Microscopy", "Microscope", "PET")  # fmt: skip


_MOST_BYTES = 4 * 1024**3


class NpzDataset(Dataset):
    """See the module. One file at a time is in memory."""

    kind = "npz"

    def __init__(self, path: Path, options: ReadOptions, progress: Progress) -> None:
        super().__init__(path.parent if path.is_file() else path)
        self._current: tuple[str, NDArray[np.uint8], NDArray[Any]] | None = None
        name = options.name or (path.stem if path.is_file() else path.resolve().name)
        files = [path] if path.is_file() else sorted(path.glob("*.npz"))
        for number, file in enumerate(files):
            progress("reading files", number, len(files))
            self._add(file, name, options.modality)
        progress("reading files", len(files), len(files))

    def _add(self, file: Path, set_name: str, modality: str) -> None:
        images, labels, rest = read_arrays(file)
        self._current = (file.name, images, labels)
        spacing = _spacing(rest.get("spacing"), file)
        values = [int(v) for v in np.unique(labels) if v > 0]
        boxes = _boxes(rest.get("boxes"), values, len(labels), file)
        flat = len(labels) == 1
        if not flat:
            self._add_solids(file, set_name, modality, labels, rest.get("spacing"))
        for number, label, area, box in slice_targets(labels):
            if box is None:
                self.dropped += 1
                continue
            image = file.name if flat else f"{file.name}@{number}"
            self.targets.append(
                Target(
                    key=f"{image}#{label}",
                    set=set_name,
                    image=image,
                    name=f"label {label}",
                    modality=_modality(file.name) if modality == "unknown" else modality,
                    label=label,
                    area_px=area,
                    size=(labels.shape[1], labels.shape[2]),
                    box=box,
                    spacing=spacing,
                    mask=file.name,
                    given_box=boxes.get(label),
                    slice=number,
                    case=file.name,
                )
            )

    def _add_solids(
        self, file: Path, set_name: str, modality: str, labels: NDArray[Any], spacing: Any
    ) -> None:
        """The objects of a volume."""
        plane, depth = _spacing(spacing, file), None
        if plane is not None and np.size(spacing) > 2:
            depth = float(np.ravel(spacing)[2])
        slices, height, width = (int(n) for n in labels.shape)
        for label, voxels in label_counts(labels):
            self.solids.append(
                Solid(
                    key=f"{file.name}#{label}",
                    set=set_name,
                    case=file.name,
                    name=f"label {label}",
                    modality=_modality(file.name) if modality == "unknown" else modality,
                    label=label,
                    voxels=voxels,
                    shape=(slices, height, width),
                    spacing=None if plane is None or depth is None else (depth, *plane),
                )
            )

    def _read(self, name: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        if self._current is None or self._current[0] != name:
            self._current = None
            images, labels, _ = read_arrays(self.path / name)
            self._current = (name, images, labels)
        return self._current[1], self._current[2]

    def read_image(self, target: Target) -> NDArray[np.uint8]:
        """One slice or the picture."""
        return self.read_slice(target.mask, target.slice or 0)

    def read_mask(self, target: Target) -> NDArray[np.bool_]:
        """One label of one slice."""
        mask: NDArray[np.bool_] = self._read(target.mask)[1][target.slice] == target.label
        return mask

    def read_slice(self, case: str, number: int) -> NDArray[np.uint8]:
        """One slice of a file."""
        return np.ascontiguousarray(self._read(case)[0][number])

    def read_labels(self, case: str) -> NDArray[np.unsignedinteger[Any]]:
        """The labels of a file."""
        return self._read(case)[1]


def read_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any], dict[str, Any]]:
    """Images ``(D, H, W)`` or ``(D, H, W, 3)`` uint8, labels ``(D, H, W)``, and other arrays.

    Raises:
        DatasetError: damaged, pickled, arrays missing or of other shapes than expected.
    """
    try:
        with path.open("rb") as stream:
            images, labels, rest = _unpacked(stream, path)
    except DatasetError:
        raise
    except Exception as exc:  # damaged data may end in any exception of the parsers
        raise DatasetError(f"{path} is no sound .npz: {' '.join(str(exc).split())}") from exc
    if labels.ndim == 2:
        labels, images = labels[None], images[None]
    if labels.ndim != 3 or images.shape not in (labels.shape, (*labels.shape, 3)):
        raise DatasetError(
            f"{path}: imgs {images.shape} and gts {labels.shape} do not fit: expected (H, W), "
            "(H, W, 3) or (D, H, W) and labels of the same height and width"
        )
    if images.size == 0 or images.size > MOST_VOXELS:
        raise DatasetError(f"{path}: imgs has {images.size} values, expected 1 to {MOST_VOXELS}")
    if images.dtype != np.uint8:
        if images.dtype.kind not in "uif" or not (images.min() >= 0 and images.max() <= 255):
            raise DatasetError(f"{path}: imgs must hold 0 to 255, got dtype {images.dtype}")
        images = np.floor(images + 0.5).astype(np.uint8)
    return images, as_labels(labels, f"gts of {path}"), rest


def _unpacked(
    stream: BinaryIO, path: Path
) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
    """``imgs``, ``gts`` and the arrays that may be there, as they are."""
    with zipfile.ZipFile(stream) as archive:
        size = sum(item.file_size for item in archive.infolist())
    if size > _MOST_BYTES:
        raise DatasetError(f"{path} unpacks to {size} bytes, at most {_MOST_BYTES} are allowed")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as file:
        missing = [key for key in ("imgs", "gts") if key not in file]
        if missing:
            raise DatasetError(
                f"{path} has no {' and no '.join(missing)}: imgs and gts are needed to "
                f"evaluate, it holds {', '.join(file.files) or 'nothing'}"
            )
        rest = {key: file[key] for key in ("boxes", "spacing") if key in file}
        for key, array in rest.items():
            if array.dtype.kind not in "uif":
                raise DatasetError(f"{path}: {key} must hold numbers, got dtype {array.dtype}")
        return file["imgs"], file["gts"], rest


def _boxes(
    value: Any, labels: list[int], depth: int, path: Path
) -> dict[int, tuple[float, float, float, float]]:
    """Label -> box of a picture; a volume's boxes have six numbers and are not used."""
    if value is None or depth > 1 or getattr(value, "shape", (0, 0))[-1] != 4:
        return {}
    boxes = np.atleast_2d(np.asarray(value, dtype=np.float64))
    if len(boxes) != len(labels) or not np.isfinite(boxes).all():
        raise DatasetError(
            f"{path} has {len(boxes)} boxes for {len(labels)} labels: expected one finite box each"
        )
    return {
        label: (float(b[0]), float(b[1]), float(b[2]), float(b[3]))
        for label, b in zip(labels, boxes, strict=True)
    }


def _spacing(value: Any, path: Path) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = np.asarray(value, dtype=np.float64).ravel()
    if len(numbers) < 2 or not ((numbers > 0) & np.isfinite(numbers)).all():
        raise DatasetError(f"{path}: spacing is {numbers.tolist()}, expected positive (x, y, z)")
    return float(numbers[1]), float(numbers[0])


def _modality(name: str) -> str:
    """The challenge's files begin with ``2D_CT_``, ``3D_MR_`` and so on."""
    for part in name.split("_")[:3]:
        for known in _MODALITIES:
            if part.lower() == known.lower():
                return known
    return "unknown"
