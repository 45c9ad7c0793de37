"""The device's own account of a flight: power, clocks and temperatures once a second, beside what was seen."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.jetson import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S = 1.0


class DeviceLog:
    """Hands a reading a second to ``write``, from its own thread: sysfs may be slow. Silent off the device."""

    def __init__(self, write: Callable[[int, telemetry.DeviceReading], None], root: Path = Path("/")) -> None:
        self._write = write
        self._root = root
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="device-log", daemon=True)
        if telemetry.on_device(root):
            self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self) -> None:
        while not self._closed.is_set():
            reading = telemetry.read(self._root)
            if reading is not None:
                self._write(time.time_ns(), reading)
            self._closed.wait(EVERY_S)
