from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import samrt
from samrt.engines.addresses import MALLOC, gaps, read_spans, start_of_gaps

MAPS = """\
555555554000-555555555000 r--p 00000000 fe:00 42    /usr/bin/python 3.11
700000001000-700000003000 rw-p 00000000 00:00 0
7ffff7fbe000-7ffff7fc2000 r--p 00000000 00:00 0     [vvar]
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0     [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
"""
WORK = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from samrt.engines.addresses import run_fixed
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
kept = [bytearray(int(n)) for n in sys.argv[2:]]
def work():
    return [libc.malloc(size) for size in (100, 5000, 10**6, 10**8)]
found, varying = run_fixed(work)
print(json.dumps([found, varying, len(os.sched_getaffinity(0))]))
"""
FAIL = """
import sys
sys.path.insert(0, sys.argv[1])
from samrt.engines.addresses import run_fixed
try:
    run_fixed(lambda: 1 / 0)
except ZeroDivisionError:
    print("raised")
"""
ROOT = str(Path(samrt.__file__).parent.parent)
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def run(script: str, *words: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, ROOT, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_gaps_end_at_the_stack() -> None:
    spans = read_spans(MAPS)
    assert [name for _, _, name in spans] == ["/usr/bin/python 3.11", "", "[vvar]", "[stack]"]
    assert start_of_gaps(spans) == 0x700000000000
    assert gaps(spans, 0x700000000000) == [
        (0x700000000000, 0x700000001000),
        (0x700000003000, 0x7FFFF7FBE000),
        (0x7FFFF7FC2000, 0x7FFFFFFDE000 - 64 * 2**20),
    ]


def test_what_reaches_over_the_start_is_left_alone() -> None:
    spans = [(0x6000, 0x8000, ""), (0x8800, 0x9000, "")]
    assert gaps(spans, 0x7000) == [(0x8000, 0x8800)]


def test_a_smaller_address_space() -> None:
    assert start_of_gaps([(0x1000, 0x2000, ""), ((1 << 39) - 8192, 1 << 39, "[stack]")]) == 7 << 36


@only_linux
def test_memory_is_where_it_was_whatever_came_before() -> None:
    answers = [
        json.loads(run(WORK, *words, GLIBC_TUNABLES=MALLOC, PADDING="x" * length))
        for words, length in (((), 1), (("1000", "70000", "3000000"), 9000), (("600",) * 99, 77))
    ]
    reasons = [varying for _, varying, _ in answers if varying]
    if reasons and "processor" not in reasons[0]:  # a busy machine does not change this
        pytest.skip(reasons[0])
    assert answers[0][0] == answers[1][0] == answers[2][0]
    assert [processors for _, _, processors in answers] == [1, 1, 1]


@only_linux
def test_what_is_missing_is_said() -> None:
    found, varying, _ = json.loads(run(WORK, GLIBC_TUNABLES=""))
    assert len(found) == 4
    assert "GLIBC_TUNABLES is not" in varying or "C library" in varying


@only_linux
def test_a_limit_on_memory_is_said_and_nothing_fails() -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
    found, varying, _ = json.loads(run(limit + WORK, GLIBC_TUNABLES=MALLOC))
    assert len(found) == 4
    assert "reserve addresses" in varying or "C library" in varying or "stack" in varying


def test_errors_come_out() -> None:
    assert run(FAIL) == "raised\n"
