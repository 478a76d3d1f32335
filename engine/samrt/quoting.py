"""What others say, in messages of ours."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(error: BaseException, longest: int | None = None) -> str:
    """What an error of somebody else's says, fit for a message of ours.

    Args:
        error: the error.
        longest: most characters; a longer text ends with dots. ``None``: all of it.

    Returns:
        Its text with every run of white space as one blank; the name of its class if it has none.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."
