"""The instruction sets that this processor can run."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from samrt import _kernels


def usable() -> list[str]:
    native = _kernels.load()
    names = ["baseline"]
    if native.select_instruction_set("auto") != "baseline":
        names.append(native.select_instruction_set("auto"))
    return names


@pytest.fixture(autouse=True)
def _automatic_afterwards() -> Iterator[None]:
    yield
    _kernels.load().select_instruction_set("auto")


@pytest.fixture
def instruction_sets() -> list[str]:
    """Names for ``select_instruction_set``."""
    return usable()


@pytest.fixture(params=["baseline", "neon" if platform.machine() == "aarch64" else "avx2"])
def instruction_set(request: pytest.FixtureRequest) -> str:
    """Each set of inner loops in turn, selected."""
    name: str = request.param
    if name not in usable():
        pytest.skip(f"this processor has no {name}")
    return str(_kernels.load().select_instruction_set(name))
