"""`benchmarks/families.py` compares an export with its network where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra export)")


@pytest.mark.parametrize("verify", [False, True])
def test_the_comparison_is_asked_for(
    benchmark_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    verify: bool,
) -> None:  # fmt: skip
    import samrt_export
    from samrt_export import seeded

    asked: list[dict[str, Any]] = []

    def export(state: Any, out: Path, **options: Any) -> None:
        asked.append(options)
        out.mkdir()
        (out / "file").write_bytes(b"12345")

    monkeypatch.setattr(samrt_export, "export", export)
    monkeypatch.setattr(seeded, "seeded_state", lambda name, variant: {})
    families = benchmark_module("families")
    found = families.do_export("lite_medsam", "vit_t", tmp_path / "a.samrt", False, verify)
    assert [call["verify"] for call in asked] == [verify]
    assert found["export_verified"] is verify
    assert found["bundle_mb"] == 5e-6
