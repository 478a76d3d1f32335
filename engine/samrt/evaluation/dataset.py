"""Images with known masks: what a data set is, whatever it is stored as."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from samrt.errors import DatasetError

__all__ = [
    "SMALLEST_AREA",
    "Dataset",
    "Progress",
    "Solid",
    "Target",
    "choose",
    "choose_solids",
    "grouped",
    "tight_box",
]

SMALLEST_AREA = 50
"""Targets of this many pixels or fewer are dropped, as in COSMOS 1050K."""

_T = TypeVar("_T")

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``, called now and then."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object to segment in one image, without its pixels.

    Attributes:
        key: unique in the data set and the same in every run.
        set: name of the part of the data set it belongs to.
        image: the image (or slice); targets of one image share an embedding.
        name: what the object is.
        modality: how the image was made; ``"unknown"`` if the data set does not say.
        label: value of the object in its mask.
        area_px: pixels of the mask.
        size: ``(H, W)`` of the image.
        box: ``(x0, y0, x1, y1)`` tight box, maxima inclusive, as COSMOS 1050K has it.
        spacing: millimetres per pixel, ``(row, column)``; ``None`` if unknown.
        mask: where the mask is, for the data set itself.
        given_box: a box that comes with the data, in place of the tight one.
        slice: number of the slice in its volume; ``None`` for a picture.
        part: where in its set it comes from, if a set is a collection.
        case: what it shares with other targets that are not independent of it, such as the
            volume of a slice; ``None``: the image.
    """

    key: str
    set: str
    image: str
    name: str
    modality: str
    label: int
    area_px: int
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    spacing: tuple[float, float] | None = None
    mask: str = ""
    given_box: tuple[float, float, float, float] | None = None
    slice: int | None = None
    part: str | None = None
    case: str | None = None

    @property
    def share(self) -> float:
        """Part of the image that the target covers, 0 to 1."""
        return self.area_px / (self.size[0] * self.size[1])


@dataclass(frozen=True, slots=True)
class Solid:
    """One object in one volume, all its slices together, without its voxels.

    Attributes:
        key: unique in the data set and the same in every run.
        set: name of the part of the data set it belongs to.
        case: the volume; the same as that of the targets that are its slices.
        name: what the object is.
        modality: how the volume was made.
        label: value of the object in the label volume.
        voxels: its size.
        shape: ``(slices, rows, columns)`` of the volume.
        spacing: millimetres between slices, rows, columns; ``None`` if unknown.
    """

    key: str
    set: str
    case: str
    name: str
    modality: str
    label: int
    voxels: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None


class Dataset(ABC):
    """A list of targets and the way to their pixels. Reads one image at a time.

    Attributes:
        path: where it is.
        kind: its format.
        targets: all targets above ``SMALLEST_AREA``.
        solids: objects of volumes; none where the data set has no volumes.
        dropped: number of smaller ones.
        remarks: what a careful user should know about how it was read.
    """

    kind = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.targets: list[Target] = []
        self.solids: list[Solid] = []
        self.dropped = 0
        self.remarks: list[str] = []

    @abstractmethod
    def read_image(self, target: Target) -> NDArray[np.uint8]:
        """The image of a target: ``(H, W)`` or ``(H, W, 3)`` uint8, RGB.

        Raises:
            ImageError, DatasetError: it cannot be read or has another size than before.
        """

    @abstractmethod
    def read_mask(self, target: Target) -> NDArray[np.bool_]:
        """The mask of a target: ``(H, W)`` bool.

        Raises:
            ImageError, DatasetError: it cannot be read or has another size than before.
        """

    def read_labels(self, case: str) -> NDArray[np.unsignedinteger[Any]]:
        """The label volume of a case, ``(D, H, W)``; may be the data set's own: do not write.

        Raises:
            DatasetError: it cannot be read, or there are no volumes.
        """
        raise DatasetError(f"{self.path} ({self.kind}) holds no volume {case}")

    def read_slice(self, case: str, number: int) -> NDArray[np.uint8]:
        """One slice of a case, ``(H, W)`` or ``(H, W, 3)`` uint8, as :meth:`read_image` has it.

        Raises:
            DatasetError: it cannot be read, or there are no volumes.
        """
        raise DatasetError(f"{self.path} ({self.kind}) holds no slice {number} of {case}")

    @property
    def digest(self) -> str:
        """16 hex digits over all targets; the same data give the same digest anywhere."""
        text = "\n".join(
            f"{t.key} {t.area_px} {t.size} {t.box} {t.given_box}" for t in self.targets
        )
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def finish(self) -> None:
        """Check the list once it is complete.

        Raises:
            DatasetError: nothing to evaluate, or two targets with one key.
        """
        if not self.targets:
            raise DatasetError(
                f"{self.path} ({self.kind}) holds no target of more than {SMALLEST_AREA} pixels "
                f"({self.dropped} smaller ones): check that its masks are not empty"
            )
        seen: set[str] = set()
        for target in self.targets:
            if target.key in seen:
                raise DatasetError(f"{self.path} lists the target {target.key} twice: remove one")
            seen.add(target.key)


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box of a non-empty ``(H, W)`` mask, ``(x0, y0, x1, y1)`` with inclusive maxima."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])


