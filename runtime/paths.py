"""Where this device keeps its own state: engines, outbox, calibrations."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of this device's own state: ``$OVERFLIGHT_HOME``, or ``~/.overflight``."""
    return Path(os.environ.get("OVERFLIGHT_HOME") or Path.home() / ".overflight")


def default_outbox() -> Path:
    """Return the path of the links' outbox. It outlives a flight, so it is not in the flight's directory."""
    return home() / "outbox.sqlite"
