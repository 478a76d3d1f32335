"""The largest family is exported, comparison included, on a machine of 16 GB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra export)")

_WRITE = """
import sys
import torch
from samrt_export.seeded import seeded_state
torch.save(seeded_state(sys.argv[1], sys.argv[2] or None), sys.argv[3])
"""


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell peaks of processes")
@pytest.mark.parametrize(
    ("family", "variant", "most_gb"),
    [pytest.param("sam", "vit_h", 16.0, marks=pytest.mark.slow)],
)
def test_peak_of_an_export(family: str, variant: str, most_gb: float, tmp_path: Path) -> None:
    """8.8 GB were measured for ViT-H: the network, its session, and what a picture needs."""
    checkpoint, out = tmp_path / "seeded.pth", tmp_path / "seeded.samrt"
    subprocess.run([sys.executable, "-c", _WRITE, family, variant, str(checkpoint)], check=True)
    command = [sys.executable, "-m", "samrt", "export", str(checkpoint), "-o", str(out)]
    with (tmp_path / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (tmp_path / "said.txt").read_text("utf-8")[-2000:]
    assert (out / "manifest.json").is_file()
    unit = 1 if sys.platform == "darwin" else 1024
    assert usage.ru_maxrss * unit <= most_gb * 1e9
