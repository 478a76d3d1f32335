"""Derived objects of a run on one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from samrt.errors import OutputError
from samrt.imaging.derived.segments import Algorithm, Segments
from samrt.imaging.derived.terms import TERMS, Term

if TYPE_CHECKING:
    from samrt.imaging.dicom.read import DicomOrigin
    from samrt.imaging.outputs import Run

__all__ = ["DERIVED_KINDS", "DerivedOptions", "render_derived", "segments_of_run"]

DERIVED_KINDS = ("seg", "rtstruct", "capture", "nifti")


@dataclass(frozen=True, slots=True)
class DerivedOptions:
    """How derived objects are written.

    Attributes:
        labelmap: SEG as LABELMAP in place of BINARY.
        terms: what the masks show, one for all or one per prompt.
    """

    labelmap: bool = False
    terms: tuple[Term, ...] = (TERMS["tissue"],)


def render_derived(run: Run, kind: str) -> bytes:
    """Bytes of one derived object.

    Raises:
        OutputError: the picture comes from no DICOM file, or the file lacks what is needed.
        ExtraUnavailableError: an optional package is not installed.
    """
    origin = run.origin
    if kind == "nifti":
        raise OutputError(
            "output nifti is for volumes: give --box3d or --propagate, or choose another one"
        )
    if origin is None:
        raise OutputError(f"output {kind} needs a DICOM image: {run.file_name} is none")
    if kind == "seg":
        from samrt.imaging.derived.dicom_seg import write_seg

        return write_seg(segments_of_run(run, origin), labelmap=run.derived.labelmap)
    if kind == "rtstruct":
        from samrt.imaging.derived.rtstruct import write_rtstruct

        return write_rtstruct(segments_of_run(run, origin), [origin.geometry])
    from samrt.imaging.derived.capture import write_capture
    from samrt.imaging.outputs import overlay_picture

    return write_capture(np.asarray(overlay_picture(run)), origin.dataset, origin.geometry)


def segments_of_run(run: Run, origin: DicomOrigin) -> Segments:
    """The best mask of each prompt, or every class, on the frame that was segmented."""
    from samrt.imaging.outputs import shown_masks

    items = shown_masks(run.predictions)
    frames = int(getattr(origin.dataset, "NumberOfFrames", 0) or 0)
    return Segments(
        masks=np.stack([item.mask for item in items])[:, None],
        sources=[origin.dataset],
        frames=(origin.frame,) if frames > 1 else None,
        algorithm=Algorithm(
            str(run.meta.get("model", "unknown")).partition("@")[0],
            str(run.meta.get("model", "")),
            automatic=all(p.prompt.is_empty for p in run.predictions),
        ),
        terms=run.derived.terms,
        scores=tuple(item.score or 0.0 for item in items),
    )
