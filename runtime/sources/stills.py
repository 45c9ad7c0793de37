"""Stills as a source: one file, a folder or a pattern, in order of name."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.sources.image import SUFFIXES, read_noted
from overflight.runtime.sources.recording import SUFFIXES as VIDEO_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.frame import Frame

_NAMED = 5  # of the stills that could not be read, in one line


class Stills:
    """Every picture of a folder or a list, in the order people count: IMG_9 before IMG_10."""

    live = False

    def __init__(self, name: str, paths: Sequence[Path], videos: int = 0) -> None:
        self.name = name
        self.notes: list[str] = []
        self._paths = paths
        self._videos = videos
        self._dropped: Counter[str] = Counter()

    @classmethod
    def of_folder(cls, folder: Path) -> Stills:
        """List the pictures of a folder, not of its subfolders. Raises UsageError where there are none."""
        shown = [path for path in folder.iterdir() if not path.name.startswith(".")]
        paths = [path for path in shown if path.suffix.lower() in SUFFIXES]
        videos = [path for path in shown if path.suffix.lower() in VIDEO_SUFFIXES]
        if not paths and videos:
            raise UsageError(
                f"{folder}: {len(videos)} videos and no picture in this folder; run each video, such as {videos[0]}"
            )
        if not paths:
            raise UsageError(
                f"{folder}: no picture in this folder; expected files ending in {', '.join(sorted(SUFFIXES))}"
            )
        return cls(str(folder), sorted(paths, key=natural_order), len(videos))

    @property
    def left_out(self) -> str | None:
        """What the folder holds that is not read, or None."""
        return f"{self.name}: {self._videos} videos in this folder are not read; run each" if self._videos else None

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._paths)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one. Raises SourceError at the end where some could not be read, and names them."""
        unreadable: list[SourceError] = []
        notes: dict[str, int] = {}
        for number, path in enumerate(self._paths):
            try:
                frame, note = read_noted(path, number)
            except SourceError as error:
                unreadable.append(error)
                self._dropped["unreadable"] += 1
                continue
            if note:
                notes[note] = notes.get(note, 0) + 1
                self.notes = [f"{count} of {self.count} stills: {text}" for text, count in notes.items()]
            yield frame
        if unreadable:
            raise SourceError(unreadable_stills(unreadable, self.count))

    def take_dropped(self) -> Counter[str]:
        """Return what was not passed on since the last call, by reason."""
        dropped, self._dropped = self._dropped, Counter()
        return dropped

    def close(self) -> None:
        """Nothing is held open."""


def unreadable_stills(errors: Sequence[SourceError], count: int) -> str:
    """Name the stills that could not be read, in one line."""
    if count == 1:
        return str(errors[0])
    named = " | ".join(str(error) for error in errors[:_NAMED])
    more = f" | and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return f"{len(errors)} of {count} stills cannot be read, the others are done: {named}{more}"


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that counts digits as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name.lower())]
