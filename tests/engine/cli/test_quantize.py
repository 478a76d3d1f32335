"""``samrt quantize``: what it asks for and what it refuses; its work is tested beside the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Cli


def test_help_names_what_it_takes(samrt_command: Cli) -> None:
    outcome = samrt_command("quantize", "--help")
    assert outcome.code == 0
    for word in ("--images", "--window", "--weights-only", "--convs", "--alone", "exit code 3"):
        assert word in " ".join(outcome.out.split())


def test_int8_needs_pictures(samrt_command: Cli) -> None:
    assert "--images" in samrt_command("quantize", "tiny").error


def test_no_such_model_or_folder(samrt_command: Cli, workplace: Path) -> None:
    pytest.importorskip("onnx")
    assert "no model named" in samrt_command("quantize", "nothing", "--images", ".").error
    words = ("-o", "x.samrt", "--images", "none")
    assert "not a folder" in samrt_command("quantize", "tiny", *words).error
    assert not list(workplace.iterdir())
    assert "holds no picture" in samrt_command("quantize", "tiny", *words[:-1], ".").error


def test_a_place_that_is_taken(samrt_command: Cli, workplace: Path) -> None:
    pytest.importorskip("onnx")
    (workplace / "x.samrt").mkdir()
    error = samrt_command("quantize", "tiny", "--weights-only", "-o", "x.samrt").error
    assert "exists" in error


@pytest.mark.parametrize(
    "words",
    [("--convs", "some"), ("--method", "guess"), ("--limit", "0"), ("--window", "a,b")],
)
def test_wrong_usage(samrt_command: Cli, words: tuple[str, ...]) -> None:
    outcome = samrt_command("quantize", "tiny", "--images", ".", *words)
    assert outcome.code == 2


def test_without_the_extra(samrt_command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("samrt_export.quantize")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [n for n in sys.modules if n.startswith("samrt_export")]:
        monkeypatch.delitem(sys.modules, name)
    error = samrt_command("quantize", "tiny", "--images", ".").error
    assert "samrt[export]" in error
