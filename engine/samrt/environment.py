"""What this process runs on: versions, processor, cores, memory. Reads only, starts nothing."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["cpu_info", "environment", "physical_cores", "usable_cpus", "versions"]

_PACKAGES = (
    "numpy", "onnxruntime", "pillow", "openvino", "tensorrt", "torch", "onnx", "pydicom",
    "highdicom", "nibabel", "pyjpegls", "pylibjpeg-openjpeg", "pylibjpeg-rle",
)  # fmt: skip
_FLAGS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8",
    "amx_bf16", "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Version of samrt, Python and each package that matters; ``None`` if not installed.

    Packages are looked up by their metadata and never imported.
    """
    from samrt._version import __version__

    found: dict[str, str | None] = {"samrt": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def usable_cpus() -> int:
    """Logical CPUs this process may use, at least 1: its affinity and its container's quota."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return max(1, min(len(os.sched_getaffinity(0)), _quota_cpus() or 2**16))


def _quota_cpus() -> int | None:
    """Whole CPUs that the control group allows (cgroup v2 ``cpu.max``), rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def physical_cores() -> int | None:
    """Physical cores among the CPUs this process may run on; ``None`` where that is unknown."""
    if sys.platform != "linux":
        return None
    cores = set()
    for cpu in os.sched_getaffinity(0):
        folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            package = (folder / "physical_package_id").read_text().strip()
            core = (folder / "core_id").read_text().strip()
        except OSError:
            return None
        cores.add((package, core))
    return len(cores) or None


@cache
def cpu_info() -> dict[str, Any]:
    """Model name and the instruction sets that matter for inference, as the system names them."""
    model, flags = platform.processor() or None, set()
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return {"model": model, "flags": [flag for flag in _FLAGS if flag in flags]}


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def environment() -> dict[str, Any]:
    """Everything about this machine and process in one JSON-ready dictionary."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_info(),
        "cpus_logical": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "cores_usable": physical_cores(),
        "memory_bytes": _memory_bytes(),
    }
