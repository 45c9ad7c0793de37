"""Watching for a new label bank, to be used from the next frame on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from overflight.runtime.bank import open_bank
from overflight.runtime.bounded import unsuitable
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.log import say
from overflight.runtime.signatures.signature_files import signature_path
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.bank import LabelBank

EVERY_S = 0.5
CLOSE_S = 2.0
MAX_BANK_BYTES = 64_000_000
MAX_FILES = 10_000  # in a watched folder


class _Stamp(NamedTuple):
    """What tells that a file has changed; also when its signature was written, which may come after the bank."""

    inode: int
    changed_ns: int
    size: int
    signed_ns: int


def _log_refusal(reason: str | None) -> None:
    if reason is not None:
        say("bank refused", reason=reason)


class BankWatch:
    """Follows a bank's file, or the banks of a folder, and hands every new or changed one to ``use``.

    A bad bank is refused and logged, and the one in use stays. A file that is no bank by its kind or size is skipped
    and logged once. ``warn`` receives why a bank was refused, or that there is none any more, and None when one is in
    use again. ``reload`` reads the newest bank again, changed or not.
    """

    def __init__(
        self,
        path: Path,
        use: Callable[[LabelBank], None],
        warn: Callable[[str | None], None] = _log_refusal,
    ) -> None:
        self._path = path
        self._use = use
        self._warn = warn
        self._again = False
        self._skipped: dict[Path, str] = {}
        self._seen = self._stamps()
        self.worker = Worker("bank-watch", self._look)
        self.worker.start()

    def reload(self) -> None:
        """Read the bank again; may be called from a signal handler."""
        self._again = True
        self.worker.wake()

    def close(self) -> None:
        """Stop watching; a reader that hangs in the file system is left behind."""
        self.worker.close(CLOSE_S)

    def _look(self) -> float:
        again, self._again = self._again, False
        stamps = self._stamps()
        if self._seen and not stamps:
            self._warn(f"{self._path}: no bank here any more; the last one stays in use")
        changed = [path for path, stamp in stamps.items() if self._seen.get(path) != stamp]
        self._seen = stamps
        if changed or (again and stamps):
            self._read(_newest(changed or list(stamps)))
        return EVERY_S

    def _read(self, path: Path) -> None:
        try:
            self._use(open_bank(path))
            self._warn(None)
        except OverflightError as error:
            self._warn(f"refused: {error}")

    def _stamps(self) -> dict[Path, _Stamp]:
        stamps: dict[Path, _Stamp] = {}
        for path in _candidates(self._path):
            try:
                if reason := unsuitable(path, MAX_BANK_BYTES):
                    self._skip(path, reason)
                    continue
                status = path.stat()
            except OSError as error:
                self._skip(path, error.strerror or str(error))
                continue
            self._skipped.pop(path, None)
            stamps[path] = _Stamp(status.st_ino, status.st_mtime_ns, status.st_size, _signed_ns(path))
        return stamps

    def _skip(self, path: Path, reason: str) -> None:
        if self._skipped.get(path) != reason:
            self._skipped[path] = reason
            say("bank skipped", path=str(path), reason=reason)


def newest_bank(path: Path) -> Path:
    """Return a bank's file as it is, or the newest bank of a folder. Raises UsageError for a folder without any."""
    if not path.is_dir():
        return path
    banks = [found for found in _candidates(path) if _is_suitable(found)]
    if not banks:
        raise UsageError(f"{path}: no label bank (*.safetensors) in this folder; make one with: overflight labels")
    return max(banks, key=lambda bank: (bank.stat().st_mtime_ns, bank))


def _candidates(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = []
    for number, bank in enumerate(path.glob("*.safetensors")):
        if number == MAX_FILES:
            break
        found.append(bank)
    return found


def _newest(paths: list[Path]) -> Path:
    """Return what arrived last: by the time of the change itself, which a copy that keeps its old time has too."""
    return max(paths, key=_arrived)


def _arrived(path: Path) -> tuple[int, Path]:
    try:
        return path.stat().st_ctime_ns, path
    except OSError:
        return 0, path


def _is_suitable(path: Path) -> bool:
    try:
        return unsuitable(path, MAX_BANK_BYTES) is None
    except OSError:
        return False


def _signed_ns(path: Path) -> int:
    try:
        return signature_path(path).stat().st_mtime_ns
    except OSError:
        return 0
