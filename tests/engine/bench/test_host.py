"""The machine's state: read from files and programs that a test puts there."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from samrt.bench import host, nvml


def test_everything_is_ready_for_json() -> None:
    found = json.loads(json.dumps([host.host(), host.state()], allow_nan=False))
    assert found[0]["versions"]["samrt"]
    assert set(found[1]) >= {"governors", "clocks_mhz", "temperatures_c", "power_mode", "gpus"}


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree in place of the kernel's files."""
    for name in ("_CPUS", "_THERMAL", "_SUPPLIES", "_PROFILE", "_NVPMODEL_STATUS", "_DEVICE_TREE"):
        monkeypatch.setattr(host, name, tmp_path / name)
    monkeypatch.setattr(host, "affinity", lambda: [0, 1])
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_clocks_governors_and_temperatures(sysfs: Path) -> None:
    for cpu, now in ((0, "1400000"), (1, "2200000")):
        folder = sysfs / "_CPUS" / f"cpu{cpu}" / "cpufreq"
        put(folder / "scaling_cur_freq", now)
        put(folder / "scaling_min_freq", "800000")
        put(folder / "scaling_max_freq", "2200000")
        put(folder / "scaling_governor", "schedutil\n")
    put(sysfs / "_THERMAL" / "thermal_zone0" / "temp", "51500\n")
    put(sysfs / "_THERMAL" / "thermal_zone0" / "type", "cpu-thermal\n")
    put(sysfs / "_THERMAL" / "thermal_zone1" / "temp", "nonsense")
    put(sysfs / "_PROFILE", "balanced\n")
    put(sysfs / "_SUPPLIES" / "AC" / "online", "0")
    found = host.state()
    assert found["clocks_mhz"] == {
        "lowest": 1400.0, "highest": 2200.0, "floor": 800.0, "ceiling": 2200.0,
    }  # fmt: skip
    assert found["governors"] == ["schedutil"]
    assert found["temperatures_c"] == {"cpu-thermal": 51.5}
    assert (found["power_mode"], found["on_battery"]) == ("balanced", True)


def test_a_machine_that_hides_everything(sysfs: Path) -> None:
    found = host.state()
    assert (found["governors"], found["temperatures_c"]) == ([], {})
    assert (found["power_mode"], found["on_battery"], found["tegrastats"]) == (None, None, None)


@pytest.mark.skipif(sys.platform == "win32", reason="runs shell scripts")
def test_a_jetsons_programs_are_asked(
    sysfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    put(sysfs / "_NVPMODEL_STATUS", "pmode:0002")
    lines = {
        "nvpmodel": "echo 'NV Power Mode: 15W'; echo 2",
        "tegrastats": "while true; do echo 'RAM 1/2MB CPU [1%@729] GPU@40C'; sleep 0.1; done",
    }
    for name, line in lines.items():
        put(programs / name, f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(host.shutil, "which", lambda name: str(programs / name))
    found = host.state()
    assert found["power_mode"] == "NV Power Mode: 15W 2"
    assert found["tegrastats"] == "RAM 1/2MB CPU [1%@729] GPU@40C"


def test_peak_memory_grows_with_what_is_held() -> None:
    before = host.peak_rss_bytes()
    if before is None:
        pytest.skip("unknown on this system")
    block = bytearray(before + 50_000_000)
    block[::4096] = b"x" * len(block[::4096])
    after = host.peak_rss_bytes()
    assert after is not None
    assert after - before > 40_000_000


class FakeNvml:
    """One GPU; a reading in ``refused`` answers with an error."""

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused

    def __getattr__(self, name: str) -> Any:
        if name in self.refused:
            return lambda *args: 3
        return lambda *args: self.answer(name, args)

    def answer(self, name: str, args: tuple[Any, ...]) -> int:
        numbers = {
            "nvmlDeviceGetCount_v2": 1,
            "nvmlDeviceGetTemperature": 44,
            "nvmlDeviceGetPowerUsage": 70_000,
            "nvmlDeviceGetEnforcedPowerLimit": 300_000,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
        }
        if name == "nvmlDeviceGetName":
            args[1].value = b"GPU of a test"
        elif name == "nvmlDeviceGetMemoryInfo":
            args[1]._obj.used, args[1]._obj.total = 5, 80
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            args[1]._obj.value = 2
            args[2][0].pid, args[2][0].used = 12, 1000
            args[2][1].pid, args[2][1].used = 13, 2**64 - 1
        elif name == "nvmlDeviceGetClockInfo":
            args[2]._obj.value = 1500 + args[1]
        elif name in numbers:
            args[-1]._obj.value = numbers[name]
        return 0


def test_gpus_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_library", FakeNvml)
    (gpu,) = nvml.gpu_states()
    assert gpu == {
        "name": "GPU of a test", "memory_used_bytes": 5, "memory_total_bytes": 80,
        "temperature_c": 44, "clock_sm_mhz": 1501, "clock_memory_mhz": 1502,
        "power_mw": 70_000, "power_limit_mw": 300_000, "throttle": 4,
    }  # fmt: skip
    assert nvml.process_memory(12) == 1000
    assert nvml.process_memory(13) is None
    assert nvml.process_memory(14) is None


def test_what_a_gpu_does_not_say_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature")
    monkeypatch.setattr(nvml, "_library", lambda: FakeNvml(refused))
    (gpu,) = nvml.gpu_states()
    assert "power_mw" not in gpu
    assert "temperature_c" not in gpu


def test_no_gpu_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvml.gpu_states() == []
    assert nvml.process_memory() is None
