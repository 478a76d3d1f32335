"""NIfTI-1 and NIfTI-2 files in and out; the header is judged before any voxel is read.

nibabel parses and writes headers. Voxels are taken from the bytes directly, because the file may
be compressed and must not grow beyond what its header promises.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samrt.errors import ImageError, OutputError, SamrtError
from samrt.imaging._extras import need
from samrt.imaging.array import Window
from samrt.imaging.dicom.grey import display
from samrt.imaging.dicom.limits import DicomLimits
from samrt.imaging.dicom.voi import choose_voi
from samrt.imaging.volumes.volume import Volume

__all__ = ["is_nifti", "read_nifti", "write_nifti"]

_HEADER_BYTES = 544
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32",
          "float64")  # fmt: skip


def is_nifti(data: bytes) -> bool:
    """Whether bytes are a NIfTI file, gzip-compressed or not."""
    head = data[:_HEADER_BYTES]
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(31).decompress(data[:65536], _HEADER_BYTES)
        except zlib.error:
            return False
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def read_nifti(
    data: bytes,
    name: str,
    *,
    window: Window | None = None,
    time: int | None = None,
    limits: DicomLimits | None = None,
) -> Volume:
    """Read a NIfTI file.

    Args:
        data: the file's bytes.
        name: how messages call it.
        window: as for DICOM, without ``file`` and ``lut``; presets take values for Hounsfield
            units. ``None``: eight-bit values as they are, else the 0.5th to 99.5th percentile.
        time: which volume of a series, from 0.
        limits: caps.

    Raises:
        ExtraUnavailableError: nibabel is not installed.
        ImageError: damaged, truncated, too large, of a kind that is not read; NaN.
        OptionError: no such window.
    """
    need("nibabel", f"read the NIfTI file {name}")
    limits = limits or DicomLimits()
    try:
        header, offset = _header(data, name, limits)
        raw, affine, stored = _voxels(data, header, offset, name, time, limits)
        return _volume(data, name, header, raw, affine, stored, window)
    except SamrtError as exc:
        raise exc if str(exc).startswith(name) else type(exc)(f"{name}: {exc}") from exc
    except Exception as exc:  # a hostile header may end in any exception of the parser
        raise ImageError(
            f"{name} is a damaged NIfTI file ({type(exc).__name__}: {' '.join(str(exc).split())})"
        ) from exc


def _header(data: bytes, name: str, limits: DicomLimits) -> tuple[Any, int]:
    """The parsed header and where the voxels begin."""
    import nibabel

    head = _bytes(data, _HEADER_BYTES, name, exact=False)
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise ImageError(f"{name} is a NIfTI header without voxels: use a single .nii file")
    kind = nibabel.Nifti2Header if head[4:7] == b"n+2" else nibabel.Nifti1Header
    size = kind.sizeof_hdr if hasattr(kind, "sizeof_hdr") else kind.template_dtype.itemsize
    if len(head) < size:
        raise ImageError(f"{name} is truncated: its header is cut off")
    header = kind(head[:size], check=False)
    offset = float(header["vox_offset"])
    if not size <= offset <= limits.max_header_bytes or offset != int(offset):
        raise ImageError(f"{name} is damaged: its voxels are said to begin at byte {offset:g}")
    return header, int(offset)


def _bytes(data: bytes, most: int, name: str, *, exact: bool = True) -> bytes:
    """The first bytes of the file, inflated if it is compressed, never more than ``most``."""
    if data[:2] != b"\x1f\x8b":
        found = data[:most]
    else:
        stream = zlib.decompressobj(31)
        try:
            found = stream.decompress(data, most)
        except zlib.error as exc:
            raise ImageError(f"{name} is damaged: it cannot be inflated") from exc
    if exact and len(found) < most:
        raise ImageError(f"{name} is truncated: it has {len(found)} of {most} bytes")
    return found


def _shape(header: Any, name: str, limits: DicomLimits) -> tuple[int, int, int, int]:
    """``(X, Y, Z, T)``, checked."""
    rank = int(header["dim"][0])
    sizes = [int(v) for v in header["dim"][1:8]]
    if not 2 <= rank <= 7 or min(sizes[:rank]) < 1:
        raise ImageError(f"{name} is damaged: it has {rank} dimensions of sizes {sizes}")
    sizes = sizes[:rank] + [1] * (7 - rank)
    if any(size > 1 for size in sizes[4:]):
        raise ImageError(f"{name} has more than four dimensions, expected x, y, z and time")
    voxels = math.prod(sizes[:3])
    if voxels > limits.max_voxels:
        raise ImageError(
            f"{name} has {' x '.join(str(v) for v in sizes[:3])} = {voxels} voxels, the limit is "
            f"{limits.max_voxels}"
        )
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _voxels(
    data: bytes, header: Any, offset: int, name: str, time: int | None, limits: DicomLimits
) -> tuple[NDArray[Any], NDArray[np.float64], np.dtype[Any]]:
    """``(Z, Y, X)`` rescaled values, the affine to LPS, and the stored type."""
    shape = _shape(header, name, limits)
    if shape[3] > 1 and time is None:
        raise ImageError(f"{name} holds {shape[3]} volumes: choose one with time (0 is the first)")
    index = time or 0
    if not 0 <= index < shape[3]:
        raise ImageError(f"{name} holds {shape[3]} volume(s), there is no volume {index}")
    dtype = np.dtype(header.get_data_dtype())
    if dtype.name not in _KINDS:
        raise ImageError(f"{name} holds {dtype.name or 'structured'} voxels, expected grey values")
    size = math.prod(shape[:3]) * dtype.itemsize
    start = offset + index * size
    if start + size > 4 * limits.max_file_bytes:
        raise ImageError(f"{name} inflates to more than {4 * limits.max_file_bytes} bytes")
    body = _bytes(data, start + size, name)
    stored = np.frombuffer(body, dtype, count=math.prod(shape[:3]), offset=start)
    grid = stored.reshape(shape[2], shape[1], shape[0])  # x runs fastest in the file
    affine = np.asarray(header.get_best_affine(), np.float64)
    usable = affine.shape == (4, 4) and bool(np.isfinite(affine).all())
    if not usable or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-12:
        raise ImageError(f"{name} is damaged: its affine is no grid")
    return _rescaled(grid, header, name), _RAS_TO_LPS @ affine, dtype


def _rescaled(grid: NDArray[Any], header: Any, name: str) -> NDArray[Any]:
    slope, inter = header.get_slope_inter()
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    native = grid.astype(grid.dtype.newbyteorder("="), copy=False)
    if slope == 1.0 and inter == 0.0 and native.dtype in (np.uint8, np.uint16, np.int16):
        return native
    if slope == 1.0 and inter == 0.0 and native.dtype == np.int8:
        return native.astype(np.int16)
    with np.errstate(over="ignore"):
        values = (native.astype(np.float64) * slope + inter).astype(np.float32)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise ImageError(f"{name} has {bad} NaN or infinite values: replace them first")
    return values


def _volume(
    data: bytes,
    name: str,
    header: Any,
    values: NDArray[Any],
    affine: NDArray[np.float64],
    dtype: np.dtype[Any],
    window: Window | None,
) -> Volume:
    sample = values.reshape(-1)[:: max(1, values.size // 2_000_000)]
    voi = choose_voi(
        window,
        (),
        sample,
        modality="",
        hounsfield=False,
        eight_bit=values.dtype == np.uint8,
        signed=values.dtype.kind != "u",
    )
    values, limits = display(values, voi, None, inverted=False)
    slope, inter = header.get_slope_inter()
    notes = [] if voi.remark is None else [f"{name}: {voi.remark}"]
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        notes.append(f"{name} says nothing about orientation: axes are taken as left to right, "
                     "back to front, bottom to top")  # fmt: skip
    return Volume(
        values=values,
        affine=affine,
        window=limits,
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        format="NIFTI",
        mode=dtype.name,
        bit_depth=8 * dtype.itemsize,
        details={
            "mapping": {
                "modality": {"kind": "rescale", "slope": slope, "intercept": inter, "type": None},
                "padding": None,
                "voi": voi.record(),
                "inverted": False,
            }
        },
        warnings=tuple(notes),
        header=header,
    )


def write_nifti(masks: NDArray[Any], volume: Volume, *, description: str = "") -> bytes:
    """Write labels on the grid of a volume as a compressed NIfTI-1 file.

    Args:
        masks: ``(Z, Y, X)`` bool or integer labels in stored order.
        volume: where they lie. The codes of a NIfTI source's own transforms are kept.
        description: at most 79 characters.

    Raises:
        ExtraUnavailableError: nibabel is not installed.
        OutputError: another shape, or slices that no affine can describe.
    """
    need("nibabel", "write NIfTI files")
    import nibabel

    if masks.shape != volume.values.shape:
        raise OutputError(f"the labels have shape {masks.shape}, the volume {volume.values.shape}")
    if not volume.even:
        raise OutputError(
            f"{volume.name} has unevenly spaced slices, which NIfTI cannot describe: write seg or "
            "rtstruct"
        )
    labels = masks.astype(np.uint8 if masks.dtype == np.bool_ or masks.max() < 256 else np.uint16)
    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), volume.affine_ras)
    header = image.header
    code = 1
    if volume.header is not None:
        code = int(volume.header["sform_code"]) or int(volume.header["qform_code"]) or 1
    image.set_sform(volume.affine_ras, code=code)
    image.set_qform(volume.affine_ras, code=code)
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode("ascii", "replace")[:79]
    packed: bytes = gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
    return packed
