from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from samrt import BackendError, BackendUnavailableError, OptionError
from samrt.engines.api import Api, dtype_name, load_api, make_api, version_tuple
from samrt.engines.messages import BuildLog, make_logger

MakeFake = Callable[..., Api]


@pytest.mark.parametrize(
    ("kind", "flags", "targets", "timing", "validity"),
    [
        ("10", 2, (), True, False),
        ("11", 0, (), True, False),
        ("rtx", 2, ("sm86", "sm89"), False, True),
    ],
)
def test_differences_are_read_from_the_module(
    make_fake: MakeFake,
    kind: str,
    flags: int,
    targets: tuple[str, ...],
    timing: bool,
    validity: bool,
) -> None:
    can = make_fake(kind).capabilities
    assert can.network_flags == flags
    assert can.compute_capabilities == targets
    assert can.builds_without_gpu is bool(targets)
    assert (can.timing_cache, can.engine_validity) == (timing, validity)
    assert can.runtime_config is (kind == "rtx")
    assert can.progress_monitor


def test_without_strong_types_nothing_is_built(make_fake: MakeFake) -> None:
    module = make_fake("10").module
    del module.NetworkDefinitionCreationFlag
    with pytest.raises(BackendError, match="no strongly typed networks: it would choose"):
        make_api("tensorrt", module)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.19", "12.0.0", "unknown"])
def test_other_versions_are_refused(make_fake: MakeFake, version: str) -> None:
    module = make_fake("10").module
    module.__version__ = version
    with pytest.raises(BackendError, match=rf"TensorRT {version} is not supported.*10\.3"):
        make_api("tensorrt", module)


def test_a_module_without_its_parts_is_named(make_fake: MakeFake) -> None:
    module = make_fake("10").module
    del module.OnnxParser, module.Runtime
    with pytest.raises(BackendError, match="lacks Runtime, OnnxParser: install it again"):
        make_api("tensorrt", module)


def test_modules_are_tried_in_order(make_fake: MakeFake) -> None:
    tried: list[str] = []
    module = make_fake("rtx").module

    def importer(name: str) -> Any:
        tried.append(name)
        if name == "tensorrt_rtx":
            raise ImportError("No module named 'tensorrt_rtx'")
        return module

    api = load_api("tensorrt-rtx", importer)
    assert tried == ["tensorrt_rtx", "tensorrt_rtx_bindings"]
    assert (api.runtime, api.title) == ("tensorrt-rtx", "TensorRT-RTX 1.7.1.116")


@pytest.mark.parametrize("error", [ImportError("no\nmodule"), OSError("libnvinfer.so.10: missing")])
def test_a_runtime_that_cannot_be_imported(error: Exception) -> None:
    def importer(name: str) -> Any:
        raise error

    with pytest.raises(BackendUnavailableError, match=r"cannot be imported \(tensorrt: ") as caught:
        load_api("tensorrt", importer)
    assert "pip install 'samrt[tensorrt]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_runtime() -> None:
    with pytest.raises(OptionError, match="unknown runtime 'cuda': choose one of tensorrt, tens"):
        load_api("cuda")


def test_dtypes(make_fake: MakeFake) -> None:
    api = make_fake("10")
    types = api.module.DataType
    assert dtype_name(api, types.FLOAT) == "float32"
    assert dtype_name(api, types.HALF) == "float16"
    assert dtype_name(api, types.BF16) == "bf16"
    assert dtype_name(api, SimpleNamespace()).startswith("namespace")


def test_versions() -> None:
    assert version_tuple("10.3.0.30") == (10, 3, 0, 30)
    assert version_tuple("11.0b1") == (11, 0)
    assert version_tuple("x") == ()


def test_one_logger_tells_every_log(make_fake: MakeFake) -> None:
    """A runtime ignores all loggers but its first."""
    api = make_fake("10")
    first, second = BuildLog(), BuildLog()
    logger = make_logger(api, first)
    assert make_logger(api, second) is logger
    logger.log(1, "a\nb")
    logger.log(2, "careful")
    logger.log(3, "chatter")
    for log in (first, second):
        assert (log.errors, log.warnings) == (["a b"], ["careful"])
    del second, log
    logger.log(1, "c")
    assert first.errors == ["a b", "c"]
    assert len(logger.logs) == 1
    assert make_logger(make_fake("11"), first) is not logger
