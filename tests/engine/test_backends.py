from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt import (
    BackendError,
    BackendUnavailableError,
    OptionError,
    available_backends,
    backends,
    environment,
)
from samrt.backends import BackendRow, get_backend, register_backend
from samrt.backends.base import Session, SessionOptions, TensorSpec, default_threads


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, BackendRow]:
    """A copy of the registry that the test may change."""
    rows = dict(backends._ROWS)
    monkeypatch.setattr(backends, "_ROWS", rows)
    return rows


def test_onnxruntime_is_there_and_is_what_auto_takes() -> None:
    found = {info.name: info for info in available_backends()}
    assert found["onnxruntime"].available, found["onnxruntime"].missing
    assert get_backend("auto").name == get_backend("onnxruntime").name == "onnxruntime"


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown backend 'cuda': choose one of auto, onnx"):
        get_backend("cuda")


def test_a_backend_that_lacks_something_says_what(registry: dict[str, BackendRow]) -> None:
    register_backend(BackendRow("far", "nowhere:None", ("no-such-thing", "nor-this"), "far"))
    info = {info.name: info for info in available_backends()}["far"]
    assert info.available is False
    assert len(info.missing) == 2
    assert info.missing[0].startswith("no-such-thing is not installed")
    with pytest.raises(
        BackendUnavailableError,
        match=r"far: no-such-thing is not installed.*, nor-this.*pip install samrt\[far\]",
    ):
        get_backend("far")
    assert get_backend("auto").name == "onnxruntime"


def test_auto_without_any_backend_lists_what_each_lacks(registry: dict[str, BackendRow]) -> None:
    registry.clear()
    register_backend(BackendRow("one", "nowhere:None", ("no-such-thing",)))
    register_backend(BackendRow("two", "nowhere:None", ("nor-this",)))
    with pytest.raises(BackendUnavailableError, match=r"one: no-such-thing.*; two: nor-this"):
        get_backend("auto")


def test_an_import_failure_is_reported_and_never_skipped(registry: dict[str, BackendRow]) -> None:
    registry.clear()
    register_backend(BackendRow("broken", "samrt.no_such_module:Backend", ("numpy",)))
    register_backend(backends.BackendRow("other", "samrt.backends.onnxruntime:X", ("numpy",)))
    with pytest.raises(BackendUnavailableError, match="'broken' is installed but cannot be impo"):
        get_backend("auto")


@pytest.mark.parametrize("name", ["onnxruntime", "auto"])
@pytest.mark.usefixtures("registry")
def test_a_name_is_given_once(name: str) -> None:
    with pytest.raises(OptionError, match=f"'{name}' is taken"):
        register_backend(BackendRow(name, "x:y", ()))


@pytest.mark.parametrize("threads", [0, -1, 257, 2.0, True, "2"])
def test_thread_counts_are_checked(threads: Any) -> None:
    with pytest.raises(OptionError, match="threads must be"):
        SessionOptions(threads=threads)


@pytest.mark.parametrize(
    ("usable", "cores", "threads"),
    [(64, 32, 8), (4, 2, 2), (2, 16, 2), (1, 1, 1), (6, None, 6), (64, None, 8)],
)
def test_default_threads_are_bounded(
    monkeypatch: pytest.MonkeyPatch, usable: int, cores: int | None, threads: int
) -> None:
    monkeypatch.setattr(environment, "usable_cpus", lambda: usable)
    monkeypatch.setattr(environment, "physical_cores", lambda: cores)
    assert default_threads() == threads
    assert SessionOptions().effective_threads == threads


def test_session_options_have_frugal_defaults() -> None:
    assert SessionOptions(threads=3).effective_threads == 3
    assert SessionOptions() == SessionOptions(threads=None, arena=None, spinning=None)


class Fake(Session):
    """Returns what it is told to."""

    def __init__(self, results: Mapping[str, NDArray[Any]] | None = None) -> None:
        inputs = [TensorSpec("a", "float32", ("N", 3)), TensorSpec("b", "int64", ("N",))]
        super().__init__("fake.onnx", inputs, [TensorSpec("y", "float32", ("N", 2))])
        self.results = {"y": np.ones((4, 2), np.float32)} if results is None else results
        self.seen: Mapping[str, NDArray[Any]] = {}

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen = feeds
        return dict(self.results)


def feeds(**changes: Any) -> dict[str, Any]:
    found = {"a": np.zeros((4, 3), np.float32), "b": np.zeros(4, np.int64), **changes}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"a": None}, "'a' is missing"),
        ({"c": np.zeros(1)}, "'c' is not an input"),
        ({"a": np.zeros((4, 3))}, r"'a' is float64\[4, 3\], expected a float32\[N, 3\]"),
        ({"a": np.zeros((4, 2), np.float32)}, r"'a' is float32\[4, 2\]"),
        ({"a": np.zeros(3, np.float32)}, r"'a' is float32\[3\]"),
        ({"b": np.zeros(5, np.int64)}, "size N is 4 in 'a' and 5 in 'b'"),
        ({"b": [0, 0, 0, 0]}, "'b' is list"),
        ({"a": None, "b": None}, "'a' is missing; 'b' is missing"),
    ],
)
def test_wrong_feeds_are_named(changes: dict[str, Any], text: str) -> None:
    session = Fake()
    with pytest.raises(BackendError, match=f"fake.onnx got wrong inputs: .*{text}"):
        session.run(feeds(**changes))
    assert session.seen == {}


def test_feeds_reach_the_runtime_contiguous() -> None:
    session = Fake()
    session.run(feeds(a=np.zeros((3, 4), np.float32).T))
    assert session.seen["a"].flags.c_contiguous


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ({}, "returned no 'y'"),
        ({"y": np.zeros((4, 2))}, r"returned 'y' as float64\[4, 2\], expected y float32\[N, 2\]"),
        ({"y": np.zeros((4, 3), np.float32)}, r"float32\[4, 3\]"),
        ({"y": np.zeros((4, 2, 1), np.float32)}, r"float32\[4, 2, 1\]"),
        ({"y": np.array([[1, np.nan]], np.float32)}, "computed NaN or infinity in 'y'"),
        ({"y": np.array([[1, np.inf]], np.float32)}, "computed NaN or infinity in 'y'"),
    ],
)
def test_wrong_results_never_get_out(results: dict[str, Any], text: str) -> None:
    with pytest.raises(BackendError, match=text):
        Fake(results).run(feeds())


def test_results_are_copies_where_the_runtime_keeps_its_buffer() -> None:
    buffer = np.ones((4, 4), np.float32)
    session = Fake({"y": buffer[:, :2]})
    first = session.run(feeds())["y"]
    buffer[:] = 9
    assert (first == 1).all()
    first[:] = 5
    assert (buffer == 9).all()


def test_a_closed_session_says_so() -> None:
    with Fake() as session:
        session.run(feeds())
    with pytest.raises(BackendError, match=r"fake\.onnx is closed: load it again"):
        session.run(feeds())
