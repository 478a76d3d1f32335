"""What a backend needs and lacks, read from the metadata of the installed samrt package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata

__all__ = ["installed_version", "missing_requirements", "requirement_texts"]

_HEAD = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_BOUND = re.compile(r"\s*(>=|<=|==|!=|~=|<|>)\s*([0-9][0-9A-Za-z.+*!-]*)\s*")
_ABSENT = "is not installed"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_texts(extra: str | None) -> dict[str, str] | None:
    """Distribution name -> version bounds (``">=1.17,<2"``, may be empty) of one extra.

    ``None`` stands for the core dependencies. Returns ``None`` when samrt itself is not
    installed, as when it runs from a source tree: then there is no metadata to read.
    """
    try:
        lines = metadata.requires("samrt") or []
    except metadata.PackageNotFoundError:
        return None
    found = {}
    for line in lines:
        marker = line.partition(";")[2]
        extras = _EXTRA.findall(marker)
        head = _HEAD.match(line)
        if head and ((extra in extras) if extra else not extras):
            found[_canonical(head.group(1))] = head.group(2).replace(" ", "")
    return found


def installed_version(alternatives: str) -> str | None:
    """Version of a distribution, or of the first installed one of ``a|b``; ``None`` if absent."""
    for name in alternatives.split("|"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing_requirements(distributions: Sequence[str], extra: str | None) -> tuple[str, ...]:
    """Say which distributions are not installed or do not satisfy their bounds.

    Each item is a phrase such as ``onnxruntime>=1.17 is not installed``; of alternatives
    (``a|b``) one is enough. Where samrt runs uninstalled the bounds are unknown, and the phrase
    says so.
    """
    bounds = requirement_texts(extra)
    note = " (version bounds unknown: samrt runs from source, not installed)"
    found = []
    for alternatives in distributions:
        names = alternatives.split("|")
        lacks = [_lack(name, bounds or {}) for name in names]
        if not all(lacks):
            continue
        outdated = [text for text in lacks if text and not text.endswith(_ABSENT)]
        others = f", nor is {' or '.join(names[1:])}" if names[1:] else ""
        text = outdated[0] if outdated else f"{lacks[0]}{others}"
        found.append(f"{text}{note if bounds is None else ''}")
    return tuple(found)


def _lack(name: str, bounds: Mapping[str, str]) -> str | None:
    """What is wrong with one distribution; ``None`` if it is installed and new enough."""
    bound = bounds.get(_canonical(name), "")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name}{bound} {_ABSENT}"
    return (
        None if _satisfies(version, bound) else f"{name}{bound} is needed, {version} is installed"
    )


def _satisfies(version: str, bounds: str) -> bool:
    return all(_one(version, bound) for bound in bounds.split(",") if bound)


def _one(version: str, bound: str) -> bool:
    match = _BOUND.fullmatch(bound)
    if match is None:
        return True
    operator, text = match.groups()
    if text.endswith(".*"):
        prefix = _release(text[:-2])
        same = _release(version)[: len(prefix)] == prefix
        return same if operator == "==" else not same
    have, want = _padded(_release(version), _release(text))
    if operator == "~=":
        return have >= want and have[: len(_release(text)) - 1] == _release(text)[:-1]
    return {
        ">=": have >= want,
        "<=": have <= want,
        ">": have > want,
        "<": have < want,
        "==": have == want,
        "!=": have != want,
    }[operator]


def _release(version: str) -> tuple[int, ...]:
    digits = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in digits.group().split(".")) if digits else (0,)


def _padded(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    width = max(len(a), len(b))
    return a + (0,) * (width - len(a)), b + (0,) * (width - len(b))
