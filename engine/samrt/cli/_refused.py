"""What is said about graphs that were kept although their verification refused them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from samrt.gate import Verdict, graph_verdict

if TYPE_CHECKING:
    from samrt.bundle import Bundle

__all__ = ["report_refused", "verdict_of"]

_PASSED, _FAILED = 0, 3


def verdict_of(bundle: Bundle, precision: str) -> Verdict:
    """What the record of a bundle's canonical graphs says."""
    chosen = {role: bundle.artifact(role, precision) for role in ("encoder", "decoder")}
    return graph_verdict(bundle.manifest, chosen)


def report_refused(bundle: Bundle, precisions: Iterable[str]) -> int:
    """Name refused precisions on standard error.

    Returns:
        The exit code: 3 if there is one, else 0.
    """
    code = _PASSED
    for precision in precisions:
        verdict = verdict_of(bundle, precision)
        if verdict.state == "refused":
            code = _FAILED
            print(
                f"samrt: {bundle.manifest.name} in {precision} is refused and was kept as asked: "
                f"{verdict.detail}; it is loaded only with allow_refused=True (--allow-refused)",
                file=sys.stderr,
            )
    return code
