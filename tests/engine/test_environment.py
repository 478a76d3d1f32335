from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import samrt
from samrt import environment as module


def test_everything_is_there_and_fits_into_json() -> None:
    found = json.loads(json.dumps(module.environment()))
    assert found["versions"]["samrt"] == samrt.__version__
    assert found["versions"]["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert found["versions"]["onnxruntime"]
    assert found["cpus_usable"] >= 1
    assert isinstance(found["cpu"]["flags"], list)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is a Linux notion here")
def test_affinity_and_quota_bound_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(module, "_quota_cpus", lambda: None)
    assert module.usable_cpus() == 6
    monkeypatch.setattr(module, "_quota_cpus", lambda: 2)
    assert module.usable_cpus() == 2


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000\n", None), ("200000 100000\n", 2), ("150000 100000\n", 2), ("", None)],
)
def test_the_container_quota_is_read(
    monkeypatch: pytest.MonkeyPatch, text: str, cpus: int | None
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, *args: text)
    assert module._quota_cpus() == cpus
