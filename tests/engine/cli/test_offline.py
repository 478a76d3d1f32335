"""No verb but ``pull`` touches the network."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import samrt

ROOT = Path(__file__).parents[3]
# Any use of the network from Python raises an audit event before it happens.
WATCHED = """
import os, sys
EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
          "socket.bind", "urllib.Request", "http.client.connect")
def watch(event, args):
    if event in EVENTS:
        os.write(2, f"NETWORK {event} {args}\\n".encode())
        os._exit(99)
sys.addaudithook(watch)
from samrt.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    sources = [str(Path(samrt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sources))}
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, words)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "models",
        "models --json",
        "info",
        "verify BUNDLE",
        "infer PICTURE --box 318,293,382,375 --model BUNDLE -o out",
        "pull medsam",
        "pull edge_sam",
        "--help",
    ],
)
def test_no_network_is_used(line: str, bundle_path: Path, tmp_path: Path) -> None:
    picture = ROOT / "examples" / "ct_phantom.png"
    words = line.replace("BUNDLE", str(bundle_path)).replace("PICTURE", str(picture))
    result = run(tmp_path, *shlex.split(words))
    assert "NETWORK" not in result.stderr
    expected = 1 if line.startswith("pull") else 0
    assert result.returncode == expected, result.stderr


def test_the_watch_sees_a_download(tmp_path: Path) -> None:
    result = run(tmp_path, "pull", "mobile_sam")
    assert result.returncode == 99
    assert "NETWORK" in result.stderr
