"""``samrt pull``: licence first, then the file, whole and checked, or a line that says why not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samrt.catalogue import Catalogue, Checkpoint, load_catalogue
from samrt.cli.pull import _next_step

CONTENT = b"weights" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Pull = Callable[..., Any]


@pytest.fixture
def pull(
    samrt_command: Pull,
    file_server: Any,
    local_opener: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Pull:
    """``pull("mobile_sam", ...)`` from the file server; ``facts`` edit the catalogue's entry."""
    file_server.content = CONTENT

    def run(name: str, *argv: object, facts: dict[str, Any] | None = None) -> Any:
        local = {
            "url": f"{file_server.url}/{name}.pt",
            "file": f"{name}.pt",
            "bytes": len(CONTENT),
            "sha256": SHA256,
            "git_blob": None,
        }
        entry = dataclasses.replace(load_catalogue().find(name), **{**local, **(facts or {})})
        fake = Catalogue((), (entry,))
        with monkeypatch.context() as patch:
            patch.setattr("samrt.catalogue.load_catalogue", lambda: fake)
            patch.setattr("samrt.download.https_only", lambda url: None)
            patch.setattr("samrt.download.make_opener", local_opener)
            return samrt_command("pull", name, *argv)

    return run


def test_a_file_comes_with_its_licence_and_the_next_step(pull: Pull, workplace: Path) -> None:
    outcome = pull("mobile_sam", "-o", workplace / "my models")
    assert outcome.code == 0
    path = workplace / "my models" / "mobile_sam.pt"
    assert path.read_bytes() == CONTENT
    assert "licence: Apache-2.0" in outcome.err
    assert "\r" not in outcome.err
    assert SHA256 in outcome.out
    assert "agrees with the sha256" in outcome.out
    assert f"samrt export '{path}' -o mobile_sam.samrt" in outcome.out


def test_json(pull: Pull, workplace: Path) -> None:
    document = json.loads(pull("mobile_sam", "-o", workplace, "--json").out)
    assert document == {
        "name": "mobile_sam",
        "family": "mobile_sam",
        "variant": "vit_t",
        "url": document["url"],
        "license": "Apache-2.0",
        "file": str(workplace / "mobile_sam.pt"),
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "checked": "sha256",
        "downloaded": True,
        "resumed_at": 0,
    }


def test_without_a_published_digest_it_says_so(pull: Pull, workplace: Path) -> None:
    outcome = pull("mobile_sam", "-o", workplace, facts={"sha256": None, "bytes": None})
    assert outcome.code == 0
    assert SHA256 in outcome.out
    assert "NOT checked" in outcome.out


def test_consent_is_asked_for_before_anything_is_opened(
    pull: Pull, workplace: Path, file_server: Any
) -> None:
    refused = pull("edge_sam", "-o", workplace)
    assert refused.code == 1
    assert "S-Lab License 1.0" in refused.err.splitlines()[1]
    assert "forbids commercial use" in refused.err.splitlines()[-1]
    assert "--accept-license" in refused.err
    assert file_server.requests == []
    assert list(workplace.iterdir()) == []


def test_with_consent_it_is_downloaded(pull: Pull, workplace: Path) -> None:
    assert pull("edge_sam", "--accept-license", "-o", workplace).code == 0
    assert (workplace / "edge_sam.pt").read_bytes() == CONTENT


def test_existing_files(pull: Pull, workplace: Path, file_server: Any) -> None:
    path = workplace / "mobile_sam.pt"
    path.write_bytes(CONTENT)
    outcome = pull("mobile_sam", "-o", workplace)
    assert outcome.code == 0
    assert "was there already" in outcome.out
    assert file_server.requests == []
    path.write_bytes(b"mine")
    outcome = pull("mobile_sam", "-o", workplace)
    assert outcome.code == 1
    assert "use --force" in outcome.err.splitlines()[-1]
    assert path.read_bytes() == b"mine"
    assert pull("mobile_sam", "-o", workplace, "--force").code == 0
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_is_thrown_away(pull: Pull, workplace: Path) -> None:
    outcome = pull("mobile_sam", "-o", workplace, facts={"sha256": "0" * 64})
    assert outcome.code == 1
    assert outcome.out == ""
    assert "it was thrown away" in outcome.err.splitlines()[-1]
    assert list(workplace.iterdir()) == []


def test_going_on_where_it_broke_off(pull: Pull, workplace: Path, file_server: Any) -> None:
    file_server.die_after = [300_000, 0]
    outcome = pull("mobile_sam", "-o", workplace)
    assert outcome.code == 1
    assert "run the same command again" in outcome.err.splitlines()[-1]
    again = pull("mobile_sam", "-o", workplace)
    assert again.code == 0
    assert "300.0 kB of it from before" in again.out
    assert file_server.asked_ranges[-1] == "bytes=300000-"
    assert (workplace / "mobile_sam.pt").read_bytes() == CONTENT


def test_a_terminal_sees_a_bar(
    pull: Pull, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samrt.cli.pull._is_terminal", lambda: True)
    monkeypatch.setattr("samrt.cli.pull._BAR_EVERY_SECONDS", 0.0)
    outcome = pull("mobile_sam", "-o", workplace)
    bars = outcome.err.split("\r")[1:]
    assert bars[0].startswith(f"mobile_sam.pt [{' ' * 30}] 0 B of 700.0 kB")
    assert f"[{'#' * 30}] 700.0 kB of 700.0 kB" in bars[-1]
    assert outcome.err.endswith("\n")


def test_checkpoints_without_an_address_come_with_instructions(
    samrt_command: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)  # not even tried
    outcome = samrt_command("pull", "medsam", "-o", "models")
    assert (outcome.code, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert "1. get medsam_vit_b.pth from https://drive.google.com/" in lines[3]
    assert "2. put it into models" in lines[4]
    assert "3. samrt export models/medsam_vit_b.pth --family medsam -o medsam.samrt" in lines[5]
    assert lines[-1].startswith("samrt: error: medsam has no direct address")


def test_without_a_network_it_fails_at_once(
    samrt_command: Pull, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def unreachable(*_: Any) -> Any:
        raise OSError(101, "Network is unreachable")

    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address])
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    start = time.monotonic()
    outcome = samrt_command("pull", "sam_vit_b", "-o", "new/folder")
    assert time.monotonic() - start < 3.0
    assert (outcome.code, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert lines[-1] == "samrt: error: cannot reach dl.fbaipublicfiles.com: Network is unreachable"
    assert any(line.endswith("samrt export new/folder/sam_vit_b_01ec64.pth -o sam_vit_b.samrt")
               for line in lines)  # fmt: skip
    assert any("https://dl.fbaipublicfiles.com/" in line and "sha256 ec2df627" in line
               for line in lines)  # fmt: skip
    assert list(workplace.rglob("*.part*")) == []


def test_archives_are_unpacked_in_the_next_step() -> None:
    entry: Checkpoint = load_catalogue().find("efficient_sam_s")
    assert _next_step(entry, Path("a b/efficient_sam_vits.pt.zip")) == (
        "unzip 'a b/efficient_sam_vits.pt.zip' -d 'a b' && "
        "samrt export 'a b/efficient_sam_vits.pt' -o efficient_sam_s.samrt"
    )


def test_unknown_names_and_usage(samrt_command: Pull) -> None:
    assert "did you mean mobile_sam" in samrt_command("pull", "mobilesam").error
    assert samrt_command("pull").code == 2
