"""Watching for a new label bank, and taking it between two frames."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.log import say
from overflight.runtime.signatures import open_bank
from overflight.runtime.signatures.doors import signature_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.bank import LabelBank

EVERY_S = 0.5


class BankWatch:
    """Follows a bank's file, or the newest bank of a folder, and hands every new one to ``use``.

    A bad bank is refused aloud and the old one goes on. ``reload`` looks again at once, changed or not.
    """

    def __init__(self, path: Path, use: Callable[[LabelBank], None]) -> None:
        self._path = path
        self._use = use
        self._closed = threading.Event()
        self._again = threading.Event()
        self._seen = self._stamp()
        self._thread = threading.Thread(target=self._watch, name="bank-watch", daemon=True)
        self._thread.start()

    def reload(self) -> None:
        """Read the bank again; may be called from a signal handler."""
        self._seen = None
        self._again.set()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._again.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._again.wait(EVERY_S)
            self._again.clear()
            stamp = self._stamp()
            if stamp is None or stamp == self._seen or self._closed.is_set():
                continue
            self._seen = stamp
            try:
                bank = open_bank(stamp[0])
                self._use(bank)
                say("bank in use", bank=bank.header.name, sha256=bank.sha256, labels=len(bank))
            except OverflightError as error:
                say("bank refused", reason=str(error))

    def _stamp(self) -> tuple[Path, int, int, int] | None:
        """Return the newest bank's path, its modification time and size, and the time of its signature, or None.

        A signature may come after its bank, which was refused without it and is then read again.
        """
        try:
            path = newest_bank(self._path)
            status = path.stat()
        except (OSError, UsageError):
            return None
        try:
            signed_ns = signature_path(path).stat().st_mtime_ns
        except OSError:
            signed_ns = 0
        return path, status.st_mtime_ns, status.st_size, signed_ns


def newest_bank(path: Path) -> Path:
    """Return a bank's file as it is, or the newest bank of a folder. Raises UsageError for a folder without any."""
    if not path.is_dir():
        return path
    banks = [(found.stat().st_mtime_ns, found) for found in path.glob("*.safetensors")]
    if not banks:
        raise UsageError(f"{path}: no label bank (*.safetensors) in this folder; make one with: overflight labels")
    return max(banks)[1]
