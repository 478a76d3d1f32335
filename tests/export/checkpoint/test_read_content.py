"""Well-formed files with content that is no use as weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from samrt_export.checkpoint import CheckpointError, from_state_dict, read_checkpoint


def refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_nan_and_infinity_are_reported_by_name(tmp_path: Path) -> None:
    path = tmp_path / "nan.pth"
    state = {f"blocks.{k}.weight": torch.ones(4) for k in range(10)}
    state["blocks.3.weight"][2] = float("nan")
    state["blocks.7.weight"] = torch.tensor([float("-inf")], dtype=torch.float16)
    torch.save(state, path)
    refused(
        path, r"NaN or infinite values in 2 of 10 tensors: blocks\.3\.weight, blocks\.7\.weight;"
    )


def test_large_values_are_not_taken_for_infinity() -> None:
    large = {
        "a.half": torch.full((64,), 60000.0, dtype=torch.float16),
        "a.float": torch.full((64,), 3e38),
        "a.none": torch.ones(0),
    }
    assert set(from_state_dict(large).tensors) == set(large)
    large["a.float"][63] = float("-inf")
    large["a.float"][1] = float("inf")
    with pytest.raises(CheckpointError, match=r"in 1 of 3 tensors: a\.float"):
        from_state_dict(large)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, dtype=torch.int64), "int64"),
        (torch.ones(2, dtype=torch.uint8), "uint8"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, dtype=torch.bool), "bool"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
    ],
    ids=["int64", "uint8", "complex", "bool", "sparse", "meta"],
)
def test_unsupported_types_are_listed(tensor: torch.Tensor, kind: str) -> None:
    state = {"a.good": torch.ones(2), "a.bad": tensor}
    with pytest.raises(CheckpointError, match=rf"1 tensors of unsupported types: a\.bad \({kind}"):
        from_state_dict(state)


def test_sparse_and_quantised_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pth"
    torch.save({"a.b": torch.eye(3).to_sparse()}, path)
    refused(path, r"torch\._utils\._rebuild_sparse_tensor")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        (3, "holds a int"),
        ({}, "holds no model weights, nothing at all"),
        ({"epoch": 3, "lr": 0.1}, "holds no model weights, only epoch, lr"),
        ({"model": {}}, "holds no model weights"),
        ({"a.b": torch.ones(2), "a.c": "text", 5: torch.ones(1)},
         r"2 entries that are not named tensors: a\.c \(str\), 5 \(Tensor\)"),
    ],
    ids=["list", "tensor", "number", "empty", "scalars", "hollow", "mixed"],
)  # fmt: skip
def test_other_content(tmp_path: Path, content: object, match: str) -> None:
    path = tmp_path / "content.pth"
    torch.save(content, path)
    refused(path, match)


def test_names_that_break_lines_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "names.pth"
    torch.save({"a.b\nERROR": torch.tensor([float("nan")]), "x." * 5000: torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"'a\.b\\nERROR'") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_dictionary_that_holds_itself() -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(CheckpointError, match="wrapped more than 8 times"):
        from_state_dict(content)
