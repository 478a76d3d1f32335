"""Model families and their public checkpoints: where they are, under which licence, what they are.

The facts are data in ``catalogue.json``, each with its source; what is not published is ``null``
there and ``None`` here. Reading the catalogue opens no connection.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from samrt.errors import OptionError

__all__ = ["Catalogue", "Checkpoint", "Family", "License", "load_catalogue"]


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share an architecture and its rules of input and output."""

    name: str
    title: str
    repository: str
    input: str
    prompts: str
    note: str


@dataclass(frozen=True, slots=True)
class License:
    """Terms of a checkpoint.

    Attributes:
        name: its name.
        commercial: whether it allows commercial use; ``None`` if that is not clear.
        url: its text.
        source: where it is said that it applies.
    """

    name: str
    commercial: bool | None
    url: str
    source: str

    @property
    def needs_consent(self) -> bool:
        """Whether a download asks for ``--accept-license``."""
        return self.commercial is not True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file of weights that its authors published.

    Attributes:
        name: name for ``samrt pull``.
        family: family's name.
        variant: which of the family.
        title: for people.
        file: file name; ``None`` if there are several to choose from.
        url: direct address; ``None`` where the authors offer none.
        page: the authors' page about it.
        bytes: size, or ``None``.
        sha256: hex digest, or ``None``.
        git_blob: SHA-1 of the file as git stores it, or ``None``.
        license: its terms.
        note: what to know.
        export_options: what ``samrt export`` needs besides the file, as words for a shell.
        sources: name of a fact -> where it is from.
    """

    name: str
    family: str
    variant: str
    title: str
    file: str | None
    url: str | None
    page: str
    bytes: int | None
    sha256: str | None
    git_blob: str | None
    license: License
    note: str
    export_options: str
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All families and checkpoints, in the order of the file."""

    families: tuple[Family, ...]
    checkpoints: tuple[Checkpoint, ...]

    def find(self, name: str) -> Checkpoint:
        """Return a checkpoint by its name.

        Raises:
            OptionError: no such checkpoint; close names or all of them are given.
        """
        known = {checkpoint.name: checkpoint for checkpoint in self.checkpoints}
        if name in known:
            return known[name]
        same_family = [c.name for c in self.checkpoints if c.family == name]
        close = same_family or difflib.get_close_matches(name, known, n=3)
        advice = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise OptionError(f"no checkpoint named {name!r}: {advice}")


@cache
def load_catalogue() -> Catalogue:
    """Read the catalogue that ships with samrt."""
    text = resources.files("samrt").joinpath("catalogue.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return Catalogue(
        tuple(Family(**item) for item in document["families"]),
        tuple(
            Checkpoint(**{**item, "license": License(**item["license"])})
            for item in document["checkpoints"]
        ),
    )
