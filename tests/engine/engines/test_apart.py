"""The process that builds an engine: how it is talked to, and every way in which it may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import samrt
from samrt import BackendError, OptionError
from samrt.bundle import Bundle
from samrt.engines import apart_child
from samrt.engines.addresses import MALLOC, STACK_BYTES
from samrt.engines.apart import build, can_build_apart, converse, fixed_environment
from samrt.engines.options import BuildOptions

Ask = Callable[..., Any]
ROOT = str(Path(samrt.__file__).parent.parent)
HEAD = """
import json, os, signal, sys, time
def tell(**answer):
    print(json.dumps(answer), flush=True)
def read():
    return json.loads(sys.stdin.readline())
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """``ask("python code")``: the answer of a process that runs it."""

    def run(code: str, job: Any = None, progress: Any = None) -> Any:
        script = tmp_path / "child.py"
        script.write_text(HEAD + dedent(code))
        command = [sys.executable, str(script)]
        return converse(command, job or {}, tmp_path, "RTX building x.onnx", progress)

    return run


def test_an_answer_with_its_bytes(ask: Ask, tmp_path: Path) -> None:
    code = """
        job = read()
        tell(progress=["one", 0.5])
        content = bytes(range(256)) * 4096 + b"\\n{}"
        tell(built={"bytes": len(content), "cwd": os.getcwd(), "job": job})
        sys.stdout.buffer.write(content)
    """
    told: list[Any] = []
    job = {"file": "größe.onnx", "long": "x" * 300_000}
    facts, content = ask(code, job, lambda *words: told.append(words))
    assert content == bytes(range(256)) * 4096 + b"\n{}"
    assert (facts["cwd"], facts["job"]) == (str(tmp_path), job)
    assert told == [("one", 0.5)]


def test_progress_is_told_now_and_then(ask: Ask) -> None:
    told: list[float] = []
    code = """
        for step in range(500):
            tell(progress=["many", step / 500])
        tell(built={"bytes": 0})
    """
    ask(code, progress=lambda phase, fraction: told.append(fraction))
    assert 1 <= len(told) < 100


def test_errors_keep_their_class_and_their_text(ask: Ask) -> None:
    with pytest.raises(OptionError, match=r"^targets are odd$"):
        ask("tell(error={'kind': 'OptionError', 'text': 'targets are odd'})")
    with pytest.raises(BackendError, match=r"RTX building x\.onnx: the memory did not suffice"):
        ask("tell(error={'kind': 'MemoryError', 'text': ''})")
    with pytest.raises(RuntimeError, match="please report it:\nTraceback: bug") as caught:
        ask("tell(error={'kind': 'SystemExit', 'text': 'Traceback: bug'})")
    assert not isinstance(caught.value, BackendError)


@posix
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIGSEGV", r"the runtime's own code crashed \(SIGSEGV\); its last words: oh dear; export"),
        ("SIGABRT", r"the runtime's own code crashed \(SIGABRT\)"),
        ("SIGKILL", r"was ended from outside \(SIGKILL\).*mostly the memory did not suffice"),
    ],
)
def test_a_crash_is_one_clear_error(ask: Ask, capfd: Any, name: str, text: str) -> None:
    code = f"""
        read()
        tell(progress=["half", 0.5])
        print("noise\\n  oh   dear\\n", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.{name})
    """
    with pytest.raises(BackendError, match=text) as caught:
        ask(code)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("RTX building x.onnx: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit(7)",
        "read(); sys.exit(7)",
        "tell(built={'bytes': 10}); print('short', end=''); sys.exit(7)",
        "tell(progress=['half', 0.5]); print('{\"built', end=''); sys.exit(7)",
    ],
)
def test_an_end_without_an_engine(ask: Ask, code: str) -> None:
    with pytest.raises(BackendError, match="ended with code 7 and no engine; install"):
        ask(code, {"long": "x" * 300_000})


def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no process can be started"):
        converse([str(tmp_path / "absent")], {}, tmp_path, "RTX building x.onnx")


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time; one that nobody waits for counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interruption_leaves_nothing(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def interrupt(phase: str, fraction: float) -> None:
        pids.append(int(phase))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask("tell(progress=[str(os.getpid()), 0.5]); time.sleep(60)", progress=interrupt)
    assert gone(pids[0], 0.5)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of it")
def test_a_build_ends_with_its_parent(tmp_path: Path) -> None:
    """Also one that says nothing for a long time, as native code may."""
    child = tmp_path / "child.py"
    child.write_text(
        f"{HEAD}\nsys.path.insert(0, {ROOT!r})\n"
        "from samrt.engines.apart_child import _end_with_parent\n"
        "_end_with_parent()\ntell(progress=[str(os.getpid()), 0.5])\ntime.sleep(60)\n"
    )
    parent = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from pathlib import Path\n"
        "from samrt.engines.apart import converse\n"
        f"converse([sys.executable, {str(child)!r}], {{}}, Path({str(tmp_path)!r}), 'x',\n"
        "         lambda phase, fraction: print(phase, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not gone(pid, 0.1)
        process.kill()
    assert gone(pid)


def test_the_environment_is_a_short_list() -> None:
    found = fixed_environment(
        {
            "HOME": "/home/a", "PATH": "/bin", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/y",
            "CUDA_VISIBLE_DEVICES": "0", "NVIDIA_TF32_OVERRIDE": "0", "GLIBC_TUNABLES": "odd",
            "LD_LIBRARY_PATH": ":/opt/cuda/lib64:here:", "LANG": "de_DE", "MALLOC_ARENA_MAX": "1",
        }
    )  # fmt: skip
    if sys.platform == "win32":
        assert found["PATH"] == "/bin"
        return
    assert found == {
        "HOME": "/home/a", "CUDA_VISIBLE_DEVICES": "0", "NVIDIA_TF32_OVERRIDE": "0",
        "LD_LIBRARY_PATH": "/opt/cuda/lib64", "GLIBC_TUNABLES": MALLOC, "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
    }  # fmt: skip
    assert "LD_LIBRARY_PATH" not in fixed_environment({"LD_LIBRARY_PATH": ""})


def test_the_child_knows_the_limit_of_the_stack() -> None:
    assert apart_child._STACK_BYTES == STACK_BYTES
    assert getattr(signal, "SIGKILL", 9) == apart_child._SIGKILL


@pytest.mark.parametrize("kind", ["10", "rtx"])
def test_what_no_process_can_import_is_built_here(
    bundle: Bundle, make_fake: Callable[..., Any], kind: str
) -> None:
    api, artifact = make_fake(kind), bundle.artifact("decoder")
    assert not can_build_apart(api)
    path = bundle.file_of(artifact)
    built = build(api, path, artifact.inputs, artifact.outputs, BuildOptions())
    assert built.content == b'{"file": "decoder.onnx"}'
    assert "samrt's own process" in str(built.varying)