def grouped(targets: Sequence[Target]) -> Iterator[list[Target]]:
    """Targets of one image at a time, in the order of the list's images."""
    groups: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        groups[target.image].append(target)
    yield from groups.values()


def choose(
    dataset: Dataset,
    *,
    sets: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> list[Target]:
    """The targets a run is about.

    Args:
        dataset: the data set.
        sets: names of sets to keep; none keeps all.
        exclude: shell patterns; targets whose image or key matches one are left out.
        limit: most targets a set, drawn without replacement.
        seed: of the drawing; each set is drawn by itself, so adding a set changes no other.

    Raises:
        DatasetError: a set or a pattern that fits nothing, or nothing is left.
    """
    groups: dict[str, list[Target]] = defaultdict(list)
    for target in dataset.targets:
        groups[target.set].append(target)
    for name in sets:
        if name not in groups:
            known = ", ".join(sorted(groups))
            raise DatasetError(f"{dataset.path} has no set {name!r}: it has {known}")
    for pattern in exclude:
        if not any(_matches(t, pattern) for t in dataset.targets):
            raise DatasetError(
                f"the pattern {pattern!r} excludes nothing from {dataset.path}: patterns are "
                f"compared with image names such as {dataset.targets[0].image}"
            )
    chosen: list[Target] = []
    for name in sorted(groups):
        if sets and name not in sets:
            continue
        items = [t for t in groups[name] if not any(_matches(t, p) for p in exclude)]
        chosen += _drawn(items, limit, seed, name)
    if not chosen:
        raise DatasetError(f"nothing of {dataset.path} is left: loosen --sets and --exclude")
    return chosen


def choose_solids(
    dataset: Dataset,
    *,
    sets: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> list[Solid]:
    """The objects of volumes that a run is about: those of which :func:`choose` has a slice.

    Args:
        dataset, sets, exclude, seed: as for :func:`choose`.
        limit: most objects a set, drawn without replacement.

    Raises:
        DatasetError: as :func:`choose`.
    """
    kept = {(t.case, t.label) for t in choose(dataset, sets=sets, exclude=exclude)}
    groups: dict[str, list[Solid]] = defaultdict(list)
    for solid in dataset.solids:
        if (solid.case, solid.label) in kept:
            groups[solid.set].append(solid)
    return [s for name in sorted(groups) for s in _drawn(groups[name], limit, seed, name)]


def _drawn(items: list[_T], limit: int | None, seed: int, name: str) -> list[_T]:
    """At most ``limit`` of the items of a set, in their order, without replacement."""
    if limit is None or len(items) <= limit:
        return items
    rng = np.random.default_rng([seed, *name.encode("utf-8", "surrogatepass")])
    return [items[i] for i in sorted(rng.permutation(len(items))[:limit].tolist())]


def _matches(target: Target, pattern: str) -> bool:
    return fnmatchcase(target.image, pattern) or fnmatchcase(target.key, pattern)
