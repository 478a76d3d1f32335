"""What NVIDIA's management library says about the GPUs; nothing where it is not installed.

Called through ctypes, so that nothing has to be installed for it. Readings that a GPU does not
give are left out.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["gpu_states", "process_memory"]

_TEMPERATURE_GPU, _CLOCK_SM, _CLOCK_MEM = 0, 1, 2
_MOST_PROCESSES = 256
_NOT_AVAILABLE = 0xFFFFFFFFFFFFFFFF


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def _library() -> Any:
    """The library, initialised; ``None`` where there is none or no driver."""
    name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        library = ctypes.CDLL(name)
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def _devices(library: Any) -> list[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
            found.append(handle)
    return found


def gpu_states() -> list[dict[str, Any]]:
    """Per GPU: name, memory in use (bytes), temperature (°C), clocks (MHz), power (W), throttle.

    ``throttle`` is NVML's bit mask of the reasons why clocks are held down; 0 is none, 1 is idle.
    """
    library = _library()
    if library is None:
        return []
    states = [_state(library, handle) for handle in _devices(library)]
    library.nvmlShutdown()
    return states


def _state(library: Any, handle: ctypes.c_void_p) -> dict[str, Any]:
    name = ctypes.create_string_buffer(96)
    memory = _Memory()
    state: dict[str, Any] = {}
    if library.nvmlDeviceGetName(handle, name, 96) == 0:
        state["name"] = name.value.decode("utf-8", "replace")
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
        state["memory_used_bytes"] = int(memory.used)
        state["memory_total_bytes"] = int(memory.total)
    number = ctypes.c_uint()
    readings: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("temperature_c", lambda p: library.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU, p)),
        ("clock_sm_mhz", lambda p: library.nvmlDeviceGetClockInfo(handle, _CLOCK_SM, p)),
        ("clock_memory_mhz", lambda p: library.nvmlDeviceGetClockInfo(handle, _CLOCK_MEM, p)),
        ("power_mw", lambda p: library.nvmlDeviceGetPowerUsage(handle, p)),
        ("power_limit_mw", lambda p: library.nvmlDeviceGetEnforcedPowerLimit(handle, p)),
    )
    for key, call in readings:
        if call(ctypes.byref(number)) == 0:
            state[key] = int(number.value)
    mask = ctypes.c_ulonglong()
    if library.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(mask)) == 0:
        state["throttle"] = int(mask.value)
    return state


def process_memory(pid: int | None = None) -> int | None:
    """GPU memory in bytes that a process holds on all GPUs (this one where ``None``).

    ``None`` where it is unknown: no GPU, the process does not use one, or it lives in a container
    that hides its number.
    """
    library = _library()
    if library is None:
        return None
    wanted = os.getpid() if pid is None else pid
    total = None
    for handle in _devices(library):
        rows = (_Process * _MOST_PROCESSES)()
        count = ctypes.c_uint(_MOST_PROCESSES)
        if library.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), rows):
            continue
        for row in rows[: count.value]:
            if row.pid == wanted and row.used != _NOT_AVAILABLE:
                total = (total or 0) + int(row.used)
    library.nvmlShutdown()
    return total
