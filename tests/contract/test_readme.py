"""The commands in the README work as they stand.

Fenced blocks marked ``sh run`` are run by bash, ``python`` ones by Python, each in a folder of
its own with a copy of ``examples/`` in it. In all other shell blocks the commands are checked:
bash can parse them, verbs and options of ``samrt`` exist, targets of ``make`` exist.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import samrt
from samrt.cli import build_parser
from samrt.cli._numbers import join_values

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md", "CONTRIBUTING.md", "examples/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)  # fmt: skip
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "sh run", "bash", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text("utf-8") if path.exists() else ""
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1].strip(), match[2]))
    return found


ALL = blocks()
RUNNABLE = [block for block in ALL if block.kind in ("sh run", "python")]
COMMANDS = [block for block in ALL if block.kind in SHELL]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block; comments and continued lines understood."""
    text = block.text.replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The current environment with this Python's scripts first and a ``samrt`` command."""
    scripts = Path(sys.executable).parent
    path = [str(scripts), os.environ.get("PATH", "")]
    if not (scripts / "samrt").exists():  # run from the sources: stand in for the script
        stand_in = tmp_path_factory.mktemp("bin") / "samrt"
        stand_in.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m samrt "$@"\n')
        stand_in.chmod(0o755)
        path.insert(0, str(stand_in.parent))
    sources = [str(Path(samrt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    joined = os.pathsep.join(filter(None, sources))
    return {**os.environ, "PATH": os.pathsep.join(path), "PYTHONPATH": joined}


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_block_runs(block: Block, folder: Path, environment: dict[str, str]) -> None:
    if "tiny" not in samrt.available_models():
        pytest.skip("the model 'tiny' is not there")
    if block.kind == "python":
        command = [sys.executable, "-W", "error", "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_block_can_be_parsed(block: Block) -> None:
    result = subprocess.run(
        ["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{block}: {result.stderr}"


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_of_block_exist(block: Block) -> None:
    for words in commands(block):
        if words[0] == "samrt":
            check_samrt(words[1:], block)
        elif words[0] == "make":
            check_make(words[1:], block)
        elif words[0].startswith("python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), f"{block}: {words[1]} is missing"


def check_samrt(words: list[str], block: Block) -> None:
    """Parse the words as the command would; files need not exist."""
    try:
        build_parser().parse_args(join_values(words))
    except SystemExit as exc:
        assert exc.code == 0, f"{block}: samrt {shlex.join(words)}"  # noqa: PT017
    except argparse.ArgumentError as exc:
        pytest.fail(f"{block}: {exc}")


def check_make(words: list[str], block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in (word for word in words if "=" not in word and not word.startswith("-")):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{block}: {target}"


def test_the_readme_has_commands_to_run() -> None:
    assert any(block.kind == "sh run" and block.page == "README.md" for block in ALL)


def test_links_to_files_lead_somewhere() -> None:
    for page in PAGES:
        path = ROOT / page
        if not path.exists():
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{page}: {target}"


def test_tables_of_families_are_those_of_the_recorded_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "table.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "README.md").read_text("utf-8")
    for table in done.stdout.strip().split("\n\n"):
        assert table in page, "run benchmarks/table.py and put its tables into the README"


MARK = "<!-- printed by: "
SHOWS_TARGETS = ("README.md", "docs/performance.md")


def marked() -> list[str]:
    """Pages with a table between `<!-- printed by: python benchmarks/NAME.py -->` and its end."""
    paths = {page: ROOT / page for page in PAGES}
    return [p for p, path in paths.items() if path.exists() and MARK in path.read_text("utf-8")]


@pytest.mark.parametrize("page", marked())
def test_printed_tables_are_those_of_the_recorded_results(
    page: str, benchmark_module: Callable[[str], ModuleType]
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (extra export)")
    text, printed = (ROOT / page).read_text("utf-8"), benchmark_module("printed")
    assert len(printed.BLOCK.findall(text)) == text.count(MARK), "a block is not closed"
    _, stale = printed.filled(text)
    assert not stale, f"{page} is out of date: run benchmarks/printed.py"


@pytest.mark.parametrize("page", SHOWS_TARGETS)
def test_the_table_of_targets_is_shown(page: str) -> None:
    assert f"{MARK}python benchmarks/targets.py -->" in (ROOT / page).read_text("utf-8")
