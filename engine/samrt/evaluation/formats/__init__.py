"""Data sets as they are stored: told apart by what lies in the folder.

* ``index``: a folder with ``index.json``, a list of records (:mod:`.index`);
* ``folders``: ``images/`` and ``masks/`` with pictures of the same name (:mod:`.folders`);
* ``nifti``: pairs of NIfTI volumes (:mod:`.nifti`);
* ``npz``: files of the CVPR "on laptop" challenge (:mod:`.npz`).
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from samrt.errors import DatasetError

if TYPE_CHECKING:
    from samrt.evaluation.dataset import Dataset, Progress
    from samrt.imaging.array import Window

__all__ = ["FORMATS", "ReadOptions", "open_dataset"]

FORMATS = ("index", "folders", "nifti", "npz")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a data set is read.

    Attributes:
        window: intensities shown black and white where images are deeper than 8 bit; ``None``:
            0.5th to 99.5th percentile of the volume (NIfTI) or of the picture.
        plane: of NIfTI volumes, ``axial``, ``coronal``, ``sagittal`` or ``auto``.
        modality: what to call the modality where the data set does not say.
        name: what to call the set where the data set does not say.
    """

    window: Window | None = None
    plane: str = "auto"
    modality: str = "unknown"
    name: str | None = None


def _nothing(what: str, done: int, total: int) -> None:
    pass


def open_dataset(
    path: str | PathLike[str],
    *,
    kind: str = "auto",
    options: ReadOptions | None = None,
    progress: Progress = _nothing,
) -> Dataset:
    """Open a data set and list its targets; every mask is looked at once.

    Raises:
        DatasetError: no such folder, an unknown format, or contents that do not fit together.
        ImageError: a picture that cannot be read.
        ExtraUnavailableError: NIfTI without nibabel.
    """
    root = Path(path)
    if not root.exists():
        raise DatasetError(f"{root} does not exist: give the folder of a data set")
    found = _detect(root) if kind == "auto" else kind
    options = options or ReadOptions()
    dataset: Dataset
    if found == "index":
        from samrt.evaluation.formats.index import IndexDataset

        dataset = IndexDataset(root)
    elif found == "folders":
        from samrt.evaluation.formats.folders import FolderDataset

        dataset = FolderDataset(root, options, progress)
    elif found == "nifti":
        from samrt.evaluation.formats.nifti import NiftiDataset

        dataset = NiftiDataset(root, options, progress)
    elif found == "npz":
        from samrt.evaluation.formats.npz import NpzDataset

        dataset = NpzDataset(root, options, progress)
    else:
        raise DatasetError(f"unknown format {kind!r}: expected auto, {', '.join(FORMATS)}")
    dataset.finish()
    return dataset


def _detect(root: Path) -> str:
    if root.is_file():
        if root.suffix == ".npz":
            return "npz"
        raise DatasetError(f"{root} is a file: give the folder of a data set, or an .npz file")
    if (root / "index.json").is_file():
        return "index"
    names = [entry.name.lower() for entry in root.iterdir()]
    if any(name.endswith(".npz") for name in names):
        return "npz"
    if any(name.endswith((".nii", ".nii.gz")) for name in names) or _holds_nifti(root):
        return "nifti"
    if "images" in names:
        return "folders"
    raise DatasetError(
        f"{root} is no data set that samrt knows: expected index.json, images/ with masks/, "
        "NIfTI pairs, or .npz files with imgs and gts"
    )


def _holds_nifti(root: Path) -> bool:
    for name in ("images", "imagesTr"):
        folder = root / name
        if folder.is_dir() and any(
            p.name.lower().endswith((".nii", ".nii.gz")) for p in folder.iterdir()
        ):
            return True
    return False
