"""`benchmarks/engines.py`: a row is about the graphs that ran; the table leaves nothing out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from samrt.bundle import find_model

Import = Callable[[str], ModuleType]


@pytest.fixture
def engines(benchmark_module: Import) -> ModuleType:
    return benchmark_module("engines")


def test_a_row_of_the_shipped_model(engines: ModuleType) -> None:
    row = engines.do_run(find_model("tiny"), "fp32", "onnxruntime", 1, 1)
    sizes = {p.role: p.total_bytes for p in engines.samrt.bundle.Bundle.open(
        find_model("tiny")).manifest.artifacts if p.form == "cpu"}  # fmt: skip
    assert row["form"] == "cpu"
    assert row["bytes"] == sizes
    assert row["parity"]["state"] == "passed"
    assert row["parity_of"] == "export"
    assert row["encode_median_ms"] > 0.0
    assert json.loads(json.dumps(row)) == row


def test_the_bytes_are_those_of_the_form_in_use(engines: ModuleType) -> None:
    parts = [
        SimpleNamespace(role=role, sha256=sha, total_bytes=size)
        for role, sha, size in (("encoder", "a", 1), ("encoder", "b", 2), ("decoder", "c", 4))
    ]
    model = SimpleNamespace(bundle=SimpleNamespace(manifest=SimpleNamespace(artifacts=parts)))
    info = SimpleNamespace(files={"encoder": "b", "decoder": "c"})
    engine = SimpleNamespace(model=model, info=info)
    assert [engines._bytes_of(engine, role) for role in ("encoder", "decoder")] == [2, 4]


def test_the_table_is_in_order_and_says_form_refusal_and_remark(engines: ModuleType) -> None:
    parity = {"state": "refused", "mean": 0.9, "worst": 0.5}
    rows = {
        "a/int8/onnxruntime": {
            "built": True, "ran": True, "form": "cpu", "parity": parity, "parity_of": "here",
            "bytes": {"encoder": 2_000_000, "decoder": 1_000_000}, "encode_median_ms": 3.25,
            "decode_median_ms": 1.0, "remark": "slow",
        },
        "a/fp32/tensorrt": {"built": False, "remark": "no GPU"},
        "a/fp32/tensorrt-rtx": {
            "built": True, "remark": "no GPU", "twice": {"encoder": "identical"},
        },
        "a/fp16/tensorrt-rtx": {
            "built": True, "twice": {"encoder": "identical", "decoder": "sizes differ by 1 bytes"},
        },
        "a/fp32/onnxruntime": {"built": True, "ran": True, "form": "canonical"},
    }  # fmt: skip
    _, *lines = "\n".join(engines.table({"rows": rows})).splitlines()[1:]
    assert lines == [
        "| a | fp32 | onnxruntime | yes | yes | – | – | – | – |  |",
        "| a | fp32 | tensorrt-rtx | yes | no | – | – | – | – | no GPU; same bytes twice |",
        "| a | fp32 | tensorrt | no | no | – | – | – | – | no GPU |",
        "| a | fp16 | tensorrt-rtx | yes | no | – | – | – | – | decoder: sizes differ by 1 bytes |",
        "| a | int8 | onnxruntime | yes | yes | 0.90000, 0.50000 **refused** | 2.0 / 1.0 | 3.2 "
        "| 1.0 | samrt's operators; slow |",
    ]


def test_the_recorded_table_can_be_printed(engines: ModuleType) -> None:
    results = json.loads(Path(engines.RESULTS).read_text("utf-8"))
    lines = "\n".join(engines.table(results)).splitlines()
    assert len(lines) == 2 + len(results["rows"])
    assert all(row["built"] or row.get("remark") for row in results["rows"].values()
               if "built" in row)  # fmt: skip
