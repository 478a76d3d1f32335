"""OpenVINO sends nothing: proven where the kernel ends any process that opens a network socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path
from types import ModuleType

import pytest

import samrt
from samrt.backends import openvino

HERE = Path(__file__).parent
SILENCERS = ("CI", "TF_BUILD", "JENKINS_URL")
"""Where one of these is set, OpenVINO's telemetry keeps still by itself and would prove nothing."""


def _tool() -> ModuleType:
    spec = util.spec_from_file_location("no_network", HERE / "no_network.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SUPPORTED: bool = _tool().SUPPORTED
NO_FILTER = pytest.mark.skipif(not SUPPORTED, reason="the filter is Linux's on x86-64 and AArch64")
NO_OPENVINO = pytest.mark.skipif(
    util.find_spec("openvino") is None, reason="the extra openvino is not installed"
)


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A process without a network, in a home folder of its own, as on a user's machine."""
    sources = [str(Path(samrt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in SILENCERS},
        "PYTHONPATH": os.pathsep.join(filter(None, sources)),
        "HOME": str(home),
        "SAMRT_CACHE": str(home / "cache"),
    }
    return subprocess.run(
        [sys.executable, str(HERE / "no_network.py"), code],
        cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@NO_FILTER
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_the_filter_ends_whoever_opens_a_socket(family: str, tmp_path: Path) -> None:
    result = run(f"import socket; socket.socket(socket.{family}); print('alive')", tmp_path)
    assert result.returncode == -signal.SIGSYS
    assert "alive" not in result.stdout
    assert run("import socket; socket.socket(socket.AF_UNIX)", tmp_path).returncode == 0


@NO_FILTER
@NO_OPENVINO
def test_the_whole_way_from_import_to_mask_opens_none(tmp_path: Path, bundle_path: Path) -> None:
    code = f"""
import numpy, samrt, sys
with samrt.load({str(bundle_path)!r}, backend="openvino", threads=1) as engine:
    engine.set_image(numpy.zeros((48, 80, 3), numpy.uint8))
    engine.predict(box=(4, 4, 60, 40))
assert "openvino" in sys.modules
sent = [m for m in sys.modules if m.split(".")[0] == "openvino_telemetry"]
assert not sent, sent
print("done")
"""
    result = run(code, tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["cache"], "something was left at home"


@NO_FILTER
@NO_OPENVINO
@pytest.mark.skipif(
    util.find_spec("openvino_telemetry") is None, reason="OpenVINO came without its telemetry"
)
def test_without_our_care_openvino_would_send(tmp_path: Path) -> None:
    """What the test above guards against is real: a plain import leaves an identity behind."""
    code = """
import openvino_telemetry.main as t
seen = []
t.TelemetrySender.send = lambda self, backend, message: seen.append(message)
import openvino
print(len(seen))
"""
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0


@NO_OPENVINO
def test_nothing_else_is_hidden_and_all_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    package, part = ModuleType("openvino_telemetry"), ModuleType("openvino_telemetry.main")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", package)
    monkeypatch.setitem(sys.modules, "openvino_telemetry.main", part)
    with openvino._hidden("openvino_telemetry"):
        for name in ("openvino_telemetry", "openvino_telemetry.main"):
            with pytest.raises(ImportError):
                import_module(name)
    assert sys.modules["openvino_telemetry"] is package
    assert sys.modules["openvino_telemetry.main"] is part
    assert openvino.import_openvino() is sys.modules["openvino"]
