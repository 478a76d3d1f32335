"""Other people's programs: DCMTK, dicom3tools, Orthanc. Tests are skipped where they are missing.

On Debian and Ubuntu: ``apt install dcmtk dicom3tools orthanc orthanc-dicomweb``. JPEG Lossless is
decoded too where ``pylibjpeg-libjpeg`` or ``python-gdcm`` is installed, which samrt does not need.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)
_PACKAGES = {
    "dciodvfy": "dicom3tools",
    "Orthanc": "orthanc",
}


@pytest.fixture(scope="session")
def tool() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """``tool("dcmdump", "-q", path)``; skips the test where the program is missing."""

    def run(*words: object, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        argv = [str(word) for word in words]
        if shutil.which(argv[0]) is None:
            package = _PACKAGES.get(argv[0], "dcmtk")
            pytest.skip(f"{argv[0]} is not installed (package {package})")
        result = subprocess.run(argv, capture_output=True, check=False, timeout=60)
        assert not check or result.returncode == 0, result.stderr
        return result

    return run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: its ports, and requests to it."""

    http: int
    dicom: int

    def get(self, path: str, accept: str = "application/json") -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: bytes = answer.read()
        return body

    def post(self, path: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}",
            data=body,
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def search(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.get(f"/dicom-web{path}", "application/dicom+json")
        )
        return found

    def retrieve(self, path: str) -> list[bytes]:
        """Parts of a WADO-RS answer."""
        body = self.get(f"/dicom-web{path}", 'multipart/related; type="application/dicom"')
        mark = body[: body.index(b"\r\n")]
        parts = body.split(mark)[1:-1]
        return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An Orthanc of our own on free ports of this machine, with DICOMweb, empty."""
    plugin = next((path for path in _PLUGINS if path.exists()), None)
    if shutil.which("Orthanc") is None or plugin is None:
        pytest.skip("Orthanc with DICOMweb is not installed (packages orthanc, orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    archive = Archive(_free_port(), _free_port())
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "HttpPort": archive.http,
        "DicomPort": archive.dicom,
        "DicomAet": "ARCHIVE",
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(path)], stdout=log, stderr=log)
    try:
        _wait(archive, process)
        yield archive
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(archive: Archive, process: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        if process.poll() is not None:
            pytest.skip("Orthanc is installed but does not start")
        try:
            archive.get("/system")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    pytest.skip("Orthanc is installed but does not answer")
