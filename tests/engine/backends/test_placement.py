"""Threads of ONNX Runtime's sessions step off the caller's processor before every run."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.backends import get_backend, onnxruntime, operators, placement
from samrt.backends.base import Session, SessionOptions
from samrt.bundle import Bundle, find_model

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="threads are placed on Linux, where there are two processors",
)
NAME = "samrt-session"


def session_threads() -> set[int]:
    """Numbers of the threads that samrt made for sessions."""
    tasks = Path("/proc/self/task")
    found = set()
    for task in tasks.iterdir():
        try:
            if (task / "comm").read_text().strip() == NAME:
                found.add(int(task.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.fixture
def pinned() -> Iterator[int]:
    """The test's thread stays on one processor; its number."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def open_encoder(threads: int = 2) -> Session:
    """The encoder of the shipped model, canonical: a graph without samrt's operators."""
    bundle = Bundle.open(find_model("tiny"))
    artifact = bundle.artifact("encoder")
    assert artifact.operators is None
    return get_backend("onnxruntime").open_artifact(bundle, artifact, SessionOptions(threads))


def run(session: Session) -> dict[str, NDArray[np.float32]]:
    """Once, on noise."""
    spec = session.inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    noise = np.random.default_rng(0).normal(size=shape).astype(spec.dtype)
    return session.run({spec.name: noise})


@pytest.fixture
def threads_of_encoder() -> Iterator[tuple[Session, list[int]]]:
    """A session with two threads, and the numbers of those that are not the caller's."""
    gc.collect()
    before = session_threads()
    session = open_encoder()
    yield session, sorted(session_threads() - before)
    session.close()


def test_a_session_of_two_threads_makes_one_helper(
    threads_of_encoder: tuple[Session, list[int]],
) -> None:
    assert len(threads_of_encoder[1]) == 1


def test_helpers_leave_the_callers_processor(
    threads_of_encoder: tuple[Session, list[int]],
) -> None:
    session, (helper,) = threads_of_encoder
    everywhere = os.sched_getaffinity(helper)
    assert everywhere == os.sched_getaffinity(0)
    found = []

    def on(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        run(session)
        found.append((cpu, os.sched_getaffinity(helper)))

    for cpu in sorted(everywhere)[:2]:
        caller = threading.Thread(target=on, args=(cpu,))
        caller.start()
        caller.join()
    assert found == [(cpu, everywhere - {cpu}) for cpu in sorted(everywhere)[:2]]


def test_processors_that_somebody_chose_are_kept_to(
    threads_of_encoder: tuple[Session, list[int]], pinned: int
) -> None:
    session, (helper,) = threads_of_encoder
    os.sched_setaffinity(helper, {pinned})
    run(session)
    assert os.sched_getaffinity(helper) == {pinned}


def test_the_answers_are_the_same(
    threads_of_encoder: tuple[Session, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "hire", lambda options: None)
    before = session_threads()
    free = open_encoder()
    assert session_threads() == before
    placed, plain = run(threads_of_encoder[0]), run(free)
    for name, values in plain.items():
        np.testing.assert_array_equal(placed[name], values)


def test_one_thread_makes_no_helper() -> None:
    before = session_threads()
    session = open_encoder(threads=1)
    assert session_threads() == before
    assert run(session)


def test_helpers_end_with_their_session() -> None:
    gc.collect()
    before = session_threads()
    session = open_encoder(threads=3)
    assert len(session_threads() - before) == 2
    run(session)
    session.close()
    del session
    gc.collect()
    assert session_threads() <= before


def test_crews_are_dismissed_with_their_session() -> None:
    asked: list[int] = []

    class Library:
        def samrt_ops_dismiss(self, number: int) -> None:
            asked.append(number)

    class Something:
        """Can be referred to weakly, as a session."""

    session = Something()
    placement.Crew(Library(), 7).serves(session)
    assert asked == []
    del session
    gc.collect()
    assert asked == [7]


def test_without_the_library_sessions_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("library_path", None), ("library_problem", "it is not installed")):
        monkeypatch.setattr(placement, name, lambda value=value: value)
    before = session_threads()
    session = open_encoder()
    assert session_threads() == before
    assert run(session)


def test_a_library_that_does_not_load_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "library_problem", lambda: "it does not load")
    assert operators.library_path() is not None
    session = open_encoder()
    assert run(session)


def test_many_sessions_and_callers_at_once() -> None:
    sessions = [open_encoder() for _ in range(3)]
    expected = run(sessions[0])
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(3):
            answer = run(sessions[number % len(sessions)])
            if any((answer[name] != values).any() for name, values in expected.items()):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
