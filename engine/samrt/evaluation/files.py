"""The files of a run: read back, summarised, and written as reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samrt.evaluation.cases import draw_case, draw_pair, records_of
from samrt.evaluation.compare import KIND as COMPARISON_KIND
from samrt.evaluation.compare import compare, journal_of
from samrt.evaluation.dataset import Dataset, Target
from samrt.evaluation.journal import JOURNAL_NAME, read_header
from samrt.evaluation.pictures import png_bytes
from samrt.evaluation.report.comparison import comparison_html
from samrt.evaluation.report.html import Case, report_html
from samrt.evaluation.report.markdown import comparison_markdown, report_markdown
from samrt.evaluation.summary import dump, summarise
from samrt.evaluation.table import Table
from samrt.evaluation.volume_summary import summarise_volumes
from samrt.evaluation.volumes import VOLUMES_NAME
from samrt.imaging.write import check_targets, write_files

__all__ = ["Written", "check_folder", "write_comparison", "write_report"]

_REPORTS = ("eval.json", "eval.md", "eval.html")
_COMPARISONS = ("compare.json", "compare.md", "compare.html")


@dataclass(frozen=True, slots=True)
class Written:
    """A document and where its files lie."""

    document: dict[str, Any]
    files: tuple[Path, ...]


def check_folder(folder: Path, *, force: bool = False, comparison: bool = False) -> None:
    """Check, before any work is done, that reports may be written into a folder.

    Reports of an earlier run are replaced, files of somebody else are not.

    Raises:
        OutputError: there are such files and ``force`` is false, or the folder is not writable.
    """
    names = _COMPARISONS if comparison else _REPORTS
    sign = folder / (names[0] if comparison else JOURNAL_NAME)
    ours = sign.is_file()
    if ours and comparison:
        with sign.open(encoding="utf-8", errors="replace") as stream:
            ours = f'"kind": "{COMPARISON_KIND}"' in stream.read(200)
    check_targets((folder / name for name in names), force=force or ours)


def write_report(
    folder: Path,
    dataset: Dataset,
    targets: Sequence[Target],
    *,
    volumes: bool = False,
    **more: Any,
) -> Written:
    """Summarise the journal in a folder and write ``eval.json``, ``eval.md`` and ``eval.html``.

    Args:
        folder: of the run.
        dataset: to draw cases from.
        targets: the targets of the run.
        volumes: whether whole volumes were part of the run.
        more: further parts of the document, such as the environment.
    """
    journal = folder / JOURNAL_NAME
    table = Table.read(journal)
    if volumes:
        more["volumes"] = summarise_volumes(folder / VOLUMES_NAME)
    document = summarise(table, read_header(journal)["config"], **more)
    strategy = document["main_strategy"]
    wanted = {key: what for picks in document["examples"].values() for what, key in picks.items()}
    records = records_of(journal, wanted)
    cases = []
    for target in targets:
        if target.key in wanted:
            record = records[target.key]
            picture = draw_case(dataset, target, record, strategy)
            value = record["strategies"][strategy]["deployable"]["dice"]
            cases.append(Case(target.set, wanted[target.key], target, value, picture))
    files = {
        folder / _REPORTS[0]: dump(document),
        folder / _REPORTS[1]: report_markdown(document),
        folder / _REPORTS[2]: report_html(document, table, cases),
    }
    write_files({path: _bytes(text) for path, text in files.items()}, force=True)
    return Written(document, tuple(files))


def write_comparison(folder: Path, first: Path, second: Path, dataset: Dataset | None) -> Written:
    """Compare two runs; write ``compare.json``, ``.md``, ``.html`` and pictures of worst cases.

    Args:
        folder: where to write.
        first, second: the runs.
        dataset: to draw the worst cases from; ``None`` draws none.
    """
    document = compare(first, second)
    pictures = _worst_pictures(document, first, second, dataset) if dataset is not None else {}
    files: dict[Path, bytes] = {}
    for number, (key, picture) in enumerate(pictures.items()):
        name = f"worst/{number + 1:02d}.png"
        next(w for w in document["worst"] if w["key"] == key)["picture"] = name
        files[folder / name] = png_bytes(picture)
    texts = (
        dump(document),
        comparison_markdown(document),
        comparison_html(document, list(pictures.values())),
    )
    files |= {folder / n: _bytes(t) for n, t in zip(_COMPARISONS, texts, strict=True)}
    write_files(files, force=True)
    return Written(document, tuple(files))


def _bytes(text: str) -> bytes:
    """UTF-8; what a file name holds beyond that is written as an escape."""
    return text.encode("utf-8", "backslashreplace")


def _worst_pictures(
    document: Mapping[str, Any], first: Path, second: Path, dataset: Dataset
) -> dict[str, Any]:
    keys = [w["key"] for w in document["worst"]]
    by_key = {t.key: t for t in dataset.targets if t.key in keys}
    one, two = (records_of(journal_of(path), keys) for path in (first, second))
    strategy = document["main_strategy"]
    return {
        key: draw_pair(dataset, by_key[key], (one[key], two[key]), strategy)
        for key in keys
        if key in by_key
    }
