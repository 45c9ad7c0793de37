"""Stills as a source: one file, a folder or a pattern, in order of name."""

from __future__ import annotations

import glob
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.sources.image import SUFFIXES, read_noted
from overflight.runtime.sources.recording import SUFFIXES as VIDEO_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from overflight.runtime.frame import Frame

_NAMED = 5  # of the stills that could not be read, in one line


class Stills:
    """Every picture of a folder or a list, in the order people count: IMG_9 before IMG_10.

    A frame's name is its path under ``folder``, or its file's name: cameras count their pictures from 1 again in the
    next folder of a card.
    """

    live = False

    def __init__(
        self, name: str, paths: Sequence[Path], *, folder: Path | None = None, left_out: str | None = None
    ) -> None:
        self.name = name
        self.left_out = left_out
        self.notes: list[str] = []
        self.paths = paths
        self._folder = folder
        self._dropped: Counter[str] = Counter()

    @classmethod
    def of_folder(cls, folder: Path) -> Stills:
        """List the pictures of a folder, not of its subfolders. Raises UsageError where there are none."""
        shown = [path for path in folder.iterdir() if not path.name.startswith(".")]
        paths = [path for path in shown if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        videos = [path for path in shown if path.suffix.lower() in VIDEO_SUFFIXES]
        below = _below(path for path in shown if path.is_dir())
        if not paths and videos:
            raise UsageError(
                f"{folder}: {len(videos)} videos and no picture in this folder; run each video, such as {videos[0]}"
            )
        if not paths:
            expected = f"expected files ending in {', '.join(sorted(SUFFIXES))}"
            raise UsageError(
                f"{folder}: no picture in this folder; {_as_pattern(folder, below) if below else expected}"
            )
        left_out = [f"{len(videos)} videos in this folder are not read; run each"] if videos else []
        left_out += [f"pictures of its subfolders are not read; {_as_pattern(folder, below)}"] if below else []
        return cls(
            str(folder),
            sorted(paths, key=natural_order),
            folder=folder,
            left_out=f"{folder}: {'; '.join(left_out)}" if left_out else None,
        )

    @classmethod
    def of_pattern(cls, pattern: str) -> Stills | None:
        """List the pictures that a shell pattern matches, folder by folder; ``**`` stands for any folders."""
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute pattern
        stills = sorted((path for path in found if path.is_file()), key=lambda path: natural_order(path, whole=True))
        return cls(pattern, stills, folder=folder_of(pattern)) if stills else None

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one. Raises SourceError at the end where some could not be read, and names them."""
        unreadable: list[SourceError] = []
        notes: dict[str, int] = {}
        for number, path in enumerate(self.paths):
            try:
                frame, note = read_noted(path, number)
            except SourceError as error:
                unreadable.append(error)
                self._dropped["unreadable"] += 1
                continue
            if note:
                notes[note] = notes.get(note, 0) + 1
                self.notes = [f"{count} of {self.count} stills: {text}" for text, count in notes.items()]
            yield replace(frame, name=self._name_of(path))
        if unreadable:
            raise SourceError(unreadable_stills(unreadable, self.count))

    def _name_of(self, path: Path) -> str:
        return path.name if self._folder is None else path.relative_to(self._folder).as_posix()

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


def folder_of(source: str) -> Path | None:
    """Return the folder that the names of a source's stills are relative to; None where the source is no path."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    folder = path.parent
    while glob.has_magic(str(folder)) and not folder.is_dir():
        folder = folder.parent
    return folder if folder.is_dir() else None


def natural_order(path: Path, *, whole: bool = False) -> list[tuple[int, int, str]]:
    """Sort key that counts digits as numbers, of the name or of the ``whole`` path."""
    name = (path.as_posix() if whole else path.name).lower()
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _below(folders: Iterable[Path]) -> Path | None:
    """Return a picture of the subfolders, two levels down at most, as on a camera's card."""
    for folder in folders:
        for pattern in ("*", "*/*"):
            with suppress(OSError):
                found = next((path for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES), None)
                if found is not None:
                    return found
    return None


def _as_pattern(folder: Path, picture: Path) -> str:
    return f"for those run '{folder}/**/*{picture.suffix}'"
