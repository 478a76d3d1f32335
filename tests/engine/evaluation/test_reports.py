"""Summaries, comparisons, and the pages that show them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samrt.errors import DatasetError, OutputError
from samrt.evaluation.compare import compare
from samrt.evaluation.dataset import choose
from samrt.evaluation.files import check_folder, write_comparison, write_report
from samrt.evaluation.formats import open_dataset
from samrt.evaluation.journal import JOURNAL_NAME, Journal, read_records
from samrt.evaluation.runner import Plan, config_of, evaluate
from samrt.evaluation.segs import write_segs
from samrt.evaluation.strategies import parse_jitter
from samrt.evaluation.table import Table, bucket_of

pytest.importorskip("scipy")

PLAN = Plan(("S2", "S5"), parse_jitter("0-4,4-8"), clicks=3)
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


class Strict(HTMLParser):
    """Fails on tags that do not match; notes every address and visible text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [k for k, _ in attrs if k in ("href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Strict:
    """Parse a page and check that it is closed, self-contained and complete."""
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert all(a.startswith("data:image/") for a in parser.addresses)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "nan" not in re.sub(r"data:[^\"]+", "", page).lower().split()
    return parser


@pytest.fixture
def make_run(fake_engine: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """``make_run(root, "name")``: a finished run of the fake engine with its reports."""

    def make(root: Path, name: str, plan: Plan = PLAN, **options: Any) -> Path:
        data = open_dataset(root)
        engine = fake_engine(data, **options)
        targets = choose(data)
        folder = tmp_path / name
        config = config_of(engine, data, targets, plan)
        with Journal(folder / JOURNAL_NAME, config) as journal:
            evaluate(engine, data, targets, plan, journal)
        write_report(folder, data, targets, data={"path": str(root)}, remarks=["a < b & c"])
        return folder

    return make


def test_the_document_holds_the_means_of_the_records(
    index_data: Path, make_run: Callable[..., Path]
) -> None:
    folder = make_run(index_data, "run")
    document = json.loads((folder / "eval.json").read_text())
    records = list(read_records(folder / JOURNAL_NAME))
    assert document["counts"] == {"targets": 12, "images": 6, "sets": 2, "skipped": 0}
    groups = document["groups"]
    assert set(groups["set"]) == {"alpha", "beta"}
    assert set(groups["part"]) == {"beta: even", "beta: odd"}
    assert set(groups["modality"]) == {"CT", "MR"}
    for name in ("alpha", "beta"):
        own = [r for r in records if r["set"] == name]
        figures = groups["set"][name]["figures"]
        mean = np.mean([r["strategies"]["S5"]["deployable"]["dice"] for r in own])
        assert figures["S5.deployable.dice"][0] == pytest.approx(mean, abs=1e-5)
        assert figures["S5.oracle.dice"] == [1.0, 1.0, 1.0, 6]
        clicks = np.mean([r["clicks"]["dice"][2] for r in own])
        assert figures["click 3.dice"][0] == pytest.approx(clicks, abs=1e-5)
        jitter = np.mean([r["jitter"]["4-8"]["deployable"] for r in own])
        assert figures["jitter 4-8.deployable.dice"][0] == pytest.approx(jitter, abs=1e-5)
    both = [groups["set"][n]["figures"]["S5.deployable.nsd"][0] for n in ("alpha", "beta")]
    macro = groups["all"]["mean of sets"]["figures"]["S5.deployable.nsd"]
    assert macro[0] == pytest.approx(np.mean(both), abs=1e-5)
    assert macro[1] <= macro[0] <= macro[2]
    assert document["times_ms"]["encode"] == {"n": 6, "mean": 20.0, "p50": 20.0, "p90": 20.0}
    assert document["times_ms"]["decode_prompt"]["n"] == 24


def test_the_reports_say_the_same(index_data: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(index_data, "run")
    document = json.loads((folder / "eval.json").read_text())
    dice = f"{document['groups']['set']['alpha']['figures']['S5.deployable.dice'][0]:.3f}"
    markdown = (folder / "eval.md").read_text()
    assert re.search(rf"\| alpha \| 6 \|.*{dice} \[", markdown)
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    page = (folder / "eval.html").read_text()
    parser = checked(page)
    text = " ".join(parser.text)
    assert dice in text
    assert "a < b & c" in text
    assert len(parser.addresses) == 6  # best, median and worst of two sets
    assert page.count("<svg") == 5


def test_names_from_the_data_cannot_break_the_page(
    folder_data: Path, make_run: Callable[..., Path]
) -> None:
    facts = {"name": '<b>"x"', "modality": "<script>alert(1)</script>", "labels": {"1": "a|b"}}
    (folder_data / "dataset.json").write_text(json.dumps(facts))
    folder = make_run(folder_data, "run")
    parser = checked((folder / "eval.html").read_text())
    assert any('<b>"x"' in text for text in parser.text)
    heads = [line for line in (folder / "eval.md").read_text().splitlines() if "---" in line]
    assert heads


def test_file_names_of_any_bytes(folder_data: Path, make_run: Callable[..., Path]) -> None:
    name = os.fsdecode(b"case\xff \xc3\xa4")
    for folder in ("images", "masks"):
        try:
            (folder_data / folder / "case0.png").rename(folder_data / folder / f"{name}.png")
        except OSError:
            pytest.skip("this file system takes no such names")
    folder = make_run(folder_data, "run")
    keys = [r["key"] for r in read_records(folder / JOURNAL_NAME)]
    assert any(name in key for key in keys)
    checked((folder / "eval.html").read_text("utf-8"))


def test_a_page_of_the_least(folder_data: Path, make_run: Callable[..., Path]) -> None:
    """One strategy, no curves, one image: no intervals, and no plot that needs them."""
    for number in (1, 2, 3):
        (folder_data / "images" / f"case{number}.png").unlink()
    folder = make_run(folder_data, "run", Plan(("S2",)))
    page = (folder / "eval.html").read_text()
    checked(page)
    assert page.count("<svg") == 3
    document = json.loads((folder / "eval.json").read_text())
    assert document["main_strategy"] == "S2"
    assert document["groups"]["set"]["shapes"]["figures"]["S2.deployable.dice"][1] is None


def test_skipped_targets_are_named(
    folder_data: Path, fake_engine: Callable[..., Any], tmp_path: Path
) -> None:
    data = open_dataset(folder_data)
    (folder_data / "images" / "case3.png").write_bytes(b"x")
    plan = Plan(("S5",), skip_bad=True)
    engine, targets = fake_engine(data), choose(data)
    with Journal(tmp_path / "r" / JOURNAL_NAME, config_of(engine, data, targets, plan)) as journal:
        evaluate(engine, data, targets, plan, journal)
    written = write_report(tmp_path / "r", data, targets)
    assert written.document["counts"]["skipped"] == 2
    assert "case3" in (tmp_path / "r" / "eval.md").read_text()


def test_size_buckets() -> None:
    assert [bucket_of(s) for s in (0.0005, 0.001, 0.05, 0.1, 1.0)] == [
        "under 0.1 %", "0.1 to 1 %", "1 to 10 %", "over 10 %", "over 10 %",
    ]  # fmt: skip


# -- comparing --------------------------------------------------------------------------------


def test_a_run_equals_itself(index_data: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(index_data, "run")
    found = compare(folder, folder / "eval.json")["strategies"]["S5"]
    assert found["mean of sets"]["dice_difference"] == [0.0, 0.0, 0.0, 12]
    assert found["mean of sets"]["mask_iou"] == [1.0, 1.0, 1.0, 12]
    assert (found["largest_drop"], found["lowest_mask_iou"]) == (0.0, 1.0)


def test_what_a_worse_run_loses(
    index_data: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    better = make_run(index_data, "better", exact_after=1)
    worse = make_run(index_data, "worse")
    document = write_comparison(tmp_path / "c", better, worse, open_dataset(index_data)).document
    point, box = (document["strategies"][s] for s in ("S2", "S5"))
    assert box["all targets"]["dice_difference"][0] == 0.0  # no points, no difference
    records = [list(read_records(f / JOURNAL_NAME)) for f in (better, worse)]
    drops = [
        b["strategies"]["S2"]["deployable"]["dice"] - a["strategies"]["S2"]["deployable"]["dice"]
        for a, b in zip(*records, strict=True)
    ]
    mean, lo, hi, n = point["all targets"]["dice_difference"]
    assert mean == pytest.approx(np.mean(drops), abs=1e-5)
    assert lo <= mean <= hi < 0.0
    assert n == 12
    assert (point["share_choosing_another_mask"], box["share_choosing_another_mask"]) == (1.0, 0.0)
    assert point["share_losing_more_than"]["0.01"] == np.mean(np.array(drops) < -0.01)
    assert point["largest_drop"] == pytest.approx(-min(drops), abs=1e-5)
    assert 0.5 < point["all targets"]["mask_iou"][0] < 1.0
    pictures = sorted((tmp_path / "c" / "worst").glob("*.png"))
    assert len(pictures) == len(document["worst"]) == 8
    with Image.open(pictures[0]) as picture:
        assert picture.size == (3 * 264 + 2 * 4, 264)
    parser = checked((tmp_path / "c" / "compare.html").read_text())
    assert len(parser.addresses) == 8
    assert "difference" in (tmp_path / "c" / "compare.md").read_text()


def test_the_worst_come_first(index_data: Path, make_run: Callable[..., Path]) -> None:
    plan = Plan(("S2",))
    better = make_run(index_data, "better", plan, exact_after=1)
    worse = make_run(index_data, "worse", plan)
    worst = compare(better, worse)["worst"]
    drops = [w["dice_second"] - w["dice_first"] for w in worst]
    assert drops == sorted(drops)
    assert drops[0] < -0.01


def test_runs_that_cannot_be_compared(
    index_data: Path, folder_data: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = make_run(index_data, "one"), make_run(folder_data, "other")
    with pytest.raises(DatasetError, match="no target in common"):
        compare(one, other)
    with pytest.raises(DatasetError, match="does not exist"):
        compare(one, tmp_path / "none")
    only = make_run(index_data, "only", Plan(("S2",)))
    box = make_run(index_data, "box", Plan(("S5",)))
    with pytest.raises(DatasetError, match="share no strategy"):
        compare(only, box)
    path = other / JOURNAL_NAME
    path.rename(path.with_suffix(".away"))
    with pytest.raises(DatasetError, match=r"keep targets\.jsonl beside eval\.json"):
        compare(one, other / "eval.json")


def test_other_prompts_are_noticed(index_data: Path, make_run: Callable[..., Path]) -> None:
    one, two = make_run(index_data, "one"), make_run(index_data, "two")
    path = two / JOURNAL_NAME
    path.write_text(path.read_text().replace('"box":[9.0,14.0', '"box":[8.0,14.0'))
    with pytest.raises(DatasetError, match="two different prompts"):
        compare(one, two)


# -- files ------------------------------------------------------------------------------------


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "eval.md").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        check_folder(tmp_path)
    check_folder(tmp_path, force=True)
    (tmp_path / JOURNAL_NAME).write_text("")
    check_folder(tmp_path)
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(OutputError, match="exists"):
        check_folder(tmp_path, comparison=True)
    (tmp_path / "compare.json").write_text('{\n "kind": "samrt-eval-compare",\n')
    check_folder(tmp_path, comparison=True)


def test_segs_as_the_challenge_wants_them(
    tmp_path: Path, shapes: Callable[..., Any], fake_engine: Callable[..., Any]
) -> None:
    image, labels = shapes(0)
    labels[labels == 3] = 0
    root = tmp_path / "npz"
    root.mkdir()
    np.savez(root / "2D_x.npz", imgs=image, gts=labels)
    np.savez(root / "3D_y.npz", imgs=np.stack([image] * 2), gts=np.stack([labels] * 2))
    data = open_dataset(root)
    engine, targets, plan = fake_engine(data), choose(data), Plan(("S5",))
    with Journal(tmp_path / JOURNAL_NAME, config_of(engine, data, targets, plan)) as journal:
        evaluate(engine, data, targets, plan, journal)
    paths = write_segs(data, targets, tmp_path / JOURNAL_NAME, tmp_path / "segs")
    assert [p.name for p in paths] == ["2D_x.npz", "3D_y.npz"]
    flat = np.load(paths[0])["segs"]
    grown = labels.copy()
    for label in (1, 2):
        mask = labels == label
        grown[1:][mask[:-1]] = label
        grown[mask] = label
    assert (flat.shape, flat.dtype) == ((60, 80), np.uint16)
    assert np.array_equal(flat, grown)
    assert np.array_equal(np.load(paths[1])["segs"], np.stack([grown] * 2))


def test_a_table_keeps_missing_values_apart(
    index_data: Path, make_run: Callable[..., Path]
) -> None:
    folder = make_run(index_data, "run")
    path = folder / JOURNAL_NAME
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    record["strategies"]["S5"]["deployable"]["hd"] = None
    path.write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]) + "\n")
    table = Table.read(path)
    column = table.columns["S5.deployable.hd"]
    assert np.isnan(column[0])
    assert not np.isnan(column[1:]).any()
    record["strategies"] = {}
    del record["ellipse"]
    path.write_text("\n".join([lines[0], json.dumps(record)]) + "\n")
    with pytest.raises(DatasetError, match="malformed"):
        Table.read(path)


def test_slices_of_a_volume_are_one_case(
    tmp_path: Path, shapes: Callable[..., Any], make_run: Callable[..., Path]
) -> None:
    root = tmp_path / "npz"
    root.mkdir()
    for number in range(2):
        image, labels = shapes(number)
        np.savez(root / f"3D_{number}.npz", imgs=np.stack([image] * 6), gts=np.stack([labels] * 6))
    table = Table.read(make_run(root, "run", Plan(("S5",))) / JOURNAL_NAME)
    assert len(set(table.images.tolist())) == 12
    assert len(set(table.cases.tolist())) == 2
