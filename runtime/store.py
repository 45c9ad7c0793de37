"""The engine store: what this device built, proved and chose, one folder per bundle."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bundle import Bundle, hash_file
from overflight.runtime.durable import write_atomically
from overflight.runtime.engines import Precision, Target, open_engine, open_reference
from overflight.runtime.engines.record import EngineRecord
from overflight.runtime.errors import EngineError, MissingError, OverflightError
from overflight.runtime.json_input import decode_json
from overflight.runtime.locks import lock_file
from overflight.runtime.paths import home
from overflight.runtime.signatures.trust import check_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overflight.runtime.engines import Engine

SCHEMA = 1
RECORD = "engine.json"
DEFAULT = "default"
_PARTIAL = ".partial-"

log = logging.getLogger("overflight")


class _Default(msgspec.Struct, frozen=True):
    """The content of the file ``default``: the folder of the engine that ``run`` opens."""

    schema: int
    entry: str


@dataclass(frozen=True, slots=True)
class StoredEngine:
    """One engine in the store."""

    path: Path
    record: EngineRecord

    def check(self, bundle: Bundle) -> Path:
        """Return the file that runs, its content verified. Raises EngineError or BundleError."""
        record = self.record
        if record.file is None:
            return bundle.file(record.graph)
        path = self.path / record.file
        if bundle.approval is not None:
            check_private(path, self.path.parents[1])
            check_private(self.path / RECORD, self.path.parents[1])
        try:
            got = hash_file(path)
        except OSError as error:
            raise EngineError(f"{path}: {error.strerror}; build it again with: overflight build") from error
        if got != record.sha256:
            raise EngineError(
                f"{path}: SHA-256 is {got[:16]}…, its record says {record.sha256[:16]}…; run overflight build again"
            )
        return path


def engine_key(record: EngineRecord) -> str:
    """Return what names an engine next to its target and precision: 12 hex digits over all that it depends on."""
    parts: tuple[object, ...] = (
        record.graph_sha256,
        record.variant,
        sorted(record.versions.items()),
        record.device,
        record.max_batch,
    )
    if record.level is not None:
        parts += (record.level, record.profiles)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


class Store:
    """The engines built from one bundle. Readers need no lock: whatever they can see is complete."""

    def __init__(self, bundle: Bundle, root: Path | None = None) -> None:
        self.bundle = bundle
        self.path = (root or home()) / "engines" / bundle.sha256[:16]

    def entries(self) -> list[StoredEngine]:
        """Return the engines that are complete; what cannot be read is passed over and logged."""
        found = []
        for path in sorted(self.path.glob(f"*/{RECORD}")):
            if path.parent.name.startswith("."):
                continue
            try:
                record = decode_json(path.read_bytes(), type=EngineRecord)
            except (OSError, msgspec.DecodeError) as error:
                log.warning("%s: not an engine record (%s); overflight build makes it again", path, error)
                continue
            if record.schema == SCHEMA and record.bundle == self.bundle.sha256:
                found.append(StoredEngine(path.parent, record))
        return found

    def find(self, record: EngineRecord) -> StoredEngine | None:
        """Return the stored engine that this record would make again, or None."""
        path = self._place(record)
        return next((entry for entry in self.entries() if entry.path == path), None)

    def default(self) -> StoredEngine | None:
        """Return the engine that ``run`` opens, or None when none was chosen or it is gone."""
        try:
            name = decode_json((self.path / DEFAULT).read_bytes(), type=_Default).entry
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s: %s; overflight build chooses again", self.path / DEFAULT, error)
            return None
        return next((entry for entry in self.entries() if entry.path.name == name), None)

    def set_default(self, entry: StoredEngine) -> None:
        """Make an engine the default, atomically: a starting ``run`` sees the old choice or the new one."""
        write_atomically(self.path / DEFAULT, msgspec.json.encode(_Default(SCHEMA, entry.path.name)))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one builder and clear what a killed one left. Raises EngineError when another holds it."""
        self._make_folder()
        with (self.path / ".lock").open("w") as file:
            try:
                lock_file(file.fileno(), wait=False)
            except BlockingIOError as error:
                raise EngineError(f"{self.path}: another build is running; wait for it or end it") from error
            for left in (*self.path.glob(f"{_PARTIAL}*"), *self.path.glob(".*.partial")):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder to build in; it is removed at the end unless ``put`` has moved it into place."""
        path = self.path / f"{_PARTIAL}{os.getpid()}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def put(self, staged: Path, record: EngineRecord) -> StoredEngine:
        """Move a built engine into place, its record written last. An engine of the same key is replaced."""
        write_atomically(staged / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
        place = self._place(record)
        old = staged.with_name(staged.name + "-old")
        if place.exists():
            place.rename(old)
        staged.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return StoredEngine(place, record)

    def update(self, entry: StoredEngine, record: EngineRecord) -> StoredEngine:
        """Write a verdict or a timing into a stored engine's record, atomically."""
        write_atomically(entry.path / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
        return StoredEngine(entry.path, record)

    def _place(self, record: EngineRecord) -> Path:
        return self.path / f"{record.target}-{record.precision}-{engine_key(record)}"

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"{self.path}: {error.strerror}; set OVERFLIGHT_HOME to a folder that can be written"
            ) from error


