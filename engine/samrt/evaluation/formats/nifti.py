"""Pairs of NIfTI volumes, evaluated slice by slice as COSMOS 1050K does, and as whole volumes.

Images lie in ``images/`` or ``imagesTr/`` and label volumes of the same name in ``labels/``,
``masks/``, ``labelsTr/`` or ``gt/`` (nnU-Net's ``_0000`` is allowed for); or both lie in one
folder and the label volume ends in ``_seg``, ``_label``, ``_mask`` or ``_gt``. Slices are those of
the main viewing plane: the one across the axis with the coarsest spacing, axial if all are
alike. They are shown upright: anterior or superior at the top, patient's right at the left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError, ExtraUnavailableError, SamrtError
from samrt.evaluation.dataset import Dataset, Progress, Solid, Target
from samrt.evaluation.formats import ReadOptions
from samrt.evaluation.formats.folders import read_facts
from samrt.evaluation.formats.volume import (
    MOST_VOXELS,
    as_labels,
    label_counts,
    slice_targets,
    to_bytes,
    window_of,
)

__all__ = ["NiftiDataset"]

_IMAGE_FOLDERS = ("images", "imagesTr")
_LABEL_FOLDERS = ("labels", "labelsTr", "masks", "gt")
_ENDINGS = ("_seg", "_label", "_labels", "_mask", "_gt")
_PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_COARSER = 1.2


class NiftiDataset(Dataset):
    """See the module. One volume at a time is in memory."""

    kind = "nifti"

    def __init__(self, path: Path, options: ReadOptions, progress: Progress) -> None:
        super().__init__(path)
        self._options = options
        self._image: tuple[str, NDArray[Any], tuple[float, float]] | None = None
        self._labels: tuple[str, NDArray[Any]] | None = None
        self._axes: dict[str, int] = {}
        self._mask_of: dict[str, str] = {}
        facts = read_facts(path)
        names = {str(k): str(v) for k, v in facts.get("labels", {}).items()}
        names |= {v: k for k, v in names.items() if v.isdigit()}  # nnU-Net writes name: value
        set_name = options.name or str(facts.get("name") or path.resolve().name)
        modality = str(facts.get("modality") or options.modality)
        pairs = _pairs(path)
        for number, (image, mask) in enumerate(pairs):
            progress("reading label volumes", number, len(pairs))
            self._add(image, mask, names, set_name, modality)
        progress("reading label volumes", len(pairs), len(pairs))

    def _add(
        self, image: Path, mask: Path, names: dict[str, str], set_name: str, modality: str
    ) -> None:
        place, picture = (p.relative_to(self.path).as_posix() for p in (mask, image))
        (shape, affine), (other_shape, other_affine) = _grid(mask), _grid(image)
        if shape != other_shape or not np.allclose(affine, other_affine, atol=1e-3):
            raise DatasetError(
                f"{image} {other_shape} and {mask} {shape} are not on one grid: "
                "resample the labels to the image"
            )
        zooms = [float(z) for z in np.linalg.norm(affine[:3, :3], axis=0)]
        axis = self._axis(zooms)
        self._axes[picture] = self._axes[place] = axis
        self._mask_of[picture] = place
        labels = self._slices(mask, axis, as_labels_of=True)
        self._labels = (place, labels)
        rows, columns = [a for a in (2, 1, 0) if a != axis]
        spacing = (zooms[axis], zooms[rows], zooms[columns])
        for label, voxels in label_counts(labels):
            name = names.get(str(label), f"label {label}")
            depth, height, width = (int(n) for n in labels.shape)
            self.solids.append(
                Solid(f"{picture}#{label}", set_name, picture, name, modality, label, voxels,
                      (depth, height, width), spacing)
            )  # fmt: skip
        for number, label, area, box in slice_targets(labels):
            if box is None:
                self.dropped += 1
                continue
            self.targets.append(
                Target(
                    key=f"{picture}@{number}#{label}",
                    set=set_name,
                    image=f"{picture}@{number}",
                    name=names.get(str(label), f"label {label}"),
                    modality=modality,
                    label=label,
                    area_px=area,
                    size=(labels.shape[1], labels.shape[2]),
                    box=box,
                    spacing=(zooms[rows], zooms[columns]),
                    mask=place,
                    slice=number,
                    case=picture,
                )
            )

    def _axis(self, zooms: list[float]) -> int:
        plane = self._options.plane
        if plane in _PLANES:
            return _PLANES[plane]
        if plane != "auto":
            raise DatasetError(f"unknown plane {plane!r}: expected auto, {', '.join(_PLANES)}")
        coarse = int(np.argmax(zooms))
        others = [z for i, z in enumerate(zooms) if i != coarse]
        return coarse if zooms[coarse] > _COARSER * max(others) else _PLANES["axial"]

    def _slices(self, path: Path, axis: int, *, as_labels_of: bool) -> NDArray[Any]:
        """A volume as ``(D, H, W)``, seen along one axis, upright."""
        try:
            volume = _nibabel().as_closest_canonical(_open(path))
            if as_labels_of:
                values = as_labels(np.asarray(volume.dataobj), str(path))
            else:
                values = np.asarray(volume.get_fdata(dtype=np.float32))
        except SamrtError:
            raise
        except Exception as exc:  # damaged data may end in any exception of the parser
            raise DatasetError(
                f"{path} is damaged or truncated: {' '.join(str(exc).split())}"
            ) from exc
        # RAS+ has x to the patient's right, y to the front, z upwards; rows run down and the
        # patient's right is shown at the left, so both are flipped.
        rows, columns = [a for a in (2, 1, 0) if a != axis]
        moved = np.transpose(values, (axis, rows, columns))
        return np.ascontiguousarray(moved[:, ::-1, ::-1])

    def read_image(self, target: Target) -> NDArray[np.uint8]:
        """One slice through the volume's window."""
        return self.read_slice(target.image.rpartition("@")[0], target.slice or 0)

    def read_slice(self, case: str, number: int) -> NDArray[np.uint8]:
        """One slice through the volume's window."""
        if self._image is None or self._image[0] != case:
            path = self.path / case
            self._image = None
            values = self._slices(path, self._axes[case], as_labels_of=False)
            self._image = (case, values, window_of(values, self._options.window, str(path)))
        return to_bytes(self._image[1][number], self._image[2])

    def read_mask(self, target: Target) -> NDArray[np.bool_]:
        """One slice of the label volume."""
        mask: NDArray[np.bool_] = self._label_volume(target.mask)[target.slice] == target.label
        return mask

    def read_labels(self, case: str) -> NDArray[np.unsignedinteger[Any]]:
        """The label volume that belongs to an image volume."""
        return self._label_volume(self._mask_of[case])

    def _label_volume(self, place: str) -> NDArray[Any]:
        if self._labels is None or self._labels[0] != place:
            self._labels = None
            values = self._slices(self.path / place, self._axes[place], as_labels_of=True)
            self._labels = (place, values)
        return self._labels[1]


