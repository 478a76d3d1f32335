"""The machine and how it is set up at this moment, as far as it can be read without rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from samrt.bench.nvml import gpu_states
from samrt.environment import environment

__all__ = ["affinity", "busy", "commit", "host", "peak_rss_bytes", "state"]

_CPUS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_DEVICE_TREE = Path("/proc/device-tree/model")
_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_SUPPLIES = Path("/sys/class/power_supply")
_NVPMODEL_STATUS = Path("/var/lib/nvpmodel/status")
_TIMEOUT_S = 5.0
_TEGRASTATS_S = 0.7
_BUSY_SHARE = 0.5


def host() -> dict[str, Any]:
    """What does not change during a run: versions, processor, cores, memory, GPUs, commit."""
    return {
        **environment(),
        "board": _text(_DEVICE_TREE),
        "affinity": affinity(),
        "gpus": [gpu.get("name") for gpu in gpu_states()],
        "commit": commit(),
    }


def state() -> dict[str, Any]:
    """What may change: load, clocks, governor, temperatures, power mode, GPUs.

    Clocks are in MHz, temperatures in °C. What cannot be read is ``None`` or empty.
    """
    return {
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "governors": sorted({t for t in _per_cpu("cpufreq/scaling_governor") if t}),
        "clocks_mhz": _clocks(),
        "temperatures_c": _temperatures(),
        "power_mode": _power_mode(),
        "on_battery": _on_battery(),
        "tegrastats": _tegrastats(),
        "gpus": gpu_states(),
    }


def busy(before: Mapping[str, Any], cpus: int | None) -> str | None:
    """Say so if other programs were running when a :func:`state` was read.

    Args:
        before: the state before a measurement begins.
        cpus: number of CPUs that may be used; ``None`` where that is unknown.

    Returns:
        A sentence if the load average of the last minute was above half the CPUs, else ``None``.
    """
    load = before["load_average"]
    if not load or not cpus or load[0] <= _BUSY_SHARE * cpus:
        return None
    return f"other programs were running: load average {load[0]:.1f} on {cpus} CPUs"


def affinity() -> list[int] | None:
    """Numbers of the CPUs that this process may run on; ``None`` where that is unknown."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else None


def commit() -> str | None:
    """Commit of the checkout that samrt runs from, ``-dirty`` if it was changed; else ``None``."""
    import samrt

    folder = Path(samrt.__file__).resolve().parent
    if not any((parent / ".git").exists() for parent in folder.parents[:3]):
        return None
    return _said(["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"])


def peak_rss_bytes() -> int | None:
    """Largest resident memory that this process has had; ``None`` where that is unknown.

    Linux's own figure for the process itself: ``getrusage`` would count its parent's memory from
    before the process was started.
    """
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def _per_cpu(name: str) -> list[str | None]:
    return [_text(_CPUS / f"cpu{cpu}" / name) for cpu in affinity() or []]


def _clocks() -> dict[str, Any]:
    """Lowest and highest clock of the CPUs now, and the limits; empty where they are hidden."""

    def mhz(name: str) -> list[float]:
        return [float(t) / 1e3 for t in _per_cpu(f"cpufreq/{name}") if t and t.isdigit()]

    now = mhz("scaling_cur_freq")
    if not now:
        with suppress(OSError, ValueError):
            lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
            now = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    if not now:
        return {}
    limits = mhz("scaling_min_freq"), mhz("scaling_max_freq")
    return {
        "lowest": min(now),
        "highest": max(now),
        "floor": min(limits[0]) if limits[0] else None,
        "ceiling": max(limits[1]) if limits[1] else None,
    }


def _temperatures() -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            name = _text(zone / "type") or zone.name
            found[name if name not in found else f"{name} {zone.name}"] = value / 1000.0
    return found


def _power_mode() -> str | None:
    """A Jetson's ``nvpmodel`` mode, or the platform profile of a PC."""
    status = _text(_NVPMODEL_STATUS)
    if status is not None:
        said = _said(["nvpmodel", "-q"]) if shutil.which("nvpmodel") else None
        return " ".join((said or status).split())
    return _text(_PROFILE)


def _on_battery() -> bool | None:
    online = [_number(path) for path in _SUPPLIES.glob("*/online")]
    return None if not online else not any(online)


def _tegrastats() -> str | None:
    """One line of a Jetson's ``tegrastats``: memory, load, clocks, temperatures, power rails."""
    if not shutil.which("tegrastats"):
        return None
    command = ["tegrastats", "--interval", "200"]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None
    try:
        output, _ = process.communicate(timeout=_TEGRASTATS_S)
    except subprocess.TimeoutExpired:  # it prints for ever
        process.kill()
        output, _ = process.communicate()
    lines = output.splitlines()
    return lines[0].strip() if lines else None


def _said(command: list[str]) -> str | None:
    """First output of a program, ``None`` if it is missing or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
