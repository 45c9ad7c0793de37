"""The flight directory: what one run over one source leaves behind."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight import __version__
from overflight.jetson import telemetry
from overflight.runtime.durable import sync_directory, write_atomically
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.directory_lock import lock_directory, release
from overflight.runtime.flight.journal import FILE_MODE, RESERVE_BYTES, Journal
from overflight.runtime.flight.journal_reader import read_device, read_events, read_observations
from overflight.runtime.flight.pictures import PictureChooser, small_jpeg
from overflight.runtime.json_input import decode_json
from overflight.runtime.paths import printable
from overflight.runtime.records import SCHEMA, DeviceSummary, FlightRecord, encode_line, partition_skipped
from overflight.runtime.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.event import Event
    from overflight.runtime.observe import FrameResult
    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream

RECORD = "flight.json"
JOURNAL = "journal.sqlite"
OBSERVATIONS = "observations.jsonl"
EVENTS = "events.jsonl"
BANKS = "banks"
DIRECTORY_MODE = 0o750
MOST_BANK_BYTES = 256_000_000  # of the banks that one flight keeps, or half of its budget


class Flight:
    """A flight directory being written: ``flight.json`` at once, the journal as it goes, the rest at the end."""

    def __init__(
        self, directory: Path, record: FlightRecord, bank: LabelBank, budget_bytes: int | None, lock: int | None
    ) -> None:
        self.directory = directory
        self.record = record
        self._lock = lock
        self._most_bank_bytes = MOST_BANK_BYTES if budget_bytes is None else budget_bytes // 2
        self.observed = 0
        self._write_record()
        self.keep_bank(bank)
        self.journal = Journal(directory / JOURNAL, budget_bytes)
        self._pictures = PictureChooser()

    @classmethod
    def begin(
        cls,
        directory: Path,
        where: str,
        overflight: Overflight,
        *,
        budget_bytes: int | None = None,
        replace: bool = False,
    ) -> Flight:
        """Make the directory, locked until the end of the flight.

        Raises UsageError where it already contains a flight, unless that is to be replaced and has ended.
        """
        lock = None
        try:
            directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            lock = lock_directory(directory)
            _make_empty(directory, replace=replace)
            sync_directory(directory.parent)
            return cls(directory, _record(where, overflight), overflight.bank, budget_bytes, lock)
        except OSError as error:
            release(lock)
            raise OverflightError(f"{directory}: {error.strerror}; name a directory that can be written") from error
        except BaseException:
            release(lock)
            raise

    def write(self, result: FrameResult, events: Sequence[Event] = ()) -> None:
        """Take one observation with its embeddings, and a small picture if it is worth one or caused ``events``."""
        self.observed += 1
        self.journal.append(result.observation, result.embedding, result.tile_embeddings)
        if reasons := self._pictures.reasons(result, events):
            if jpeg := small_jpeg(result.frame):
                self.journal.append_picture(result.observation.frame, reasons, jpeg)
            else:
                self.journal.unrecorded["pictures"] += 1

    def write_event(self, event: Event) -> None:
        """Take one event."""
        self.journal.append_event(event)

    def keep_bank(self, bank: LabelBank) -> None:
        """Keep a bank that is used in this flight, so that its scores can be understood and computed again.

        Raises OverflightError where the disk or the flight's budget has no room for it.
        """
        folder = self.directory / BANKS
        path = folder / f"{bank.sha256[:16]}.safetensors"
        try:
            folder.mkdir(DIRECTORY_MODE, exist_ok=True)
            if path.exists():
                return
            kept = sum(one.stat().st_size for one in folder.iterdir())
            if kept + len(bank.raw) > self._most_bank_bytes:
                raise OverflightError(
                    f"{path.name}: {len(bank.raw)} bytes, and {kept} of {self._most_bank_bytes} are taken by the banks "
                    "of this flight; the bank in use stays"
                )
            if shutil.disk_usage(folder).free < RESERVE_BYTES + len(bank.raw):
                raise OverflightError(f"{path.name}: less than {RESERVE_BYTES} bytes are free; the bank in use stays")
            write_atomically(path, bank.raw, FILE_MODE)
        except OSError as error:
            raise OverflightError(f"{path}: {error.strerror}; the bank in use stays, free the disk") from error

    def end(self, because: str, stream: Stream) -> FlightRecord:
        """Close the journal, write the end and the stream's counts into ``flight.json``, export the observations."""
        try:
            return self._end(because, stream)
        finally:
            release(self._lock)

    def _end(self, because: str, stream: Stream) -> FlightRecord:
        self.journal.close()
        self.record = msgspec.structs.replace(
            self.record,
            ended_utc_ns=time.time_ns(),
            ended_because=because,
            observed=self.observed,
            dropped=dict(stream.dropped),
            skipped=dict(stream.skipped),
            unrecorded=dict(self.journal.unrecorded),
            device=self._device(),
            gate=None if stream.similarity is None else stream.similarity.report,
        )
        try:
            self._write_record()
            export_lines(self.directory)
        except OSError as error:
            raise OverflightError(
                f"{self.directory}: {error.strerror}; the journal holds what was recorded, free the disk and run: "
                f"overflight flight export {self.directory}"
            ) from error
        return self.record

    def _device(self) -> DeviceSummary | None:
        try:
            readings = read_device(self.directory / JOURNAL)
        except OverflightError:  # a journal that cannot be read is reported by the export that follows
            return None
        if not readings:
            return None
        joules = telemetry.joules(readings)
        each = None if joules is None or not self.observed else joules / self.observed
        return DeviceSummary(len(readings), telemetry.judge(readings).reasons, joules, each)

    def _write_record(self) -> None:
        content = msgspec.json.format(msgspec.json.encode(self.record), indent=1)
        write_atomically(self.directory / RECORD, content, FILE_MODE)


