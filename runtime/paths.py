"""Where this device keeps its own state: engines, outbox, calibrations."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of this device's own state: ``$OVERFLIGHT_HOME``, or ``~/.overflight``."""
    return Path(os.environ.get("OVERFLIGHT_HOME") or Path.home() / ".overflight")


def default_outbox() -> Path:
    """Return the path of the links' outbox: ``$OVERFLIGHT_OUTBOX``, or ``outbox.sqlite`` in ``home()``.

    It outlives a flight, so it is not in the flight's directory; flights that run at the same time need one each.
    """
    return Path(os.environ.get("OVERFLIGHT_OUTBOX") or home() / "outbox.sqlite")


def printable(text: str) -> str:
    """Return a name with the bytes that are not UTF-8 written as ``\\xNN``, so that it can be stored and sent."""
    return os.fsencode(text).decode("utf-8", "backslashreplace") if not text.isascii() else text