def _nibabel() -> Any:
    try:
        import nibabel
    except ModuleNotFoundError as exc:
        raise ExtraUnavailableError(
            f"NIfTI needs {exc.name}, which is not installed: pip install 'samrt[eval]'"
        ) from exc
    return nibabel


def _open(path: Path) -> Any:
    """A volume whose voxels are read on demand."""
    try:
        volume: Any = _nibabel().load(path)
        shape = volume.shape
    except SamrtError:
        raise
    except Exception as exc:  # a damaged header may end in any exception of the parser
        raise DatasetError(f"{path} is no NIfTI volume: {' '.join(str(exc).split())}") from exc
    if len(shape) != 3 or 0 in shape or int(np.prod(shape, dtype=np.int64)) > MOST_VOXELS:
        raise DatasetError(
            f"{path} has the shape {shape}: expected three axes and at most {MOST_VOXELS} voxels"
        )
    return volume


def _grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine matrix of a volume once its axes are in RAS+ order, without its voxels."""
    volume = _open(path)
    orientations = _nibabel().orientations
    affine = np.asarray(volume.affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0.0:
        raise DatasetError(f"{path} has no usable orientation: its affine matrix is singular")
    turn = orientations.io_orientation(affine)
    shape: tuple[int, ...] = volume.shape
    turned = tuple(shape[int(i)] for i in np.argsort(turn[:, 0]))
    return turned, affine @ orientations.inv_ornt_aff(turn, shape)


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    folder = next((root / n for n in _IMAGE_FOLDERS if (root / n).is_dir()), root)
    others = [root / n for n in _LABEL_FOLDERS if (root / n).is_dir()] if folder != root else [root]
    volumes = _volumes(folder)
    pairs = []
    for stem, image in sorted(volumes.items()):
        if folder == root and stem.endswith(_ENDINGS):
            continue
        mask = _mask_of(stem, others, alone=folder == root)
        if mask is None:
            raise DatasetError(f"{image} has no label volume: expected one of the same name")
        pairs.append((image, mask))
    if not pairs:
        raise DatasetError(f"{root} holds no pair of NIfTI volumes: see samrt eval --help")
    return pairs


def _volumes(folder: Path) -> dict[str, Path]:
    return {_stem(p): p for p in sorted(folder.iterdir()) if _stem(p)}


def _stem(path: Path) -> str:
    for ending in (".nii.gz", ".nii"):
        if path.name.lower().endswith(ending) and not path.name.startswith("."):
            return path.name[: -len(ending)]
    return ""


def _mask_of(stem: str, folders: list[Path], *, alone: bool) -> Path | None:
    plain = stem.removesuffix("_0000")
    endings = _ENDINGS if alone else ("", *_ENDINGS)
    for folder in folders:
        volumes = _volumes(folder)
        for ending in endings:
            if plain + ending in volumes:
                return volumes[plain + ending]
    return None
