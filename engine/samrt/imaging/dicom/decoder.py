"""Compressed frames to pixels, in a process of its own with limits on memory and time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samrt.closing import Closing, end_process
from samrt.errors import ExtraUnavailableError, ImageError
from samrt.imaging._extras import installed_version
from samrt.imaging.dicom.header import DicomFile
from samrt.imaging.dicom.limits import DicomLimits

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["FrameDecoder", "choose_plugin"]

_SCRIPT = Path(__file__).with_name("_worker.py")
_OPTED_IN = "SAMRT_DICOM_DECODERS"
_STARTUP_SECONDS = 60.0
_LONGEST_LINE = 4096
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")
_NEEDS = {
    "pyjpegls": ("pyjpegls",),
    "pillow": ("pillow",),
    "pydicom": ("pydicom",),
    "gdcm": ("python-gdcm",),
}
_PYLIBJPEG = {
    "JPEG 2000": "pylibjpeg-openjpeg",
    "RLE": "pylibjpeg-rle",
    "JPEG": "pylibjpeg-libjpeg",
}


@cache
def _lossless_hint() -> str:
    return (
        "its decoders are under the GPL (pylibjpeg-libjpeg) or can crash (python-gdcm) and are "
        f"not used unless asked: install one and set {_OPTED_IN}=pylibjpeg or gdcm, or convert "
        "the file with dcmdjpeg"
    )


def _packages(plugin: str, syntax: str) -> tuple[str, ...]:
    """Distributions that a plugin needs for a syntax."""
    if plugin != "pylibjpeg":
        return _NEEDS[plugin]
    handler = next(name for key, name in _PYLIBJPEG.items() if key in syntax)
    return ("pylibjpeg", handler)


def choose_plugin(file: DicomFile) -> tuple[str, str]:
    """``(pydicom's name of the plugin, "package version")`` for a compressed file.

    The choice depends on what is installed only: after a failure no other decoder is tried. Names
    in the environment variable ``SAMRT_DICOM_DECODERS`` (``gdcm``, ``pylibjpeg``) come first.

    Raises:
        ExtraUnavailableError: no decoder for this syntax is installed.
    """
    asked = [name for name in os.environ.get(_OPTED_IN, "").split(",") if name]
    extra = [name for name in asked if name in ("gdcm", "pylibjpeg")]
    own = [name for name in file.syntax.plugins if name != "none"]
    for plugin in (*extra, *own):
        needed = _packages(plugin, file.syntax.name)
        versions = [installed_version(name) for name in needed]
        if all(versions):
            return plugin, f"{needed[-1]} {versions[-1]}"
    if not own and extra:
        needed = _packages(extra[0], file.syntax.name)
        raise ExtraUnavailableError(
            f"{file.name} is {file.syntax.name}: {_OPTED_IN} asks for {extra[0]}, which is not "
            f"installed: pip install {' '.join(needed)}"
        )
    if not own:
        raise ExtraUnavailableError(f"{file.name} is {file.syntax.name}: {_lossless_hint()}")
    needed = _packages(own[0], file.syntax.name)
    raise ExtraUnavailableError(
        f"{file.name} is {file.syntax.name}, whose decoder is not installed: "
        f"pip install {' '.join(needed)}"
    )


def _shape(record: dict[str, Any]) -> tuple[int, ...]:
    size = (record["rows"], record["columns"])
    return (*size, 3) if record["samples"] == 3 else size


def _checked(head: Any, record: dict[str, Any]) -> dict[str, Any] | None:
    """The worker's answer if it is what was asked for: its word is not taken for sizes."""
    if not isinstance(head, dict):
        return None
    if "error" in head:
        return {"error": str(head["error"])[:300], "kind": str(head.get("kind"))}
    if head.get("dtype") not in _DTYPES or head.get("shape") != list(_shape(record)):
        return None
    wanted = math.prod(_shape(record)) * np.dtype(head["dtype"]).itemsize
    return head if head.get("bytes") == wanted else None


class FrameDecoder(Closing):
    """Decodes frames one after the other in one worker process; use it as a context manager.

    The worker starts with the first compressed frame. After a crash or a time-out a new one is
    started for the next frame. Not for use from several threads at once.
    """

    def __init__(self, limits: DicomLimits | None = None) -> None:
        self._limits = limits or DicomLimits()
        self._process: Popen[bytes] | None = None

    def close(self) -> None:
        """End the worker; twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process)

    def decode(self, record: dict[str, Any], frame: bytes, name: str) -> NDArray[Any]:
        """Decode one compressed frame; the record is that of ``_worker.decode``.

        Raises:
            ImageError: damaged data, or the limits on memory or time were reached.
        """
        size = record["rows"] * record["columns"] * record["samples"] * 4
        memory = self._limits.decode_memory_bytes + 3 * size + 2 * len(frame)
        seconds = self._limits.decode_seconds
        request = {**record, "bytes": len(frame), "memory": memory, "seconds": seconds}
        try:
            head, body = self._exchange(request, frame, name)
        except BaseException:
            self.close()
            raise
        if "error" in head:
            if head["kind"] == "MemoryError":
                raise ImageError(f"{name}: decoding wants more memory than {memory} bytes")
            raise ImageError(f"{name} is damaged: its compressed pixels do not decode "
                             f"({head['error']})")  # fmt: skip
        array: NDArray[Any] = np.frombuffer(body, np.dtype(head["dtype"])).copy()
        shaped: NDArray[Any] = array.reshape(_shape(record))
        return shaped

    def _exchange(
        self, request: dict[str, Any], frame: bytes, name: str
    ) -> tuple[dict[str, Any], bytes]:
        process = self._running()
        source, sink = process.stdout, process.stdin
        if source is None or sink is None:
            raise ImageError("the decoding process has no pipes")
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        watchdog = threading.Timer(self._limits.decode_seconds, stop)
        watchdog.daemon = True
        watchdog.start()
        try:
            sink.write(json.dumps(request).encode() + b"\n")
            sink.write(frame)
            sink.flush()
            head = _checked(json.loads(source.readline(_LONGEST_LINE) or b"null"), request)
            body = source.read(head.get("bytes", 0)) if head else b""
        except (OSError, ValueError):
            head, body = None, b""
        finally:
            watchdog.cancel()
        if head is None or len(body) < head.get("bytes", 0):
            why = (
                f"took longer than {self._limits.decode_seconds:g} s"
                if late.is_set()
                else "ended the decoding process"
            )
            raise ImageError(f"{name} is damaged: decoding its pixels {why}")
        return head, body

    def _running(self) -> Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = subprocess.Popen(
            [sys.executable, str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
        self._process = process
        watchdog = threading.Timer(_STARTUP_SECONDS, process.kill)
        watchdog.daemon = True
        watchdog.start()
        line = process.stdout.readline() if process.stdout is not None else b""
        watchdog.cancel()
        if b"ready" not in line:
            raise ImageError("the process that decodes compressed pixels does not start")
        return process
