"""Stills as a source: one file, a folder or a pattern, in order of name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from overflight.runtime.errors import UsageError
from overflight.runtime.sources.image import SUFFIXES, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.frame import Frame


class Stills:
    """Every picture of a folder or a list, in the order people count: IMG_9 before IMG_10."""

    live = False

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._paths = paths

    @classmethod
    def of_folder(cls, folder: Path) -> Stills:
        """List the pictures of a folder, not of its subfolders. Raises UsageError where there are none."""
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
        if not paths:
            raise UsageError(
                f"{folder}: no picture in this folder; expected files ending in {', '.join(sorted(SUFFIXES))}"
            )
        return cls(str(folder), sorted(paths, key=natural_order))

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._paths)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one."""
        for number, path in enumerate(self._paths):
            yield read_image(path, number)

    def close(self) -> None:
        """Nothing is held open."""


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that counts digits as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name.lower())]