def _make_empty(directory: Path, *, replace: bool) -> None:
    """Delete the flight in a directory, if that is wanted. Raises UsageError for what must not be deleted."""
    if (directory / RECORD).exists():
        if not replace:
            raise UsageError(f"{directory}: already contains a flight; name another directory or pass --replace")
        for child in directory.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
    elif any(directory.iterdir()):
        raise UsageError(f"{directory}: is not empty and contains no flight; name another directory")


def export_lines(directory: Path) -> list[Path]:
    """Write ``observations.jsonl`` and ``events.jsonl`` from the journal, each atomically; return their paths."""
    journal = directory / JOURNAL
    _write_lines(directory / OBSERVATIONS, read_observations(journal))
    _write_lines(directory / EVENTS, read_events(journal))
    return [directory / OBSERVATIONS, directory / EVENTS]


def _write_lines(path: Path, records: Iterable[Observation] | Iterable[Event]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as file:
            for record in records:
                file.write(encode_line(record))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def read_record(directory: Path) -> FlightRecord:
    """Read a flight's ``flight.json``. Raises UsageError where there is none."""
    try:
        record = decode_json((directory / RECORD).read_bytes(), type=FlightRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{directory}: not a flight directory ({error}); expected what overflight run left") from error
    if record.schema > SCHEMA:
        raise UsageError(f"{directory}: flight format {record.schema}, expected at most {SCHEMA}; update overflight")
    dropped, skipped = partition_skipped(record.dropped)  # format 1 counted both as dropped
    return msgspec.structs.replace(record, dropped=dropped, skipped={**record.skipped, **skipped})


def _record(where: str, overflight: Overflight) -> FlightRecord:
    info = overflight.engine.info
    header = overflight.bank.header
    return FlightRecord(
        schema=SCHEMA,
        source=printable(redact(where)),
        host=socket.gethostname(),
        versions={
            "overflight": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            info.target: info.version,
            "system": platform.platform(),
        },
        model=overflight.bundle.manifest.name,
        bundle=overflight.bundle.sha256,
        engine=f"{info.target} {info.precision}",
        engine_sha256=info.sha256,
        bank=header.name,
        bank_sha256=overflight.bank.sha256,
        labels=tuple(label.text for label in header.labels if not label.background),
        started_utc_ns=time.time_ns(),
        engine_note=overflight.engine_note,
    )
