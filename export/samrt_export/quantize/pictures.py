"""The user's pictures for calibration: listed and hashed first, decoded one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from samrt.errors import ImageError
from samrt.imaging.read import LoadedImage, read_image
from samrt.imaging.sniff import sniff_format
from samrt.phantoms import PhantomCase
from samrt.preprocess import ImageSource
from samrt_export.verify import Case, ImageCase, automatic_prompts

__all__ = ["Picture", "PictureSet", "choose_pictures"]

_HEAD_BYTES, _CHUNK, _DIGITS = 512, 1 << 20, 12
_MOST_HELD_OUT, _ONE_IN = 8, 5


@dataclass(frozen=True)
class Picture:
    """A picture that can be read when it is needed.

    Attributes:
        name: of a built-in picture, or ``image-`` and 12 digits of the file's sha256: file names
            may name patients, so they stay out of records.
        sha256: of the file, or of the pixels of a built-in picture.
        open: reads it.
    """

    name: str
    sha256: str
    open: Callable[[], Case]

    def read(self) -> ImageSource:
        """The pixels."""
        return self.open().image


@dataclass(frozen=True)
class PictureSet:
    """Pictures to calibrate on and pictures to judge by.

    Attributes:
        calibration: what ranges are measured on.
        verification: what the result is compared on; with five and more pictures of the user's
            some of them are kept for this alone.
        held_out: how many those are.
        sha256: digest over all of them and the window.
    """

    calibration: tuple[Picture, ...]
    verification: tuple[Picture, ...]
    held_out: int
    sha256: str


def choose_pictures(
    folder: str | PathLike[str],
    phantoms: Sequence[PhantomCase],
    *,
    window: Any = None,
    most: int = 128,
) -> PictureSet:
    """List the pictures in a folder, whatever `samrt infer` reads, and share them out.

    Args:
        folder: holds the files; subfolders are not entered.
        phantoms: built-in pictures, which are calibrated and verified on too.
        window: as for `samrt.imaging.read.read_image`, for all files that take one.
        most: of more files an even selection.

    Raises:
        ImageError: no such folder, no picture in it, or a file cannot be read.
    """
    files = _files(Path(folder))
    if len(files) > most:
        files = [files[k * len(files) // most] for k in range(most)]
    own = [_of_file(path, window) for path in files]
    built_in = [_of_phantom(case) for case in phantoms]
    count = min(len(own) // _ONE_IN, _MOST_HELD_OUT)
    held = {(2 * k + 1) * len(own) // (2 * count) for k in range(count)}
    kept = [picture for k, picture in enumerate(own) if k in held]
    rest = [picture for k, picture in enumerate(own) if k not in held]
    digest = hashlib.sha256(repr(window).encode())
    for picture in (*built_in, *rest, *kept):
        digest.update(picture.sha256.encode())
    return PictureSet(
        (*built_in, *rest),
        (*built_in, *(kept or rest[:_MOST_HELD_OUT])),
        len(kept),
        digest.hexdigest(),
    )


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ImageError(f"{root} is not a folder: give one that holds pictures")
    try:
        found = [path for path in sorted(root.iterdir()) if path.is_file() and _is_picture(path)]
    except OSError as exc:
        raise ImageError(f"cannot read {exc.filename or root}: {exc.strerror or exc}") from exc
    if not found:
        raise ImageError(f"{root} holds no picture: expected PNG, JPEG, BMP, TIFF, WebP or DICOM")
    return found


def _is_picture(path: Path) -> bool:
    with path.open("rb") as stream:
        return sniff_format(stream.read(_HEAD_BYTES)) is not None


def _of_file(path: Path, window: Any) -> Picture:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
    except OSError as exc:
        raise ImageError(f"cannot read {path}: {exc.strerror or exc}") from exc
    name = f"image-{digest.hexdigest()[:_DIGITS]}"

    def read() -> Case:
        image: LoadedImage = read_image(str(path), window=window)
        return ImageCase(name, image, automatic_prompts(image.array), path)

    return Picture(name, digest.hexdigest(), read)


def _of_phantom(case: PhantomCase) -> Picture:
    digest = hashlib.sha256(f"{case.image.shape}".encode() + case.image.tobytes()).hexdigest()
    return Picture(case.name, digest, lambda: case)
