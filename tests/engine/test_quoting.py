from __future__ import annotations

import pytest

from samrt.quoting import one_line


@pytest.mark.parametrize(
    ("error", "longest", "text"),
    [
        (ValueError("two\n  lines\tand more "), None, "two lines and more"),
        (KeyError(), None, "KeyError"),
        (RuntimeError("x" * 20), 20, "x" * 20),
        (RuntimeError("x" * 21), 20, "x" * 17 + "..."),
    ],
)
def test_somebody_elses_error_in_one_line(error: Exception, longest: int | None, text: str) -> None:
    assert one_line(error, longest) == text
