"""The store of a bulk run: a folder that any number of processes and machines may write at the same time.

::

    bulk.json             the settings, which decide the rows
    shards.jsonl          the items in order, one shard a line
    refused.json          what the listing left out
    rows/000000.parquet   the rows of a shard
    manifests/000000.json   its manifest, written last: a shard that has one is done
    summary.html          what was done, what failed, how fast

Every file is written under another name, synced and renamed. Two processes that embed the same shard write the same
rows, so the store needs no lock.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
import uuid
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bundle import hash_file
from overflight.runtime.durable import sync_directory, write_atomically
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.station.bulk.records import Refused, Settings, Shard, ShardRecord
from overflight.station.bulk.rows import GROUP_ROWS, pyarrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

SETTINGS, LISTING, REFUSED = "bulk.json", "shards.jsonl", "refused.json"
ROWS, MANIFESTS = "rows", "manifests"
_PARTIAL = ".partial-"
_DAY_S = 86_400


class BulkStore:
    """A bulk store's folder."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.directory / SETTINGS).is_file()

    def begin(self, settings: Settings) -> Settings:
        """Write the settings, or check that they are those of the store. Raises UsageError where they differ."""
        self._make()
        self._create(self.directory / SETTINGS, msgspec.json.format(msgspec.json.encode(settings), indent=1))
        kept = self.settings()
        differing = [
            f"{name} is {getattr(kept, name)}, not {getattr(settings, name)}"
            for name in settings.__struct_fields__
            if name != "bundle" and getattr(kept, name) != getattr(settings, name)
        ]
        if differing:
            raise UsageError(
                f"{self.directory}: begun with other settings ({'; '.join(differing)}); use the same ones, or name "
                "another store with --out"
            )
        return kept

    def discard(self) -> None:
        """Remove a store in which nothing was listed: its settings would bind the next run to a mistaken one."""
        if self.listed:
            return
        (self.directory / SETTINGS).unlink(missing_ok=True)
        for folder in (self.directory / ROWS, self.directory / MANIFESTS, self.directory):
            with suppress(OSError):  # another file lies in it
                folder.rmdir()

    def settings(self) -> Settings:
        """Read the settings. Raises UsageError where there is no store."""
        path = self.directory / SETTINGS
        try:
            return decode_json(path.read_bytes(), Settings)
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.directory}: no bulk store; begin one with: overflight bulk SOURCE --out"
            ) from error
        except (OSError, msgspec.DecodeError) as error:
            raise OverflightError(f"{path}: {error}; restore it, or begin another store") from error

    @property
    def listed(self) -> bool:
        """Whether the sources were listed."""
        return (self.directory / LISTING).is_file()

    def write_listing(self, shards: Iterable[Shard]) -> None:
        """Write the listing. Where another process was faster, its listing is kept."""
        partial = _partial(self.directory / LISTING)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:  # URLs may be signed
                for shard in shards:
                    file.write(msgspec.json.encode(shard) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _link(partial, self.directory / LISTING)
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(self.directory)

    def extend_listing(self, shards: Iterable[Shard]) -> None:
        """Add shards to the listing; the old file stays until the new one is whole."""
        partial = _partial(self.directory / LISTING)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                for shard in (*self.shards(), *shards):
                    file.write(msgspec.json.encode(shard) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.directory / LISTING)
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(self.directory)

    def write_refused(self, refused: Refused) -> None:
        """Write what the listing left out."""
        write_atomically(self.directory / REFUSED, msgspec.json.encode(refused))

    def refused(self) -> Refused:
        """Return what the listing left out."""
        try:
            return decode_json((self.directory / REFUSED).read_bytes(), Refused)
        except (OSError, msgspec.DecodeError):
            return Refused()

    def shards(self) -> Iterator[Shard]:
        """Yield the shards of the listing, one in memory at a time."""
        path = self.directory / LISTING
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield decode_json(line, Shard)
                except msgspec.DecodeError as error:
                    raise OverflightError(f"{path}: line {number}: {error}; begin another store") from error

    def parquet_path(self, number: int) -> Path:
        """Return the file of a shard's rows."""
        return self.directory / ROWS / f"{number:06}.parquet"

    def manifest_path(self, number: int) -> Path:
        """Return the file of a shard's manifest."""
        return self.directory / MANIFESTS / f"{number:06}.json"

    def record(self, number: int) -> ShardRecord | None:
        """Return a finished shard's manifest, None where it is missing, damaged, or its Parquet file is not whole."""
        try:
            record = decode_json(self.manifest_path(number).read_bytes(), ShardRecord)
            size = self.parquet_path(number).stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        return record if size == record.file_bytes and record.settings == self._key else None

    def records(self) -> Iterator[ShardRecord]:
        """Yield the manifests of the finished shards in order."""
        for path in sorted((self.directory / MANIFESTS).glob("*.json")):
            if path.stem.isdigit() and (record := self.record(int(path.stem))) is not None:
                yield record

    def damaged(self) -> list[int]:
        """Compare every finished shard with its SHA-256, and return the numbers of those that differ."""
        return [one.number for one in self.records() if hash_file(self.parquet_path(one.number)) != one.file_sha256]

    def forget(self, number: int) -> None:
        """Take a shard as not done: its manifest goes first."""
        self.manifest_path(number).unlink(missing_ok=True)

    def write_rows(self, number: int, table: Any) -> tuple[int, str]:
        """Write a shard's table; return its size and SHA-256. Raises OverflightError on a full disk."""
        path = self.parquet_path(number)
        partial = _partial(path)
        try:
            try:
                pyarrow().parquet.write_table(
                    table, partial, row_group_size=GROUP_ROWS, compression="zstd",
                    use_dictionary=["source", "kind", "content_sha256"],
                )  # fmt: skip
                _sync(partial)
                size, digest = partial.stat().st_size, hash_file(partial)
                partial.replace(path)
            except OSError as error:
                raise _no_room(path, error) from error
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(path.parent)
        return size, digest

    def write_record(self, record: ShardRecord) -> None:
        """Write a shard's manifest: from here on it is done."""
        path = self.manifest_path(record.number)
        partial = _partial(path)
        try:
            partial.write_bytes(msgspec.json.encode(record))
            _sync(partial)
            partial.replace(path)
        except OSError as error:
            raise _no_room(path, error) from error
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(path.parent)

    def clear_partial(self) -> None:
        """Remove what killed processes of this machine left; other machines may still write."""
        for folder in (self.directory, self.directory / ROWS, self.directory / MANIFESTS):
            for path in folder.glob(f"{_PARTIAL}{_host()}-*"):
                with suppress(FileNotFoundError, PermissionError):  # another process was faster, or holds it open
                    if _is_left_over(path):
                        path.unlink()

    @cached_property
    def _key(self) -> str:
        return settings_key(self.settings())

    def _make(self) -> None:
        try:
            for name in (ROWS, MANIFESTS):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OverflightError(f"{self.directory}: {error.strerror}; name a store that can be written") from error

    def _create(self, path: Path, content: bytes) -> None:
        """Write a file that is written once; where another process was faster, its file is kept."""
        partial = _partial(path)
        try:
            partial.write_bytes(content)
            _sync(partial)
            _link(partial, path)
        except OSError as error:
            raise _no_room(path, error) from error
        finally:
            partial.unlink(missing_ok=True)


def settings_key(settings: Settings) -> str:
    """Return 16 hex digits over what decides the rows; where the bundle is does not."""
    decisive = msgspec.structs.replace(settings, bundle="")
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()[:16]


def _partial(path: Path) -> Path:
    return path.with_name(f"{_PARTIAL}{_host()}-{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)  # Windows syncs no file that is open for reading alone
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(path: Path, error: OSError) -> OverflightError:
    return OverflightError(
        f"{path}: {error.strerror or error}; what is done stays, make room and run the same command again"
    )


def _host() -> str:
    return socket.gethostname().replace("-", "_").replace("/", "_")


def _is_left_over(path: Path) -> bool:
    """Whether the process that wrote a partial file has ended; on Windows, whether the file is a day old."""
    if sys.platform == "win32":  # signal 0, which only asks elsewhere, is Ctrl-C there
        return time.time() - path.stat().st_mtime > _DAY_S
    process = path.name.split("-")[-2]
    return process.isdigit() and not _is_running(int(process))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
