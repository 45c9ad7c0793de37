"""A finished bulk store as a flight of an archive, so that it can be searched."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from overflight import __version__
from overflight.runtime.bank import LabelBank
from overflight.runtime.bundle import Bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.directory import BANKS, JOURNAL, RECORD
from overflight.runtime.flight.journal import connect
from overflight.runtime.overflight import own_bank
from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, Pose
from overflight.runtime.records import SCHEMA, Costs, FlightRecord, Observation
from overflight.station.bulk.read_rows import read_rows
from overflight.station.bulk.rows import corners_of
from overflight.station.rescore import decide_rows

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from overflight.station.archive import Archive
    from overflight.station.archive.store import ArchivedFlight
    from overflight.station.bulk.store import BulkStore

_INSERT = (
    "INSERT INTO observations (frame, captured_ns, captured_utc_ns, media_ns, label, record, embedding) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def add_to_archive(store: BulkStore, archive: Archive) -> tuple[ArchivedFlight, bool]:
    """Add every row of a store to an archive; return the flight and whether it is new.

    Labels are decided with the bundle's own bank. Raises UsageError for a store that is not finished.
    """
    records = [store.record(shard.number) for shard in store.shards()]
    if not records or None in records:
        raise UsageError(f"{store.directory}: {records.count(None)} shards are not done; finish it first")
    digest = hashlib.sha256("".join(one.file_sha256 for one in records if one is not None).encode())
    identity = digest.hexdigest()[:16]
    folder = archive.directory / f".flying-{identity}"
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    try:
        (folder / BANKS).mkdir(parents=True)
        settings = store.settings()
        bank = LabelBank.load(own_bank(Bundle.open(settings.bundle)))
        if bank.header.tower != settings.tower:
            got = f"tower {bank.header.tower[:12]}, the store was embedded with {settings.tower[:12]}"
            raise UsageError(f"{settings.bundle}: {got}; put that bundle back there, or embed into another store")
        (folder / BANKS / f"{bank.sha256[:16]}.safetensors").write_bytes(bank.raw)
        with closing(connect(folder / JOURNAL)) as connection:
            count = _write(connection, store, bank)
        _write_record(folder, store, bank, count)
        kinds = {item.kind for shard in store.shards() for item in shard.items}
        return archive.add(
            folder, name=store.directory.name, kind="mosaic" if kinds == {"windows"} else "stills", identity=identity
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(connection: sqlite3.Connection, store: BulkStore, bank: LabelBank) -> int:
    """Write the observations, shard by shard, and return their number."""
    frame = 0
    parts = (
        part
        for shard in store.shards()
        if (record := store.record(shard.number)) is not None
        for part in read_rows(store.parquet_path(shard.number), record, store.settings())
    )
    for rows, vectors in parts:
        connection.execute("BEGIN")
        for row, vector, decision in zip(rows, vectors, decide_rows(bank, vectors), strict=True):
            seen = _observation(frame, row, decision.label, bank, store.settings().engine_sha256)
            values = (
                frame,
                0,
                row["utc_ns"],
                row["media_ns"],
                decision.label,
                msgspec.json.encode(seen),
                vector.tobytes(),
            )
            connection.execute(_INSERT, values)
            frame += 1
        connection.execute("COMMIT")
    return frame


def _observation(frame: int, row: dict[str, Any], label: str | None, bank: LabelBank, engine: str) -> Observation:
    place = pose = None
    if row["lat_deg"] is not None and row["kind"] == "still":
        pose = Pose(utc_ns=row["utc_ns"] or 0, lat_deg=row["lat_deg"], lon_deg=row["lon_deg"], h_acc_m=DEFAULT_H_ACC_M)
    elif row["lat_deg"] is not None:
        error_m = row["gsd_m"] or DEFAULT_H_ACC_M  # a mosaic does not say how well it lies
        place = Place(row["lat_deg"], row["lon_deg"], error_m, corners_of(row["geometry"]), row["gsd_m"])
    return Observation(
        frame=frame,
        captured_ns=0,
        age_ns=0,
        label=label,
        scores=(),
        costs=Costs(0, 0, 0),
        bank=bank.sha256[:16],
        engine=engine[:16],
        captured_utc_ns=row["utc_ns"],
        media_ns=row["media_ns"],
        name=row["name"],
        pose=pose,
        place=place,
    )


def _write_record(folder: Path, store: BulkStore, bank: LabelBank, count: int) -> None:
    settings = store.settings()
    record = FlightRecord(
        schema=SCHEMA,
        source=str(store.directory),
        host="",
        versions={"overflight": __version__},
        model=settings.model,
        bundle=settings.bundle_sha256,
        engine=f"{settings.target} {settings.precision}",
        engine_sha256=settings.engine_sha256,
        bank=bank.header.name,
        bank_sha256=bank.sha256,
        labels=tuple(label.text for label in bank.header.labels if not label.background),
        started_utc_ns=0,
        ended_utc_ns=0,
        ended_because="embedded in bulk",
        observed=count,
    )
    write_atomically(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