@dataclass(frozen=True, slots=True)
class Chosen:
    """An opened engine with its record (None: the reference itself) and what a flight must say about the choice."""

    engine: Engine
    record: EngineRecord | None
    note: str = ""


def refusal(record: EngineRecord) -> str | None:
    """Say why an engine may not fly, or None when it was proven."""
    if record.verdict is None:
        return f"{record.title} was never judged; run: overflight build"
    if not record.verdict.passed:
        return f"{record.title} failed the gate: {'; '.join(record.verdict.reasons)}"
    return None


def default_engine(bundle: Bundle) -> Engine:
    """Open the fastest proven engine of this device, or the fp32 reference when none was built."""
    return choose(bundle).engine


def choose(
    bundle: Bundle,
    target: Target | None = None,
    precision: Precision | None = None,
    *,
    forced: bool = False,
    threads: int = 0,
    root: Path | None = None,
) -> Chosen:
    """Open an engine of the store: the default, or the fastest one of the asked target and precision.

    An engine that failed the gate, or was never judged, is refused unless ``forced``; then the note says so. One that
    can no longer be opened gives way to the next proven one, and the note says so. ``threads`` 0 leaves the choice to
    the library. Raises EngineError, or MissingError when nothing of what was asked for was built.
    """
    asked = target is not None or precision is not None
    if target == "onnxruntime-cpu" and precision in (None, "fp32"):
        return Chosen(open_reference(bundle, threads=threads), None)
    store = Store(bundle, root)
    entries = _candidates(store, target, precision)
    if asked and not entries:
        wanted = " ".join(str(part) for part in (target, precision) if part)
        raise MissingError(f"no {wanted} engine of {bundle.manifest.name} was built here; run: overflight build")
    notes: list[str] = []
    for entry in entries:
        why = refusal(entry.record)
        if why is not None and not forced:
            notes.append(why)
            continue
        try:
            engine = open_entry(bundle, entry, threads=threads)
        except OverflightError as error:
            notes.append(f"{entry.record.title} cannot run: {error}")
            continue
        if why is not None:
            notes.append(f"forced: {why}")
        return Chosen(engine, entry.record, _summary(notes))
    if asked:
        raise EngineError("; ".join(notes))
    if not entries:
        notes.append("nothing was built for this device: overflight build finds a faster engine and proves it")
    return Chosen(open_reference(bundle, threads=threads), None, _summary(notes))


def open_entry(bundle: Bundle, entry: StoredEngine, *, threads: int = 0) -> Engine:
    """Open one stored engine on this device. Raises EngineError when it was built for another."""
    return open_engine(bundle, entry.record, entry.check(bundle), threads=threads)


def _candidates(store: Store, target: Target | None, precision: Precision | None) -> list[StoredEngine]:
    """Return what may answer, best first: the default, then the proven by speed, then the rest."""
    default = store.default()
    found = [
        entry
        for entry in store.entries()
        if target in (None, entry.record.target) and precision in (None, entry.record.precision)
    ]
    if target is None and precision is None:
        found = [entry for entry in found if refusal(entry.record) is None or _same(entry, default)]

    def order(entry: StoredEngine) -> tuple[bool, bool, int]:
        timing = entry.record.timing
        return (
            not _same(entry, default),
            refusal(entry.record) is not None,
            timing.p50_ns if timing else 1 << 62,
        )

    return sorted(found, key=order)


def _same(entry: StoredEngine, other: StoredEngine | None) -> bool:
    return other is not None and entry.path == other.path


def _summary(notes: list[str]) -> str:
    for note in notes:
        log.warning("%s", note)
    return "; ".join(notes)
