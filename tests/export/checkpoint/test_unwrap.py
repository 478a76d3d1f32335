from __future__ import annotations

from typing import Any

import pytest
import torch

from samrt_export.checkpoint import CheckpointError
from samrt_export.checkpoint.unwrap import unwrap

NAMES = ("image_encoder.pos_embed", "mask_decoder.iou_token.weight")


def state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.full((2,), float(k)) for k, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("content", "wrapper", "ignored"),
    [
        (state(), "none", ()),
        ({"model": state()}, "model", ()),
        ({"state_dict": state(), "epoch": 3}, "state_dict", ("epoch",)),
        ({"model_state_dict": state(), "loss": 0.5}, "model_state_dict", ("loss",)),
        (state("module."), "module.", ()),
        (state("sam."), "sam.", ()),
        (state("model."), "model.", ()),
        (state("_orig_mod."), "_orig_mod.", ()),
        (state("module.sam."), "module. > sam.", ()),
        (state("sam.module."), "sam. > module.", ()),
        ({"model": state("module.")}, "model > module.", ()),
        ({"model": {"state_dict": state("model.sam.")}},
         "model > state_dict > model. > sam.", ()),
        ({"model_state": state("sam."), "decoder_state": {"out_conv.weight": torch.ones(1)}},
         "model_state > sam.", ("decoder_state",)),
        ({"module": {"model": state(), "step": 1}, "lr": 1}, "module > model",
         ("lr", "module.step")),
        ({**state(), "epoch": 7}, "none", ("epoch",)),
        ({"model": state(), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "model",
         ("optimizer",)),
        ({"model": state(), "step": torch.tensor(3)}, "model", ("step",)),
    ],
)  # fmt: skip
def test_wrappers_come_off(content: dict[Any, Any], wrapper: str, ignored: tuple[str, ...]) -> None:
    found = unwrap(content)
    assert tuple(found.tensors) == NAMES
    assert [t[0].item() for t in found.tensors.values()] == [0.0, 1.0]
    assert found.wrapper == wrapper
    assert found.ignored == ignored


def test_a_prefix_of_some_names_stays() -> None:
    content = {**state("sam."), "head.weight": torch.ones(1)}
    found = unwrap(content)
    assert list(found.tensors) == list(content)
    assert found.wrapper == "none"


def test_the_content_is_not_changed() -> None:
    content = {"model": state("module.")}
    unwrap(content)
    assert list(content["model"]) == [f"module.{name}" for name in NAMES]


def test_two_state_dicts_are_not_guessed_between() -> None:
    with pytest.raises(CheckpointError, match=r"several state dicts \(model, state_dict\)"):
        unwrap({"state_dict": state(), "model": state()})


def test_wrappers_have_an_end() -> None:
    content: dict[Any, Any] = state()
    for _ in range(9):
        content = {"model": content}
    with pytest.raises(CheckpointError, match="wrapped more than 8 times"):
        unwrap(content)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, {"model": {"epoch": 1}}, {"model": 3}])
def test_nothing_inside(content: dict[Any, Any]) -> None:
    with pytest.raises(CheckpointError, match="holds no model weights"):
        unwrap(content)


def test_values_that_are_no_tensors() -> None:
    with pytest.raises(CheckpointError, match=r"2 entries .*a\.b \(list\), 3 \(Tensor\)"):
        unwrap({**state(), "a.b": [1.0], 3: torch.ones(1)})
