from __future__ import annotations

import pytest

from samrt_export.checkpoint import CheckpointError, compare_keys
from samrt_export.checkpoint.report import grouped

Shape = tuple[int, ...]


def network(depth: int = 12) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"image_encoder.pos_embed": (1, 64, 64, 768)}
    for k in range(depth):
        at = f"image_encoder.blocks.{k}."
        length = 127 if k % 3 == 2 else 27
        shapes[f"{at}norm1.weight"] = shapes[f"{at}norm1.bias"] = (768,)
        shapes[f"{at}attn.rel_pos_h"] = shapes[f"{at}attn.rel_pos_w"] = (length, 64)
    return shapes


def test_a_fit_is_silent() -> None:
    report = compare_keys(network(), network())
    assert report.fits
    assert report.lines() == []
    report.raise_if_bad("sam vit_b")


def test_everything_wrong_is_listed_at_once_and_grouped() -> None:
    got = network()
    for k in range(12):
        del got[f"image_encoder.blocks.{k}.attn.rel_pos_h"]
        del got[f"image_encoder.blocks.{k}.attn.rel_pos_w"]
        got[f"image_encoder.blocks.{k}.attn.rel_h"] = (27, 64)
    got["image_encoder.pos_embed"] = (1, 16, 16, 768)
    report = compare_keys(network(), got)
    assert not report.fits
    assert len(report.missing) == 24
    assert len(report.unexpected) == 12
    assert report.misshaped == (("image_encoder.pos_embed", (1, 64, 64, 768), (1, 16, 16, 768)),)
    assert report.lines() == [
        "missing image_encoder.blocks.{0..11}.attn.{rel_pos_h,rel_pos_w}",
        "unexpected image_encoder.blocks.{0..11}.attn.rel_h",
        "image_encoder.pos_embed has shape 1x16x16x768, expected 1x64x64x768",
    ]
    with pytest.raises(CheckpointError) as caught:
        report.raise_if_bad("sam vit_b")
    text = str(caught.value)
    assert "does not fit sam vit_b: 24 missing, 12 unexpected and 1 misshaped" in text
    assert all(line in text for line in report.lines())
    assert "\n" not in text


def test_misshaped_tensors_are_grouped_by_their_shapes() -> None:
    got = {name: (31, 64) if shape == (127, 64) else shape for name, shape in network().items()}
    assert compare_keys(network(), got).lines() == [
        "image_encoder.blocks.{2,5,8,11}.attn.{rel_pos_h,rel_pos_w} has shape 31x64, "
        "expected 127x64"
    ]


def test_a_long_report_is_cut_in_the_message_only() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    expected = {f"part{letter}.weight": (1,) for letter in letters}
    report = compare_keys(expected, {})
    assert len(report.lines()) == 26
    with pytest.raises(CheckpointError, match="and 14 more"):
        report.raise_if_bad("it")


def test_ignorable_names_excuse_extra_tensors_only() -> None:
    expected = {"a.weight": (2,), "head.bias": (3,)}
    got = {"a.weight": (2,), "head.weight": (3, 2), "rest": (1,)}
    report = compare_keys(expected, got, ["head.*"])
    assert report.ignored == ("head.weight",)
    assert report.unexpected == ("rest",)
    assert report.missing == ("head.bias",)
    assert compare_keys({"a.b": ()}, {"a.b": (1,)}, ["*"]).misshaped == (("a.b", (), (1,)),)
    assert "expected scalar" in compare_keys({"a.b": ()}, {"a.b": (1,)}).lines()[0]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([], []),
        (["a"], ["a"]),
        (["a.0.b", "a.1.b"], ["a.{0,1}.b"]),
        (["a.0.b", "a.1.b", "a.2.b", "a.7.b"], ["a.{0..2,7}.b"]),
        (["x.weight", "x.bias"], ["x.{bias,weight}"]),
        (["a.0.weight", "a.1.weight", "a.0.bias"], ["a.{0,1}.weight", "a.0.bias"]),
        ([f"l.{i}.b.{j}.w" for i in range(3) for j in range(4)], ["l.{0..2}.b.{0..3}.w"]),
        (["l.0.b.0.w", "l.0.b.1.w", "l.1.b.0.w"], ["l.{0,1}.b.0.w", "l.0.b.1.w"]),
        (["a.10", "a.9", "a.8"], ["a.{8..10}"]),
        (["a.²", f"a.{'9' * 5000}"], [f"a.{{{'9' * 5000},²}}"]),
    ],
)
def test_grouping(names: list[str], groups: list[str]) -> None:
    assert grouped(names) == groups
