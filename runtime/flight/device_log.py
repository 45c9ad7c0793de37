"""The device's readings in a flight: power, clocks and temperatures, once a second."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.jetson import telemetry
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S = 1.0
CLOSE_S = 5.0


class DeviceLog:
    """Passes a reading a second to ``write``, from its own thread: sysfs may be slow. Does nothing off the device."""

    def __init__(self, write: Callable[[int, telemetry.DeviceReading], None], root: Path = Path("/")) -> None:
        self._write = write
        self._root = root
        self.worker = Worker("device-log", self._read)
        if telemetry.on_device(root):
            self.worker.start()

    def close(self) -> None:
        """Stop reading."""
        self.worker.close(CLOSE_S)

    def _read(self) -> float:
        reading = telemetry.read(self._root)
        if reading is not None:
            self._write(time.time_ns(), reading)
        return EVERY_S
