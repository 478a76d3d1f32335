"""`benchmarks/printed.py`: blocks of the pages are filled, the rest is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PAGE = """# Page
<!-- printed by: python benchmarks/a.py --table -->

old

<!-- end -->
Between.
<!-- printed by: python benchmarks/b.py -->
<!-- end -->
<!-- end -->
"""


@pytest.fixture
def tool(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("printed")


def test_blocks_are_filled_once(tool: ModuleType) -> None:
    text, stale = tool.filled(PAGE, lambda words: f"<{words}>")
    assert stale == ["benchmarks/a.py --table", "benchmarks/b.py"]
    assert (
        text
        == """# Page
<!-- printed by: python benchmarks/a.py --table -->

<benchmarks/a.py --table>

<!-- end -->
Between.
<!-- printed by: python benchmarks/b.py -->

<benchmarks/b.py>

<!-- end -->
<!-- end -->
"""
    )
    assert tool.filled(text, lambda words: f"<{words}>") == (text, [])


def test_check_writes_nothing(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Callable[[], None]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(tool.filled, "__defaults__", (lambda words: "new",))
    assert tool.main(["--check", str(page)]) == 1
    assert page.read_text() == PAGE
    assert tool.main([str(page)]) == 0
    assert page.read_text().count("new") == 2
    assert tool.main(["--check", str(page)]) == 0


def test_a_command_that_fails_is_named(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"python benchmarks/not_there\.py ended with 2"):
        tool.printed("benchmarks/not_there.py")
