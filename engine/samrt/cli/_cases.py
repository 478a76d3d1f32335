"""Pictures that the verbs compare models on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samrt.verification import Case

__all__ = ["Pictures"]


@dataclass(slots=True)
class Pictures:
    """The built-in pictures, then those of a folder.

    Attributes:
        folder: the user's pictures; ``None`` for the built-in ones alone.
        image_files: name of a picture in a record -> file of the user.
        skipped_files: file -> why it was left out.
    """

    folder: str | None
    image_files: dict[str, str] = field(default_factory=dict)
    skipped_files: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Find out before a long run whether there are pictures, and the tools to look at them.

        Raises:
            BackendUnavailableError: OpenCV is not installed.
            ImageError: no such folder, or no picture in it.
        """
        from samrt.errors import BackendUnavailableError

        if self.folder is None:
            return
        try:
            from samrt_export.verify import image_files
        except ModuleNotFoundError as exc:
            raise BackendUnavailableError(
                f"finding prompts in pictures needs {exc.name}, which is not installed: "
                "pip install 'samrt[export]', or leave --images out"
            ) from exc
        image_files(self.folder)

    def cases(self) -> Iterator[Case]:
        """The pictures with prompts, read one by one."""
        from samrt.phantoms import phantom_cases

        yield from phantom_cases()
        if self.folder is None:
            return
        from samrt_export.verify import image_cases

        def skip(path: Path, why: str) -> None:
            self.skipped_files[str(path)] = why

        for case in image_cases(self.folder, on_skip=skip):
            self.image_files[case.name] = str(case.path)
            yield case
