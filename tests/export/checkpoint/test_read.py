from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from samrt.errors import SamrtError
from samrt_export.checkpoint import CheckpointError, from_state_dict, read_checkpoint


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image_encoder.neck.0.weight": torch.randn(8, 4, 1, 1, generator=generator),
        "image_encoder.bn.num_batches_tracked": torch.tensor(7),
        "mask_decoder.iou_token.weight": torch.randn(1, 8, generator=generator),
    }


def same(found: Any, wanted: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_files_of_torch_save(
    tmp_path: Path, state: dict[str, torch.Tensor], new_format: bool
) -> None:
    path = tmp_path / "any.name"
    torch.save(state, path, _use_new_zipfile_serialization=new_format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_checkpoint(path)
    same(found.tensors, state)
    assert found.format == "pytorch"
    assert found.wrapper == "none"
    assert found.ignored == ()
    assert found.path == path
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.shapes["image_encoder.neck.0.weight"] == (8, 4, 1, 1)
    assert found.conversion is None


def test_safetensors(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "weights.pth"  # told by the content
    save_file(state, path, metadata={"format": "pt"})
    found = read_checkpoint(str(path))
    assert found.format == "safetensors"
    same({name: found.tensors[name] for name in state}, state)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensors_of_a_zip_file_are_mapped_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    load = torch.load

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", spy)
    path = tmp_path / "a.pth"
    torch.save({"a.b": torch.ones(3)}, path)
    read_checkpoint(path)
    assert calls == [{"map_location": "cpu", "weights_only": True, "mmap": True}]


def test_training_files_and_parameters(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "train.pth"
    content = {
        "model": {f"module.{name}": torch.nn.Parameter(t, False) for name, t in state.items()
                  if t.is_floating_point()},
        "optimizer": optimizer.state_dict(),
        "epoch": 12,
        "best_loss": 0.25,
    }  # fmt: skip
    torch.save(content, path)
    found = read_checkpoint(path)
    assert found.wrapper == "model > module."
    assert found.ignored == ("optimizer", "epoch", "best_loss")
    assert all(type(t) is torch.Tensor and not t.requires_grad for t in found.tensors.values())
    assert set(found.tensors) == {n for n, t in state.items() if t.is_floating_point()}


def test_a_module_state_dict_keeps_its_names(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    same(read_checkpoint(path).tensors, net.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_kept_and_converted_on_demand(
    tmp_path: Path, state: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    path = tmp_path / "half.pth"
    name = "image_encoder.neck.0.weight"
    stored = {**state, name: state[name].to(dtype)}
    torch.save(stored, path)
    found = read_checkpoint(path)
    same(found.tensors, stored)
    text = str(dtype).removeprefix("torch.")
    assert found.conversion == f"converted to float32: 1 tensors from {text}"
    converted = found.float32()
    assert torch.equal(converted[name], stored[name].float())
    counter = "image_encoder.bn.num_batches_tracked"
    assert converted[counter].dtype == torch.int64
    token = "mask_decoder.iou_token.weight"
    assert converted[token].data_ptr() == found.tensors[token].data_ptr()


def test_transposed_tensors_become_contiguous(tmp_path: Path) -> None:
    path = tmp_path / "t.pth"
    matrix = torch.arange(6.0).reshape(2, 3).T
    torch.save({"a.b": matrix}, path)
    converted = read_checkpoint(path).float32()["a.b"]
    assert converted.is_contiguous()
    assert torch.equal(converted, matrix)


def test_values_beyond_float32_are_refused_on_conversion() -> None:
    found = from_state_dict({"a.b": torch.tensor([1e300], dtype=torch.float64)})
    with pytest.raises(CheckpointError, match=r"beyond the range of float32: a\.b"):
        found.float32()


def test_a_state_dict_in_memory(state: dict[str, torch.Tensor]) -> None:
    found = from_state_dict({f"sam.{name}": tensor for name, tensor in state.items()})
    same(found.tensors, state)
    assert (found.format, found.sha256, found.path) == ("memory", None, None)
    assert found.wrapper == "sam."
    grad = torch.nn.Parameter(torch.ones(2))
    assert not from_state_dict({"a.b": grad}).tensors["a.b"].requires_grad


def test_the_error_is_one_of_samrts_and_a_value_error() -> None:
    assert issubclass(CheckpointError, SamrtError)
    assert issubclass(CheckpointError, ValueError)
