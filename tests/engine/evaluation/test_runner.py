"""Runs: what is recorded, what survives an interruption, what is the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samrt.errors import BackendError, DatasetError, ImageError, OptionError, OutputError
from samrt.evaluation import everything, runner
from samrt.evaluation.dataset import choose
from samrt.evaluation.formats import open_dataset
from samrt.evaluation.journal import JOURNAL_NAME, Journal, read_header, read_records
from samrt.evaluation.report.words import method
from samrt.evaluation.runner import Plan, check_plan, config_of, evaluate
from samrt.evaluation.strategies import parse_jitter
from samrt.imaging.rle import rle_to_mask

pytest.importorskip("scipy")

PLAN = Plan(("S2", "S4", "S5"), parse_jitter("0-4,4-8"), clicks=4, seed=1)


def go(engine: Any, dataset: Any, folder: Path, plan: Plan = PLAN, **options: Any) -> Path:
    """Run everything; returns the journal."""
    targets = choose(dataset)
    config = config_of(engine, dataset, targets, plan)
    with Journal(folder / JOURNAL_NAME, config, **options) as journal:
        evaluate(engine, dataset, targets, plan, journal)
    return folder / JOURNAL_NAME


def without_times(path: Path) -> list[dict[str, Any]]:
    return [r for r in read_records(path) if r.pop("image_ms", 1) or True]


def test_what_is_recorded(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    engine = fake_engine(data, exact_after=3)
    records = list(read_records(go(engine, data, tmp_path / "run")))
    assert [r["key"] for r in records] == [t.key for t in data.targets]
    assert engine.encoded == 4
    record = records[0]
    assert record["image_ms"]["encode"] == 20.0
    assert records[1]["image_ms"] is None
    box = record["strategies"]["S5"]
    truth = data.read_mask(data.targets[0])
    grown = rle_to_mask(box["rle"])
    assert (box["oracle"]["index"], box["deployable"]["index"], box["masks"]) == (1, 0, 3)
    assert (box["oracle"]["dice"], box["oracle"]["hd"]) == (1.0, 0.0)
    wanted = 2 * (grown & truth).sum() / (grown.sum() + truth.sum())
    assert box["deployable"]["dice"] == pytest.approx(wanted, abs=1e-6)
    assert box["deployable"]["hd"] == 1.0
    assert box["box"] == [9.0, 14.0, 31.0, 36.0]
    # the ten points of S4 make the fake rank the exact mask best
    assert record["strategies"]["S4"]["deployable"]["index"] == 1
    assert record["strategies"]["S4"]["labels"] == [1] * 5 + [0] * 5
    assert record["clicks"]["dice"][2:] == [1.0, 1.0]
    assert set(record["jitter"]) == {"0-4", "4-8"}
    assert 0.5 < record["ellipse"]["dice"] <= 1.0
    assert box["decode_prompt_ms"] == 2.0


def test_the_same_run_gives_the_same_records(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    runs = []
    for name in "ab":
        data = open_dataset(folder_data)
        runs.append(without_times(go(fake_engine(data), data, tmp_path / name)))
    assert runs[0] == runs[1]
    data = open_dataset(folder_data)
    other = Plan(PLAN.strategies, PLAN.jitter, PLAN.clicks, seed=2)
    found = without_times(go(fake_engine(data), data, tmp_path / "c", other))
    assert found != runs[0]
    assert [r["strategies"] for r in found] == [r["strategies"] for r in runs[0]]


class Stop(KeyboardInterrupt):
    pass


def test_refining_is_asked_for_everywhere_and_told(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    engine = fake_engine(data)
    go(engine, data, tmp_path / "plain")
    assert set(engine.refined) == {0}
    assert "refine_steps" not in read_header(tmp_path / "plain" / JOURNAL_NAME)["config"]
    engine = fake_engine(data)
    plan = Plan(PLAN.strategies, PLAN.jitter, PLAN.clicks, seed=1, refine_steps=2)
    journal = go(engine, data, tmp_path / "refined", plan)
    assert set(engine.refined) == {2}
    config = read_header(journal)["config"]
    assert config["refine_steps"] == 2
    document = {"config": config}
    assert any("asked 2 times more" in line for line in method(document))


def test_an_interrupted_run_goes_on(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    whole = without_times(go(fake_engine(data), data, tmp_path / "whole"))
    engine = fake_engine(data)
    decode, calls = engine.decode, []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise Stop
        return decode(*args, **options)

    engine.decode = failing
    with pytest.raises(Stop):
        go(engine, data, tmp_path / "run")
    path = tmp_path / "run" / JOURNAL_NAME
    kept = len(list(read_records(path)))
    assert 0 < kept < 8
    with path.open("ab") as stream:  # a crash in the middle of a line
        stream.write(b'{"key":"images/case')
    engine.decode = decode
    asked = len(engine.prompts)
    go(engine, data, tmp_path / "run")
    assert without_times(path) == whole
    assert engine.encoded < 4 + 3
    assert len(engine.prompts) - asked < 8 * (5 + 4)
    before = path.read_bytes()
    again = fake_engine(data)
    go(again, data, tmp_path / "run")
    assert (again.encoded, path.read_bytes()) == (0, before)


def test_other_settings_are_not_mixed(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    path = go(fake_engine(data), data, tmp_path)
    before = path.read_bytes()
    other = Plan(("S5",), seed=1)
    with pytest.raises(OutputError, match=r"another run \(clicks, jitter_px, strategies differ\)"):
        go(fake_engine(data), data, tmp_path, other)
    assert path.read_bytes() == before
    go(fake_engine(data), data, tmp_path, other, force=True)
    assert set(next(read_records(path))["strategies"]) == {"S5"}


def test_two_processes_do_not_write_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        Journal(tmp_path / "j", {"a": 1}),
        pytest.raises(OutputError, match="written by another run"),
    ):
        Journal(tmp_path / "j", {"a": 1})
    with Journal(tmp_path / "j", {"a": 1}) as journal:
        assert journal.resumed


def test_a_damaged_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, {"a": 1}) as journal:
        journal.add({"key": "x"})
    path.write_bytes(path.read_bytes() + b"garbage\n" + b'{"key":"y"}\n')
    with pytest.raises(DatasetError, match=r"line 3 of .* is damaged"):
        list(read_records(path))
    path.write_bytes(b"not json\n")
    with pytest.raises(DatasetError, match="no record"):
        list(read_records(path))
    with pytest.raises(OutputError, match="belongs to another run"):
        Journal(path, {"a": 1})
    path.write_bytes(b'{"samrt_eval": 99, "config": {}}\n')
    with pytest.raises(DatasetError, match="no record"):
        list(read_records(path))


def test_a_bad_image_stops_or_is_noted(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    (folder_data / "images" / "case1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ImageError, match="case1"):
        go(fake_engine(data), data, tmp_path / "a")
    assert len(list(read_records(tmp_path / "a" / JOURNAL_NAME))) == 2
    skipping = Plan(("S5",), skip_bad=True)
    records = list(read_records(go(fake_engine(data), data, tmp_path / "b", skipping)))
    assert len(records) == 8
    assert [r["key"] for r in records if "error" in r] == [t.key for t in data.targets[2:4]]


def test_an_image_of_another_size_is_an_error(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    from PIL import Image

    data = open_dataset(folder_data)
    Image.fromarray(np.zeros((61, 80), np.uint8)).save(folder_data / "images" / "case0.png")
    with pytest.raises(DatasetError, match="must have the same size"):
        go(fake_engine(data), data, tmp_path)


def test_a_failing_runtime_is_not_skipped(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    engine = fake_engine(data)

    def broken(*_: Any, **__: Any) -> Any:
        raise BackendError("out of order")

    engine.decode = broken
    with pytest.raises(BackendError, match="out of order"):
        go(engine, data, tmp_path, Plan(("S5",), skip_bad=True))


def test_everything_mode_is_matched_by_overlap(
    folder_data: Path,
    fake_engine: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = open_dataset(folder_data)

    class Generator:
        def generate(self, image: Any) -> Any:
            size = image.original_size
            disc, block = (data.read_mask(t) for t in data.targets[:2])
            rest = np.zeros(size, np.bool_)
            rest[50:] = True
            ratings = (0.7, 0.6, 0.99)
            return [
                {"segmentation": m, "predicted_iou": p}
                for m, p in zip((disc, block, rest), ratings, strict=True)
            ]

    monkeypatch.setattr(runner, "make_generator", lambda engine: Generator())
    engine = fake_engine(data)
    records = list(read_records(go(engine, data, tmp_path, Plan(("S1", "S5")))))
    first, second = (r["strategies"]["S1"] for r in records[:2])
    assert (first["masks"], first["oracle"]["index"], first["oracle"]["dice"]) == (3, 0, 1.0)
    assert (second["oracle"]["index"], second["oracle"]["dice"]) == (1, 1.0)
    assert first["deployable"]["index"] == second["deployable"]["index"] == 2
    assert (first["deployable"]["dice"], first["deployable"]["score"]) == (0.0, 0.99)
    assert records[0]["image_ms"]["everything"] > 0
    assert engine.encoded == 4


def test_everything_mode_that_finds_nothing() -> None:
    class Nothing:
        def generate(self, image: Any) -> Any:
            return []

    class Embedding:
        original_size = (4, 5)

    truth = np.ones((4, 5), np.bool_)
    (match,) = everything.match_targets(Nothing(), Embedding(), [truth])  # type: ignore[arg-type]
    assert (match.masks, match.oracle[0], match.score) == (0, -1, None)
    assert not match.oracle[1].any()
    assert not match.deployable[1].any()


def test_a_plan_is_checked() -> None:
    check_plan(PLAN)
    for bad in (
        Plan(()),
        Plan(("S5",), clicks=101),
        Plan(("S5",), clicks=-1),
        Plan(("S5",), seed=-1),
        Plan(("S5",), tolerance=float("nan")),
    ):
        with pytest.raises(OptionError):
            check_plan(bad)


def test_a_record_is_one_line_of_strict_json(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    lines = go(fake_engine(data), data, tmp_path).read_text().splitlines()
    assert len(lines) == 9

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for line in lines:
        json.loads(line, parse_constant=refuse)
