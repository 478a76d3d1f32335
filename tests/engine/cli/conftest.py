"""A way to run the command in an empty folder, and pictures to run it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samrt.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error; fails if there is more or less than that."""
        assert self.code == 1, (self.code, self.out, self.err)
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("samrt: error: ")
        return lines[0]


Cli = Callable[..., Outcome]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def samrt_command(capfd: pytest.CaptureFixture[str], workplace: Path) -> Cli:
    """``samrt_command("infer", ...)`` in the empty folder."""

    def run(*argv: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in argv])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def infer(samrt_command: Cli, bundle_path: Path) -> Cli:
    """``infer(IMAGE, ...)`` with the committed model."""

    def run(*argv: object) -> Outcome:
        return samrt_command("infer", *argv, "--model", bundle_path)

    return run


@pytest.fixture
def png(tmp_path: Path, image: NDArray[np.uint8]) -> Path:
    """A colour picture, 80 wide and 48 high, outside the current folder."""
    path = tmp_path / "scan.png"
    Image.fromarray(image).save(path)
    return path
