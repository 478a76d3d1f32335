"""Decoding of one frame by pydicom and its plugins; also the process that does it under limits.

This file imports numpy and pydicom alone, because it is run as a script too: frames come in on
standard input, pixels go out on standard output, each with a line of JSON before it. Native
decoders may abort or run away, so whoever reads compressed pixels does it over there.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["decode", "main"]


def decode(record: dict[str, Any], frame: bytes) -> NDArray[np.generic]:
    """Decode one frame.

    Args:
        record: ``rows``, ``columns``, ``samples``, ``bits_allocated``, ``bits_stored``,
            ``signed``, ``photometric``, ``planar``, ``syntax`` (UID) and ``plugin`` (name of
            pydicom's decoding plugin, ``""`` for pixels that are not compressed).
        frame: the frame's bytes, fragments joined.

    Returns:
        ``(rows, columns)`` or ``(rows, columns, 3)``, colour as RGB.

    Raises:
        Exception: whatever the decoder raises; ValueError for a result of another size.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(record["syntax"])
    dataset.Rows, dataset.Columns = record["rows"], record["columns"]
    dataset.SamplesPerPixel = record["samples"]
    dataset.BitsAllocated, dataset.BitsStored = record["bits_allocated"], record["bits_stored"]
    dataset.HighBit = record["bits_stored"] - 1
    dataset.PixelRepresentation = int(record["signed"])
    dataset.PhotometricInterpretation = record["photometric"]
    dataset.PlanarConfiguration = record["planar"]
    dataset.NumberOfFrames = 1
    plugin = record["plugin"]
    dataset.PixelData = encapsulate([frame]) if plugin else frame
    dataset["PixelData"].VR = "OB" if plugin or record["bits_allocated"] == 8 else "OW"
    if plugin:
        dataset["PixelData"].is_undefined_length = True
    array, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(
        dataset, index=0, decoding_plugin=plugin
    )
    wanted = (record["rows"], record["columns"]) + ((3,) if record["samples"] == 3 else ())
    if array.shape != wanted:
        raise ValueError(f"the decoder returned the shape {array.shape}, expected {wanted}")
    result: NDArray[np.generic] = array
    return result


def _limit(memory: int, seconds: float) -> None:
    """Cap the address space and the processor time of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    wanted = ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_CORE, 0))
    for kind, most in wanted:
        try:
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))
        except (ValueError, OSError):
            continue


def _answer(stream: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    stream.write(json.dumps(head).encode() + b"\n")
    stream.write(body)
    stream.flush()


def main() -> int:
    """Answer requests until standard input ends."""
    import warnings

    warnings.simplefilter("ignore")
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    import numpy as np
    import pydicom.pixels

    _answer(sink, {"ready": pydicom.__version__})
    while line := source.readline():
        record = json.loads(line)
        _limit(record["memory"], record["seconds"])
        frame = source.read(record["bytes"])
        try:
            array = np.ascontiguousarray(decode(record, frame))
        except BaseException as exc:  # pyo3 panics are no Exception
            text = " ".join(str(exc).split())
            # pydicom puts "NAME:" of the one decoder that was allowed before its reason.
            _, by_plugin, tail = text.rpartition("available plugins:")
            reason = tail.partition(":")[2].strip() if by_plugin else text
            reason = reason[:300] or "the decoder gives no reason"
            _answer(sink, {"error": reason, "kind": type(exc).__name__})
            continue
        head = {"dtype": array.dtype.str, "shape": array.shape, "bytes": array.nbytes}
        _answer(sink, head, array.tobytes())
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules must not stand in for others of the same name
    raise SystemExit(main())
