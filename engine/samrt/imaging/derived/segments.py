"""Masks that are to become a derived object, and who made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt._version import __version__
from samrt.errors import OutputError
from samrt.imaging.derived.terms import TERMS, Term

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["MANUFACTURER", "NOTICE", "Algorithm", "Segments", "prepare", "refused"]

MANUFACTURER = "samrt"
NOTICE = "samrt, not for clinical use"
"""Series description of everything that samrt writes (DICOM LO, at most 64 characters)."""

_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "StudyDate", "StudyTime", "Manufacturer",
)  # fmt: skip
_PERSONAL = ("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "AccessionNumber")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Who segmented.

    Attributes:
        model: name of the model.
        model_id: its name with the digest of its files.
        automatic: whether nobody gave prompts.
    """

    model: str
    model_id: str = ""
    automatic: bool = False

    @property
    def version(self) -> str:
        """Version of samrt and digest of the model."""
        digest = self.model_id.rpartition("@")[2]
        return f"{__version__}+{digest}" if digest else __version__


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Masks on the frames of their source.

    Attributes:
        masks: ``(S, F, H, W)`` bool, S segments on F frames.
        sources: headers, one per frame; or one multi-frame header for all frames.
        frames: numbers (from 0) of the frames of a multi-frame header; ``None`` otherwise.
        algorithm: who segmented.
        terms: what they show, one for all or one per segment.
        scores: ``(S,)`` confidence, for descriptions.
    """

    masks: NDArray[np.bool_]
    sources: Sequence[Dataset]
    frames: tuple[int, ...] | None
    algorithm: Algorithm
    terms: tuple[Term, ...] = field(default=(TERMS["tissue"],))
    scores: tuple[float, ...] = ()

    def term(self, segment: int) -> Term:
        """What a segment shows."""
        return self.terms[min(segment, len(self.terms) - 1)]

    def label(self, segment: int) -> str:
        """A name of a segment that no other segment has."""
        name = self.term(segment).label
        return name if len(self.masks) == 1 else f"{name} {segment + 1}"


def prepare(sources: Sequence[Any]) -> None:
    """Give headers the elements that every object of their study must have, empty if unknown.

    De-identified files often lack them, or have an empty character set. The headers are changed;
    pixels and identity are not.
    """
    for source in sources:
        for keyword in _REQUIRED:
            if keyword not in source:
                setattr(source, keyword, None)
        if "SpecificCharacterSet" in source and not source.SpecificCharacterSet:
            del source.SpecificCharacterSet


def refused(what: str, exc: Exception, sources: Sequence[Any]) -> OutputError:
    """An error for an exception of a writer, its text left out if it may speak of the patient."""
    text = " ".join(str(exc).split())
    values = {str(getattr(source, key, "")) for source in sources[:1] for key in _PERSONAL}
    if any(value and value in text for value in values):
        text = "its text names the patient and is left out"
    return OutputError(
        f"{what} cannot be made from this source: {type(exc).__name__}, {text[:300]}"
    )
