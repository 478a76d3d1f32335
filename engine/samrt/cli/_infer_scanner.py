"""What ``samrt infer`` knows about scanners' files: options, reading, the record of a picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from samrt.cli import _numbers

if TYPE_CHECKING:
    from samrt.cli._progress import ProgressBar
    from samrt.imaging.derived.render import DerivedOptions
    from samrt.imaging.read import LoadedImage
    from samrt.imaging.sniff import ImageLimits
    from samrt.imaging.volumes.volume import SliceSources, Volume
    from samrt.types import Prediction

__all__ = [
    "add_options",
    "area_text",
    "derived_options",
    "image_record",
    "mask_record",
    "read_input",
    "read_volume",
    "volume_uids",
]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of scanners' files."""
    group = parser.add_argument_group("DICOM and NIfTI")
    group.add_argument(
        "--frame", type=_numbers.at_least(0), metavar="K",
        help="frame of a DICOM file or slice of a volume, from 0; a picture is segmented, "
        "with --propagate a volume",
    )  # fmt: skip
    group.add_argument(
        "--box3d", type=_numbers.box3d, action="append", default=[],
        metavar="X0,Y0,Z0,X1,Y1,Z1",
        help="a box around an object in a volume: pixels, and slices from 0; far ends lie beyond "
        "the last pixel and slice. The middle slice is asked, the mask followed up and down; may "
        "be repeated",
    )  # fmt: skip
    group.add_argument(
        "--propagate", action="store_true",
        help="follow each --box on slice --frame up and down through the volume",
    )  # fmt: skip
    group.add_argument(
        "--plane", choices=("native", "axial", "coronal", "sagittal"),
        help="plane of the slices, nearest stored axes (NIfTI: axial, DICOM: native)",
    )  # fmt: skip
    group.add_argument(
        "--series", type=_numbers.at_least(0), metavar="N",
        help="which series of a folder, from 0, if it holds several",
    )  # fmt: skip
    group.add_argument(
        "--time", type=_numbers.at_least(0), metavar="T",
        help="which volume of a NIfTI file with a time axis, from 0",
    )  # fmt: skip
    group.add_argument(
        "--label", action="append", default=[], metavar="TERM",
        help="what the masks show, for seg and rtstruct: tissue (default), liver, kidney, lesion "
        "... or VALUE:SCHEME:MEANING; may be repeated, one per prompt",
    )  # fmt: skip
    group.add_argument(
        "--seg-type", choices=("binary", "labelmap"), default="binary",
        help="form of the DICOM segmentation (binary; few viewers read labelmap yet)",
    )  # fmt: skip
    group.add_argument(
        "--with-uids", action="store_true",
        help="put the study, series and instance UID of a DICOM file into the JSON document",
    )  # fmt: skip


def read_input(args: argparse.Namespace, limits: ImageLimits) -> LoadedImage:
    """Read the picture that the options ask for.

    Raises:
        SamrtError: as :func:`samrt.imaging.read.read_image`.
    """
    from samrt.errors import OptionError
    from samrt.imaging.read import read_image
    from samrt.imaging.volumes.slices import is_volume_path, slice_image

    if is_volume_path(args.image):
        volume = read_volume(args, limits, None)
        return slice_image(volume, args.plane, args.frame)
    for name in ("plane", "series", "time"):
        if getattr(args, name) is not None:
            raise OptionError(f"--{name} is for volumes: {args.image} is read as a picture")
    return read_image(args.image, window=args.window, frame=args.frame, limits=limits)


def read_volume(args: argparse.Namespace, limits: ImageLimits, bar: ProgressBar | None) -> Volume:
    """Read the volume that the options ask for, and settle the plane.

    Raises:
        SamrtError: as :func:`samrt.imaging.volumes.slices.read_volume`.
    """
    from samrt.imaging.volumes import slices

    volume = slices.read_volume(
        args.image,
        window=args.window,
        series=args.series,
        time=args.time,
        limits=limits,
        progress=bar,
    )
    if args.plane is None:
        args.plane = "axial" if volume.format == "NIFTI" else "native"
    return volume


def volume_uids(sources: SliceSources) -> dict[str, Any]:
    """Study and series UID of a volume, and one instance UID per slice or the file's."""
    from samrt.imaging.dicom import elements

    first = sources.datasets[0]
    with elements.quiet():
        return {
            "study": elements.text(first, "StudyInstanceUID"),
            "series": elements.text(first, "SeriesInstanceUID"),
            "instances": [elements.text(item, "SOPInstanceUID") for item in sources.datasets],
        }


def derived_options(args: argparse.Namespace) -> DerivedOptions:
    """How DICOM objects are written.

    Raises:
        OptionError: an unknown term.
    """
    from samrt.imaging.derived.render import DerivedOptions
    from samrt.imaging.derived.terms import find_term

    default = DerivedOptions()
    terms = tuple(find_term(text) for text in args.label) or default.terms
    return DerivedOptions(labelmap=args.seg_type == "labelmap", terms=terms)


def image_record(image: LoadedImage, with_uids: bool) -> dict[str, Any]:
    """Keys of the JSON document's ``image`` that scanners' files fill: nothing of the patient."""
    details = None if image.details is None else dict(image.details)
    if details is not None and with_uids and image.origin is not None:
        from samrt.imaging.dicom.read import uids_of

        details["uids"] = uids_of(image.origin)
    spacing = None if image.spacing_mm is None else list(image.spacing_mm)
    return {"spacing_mm": spacing, "scanner": details}


def area_text(image: LoadedImage, prediction: Prediction, mask: int) -> str:
    """Area of a mask for people: in pixels, and in mm^2 if their size is known."""
    area = mask_record(image, prediction, mask)["area_mm2"]
    pixels = f"{int(prediction.areas_px[mask])} px"
    return pixels if area is None else f"{pixels} = {area:.1f} mm2"


def mask_record(image: LoadedImage, prediction: Prediction, mask: int) -> dict[str, Any]:
    """Keys of a mask in the JSON document that need the size of a pixel."""
    area = None
    if image.spacing_mm is not None:
        rows, columns = image.spacing_mm
        area = round(int(prediction.areas_px[mask]) * rows * columns, 4)
    return {"area_mm2": area}
