"""Adding a source that was not flown with Overflight: stills, a video or a mosaic is run through the engine first."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError, SourceError, UsageError, missing_extra
from overflight.runtime.flight.directory import RECORD
from overflight.runtime.flight.peripherals import PeripheralConfig
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.sources.image import SUFFIXES
from overflight.station.archive.remembered import remembering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import Observation
    from overflight.runtime.stream import Stream
    from overflight.station.archive.store import Archive, ArchivedFlight

FLYING = ".flying-"
EMBEDDED = ".embedded-"  # embeddings of a source that is being added


def is_flight(path: Path) -> bool:
    """Whether a path is the directory that ``overflight run`` left."""
    return (path / RECORD).is_file()


def add_source(
    archive: Archive,
    source: Path,
    overflight: Overflight,
    *,
    pose: str | None = None,
    camera: str | None = None,
    on_observation: Callable[[Stream, Observation], None] = lambda stream, observation: None,
) -> tuple[ArchivedFlight, bool]:
    """Embed a source with an engine and add it as a flight; return the flight and whether it is new.

    The same content is added once, whatever its name. Embeddings are kept in the archive until the source is added: a
    command that was killed and is repeated computes only the missing ones. A source that ends early is added with what
    was read, and the flight's record names the reason. Raises UsageError for what is neither a file nor a folder.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder; name flights, videos, mosaics or folders of stills")
    key = hashlib.sha256(
        f"{content_hash(source)} {overflight.bundle.manifest.tower} {pose} {camera}".encode()
    ).hexdigest()
    identity = key[:16]
    pose = pose or ("stills" if source.is_dir() else None)
    config = FlightConfig(peripherals=PeripheralConfig(pose=pose, camera=camera))
    out = archive.directory / f"{FLYING}{identity}"
    with _alone(archive):
        if archive.index.is_file() and (known := next((one for one in archive.flights() if one.id == identity), None)):
            return known, False
        shutil.rmtree(out, ignore_errors=True)  # of a command that was killed
        try:
            with remembering(overflight, archive.directory / f"{EMBEDDED}{identity}"):
                try:
                    fly(overflight, str(source.resolve()), out, config, on_observation=on_observation)
                except SourceError:  # what was read until then is in the journal, the reason in the record
                    if not is_flight(out):  # it was refused before it began
                        raise
                return archive.add(out, name=source.resolve().name, kind=_kind(source), identity=identity)
        finally:
            shutil.rmtree(out, ignore_errors=True)


@contextmanager
def _alone(archive: Archive) -> Iterator[None]:
    """Let commands that embed sources for one archive take turns. Raises OverflightError where it cannot be written."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise missing_extra("filelock", "station") from error
    try:
        archive.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(archive.directory / ".sources.lock"):
            yield
    except PermissionError as error:
        raise OverflightError(f"{archive.directory}: {error.strerror}; name an archive that can be written") from error


def content_hash(source: Path) -> str:
    """Hash what a source shows: a file's bytes, or the names and bytes of a folder's pictures."""
    if source.is_file():
        return hash_file(source)
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            digest.update(os.fsencode(path.name) + f" {hash_file(path)}\n".encode())
    return digest.hexdigest()


def _kind(source: Path) -> str:
    if source.is_dir() or source.suffix.lower() in SUFFIXES - {".tif", ".tiff"}:
        return "stills"
    return "mosaic" if source.suffix.lower() in {".tif", ".tiff"} else "video"
