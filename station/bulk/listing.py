"""Listing: which items the sources hold, in an order that does not depend on the file system."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import MissingError, OverflightError, SourceError, UsageError
from overflight.runtime.flight.directory import JOURNAL, RECORD
from overflight.runtime.paths import printable
from overflight.runtime.redact import redact
from overflight.runtime.sources.image import SUFFIXES as STILLS
from overflight.runtime.sources.mosaic import Mosaic, View, is_mosaic
from overflight.runtime.sources.recording import SUFFIXES as VIDEOS
from overflight.runtime.tiles import GSD_M, SHRINK
from overflight.station.bulk.records import Failed, Item, Settings, Shard, stored_path
from overflight.station.bulk.urls import is_url, list_urls, read_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

LISTS = frozenset({".txt", ".urls"})
_LEAST_WINDOW, _MOST_WINDOW = 16, 8192


class Listing:
    """Walks the sources; ``refused`` and ``passed_over`` say what is not among the items, and why."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.refused: list[Failed] = []
        self.passed_over: Counter[str] = Counter()
        self.notes: list[str] = []

    def items(self, sources: Sequence[str]) -> Iterator[Item]:
        """Yield the items of all sources in order.

        Raises UsageError for a source that names nothing, and for one that is a part of another.
        """
        _check_apart(sources)
        for source in sources:
            found = False
            for item in self._of_source(source):
                found = True
                yield item
            if not found and not self.refused:
                raise UsageError(f"{source}: nothing to embed; expected pictures, videos, mosaics, flights or URLs")

    def _of_source(self, source: str) -> Iterator[Item]:
        if is_url(source):
            yield from list_urls(source, source)
            return
        path = Path(source).expanduser()
        if path.is_dir():
            yield from self._of_folder(path, source)
        elif path.is_file() and path.suffix.lower() in LISTS:
            yield from self._of_list(path, source)
        elif path.is_file():
            yield from self._of_file(path, source, path.name)
        else:
            raise UsageError(f"{source}: no such file or folder; expected pictures, videos, mosaics, flights or URLs")

    def _of_list(self, path: Path, source: str) -> Iterator[Item]:
        for where in read_list(path):
            if is_url(where):
                yield from self._of_line(where, source)
            elif (one := (path.parent / where).expanduser()).is_file():
                yield from self._of_file(one, source, where)
            else:
                self._refuse(source, where, "no such file; check the list")

    def _of_line(self, where: str, source: str) -> Iterator[Item]:
        """List what a line of a list names; a bad line does not end the others."""
        try:
            yield from list_urls(where, source)
        except MissingError:
            raise  # every line of its kind needs the library
        except OverflightError as error:
            self._refuse(source, redact(where), str(error))

    def _of_folder(self, folder: Path, source: str) -> Iterator[Item]:
        if (folder / RECORD).is_file():
            yield from self._of_flight(folder, source, folder.name)
            return
        for path in walk(folder, lambda path, reason: self._refuse(source, printable(str(path)), reason)):
            name = path.relative_to(folder).as_posix()
            if path.name == RECORD:
                yield from self._of_flight(path.parent, source, path.parent.relative_to(folder).as_posix())
            elif path.suffix.lower() in STILLS | VIDEOS:
                yield from self._of_file(path, source, name)
            else:
                self.passed_over[path.suffix.lower() or "no suffix"] += 1

    def _of_file(self, path: Path, source: str, name: str) -> Iterator[Item]:
        try:
            status = path.stat()
            if not status.st_size:
                raise SourceError("an empty file; copy or take it again")
            item = Item("still", source, printable(name), stored_path(path), status.st_size, status.st_mtime_ns)
            if path.suffix.lower() in VIDEOS:
                yield msgspec.structs.replace(item, kind="video", count=0)
            elif path.suffix.lower() in STILLS and not is_mosaic(path):
                yield item
            elif path.suffix.lower() in STILLS:
                yield from self._windows(path, item)
            else:
                raise SourceError(f"{path.suffix or 'no suffix'}: neither a picture nor a video; remove it")
        except (OSError, OverflightError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._refuse(source, printable(name), f"{reason}")

    def _windows(self, path: Path, item: Item) -> Iterator[Item]:
        """One item for each row of windows, so that no piece of the file is decoded twice."""
        side = self._window_px(path)
        mosaic = Mosaic(path, view=View(side))
        try:
            rows, columns = mosaic.grid
            self.notes += mosaic.notes
        finally:
            mosaic.close()
        digest = hash_file(path)
        for row in range(rows):
            yield msgspec.structs.replace(
                item, kind="windows", count=columns, first=row * columns, window_px=side, sha256=digest
            )

    def _window_px(self, path: Path) -> int:
        """Return the side of a window whose input pixels cover the wanted ground, or which is shrunk as tiles are."""
        if self._settings.window_px is not None:
            return self._settings.window_px
        mosaic = Mosaic(path)
        try:
            gsd_m = mosaic.gsd_m
        finally:
            mosaic.close()
        shrink = SHRINK if gsd_m is None else max(1.0, (self._settings.gsd_m or GSD_M) / gsd_m)
        return round(min(max(self._settings.side * shrink, _LEAST_WINDOW), _MOST_WINDOW))

    def _of_flight(self, folder: Path, source: str, name: str) -> Iterator[Item]:
        try:
            status = (folder / JOURNAL).stat()
        except OSError as error:
            self._refuse(source, printable(name), f"{JOURNAL}: {error.strerror}")
            return
        yield Item("flight", source, printable(name), stored_path(folder), status.st_size, status.st_mtime_ns, count=0)

    def _refuse(self, source: str, name: str, reason: str) -> None:
        self.refused.append(Failed(source, name, reason, 1))


def _check_apart(sources: Sequence[str]) -> None:
    """Raise UsageError for a source that is named twice or lies in another one: its files would have two rows."""
    named = {source: source if is_url(source) else Path(source).expanduser().resolve() for source in sources}
    if len(set(named.values())) < len(sources):
        raise UsageError("a source is named twice; name each once")
    for source, path in named.items():
        if isinstance(path, Path) and (around := set(path.parents) & set(named.values())):
            raise UsageError(f"{source} is a part of {around.pop()}; name one of them")


def walk(folder: Path, refuse: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yield the files below a folder in order of their names; hidden ones are left out, and loops are entered once.

    A folder with a flight yields its record alone. ``refuse`` gets a folder that cannot be read, with the reason.
    """
    seen: set[tuple[int, int]] = set()

    def enter(current: Path) -> Iterator[Path]:
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                return
            seen.add((status.st_dev, status.st_ino))
            names = sorted(name for name in os.listdir(current) if not name.startswith("."))  # noqa: PTH208 - names
        except OSError as error:
            refuse(current, error.strerror or str(error))
            return
        if RECORD in names:
            yield current / RECORD
            return
        for path in map(current.joinpath, names):
            if os.path.isdir(path):  # noqa: PTH112 - a link to itself is no folder, and pathlib raises
                yield from enter(path)
            else:
                yield path

    yield from enter(folder)


def in_shards(items: Iterable[Item], rows: int, first: int = 0) -> Iterator[Shard]:
    """Group items in order into shards of about ``rows`` rows; an item of unknown length has a shard of its own."""
    number, held = first, 0
    group: list[Item] = []
    for item in items:
        alone = item.count == 0
        if group and (alone or held + item.count > rows):
            yield Shard(number, tuple(group))
            number, group, held = number + 1, [], 0
        group.append(item)
        held += item.count
        if alone:
            yield Shard(number, tuple(group))
            number, group, held = number + 1, [], 0
    if group:
        yield Shard(number, tuple(group))
