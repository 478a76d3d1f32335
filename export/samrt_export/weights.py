"""Weights in a file of their own, which several graphs of a bundle share.

Two forms of a network hold mostly the same matrices.  Tensors with the same bytes are stored once,
and ONNX's external data lets every graph name the place.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from samrt.closing import Closing

__all__ = ["ALIGNMENT", "WeightStore"]

ALIGNMENT = 4096
"""Bytes; runtimes map pages of the file into memory."""
_DIGEST_BYTES = 32


class WeightStore(Closing):
    """A file to which tensors are added; what is there already is not written again.

    Attributes:
        path: the file; models that use it must lie in its folder.
    """

    def __init__(self, path: Path) -> None:
        """Create the file; one that is there is replaced."""
        self.path = path
        self._places: dict[tuple[int, bytes], int] = {}
        self._stream: BinaryIO = path.open("wb")

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def tensor(self, name: str, array: npt.NDArray[Any]) -> TensorProto:
        """The tensor as ONNX names it; its bytes lie in the file.

        array: C-contiguous, of any dtype; it is read, not kept.
        """
        facts = {
            "location": self.path.name,
            "offset": self._place(array),
            "length": array.nbytes,
        }
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def flush(self) -> None:
        """Bring everything to the file, so that it can be read."""
        self._stream.flush()

    def _place(self, array: npt.NDArray[Any]) -> int:
        """Offset of an array's bytes; they are written where they are new."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        key = (array.nbytes, hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest())
        if key not in self._places:
            self._stream.write(b"\0" * (-self._stream.tell() % ALIGNMENT))
            self._places[key] = self._stream.tell()
            self._stream.write(content)
        return self._places[key]
