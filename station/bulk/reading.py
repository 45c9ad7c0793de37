"""Reading the items of a shard: frames in order, each tried three times, failures named and never silent."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import EngineError, OverflightError, SourceError, UsageError
from overflight.runtime.flight.directory import BANKS, JOURNAL, read_record
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.pose.stills import read_still
from overflight.runtime.redact import redact_text
from overflight.runtime.sources.image import read_noted
from overflight.runtime.sources.mosaic import Mosaic, View
from overflight.runtime.sources.recording import VideoFile
from overflight.station.bulk.records import MOST_ATTEMPTS, Done, Failed, Item
from overflight.station.bulk.rows import GROUP_ROWS, Rows, Where
from overflight.station.bulk.urls import fetched, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.frame import Frame
    from overflight.station.bulk.embedder import Embedder

WAITS_S = (0.2, 1.0)  # before the second and the third attempt: a share that hangs, a server that throttles
FETCHES = 8  # URLs that are fetched at the same time; a picture's way takes longer than its decoding


@dataclass(frozen=True)
class StillRead:
    """A still with what its tags say, or the reason for which it cannot be read."""

    frame: Frame | None
    sha256: str = ""
    bytes: int = 0
    utc_ns: int | None = None
    place: Where | None = None
    note: str | None = None
    reason: str = ""
    read_s: float = 0.0


@dataclass
class ShardReader:
    """Reads items into ``rows`` through an embedder; ``done`` and ``failed`` say what became of each."""

    embedder: Embedder
    rows: Rows = field(default_factory=Rows)
    done: list[Done] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    read_s: float = 0.0
    input_bytes: int = 0

    def read(self, items: Sequence[Item], before: Callable[[Item], bool]) -> None:
        """Read and embed every item in order; ``before`` says of each whether it may be read."""
        self.embedder.begin(self.rows.vectors)
        stills = read_stills([item for item in items if item.kind == "still"], before)
        for item in items:
            if item.kind == "still":
                self._take_still(item, next(stills))
                continue
            self.embedder.flush()
            if before(item):
                self._take_long(item)
            else:
                self._fail(item, ENDED, MOST_ATTEMPTS)
        self.embedder.flush()

    def _take_still(self, item: Item, read: StillRead) -> None:
        self.read_s += read.read_s
        first = len(self.rows)
        if read.frame is not None:
            try:
                self.embedder.add(read.frame)
            except SourceError as error:
                self._fail(item, str(error), 1)
                return
            self.rows.append(item, read.sha256, name=item.name, utc_ns=read.utc_ns, place=read.place)
            self.input_bytes += read.bytes
            self._finish(item, read.sha256, first)
            self._note(read.note)
        else:
            self.embedder.skip()
            self._fail(item, read.reason, MOST_ATTEMPTS)

    def _take_long(self, item: Item) -> None:
        """Read a mosaic's windows, a video or a flight; an attempt that fails is undone, the last one is kept."""
        first, notes = len(self.rows), dict(self.notes)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            self.rows.truncate(first)
            self.notes = dict(notes)
            try:
                sha256 = item.sha256 or _digest(item)
                _check_unchanged(item)
                self._rows_of(item, sha256)
                _check_unchanged(item)
                self._finish(item, sha256, first)
                self.input_bytes += item.bytes if not item.first else 0
                return
            except EngineError:
                raise  # not the item's fault
            except (OverflightError, OSError) as error:
                self.embedder.flush()
                reason = str(error)
            if attempt < MOST_ATTEMPTS:
                time.sleep(WAITS_S[attempt - 1])
        if len(self.rows) > first:  # what could be read until then is good
            self._finish(item, item.sha256 or _digest(item), first)
        self._fail(item, reason, MOST_ATTEMPTS, len(self.rows) - first)

    def _rows_of(self, item: Item, sha256: str) -> None:
        if item.kind == "flight":
            self._take_flight(item, sha256)
            return
        source: Mosaic | VideoFile
        if item.kind == "windows":
            source = Mosaic(item.path, view=View(item.window_px), small_cache=True)
            frames = source.frames(item.first, item.first + item.count)
        else:
            source = VideoFile(item.path)
            frames = _paced(source.frames(), self.embedder.settings.fps)
        try:
            self._take_frames(item, sha256, frames)
            for note in source.notes:
                self._note(note)
        finally:
            self.embedder.flush()
            source.close()

    def _take_frames(self, item: Item, sha256: str, frames: Iterator[Frame]) -> None:
        while True:
            began = time.perf_counter()
            frame = next(frames, None)
            self.read_s += time.perf_counter() - began
            if frame is None:
                return
            window = frame.window
            part = f"@{window.left},{window.top}" if window is not None else f"#{frame.number}"
            self.embedder.add(frame)
            self.rows.append(
                item, sha256, name=item.name + part, frame=frame.number, window=window, media_ns=frame.media_ns
            )

    def _take_flight(self, item: Item, sha256: str) -> None:
        """Take the embeddings that were recorded in flight; nothing is embedded again."""
        folder = item.path
        bank = LabelBank.load(folder / BANKS / f"{read_record(folder).bank_sha256[:16]}.safetensors").header
        if bank.tower != self.embedder.settings.tower:
            raise UsageError(f"embedded with another tower ({bank.model}); name the flight's source instead")
        shed = 0
        for seen, vector, _ in JournalReader(folder / JOURNAL).frames():
            if vector is None:
                shed += 1
                continue
            place = seen.place or seen.pose
            where = (
                None
                if place is None
                else Where(place.lat_deg, place.lon_deg, seen.place.footprint if seen.place else ())
            )
            gsd_m = seen.place.gsd_m if seen.place else None
            self.rows.append(
                item, sha256, name=f"{item.name}#{seen.frame}", frame=seen.frame, window=seen.window,
                media_ns=seen.media_ns, utc_ns=seen.utc_ns, gsd_m=gsd_m, place=where,
            )  # fmt: skip
            self.rows.vectors.append(vector.astype(np.float32))
        if shed:
            raise SourceError(f"{shed} of its frames have no embedding (shed in flight); the others are kept")

    def _finish(self, item: Item, sha256: str, first: int) -> None:
        count = len(self.rows) - first
        self.done.append(Done(item.name, sha256, count, first // GROUP_ROWS, first))

    def _fail(self, item: Item, reason: str, attempts: int, rows: int = 0) -> None:
        self.failed.append(Failed(item.source, item.name, redact_text(" ".join(reason.split())), attempts, rows))

    def _note(self, note: str | None) -> None:
        if note:
            self.notes[note] = self.notes.get(note, 0) + 1


ENDED = "the worker process ended three times while it read this; look at the file with: overflight classify"


def read_stills(items: Sequence[Item], before: Callable[[Item], bool]) -> Iterator[StillRead]:
    """Read stills in order: files one by one, URLs several at a time."""
    if not any(is_url(item.where) for item in items):
        for item in items:
            yield _attempt(item) if before(item) else StillRead(None, reason=ENDED)
        return
    with ThreadPoolExecutor(FETCHES) as pool:
        waiting: deque[Future[StillRead]] = deque()
        for item in items:
            waiting.append(pool.submit(_attempt if before(item) else _ended, item))
            if len(waiting) > 2 * FETCHES:  # not the whole shard: decoded pictures are large
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ended(item: Item) -> StillRead:
    return StillRead(None, reason=ENDED)


def _attempt(item: Item) -> StillRead:
    began = time.perf_counter()
    reason = ""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            read = _read_still(item)
        except (OverflightError, OSError) as error:
            reason = str(error)
        else:
            return StillRead(**{**vars(read), "read_s": time.perf_counter() - began})
        if attempt < MOST_ATTEMPTS:
            time.sleep(WAITS_S[attempt - 1] if is_url(item.where) else WAITS_S[0] / 10)
    return StillRead(None, reason=reason, read_s=time.perf_counter() - began)


def _read_still(item: Item) -> StillRead:
    if is_url(item.where):
        with fetched(item.where) as path:
            return _decode(path)
    _check_unchanged(item)
    read = _decode(item.path)
    _check_unchanged(item)
    return read


def _decode(path: Path) -> StillRead:
    size = path.stat().st_size
    sha256 = hash_file(path)
    frame, note = read_noted(path)
    utc_ns, place = None, None
    with suppress(SourceError):  # most pictures do not say where they were taken
        pose = read_still(path).pose
        utc_ns, place = pose.utc_ns or None, Where(pose.lat_deg, pose.lon_deg)
    return StillRead(frame, sha256, size, utc_ns, place, note)


def _digest(item: Item) -> str:
    path = item.path
    return hash_file(path / JOURNAL if item.kind == "flight" else path)


def _check_unchanged(item: Item) -> None:
    """Refuse a file that is no longer the one that was listed: its rows would belong to neither."""
    path = item.path
    status = (path / JOURNAL if item.kind == "flight" else path).stat()
    if (status.st_size, status.st_mtime_ns) != (item.bytes, item.mtime_ns):
        raise SourceError(f"{item.name}: changed since it was listed; run the command again with --update")


def _paced(frames: Iterator[Frame], fps: float) -> Iterator[Frame]:
    """Pass on so many pictures a second of the recording's own time; those without a time are all passed on."""
    next_ns = 0
    for frame in frames:
        if fps and frame.media_ns is not None:
            if frame.media_ns < next_ns:
                continue
            next_ns = max(next_ns, frame.media_ns) + int(1e9 / fps)
        yield frame
