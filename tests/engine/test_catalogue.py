"""The catalogue holds facts with sources, and nothing that cannot be right."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from samrt.catalogue import Checkpoint, load_catalogue
from samrt.errors import OptionError
from samrt.transport import https_only

CATALOGUE = load_catalogue()
CHECKPOINTS = pytest.mark.parametrize("item", CATALOGUE.checkpoints, ids=lambda c: c.name)


def test_names_are_unique_and_families_known() -> None:
    families = [family.name for family in CATALOGUE.families]
    names = [checkpoint.name for checkpoint in CATALOGUE.checkpoints]
    assert len(set(families)) == len(families)
    assert len(set(names)) == len(names)
    assert {checkpoint.family for checkpoint in CATALOGUE.checkpoints} <= set(families)


@CHECKPOINTS
def test_each_fact_has_a_form_and_a_source(item: Checkpoint) -> None:
    for name in ("url", "bytes", "sha256", "git_blob"):
        assert (getattr(item, name) is None) == (name not in item.sources), name
    assert item.url is not None or "page" in item.sources
    assert item.license.name
    assert item.license.source
    for address in filter(None, (item.url, item.page, item.license.url)):
        https_only(address)
    if item.sha256 is not None:
        assert re.fullmatch("[0-9a-f]{64}", item.sha256)
    if item.git_blob is not None:
        assert re.fullmatch("[0-9a-f]{40}", item.git_blob)
    if item.bytes is not None:
        assert item.bytes > 1_000_000
    if item.url is not None:
        assert item.file == urlsplit(item.url).path.rpartition("/")[2]
        assert "drive.google.com" not in item.url


@CHECKPOINTS
def test_what_lies_in_git_is_pinned(item: Checkpoint) -> None:
    if item.url is not None and "raw.githubusercontent.com" in item.url:
        assert re.search("/[0-9a-f]{40}/", item.url)
        assert item.git_blob is not None


def test_non_commercial_licences_ask_for_consent() -> None:
    asking = {c.name for c in CATALOGUE.checkpoints if c.license.needs_consent}
    assert asking == {"edge_sam", "edge_sam_3x", "medical_sam_adapter"}


def test_families_agree_with_those_of_the_exporter() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    families = pytest.importorskip("samrt_export.families")
    listed = {family.name for family in CATALOGUE.families}
    names = {getattr(family, "name", family) for family in families.FAMILIES}
    assert names <= listed


def test_finding() -> None:
    assert CATALOGUE.find("sam_vit_b").file == "sam_vit_b_01ec64.pth"
    with pytest.raises(OptionError, match="did you mean sam_vit_b or sam_vit_l or sam_vit_h"):
        CATALOGUE.find("sam")
    with pytest.raises(OptionError, match="did you mean mobile_sam"):
        CATALOGUE.find("mobilesam")
    with pytest.raises(OptionError, match="known: sam_vit_b, "):
        CATALOGUE.find("????")
