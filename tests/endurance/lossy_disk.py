"""A disk that loses what was not synced, made again from a record of a program's writes.

The record comes from ``record_writes.c``. The disk keeps as little as POSIX allows: of a file what the last fsync of it
covered, of a directory the names that it had at its last fsync.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("record_writes.c")


def build(folder: Path) -> Path:
    """Compile the recorder; skip where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = folder / "record_writes.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the recorder cannot be compiled here: {done.stderr[:200]}")
    return library


@dataclass(frozen=True)
class Change:
    """One recorded operation."""

    operation: str
    number: int
    offset: int
    data: bytes
    paths: tuple[str, ...]


def read_record(log: Path) -> Iterator[Change]:
    """Yield the changes in the order in which they happened."""
    raw = log.read_bytes()
    place = 0
    while place < len(raw):
        end = raw.index(b"\n", place)
        operation, number, offset, length, *paths = raw[place:end].decode().split(" ")
        place = end + 1 + int(length)
        yield Change(operation, int(number), int(offset), raw[end + 1 : place], tuple(paths))


@dataclass
class LossyDisk:
    """What a power cut would leave after the changes so far."""

    root: str
    sync_directories: bool = True
    _names: dict[str, int] = field(default_factory=dict)
    _contents: dict[int, bytearray] = field(default_factory=dict)
    _kept_names: dict[str, int] = field(default_factory=dict)
    _kept_contents: dict[int, bytes] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)
    _kept_folders: set[str] = field(default_factory=set)

    def apply(self, change: Change) -> None:
        """Apply one change."""
        match change.operation:
            case "create":
                if self._names.get(change.paths[0]) != change.number:
                    self._names[change.paths[0]] = change.number
                    self._contents[change.number] = bytearray()
            case "truncate":
                content = self._contents.setdefault(change.number, bytearray())
                content[change.offset :] = bytes(max(0, change.offset - len(content)))
            case "write":
                content = self._contents.setdefault(change.number, bytearray())
                content.extend(bytes(max(0, change.offset - len(content))))
                content[change.offset : change.offset + len(change.data)] = change.data
            case "rename":
                self._names[change.paths[1]] = self._names.pop(change.paths[0])
            case "unlink":
                self._names.pop(change.paths[0], None)
            case "mkdir":
                self._folders.add(change.paths[0])
            case "sync":
                self._kept_contents[change.number] = bytes(self._contents.get(change.number, b""))
            case "syncdir" if self.sync_directories:
                self._sync_folder(change.paths[0])

    def _sync_folder(self, folder: str) -> None:
        def inside(path: str) -> bool:
            return path.rpartition("/")[0] == folder

        self._kept_names = {path: number for path, number in self._kept_names.items() if not inside(path)}
        self._kept_names |= {path: number for path, number in self._names.items() if inside(path)}
        self._kept_folders |= {path for path in self._folders if inside(path)}

    def cut_power(self, place: Path) -> None:
        """Write what is left to ``place``."""
        for path, number in self._kept_names.items():
            folder = path.rpartition("/")[0]
            if folder != self.root and folder not in self._kept_folders:
                continue  # its directory is gone, and the file with it
            target = place / Path(path).relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._kept_contents.get(number, b""))
